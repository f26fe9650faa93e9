//! What a registry last said to somebody without credentials: how it wants to be spoken to. Clients ask that first, and one
//! that finds nobody there never shows the credential that would still be good. Pure; used by [`super::Grants`] while a
//! registry gives no answer.

use std::collections::{HashMap, VecDeque};

use crate::upstream::Said;

/// Addresses that are remembered: two for each repository that a node pulls from.
const MAX_DOORS: usize = 1024;

/// The last words at each address.
#[derive(Default)]
pub(super) struct Doors {
    words: HashMap<String, Said>,
    /// Oldest first.
    order: VecDeque<String>,
}

// === impl Doors ===

impl Doors {
    pub(super) fn heard(&mut self, url: String, said: Said) {
        if self.words.insert(url.clone(), said).is_some() {
            return;
        }
        self.order.push_back(url);
        if self.order.len() > MAX_DOORS
            && let Some(oldest) = self.order.pop_front()
        {
            self.words.remove(&oldest);
        }
    }

    pub(super) fn words(&self, url: &str) -> Option<&Said> {
        self.words.get(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    #[test]
    fn the_last_words_count_and_not_all_are_kept() {
        let said = |status| Said { status, headers: HeaderMap::new(), body: Default::default() };
        let mut doors = Doors::default();
        doors.heard("a".to_owned(), said(StatusCode::OK));
        doors.heard("a".to_owned(), said(StatusCode::UNAUTHORIZED));
        assert_eq!(doors.words("a").unwrap().status, StatusCode::UNAUTHORIZED);
        (0..MAX_DOORS).for_each(|n| doors.heard(n.to_string(), said(StatusCode::OK)));
        assert!(doors.words("a").is_none() && doors.words("0").is_some());
        assert_eq!(doors.words.len(), MAX_DOORS);
    }
}
