//! SIGHUP: the settings are read again, and what may change while a daemon runs is changed. Used by the daemons.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

/// Calls `apply` at each SIGHUP, until what is returned is dropped. Settings that cannot be read change nothing.
pub fn on_hangup(
    apply: impl Fn() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<AbortOnDropHandle<()>> {
    let mut hangups = signal(SignalKind::hangup())?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            match apply() {
                Ok(()) => tracing::info!("the limits were read again"),
                Err(error) => tracing::error!("the limits stay as they were: {error:#}"),
            }
        }
    })))
}
