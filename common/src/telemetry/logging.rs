//! Log lines on stderr: for people, or JSON for collectors. Called once by the binary, and by tests that want to
//! see.

use std::io::{IsTerminal, stderr};

use tracing::{Subscriber, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Says what is logged, in the language of tracing's filters: `debug`, or `info,peer=debug`.
const VARIABLE: &str = "LONGSHORE_LOG";

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; in colour on a terminal, unless `NO_COLOR` is set.
    #[default]
    Human,
    /// One JSON object a line, with the fields at the top.
    Json,
}

/// Starts logging to stderr. `LONGSHORE_LOG` says what is logged, else `default_directives` does; a second call
/// changes nothing.
pub fn init_logging(format: LogFormat, default_directives: &str) {
    let (filter, complaint) = filter(std::env::var(VARIABLE).ok().as_deref(), default_directives);
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let started = tracing_subscriber::registry().with(filter).with(layer(format, colour, stderr)).try_init();
    if let (Ok(()), Some(complaint)) = (started, complaint) {
        warn!("{complaint}");
    }
}

/// The filter, and what to say when a wish could not be read.
fn filter(wish: Option<&str>, default: &str) -> (EnvFilter, Option<String>) {
    let complaint = match wish.map(str::trim).filter(|wish| !wish.is_empty()).map(EnvFilter::try_new) {
        Some(Ok(filter)) => return (filter, None),
        Some(Err(error)) => Some(format!("{VARIABLE} cannot be read and {default:?} holds instead: {error}")),
        None => None,
    };
    (EnvFilter::try_new(default).unwrap_or_else(|_| EnvFilter::new("info")), complaint)
}

fn layer<S, W>(format: LogFormat, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Human => lines.with_ansi(colour).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, wish: Option<&str>) -> String {
        let page = Page::default();
        let writer = page.clone();
        let subscriber = tracing_subscriber::registry().with(filter(wish, "info").0).with(layer(
            format,
            false,
            move || writer.clone(),
        ));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(port = 7700, "listening\nforged");
            tracing::debug!("detail");
        });
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_json_with_the_fields_at_the_top() {
        let text = logged(LogFormat::Json, None);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["port"], &line["message"]), (&7700.into(), &"listening\nforged".into()));
        assert_eq!((&line["level"], text.lines().count()), (&"INFO".into(), 1));
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn lines_for_people_have_no_colour_codes_off_a_terminal() {
        let text = logged(LogFormat::Human, None);
        assert!(text.contains("listening") && text.contains("port=7700"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("detail"), "{text}");
    }

    #[test]
    fn the_environment_overrides_and_nonsense_falls_back_with_a_complaint() {
        assert!(logged(LogFormat::Human, Some("debug")).contains("detail"));
        assert!(!logged(LogFormat::Human, Some("off")).contains("listening"));
        assert_eq!(filter(Some("  "), "info").1, None);

        let (fallback, complaint) = filter(Some("peer=louder"), "warn");
        assert_eq!(fallback.to_string(), "warn");
        let complaint = complaint.unwrap();
        assert!(complaint.contains("LONGSHORE_LOG") && !complaint.contains('\n'), "{complaint}");
    }

    #[test]
    fn a_second_call_changes_nothing() {
        init_logging(LogFormat::Human, "off");
        init_logging(LogFormat::Json, "off");
    }
}
