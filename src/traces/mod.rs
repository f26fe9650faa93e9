//! Whether pulls are traced, and where their spans go. The daemons begin it before their first span and end it after their last;
//! without an endpoint there are no spans at all. The sending is in `otlp`, a feature of its own: most of what it needs is
//! needed for nothing else.

#[cfg(feature = "otlp")]
mod otlp;

use std::time::Duration;

use common::config::Percent;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::usage;

/// The endpoint for all daemons of a machine.
const OURS: &str = "LONGSHORE_OTLP_ENDPOINT";
/// The endpoint for whatever runs here, by the standard's name.
const STANDARD: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Where nobody upstream decided, one request in a hundred is traced. A thousand nodes that pull ten layers at once are some
/// hundred thousand spans in a minute if all are, most of which tell the same; a hundred traces show as well what is slow.
const SAMPLE: Percent = Percent::new(1);
/// What is left is sent within this at the end, or lost.
const FLUSH: Duration = Duration::from_secs(3);

/// What the settings say of it.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The collector's URL.
    pub endpoint: Option<String>,
    /// How much is traced of what nobody upstream decided on.
    pub sample: Option<Percent>,
}

/// Spans on their way to a collector, if there is one.
#[must_use]
pub struct Traces(Option<(JoinHandle<()>, CancellationToken)>);

// === impl Wish ===

impl Wish {
    /// The endpoint, and whether it was named for Longshore.
    fn place(&self, variable: impl Fn(&str) -> Option<String>) -> Option<(String, bool)> {
        let set = |text: String| (!text.trim().is_empty()).then(|| text.trim().to_owned());
        let ours = self.endpoint.clone().and_then(set).or_else(|| variable(OURS).and_then(set));
        let standard = || variable(STANDARD).and_then(set).map(|endpoint| (endpoint, false));
        ours.map(|endpoint| (endpoint, true)).or_else(standard)
    }

    /// A part of one.
    fn share(&self) -> f64 {
        const PARTS: u64 = 1_000_000;
        self.sample.unwrap_or(SAMPLE).of(PARTS) as f64 / PARTS as f64
    }
}

// === impl Traces ===

impl Traces {
    /// Begins to send, if there is where to.
    ///
    /// # Errors
    /// When the endpoint makes no sense, or this build cannot send.
    pub fn begin(wish: &Wish) -> anyhow::Result<Self> {
        match wish.place(|name| std::env::var(name).ok()) {
            None => Ok(Self(None)),
            Some((endpoint, named)) => Self::to(&endpoint, named, wish.share()).map_err(usage),
        }
    }

    #[cfg(feature = "otlp")]
    fn to(endpoint: &str, _: bool, share: f64) -> anyhow::Result<Self> {
        let exporter = otlp::Exporter::new(endpoint)?;
        let Some(spans) = common::telemetry::trace::collect(share) else { return Ok(Self(None)) };
        tracing::info!(
            endpoint = common::telemetry::redact(endpoint),
            "pulls are traced: of those that their client did not decide on, {}% (--otlp-sample)",
            share * 100.0
        );
        let stop = CancellationToken::new();
        Ok(Self(Some((tokio::spawn(exporter.run(spans, stop.clone())), stop))))
    }

    #[cfg(not(feature = "otlp"))]
    fn to(_: &str, named: bool, _: f64) -> anyhow::Result<Self> {
        // The standard's variable may be meant for others on the machine.
        anyhow::ensure!(
            !named,
            "this build sends no traces: --otlp-endpoint needs one with the feature otlp"
        );
        Ok(Self(None))
    }

    /// Sends what is left.
    pub async fn finish(self) {
        let Some((mut sending, stop)) = self.0 else { return };
        stop.cancel();
        if tokio::time::timeout(FLUSH, &mut sending).await.is_err() {
            sending.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_on_the_endpoint_holds() {
        let set = |endpoint: Option<&str>| Wish { endpoint: endpoint.map(str::to_owned), sample: None };
        let both = |name: &str| Some(format!("http://{name}"));
        let standard = |name: &str| (name == STANDARD).then(|| "http://standard ".to_owned());
        assert_eq!(set(Some("http://flag")).place(both), Some(("http://flag".into(), true)));
        assert_eq!(set(None).place(both), Some((format!("http://{OURS}"), true)));
        assert_eq!(set(Some(" ")).place(standard), Some(("http://standard".into(), false)));
        assert_eq!(set(None).place(|_| None), None);
    }

    #[test]
    fn one_in_a_hundred_is_traced_unless_told_otherwise() {
        assert_eq!(Wish::default().share(), 0.01);
        let all = Wish { sample: Some(Percent::new(100)), ..Wish::default() };
        assert_eq!(all.share(), 1.0);
    }
}
