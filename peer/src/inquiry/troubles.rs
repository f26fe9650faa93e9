//! Origins that gave trouble a moment ago. Used by [`super::Desk`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Origins that are remembered; more than a cluster pulls from.
const MAX_PLACES: usize = 1024;

/// Places and when they last gave trouble.
pub(super) struct Troubles {
    life: Duration,
    places: Mutex<HashMap<String, Instant>>,
}

// === impl Troubles ===

impl Troubles {
    /// Troubles that are forgotten after `life`.
    pub(super) fn lasting(life: Duration) -> Self {
        Self { life, places: Mutex::default() }
    }

    pub(super) fn note(&self, place: String, now: Instant) {
        let mut places = self.lock();
        if places.len() >= MAX_PLACES {
            places.retain(|_, at| now.saturating_duration_since(*at) < self.life);
        }
        if places.len() < MAX_PLACES || places.contains_key(&place) {
            places.insert(place, now);
        }
    }

    pub(super) fn is_fresh(&self, place: &str, now: Instant) -> bool {
        self.lock().get(place).is_some_and(|at| now.saturating_duration_since(*at) < self.life)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_forgotten_in_time_and_not_all_are_kept() {
        let (troubles, now) = (Troubles::lasting(Duration::from_secs(10)), Instant::now());
        troubles.note("h:1".to_owned(), now);
        assert!(troubles.is_fresh("h:1", now) && !troubles.is_fresh("h:2", now));
        assert!(!troubles.is_fresh("h:1", now + Duration::from_secs(10)));
        (0..2 * MAX_PLACES).for_each(|n| troubles.note(n.to_string(), now));
        assert!(troubles.lock().len() <= MAX_PLACES);
    }
}
