//! Log lines on stderr: for people, or JSON for collectors. Called once by the binary, and by tests that want to
//! see. What is logged can be changed while a daemon runs: its local API comes here.

use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use tracing::{Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// Says what is logged, in the language of tracing's filters: `debug`, or `info,peer=debug`.
const VARIABLE: &str = "LONGSHORE_LOG";

/// Longer wishes are nobody's.
const LONGEST: usize = 1024;
/// What is logged by this process.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

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
    let (filter, handle) = reload::Layer::new(filter);
    let started = tracing_subscriber::registry().with(filter).with(layer(format, colour, stderr)).try_init();
    if started.is_err() {
        return;
    }
    let _ = FILTER.set(handle);
    if let Some(complaint) = complaint {
        warn!("{complaint}");
    }
}

/// What is logged now; empty where nothing is.
pub fn logged() -> String {
    FILTER.get().and_then(|filter| filter.with_current(ToString::to_string).ok()).unwrap_or_default()
}

/// Logs this from now on, until the process ends.
///
/// # Errors
/// When the directives cannot be read, or logging was never started; nothing changes then.
pub fn log_from_now_on(directives: &str) -> Result<(), String> {
    let refused = |why: String| {
        format!(
            "{directives:?} cannot be read as what to log: {why}; for example `debug`, or `info,peer=debug`"
        )
    };
    if directives.len() > LONGEST {
        return Err(format!("what to log is longer than {LONGEST} bytes"));
    }
    if directives.trim().is_empty() {
        return Err(refused("it is empty".to_owned()));
    }
    let wish = EnvFilter::try_new(directives.trim()).map_err(|error| refused(error.to_string()))?;
    let filter = FILTER.get().ok_or("this process does not log")?;
    filter.reload(wish).map_err(|error| error.to_string())
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
    use super::logged as logged_now;
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

    fn written(format: LogFormat, wish: Option<&str>) -> String {
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
        let text = written(LogFormat::Json, None);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&line["port"], &line["message"]), (&7700.into(), &"listening\nforged".into()));
        assert_eq!((&line["level"], text.lines().count()), (&"INFO".into(), 1));
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn lines_for_people_have_no_colour_codes_off_a_terminal() {
        let text = written(LogFormat::Human, None);
        assert!(text.contains("listening") && text.contains("port=7700"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("detail"), "{text}");
    }

    #[test]
    fn the_environment_overrides_and_nonsense_falls_back_with_a_complaint() {
        assert!(written(LogFormat::Human, Some("debug")).contains("detail"));
        assert!(!written(LogFormat::Human, Some("off")).contains("listening"));
        assert_eq!(filter(Some("  "), "info").1, None);

        let (fallback, complaint) = filter(Some("peer=louder"), "warn");
        assert_eq!(fallback.to_string(), "warn");
        let complaint = complaint.unwrap();
        assert!(complaint.contains("LONGSHORE_LOG") && !complaint.contains('\n'), "{complaint}");
    }

    #[test]
    fn a_second_call_changes_nothing_and_what_is_logged_can_be_changed() {
        init_logging(LogFormat::Human, "off");
        init_logging(LogFormat::Json, "info");
        assert_eq!(logged_now(), "off");
        log_from_now_on(" warn,peer=error ").unwrap();
        assert_eq!(logged_now(), "peer=error,warn");
        let long = "x".repeat(LONGEST + 1);
        for nonsense in ["", "  ", "peer=louder", &long] {
            let complaint = log_from_now_on(nonsense).unwrap_err();
            assert!(!complaint.contains('\n') && complaint.len() < 300, "{complaint}");
        }
        assert_eq!(logged_now(), "peer=error,warn", "nonsense changes nothing");
        log_from_now_on("off").unwrap();
    }
}
