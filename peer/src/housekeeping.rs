//! A store looks after itself while its daemon runs: what has to go goes in the background, and the folder is
//! measured now and then. Both daemons run it.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::store::{Store, StoreError};

/// A pull that begins a moment after another has filled the store finds room again.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// The measured part changes little from one moment to the next.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// Of a store with very many files, looking takes at most this part of the time.
const MEASURE_SHARE: u32 = 50;

/// Looks after the store until it is dropped.
pub async fn run(store: Store) {
    let mut ticks = tokio::time::interval(TEND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_look = Instant::now();
    let mut failing = false;
    loop {
        ticks.tick().await;
        let (store, measure) = (store.clone(), Instant::now() >= next_look);
        let done = tokio::task::spawn_blocking(move || once(&store, measure)).await;
        let outcome = match done {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        match outcome {
            Ok(took) => {
                failing = false;
                if let Some(took) = took {
                    next_look = Instant::now() + MEASURE_EVERY.max(took * MEASURE_SHARE);
                }
            }
            Err(error) if failing => tracing::debug!("the store could not be looked after: {error}"),
            Err(error) => {
                failing = true;
                tracing::warn!("the store could not be looked after, and will be tried again: {error}");
            }
        }
    }
}

/// One round; says how long the look at the folder took, if there was one.
fn once(store: &Store, measure: bool) -> Result<Option<Duration>, StoreError> {
    let begun = Instant::now();
    let took = if measure {
        store.measure()?;
        Some(begun.elapsed())
    } else {
        None
    };
    store.tend()?;
    Ok(took)
}
