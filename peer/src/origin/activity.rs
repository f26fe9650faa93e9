//! When something last moved, for transfers that may take as long as they move. Shared by the ends of a transfer and by
//! whoever watches it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time of the last movement. Clones are the same.
#[derive(Clone)]
pub struct Activity(Arc<Mutex<Instant>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

// === impl Activity ===

impl Activity {
    /// Something moves.
    pub fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nothing has moved for so long.
    pub async fn silence(&self, most: Duration) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + most;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_movement() {
        let (activity, begin, second) = (Activity::default(), Instant::now(), Duration::from_secs(1));
        let moving = activity.clone();
        let moves = async {
            for _ in 0..5 {
                tokio::time::sleep(second).await;
                moving.note();
            }
        };
        tokio::join!(activity.silence(3 * second), moves);
        assert_eq!(begin.elapsed(), 8 * second);
    }
}
