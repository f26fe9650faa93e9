//! What origins allowed to whom, and when: pure, driven by [`super::Grants`].
//!
//! # Invariants
//! - An entry is about one repository of one registry and one holder; no other combination is answered from it.
//! - A grant counts for [`Terms::life`] after the origin said yes. Only where the origin gives no answer it counts for
//!   [`Terms::grace`], and what nobody in particular could read stays readable.
//! - A yes is dated by the origin's answer that it goes back to, not by when it was last made use of.
//! - The ledger is bounded: [`MAX_SHELVES`] repositories and holders, [`MAX_DIGESTS`] and [`MAX_TAGS`] each; the longest
//!   unused goes first. A lost grant costs a question to the origin and nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::digest::Digest;

use super::holder::Holder;

/// Pairs of repository and holder. A node pulls some dozen images with a token each.
const MAX_SHELVES: usize = 512;
/// Digests of one pair: more than the images of a repository that a node meets. All of it full is some 60 MB.
const MAX_DIGESTS: usize = 1024;
/// Tags of one pair, as they were asked for.
const MAX_TAGS: usize = 256;

/// One repository of one registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The repository's URL at the origin, `https://host/v2/name`.
    pub(crate) repository: Arc<str>,
}

/// What is known of content that was allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its length.
    pub(crate) length: Option<u64>,
    /// Its type, of a manifest.
    pub(crate) media_type: Option<Arc<str>>,
    /// The type is only what another manifest says of it. Registries do not check that.
    pub(crate) claimed: bool,
}

/// A yes of an origin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// What is known of the content.
    pub(crate) known: Known,
    /// When it was said to the holder; `None` where the holder only has what anybody had.
    pub(crate) since: Option<Instant>,
}

/// How long a yes is good for.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// While the origin answers.
    pub life: Duration,
    /// While it does not.
    pub grace: Duration,
}

/// A pull takes some minutes; so does an origin's outage that nobody gets up for.
impl Default for Terms {
    fn default() -> Self {
        Self { life: Duration::from_secs(5 * 60), grace: Duration::from_secs(60 * 60) }
    }
}

/// A tag as it was asked for: what it means depends on what the client takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tag {
    /// The tag.
    pub(crate) name: String,
    /// The digest of the media types that the client takes.
    pub(crate) accept: Digest,
}

/// Who could have shown what a holder showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Public {
    /// Nobody else.
    No,
    /// Anybody: a token that a registry gives to who has no account.
    Token,
    /// Anybody: nothing was shown.
    Open,
}

/// Who was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// Whoever shows this.
    Holder(Holder),
    /// Anybody, with a token for it.
    AnybodyWithToken,
    /// Anybody.
    Anybody,
}

#[derive(Default)]
struct Shelf {
    digests: HashMap<Digest, (Known, Instant)>,
    tags: HashMap<Tag, (Digest, Instant)>,
    used: Option<Instant>,
}

/// All grants of a node.
pub(super) struct Ledger {
    terms: Terms,
    shelves: HashMap<(Place, Who), Shelf>,
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, shelves: HashMap::new() }
    }

    /// The origin gave a digest to a holder, or gave a manifest that names it; `public` if anybody could have shown what
    /// the holder showed.
    pub(super) fn grant(
        &mut self,
        place: &Place,
        (holder, public): (Holder, Public),
        digest: Digest,
        known: Known,
        now: Instant,
    ) {
        for who in audience(holder, public) {
            let digests = &mut self.shelf(place, who, now).digests;
            // A manifest may name its own child without a type; what was known stays.
            let before = digests.remove(&digest);
            let at = before.as_ref().map_or(now, |(_, at)| now.max(*at));
            let known = before.map_or_else(|| known.clone(), |(before, _)| before.and(&known));
            make_room(digests, MAX_DIGESTS, |(_, at)| Some(*at));
            digests.insert(digest, (known, at));
        }
    }

    /// A tag means this digest to a holder now.
    pub(super) fn resolve(
        &mut self,
        place: &Place,
        (holder, public): (Holder, Public),
        tag: &Tag,
        digest: Digest,
        now: Instant,
    ) {
        for who in audience(holder, public) {
            let tags = &mut self.shelf(place, who, now).tags;
            make_room(tags, MAX_TAGS, |(_, at)| Some(*at));
            tags.insert(tag.clone(), (digest, now));
        }
    }

    /// The origin refused the whole repository to a holder.
    pub(super) fn revoke(&mut self, place: &Place, (holder, public): (Holder, Public)) {
        for who in audience(holder, public) {
            self.shelves.remove(&(place.clone(), who));
        }
    }

    /// The origin does not know a tag any more, or keeps it from a holder: nor what it meant.
    pub(super) fn revoke_tag(&mut self, place: &Place, (holder, public): (Holder, Public), name: &str) {
        for who in audience(holder, public) {
            let Some(shelf) = self.shelves.get_mut(&(place.clone(), who)) else { continue };
            let of_tag = shelf.tags.extract_if(|tag, _| tag.name == name);
            let meant: Vec<Digest> = of_tag.map(|(_, (digest, _))| digest).collect();
            meant.iter().for_each(|digest| drop(shelf.digests.remove(digest)));
        }
    }

    /// The origin refused a digest to a holder.
    pub(super) fn revoke_digest(
        &mut self,
        place: &Place,
        (holder, public): (Holder, Public),
        digest: Digest,
    ) {
        for who in audience(holder, public) {
            if let Some(shelf) = self.shelves.get_mut(&(place.clone(), who)) {
                shelf.digests.remove(&digest);
            }
        }
    }

    /// The grant by which a holder may have a digest without another question.
    pub(super) fn allows(
        &self,
        place: &Place,
        holder: Holder,
        digest: Digest,
        now: Instant,
    ) -> Option<Grant> {
        self.within(place, Who::Holder(holder), digest, self.terms.life, now)
    }

    /// The same while the origin gives no answer.
    pub(super) fn remembers(
        &self,
        place: &Place,
        holder: Holder,
        digest: Digest,
        now: Instant,
    ) -> Option<Grant> {
        let patience = self.terms.grace.max(self.terms.life);
        self.within(place, Who::Holder(holder), digest, patience, now)
            .or_else(|| self.within(place, Who::Anybody, digest, Duration::MAX, now))
            .or_else(|| self.within(place, Who::AnybodyWithToken, digest, Duration::MAX, now))
    }

    /// What a tag meant to a holder when the origin was last asked.
    pub(super) fn meant(&self, place: &Place, holder: Holder, tag: &Tag, now: Instant) -> Option<Digest> {
        let find = |who, patience| {
            let (digest, at) = self.shelves.get(&(place.clone(), who))?.tags.get(tag)?;
            (now.saturating_duration_since(*at) < patience).then_some(*digest)
        };
        find(Who::Holder(holder), self.terms.grace)
            .or_else(|| find(Who::Anybody, Duration::MAX))
            .or_else(|| find(Who::AnybodyWithToken, Duration::MAX))
    }

    fn within(
        &self,
        place: &Place,
        who: Who,
        digest: Digest,
        patience: Duration,
        now: Instant,
    ) -> Option<Grant> {
        let (known, at) = self.shelves.get(&(place.clone(), who))?.digests.get(&digest)?;
        let since = matches!(who, Who::Holder(_)).then_some(*at);
        (now.saturating_duration_since(*at) < patience).then(|| Grant { known: known.clone(), since })
    }

    fn shelf(&mut self, place: &Place, who: Who, now: Instant) -> &mut Shelf {
        let key = (place.clone(), who);
        if !self.shelves.contains_key(&key) {
            make_room(&mut self.shelves, MAX_SHELVES, |shelf| shelf.used);
        }
        let shelf = self.shelves.entry(key).or_default();
        shelf.used = Some(now);
        shelf
    }
}

// === impl Known ===

impl Known {
    /// What is known of the same content by two yeses: an origin's word on its type goes before a manifest's.
    fn and(self, other: &Self) -> Self {
        let (first, second) = match other.claimed && !self.claimed {
            true => (&self, other),
            false => (other, &self),
        };
        let typed = if first.media_type.is_some() { first } else { second };
        let (media_type, claimed) = (typed.media_type.clone(), typed.claimed);
        Self { length: first.length.or(second.length), media_type, claimed }
    }
}

fn audience(holder: Holder, public: Public) -> impl Iterator<Item = Who> {
    let anybody = match public {
        Public::No => None,
        Public::Token => Some(Who::AnybodyWithToken),
        Public::Open => Some(Who::Anybody),
    };
    [Some(Who::Holder(holder)), anybody].into_iter().flatten()
}

/// Lets the oldest eighth go once a map is full: looking through it for each new entry would be slow.
fn make_room<K: Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    most: usize,
    used: impl Fn(&V) -> Option<Instant>,
) {
    if map.len() < most {
        return;
    }
    let mut ages: Vec<_> = map.values().map(&used).collect();
    let (_, limit, _) = ages.select_nth_unstable(most / 8);
    let limit = *limit;
    map.retain(|_, value| used(value) > limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::holder::Salt;
    use common::task::Credentials;
    use proptest::prelude::*;

    const TERMS: Terms = Terms { life: Duration::from_secs(300), grace: Duration::from_secs(3600) };

    fn place(name: &str) -> Place {
        Place { repository: format!("https://r.test/v2/{name}").into() }
    }

    fn holders() -> [Holder; 2] {
        let salt = Salt::new();
        ["a", "b"].map(|user| salt.holder(&Credentials::authorization(user)))
    }

    fn tag(name: &str) -> Tag {
        Tag { name: name.to_owned(), accept: Digest::of(b"*/*") }
    }

    fn digest(n: u32) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn a_grant_is_good_for_its_life_and_without_the_origin_for_its_grace() {
        let (now, [alice, bob]) = (Instant::now(), holders());
        let mut ledger = Ledger::new(TERMS);
        let known = Known { length: Some(7), ..Known::default() };
        ledger.grant(&place("app"), (alice, Public::No), digest(1), known.clone(), now);
        let (app, one) = (place("app"), digest(1));
        let after = |life: Duration| now + life;
        let grant = Some(Grant { known: known.clone(), since: Some(now) });
        assert_eq!(ledger.allows(&app, alice, one, now), grant);
        assert_eq!(ledger.allows(&app, alice, one, after(TERMS.life)), None);
        assert_eq!(ledger.remembers(&app, alice, one, after(TERMS.life)), grant);
        assert_eq!(ledger.remembers(&app, alice, one, after(TERMS.grace)), None);
        for (place, holder, digest) in
            [(place("other"), alice, one), (app.clone(), bob, one), (app, alice, digest(2))]
        {
            assert_eq!(ledger.allows(&place, holder, digest, now), None);
            assert_eq!(ledger.remembers(&place, holder, digest, now), None);
        }
    }

    #[test]
    fn what_anybody_could_read_stays_readable_but_only_without_the_origin() {
        for public in [Public::Token, Public::Open] {
            stays_readable(public);
        }
    }

    fn stays_readable(public: Public) {
        let (now, [nobody, bob]) = (Instant::now(), holders());
        let mut ledger = Ledger::new(TERMS);
        let (app, later) = (place("app"), now + 100 * TERMS.grace);
        let tag = tag("1");
        ledger.grant(&app, (nobody, public), digest(1), Known::default(), now);
        ledger.resolve(&app, (nobody, public), &tag, digest(1), now);
        let anybodys = ledger.remembers(&app, bob, digest(1), later).unwrap();
        assert_eq!(anybodys.since, None, "nothing was ever said to this one");
        assert_eq!(ledger.meant(&app, bob, &tag, later), Some(digest(1)));
        assert_eq!(ledger.allows(&app, bob, digest(1), now), None, "the origin may tell them apart");
        ledger.revoke(&app, (nobody, public));
        assert_eq!(ledger.remembers(&app, bob, digest(1), now), None);
        assert_eq!(ledger.meant(&app, bob, &tag, now), None);
    }

    #[test]
    fn a_refusal_ends_what_was_granted_before() {
        let (now, [alice, bob]) = (Instant::now(), holders());
        let mut ledger = Ledger::new(TERMS);
        let app = place("app");
        for (holder, n) in [(alice, 1), (alice, 2), (bob, 1)] {
            ledger.grant(&app, (holder, Public::No), digest(n), Known::default(), now);
        }
        ledger.revoke_digest(&app, (alice, Public::No), digest(1));
        assert_eq!(ledger.remembers(&app, alice, digest(1), now), None);
        assert!(ledger.allows(&app, alice, digest(2), now).is_some());
        ledger.revoke(&app, (alice, Public::No));
        assert_eq!(ledger.remembers(&app, alice, digest(2), now), None);
        assert!(ledger.allows(&app, bob, digest(1), now).is_some());
    }

    #[test]
    fn a_tag_that_is_gone_takes_along_what_it_meant() {
        let (now, [alice, _]) = (Instant::now(), holders());
        let mut ledger = Ledger::new(TERMS);
        let app = place("app");
        for (name, n) in [("1", 1), ("2", 2)] {
            ledger.grant(&app, (alice, Public::Open), digest(n), Known::default(), now);
            ledger.resolve(&app, (alice, Public::Open), &tag(name), digest(n), now);
        }
        ledger.revoke_tag(&app, (alice, Public::Open), "1");
        assert_eq!(ledger.meant(&app, alice, &tag("1"), now), None);
        assert_eq!(ledger.remembers(&app, alice, digest(1), now), None);
        assert_eq!(ledger.meant(&app, alice, &tag("2"), now), Some(digest(2)));
    }

    #[test]
    fn making_use_of_a_grant_does_not_make_it_younger() {
        let (now, [alice, _]) = (Instant::now(), holders());
        let mut ledger = Ledger::new(TERMS);
        let (app, later) = (place("app"), now + TERMS.life / 2);
        ledger.grant(&app, (alice, Public::No), digest(1), Known::default(), later);
        ledger.grant(&app, (alice, Public::No), digest(1), Known::default(), now);
        assert!(ledger.allows(&app, alice, digest(1), now + TERMS.life).is_some(), "the later yes counts");
        assert_eq!(ledger.allows(&app, alice, digest(1), later + TERMS.life), None);
    }

    #[test]
    fn without_grace_nothing_but_the_life_of_a_grant_is_left() {
        let (now, [alice, _]) = (Instant::now(), holders());
        let mut ledger = Ledger::new(Terms { life: Duration::ZERO, grace: Duration::ZERO });
        let tag = tag("1");
        ledger.grant(&place("app"), (alice, Public::No), digest(1), Known::default(), now);
        ledger.resolve(&place("app"), (alice, Public::No), &tag, digest(1), now);
        assert_eq!(ledger.allows(&place("app"), alice, digest(1), now), None);
        assert_eq!(ledger.remembers(&place("app"), alice, digest(1), now), None);
        assert_eq!(ledger.meant(&place("app"), alice, &tag, now), None);
    }

    #[test]
    fn what_is_known_grows_and_the_ledger_does_not() {
        let (mut now, [alice, _]) = (Instant::now(), holders());
        let mut ledger = Ledger::new(TERMS);
        let app = place("app");
        let said = Known { length: None, media_type: Some("said".into()), claimed: false };
        let claimed = Known { length: Some(7), media_type: Some("claimed".into()), claimed: true };
        let both = Known { length: Some(7), ..said.clone() };
        for order in [[&said, &claimed], [&claimed, &said]] {
            ledger.revoke(&app, (alice, Public::No));
            for known in order {
                ledger.grant(&app, (alice, Public::No), digest(0), known.clone(), now);
            }
            assert_eq!(ledger.allows(&app, alice, digest(0), now).unwrap().known, both);
        }
        for n in 1..3 * MAX_DIGESTS as u32 {
            now += Duration::from_millis(1);
            ledger.grant(&app, (alice, Public::No), digest(n), Known::default(), now);
            assert!(ledger.allows(&app, alice, digest(n), now).is_some());
        }
        for n in 0..3 * MAX_SHELVES {
            now += Duration::from_millis(1);
            ledger.grant(&place(&n.to_string()), (alice, Public::No), digest(1), Known::default(), now);
        }
        assert!(ledger.shelves.len() <= MAX_SHELVES);
        assert!(ledger.shelves.values().all(|shelf| shelf.digests.len() <= MAX_DIGESTS));
    }

    proptest! {
        /// The rule itself, against a list of everything that was ever said.
        #[test]
        fn nobody_is_allowed_what_no_origin_gave_to_them(
            steps in prop::collection::vec((0u8..3, 0usize..2, 0usize..2, 0u32..3, 0u64..400), 1..60),
        ) {
            let (begin, holders, places) = (Instant::now(), holders(), [place("a"), place("b")]);
            let (mut ledger, mut now) = (Ledger::new(TERMS), begin);
            let mut said: Vec<(usize, usize, u32, Option<Instant>)> = Vec::new();
            for (what, who, at, n, passed) in steps {
                now += Duration::from_secs(passed);
                match what {
                    0 | 1 => {
                        ledger.grant(&places[at], (holders[who], Public::No), digest(n), Known::default(), now);
                        said.push((who, at, n, Some(now)));
                    }
                    _ => {
                        ledger.revoke(&places[at], (holders[who], Public::No));
                        said.extend((0..3).map(|n| (who, at, n, None)));
                    }
                }
                for (who, at, n) in [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 0)] {
                    let last = said.iter().rev().find(|(w, a, d, _)| (*w, *a, *d) == (who, at, n));
                    let granted = last.and_then(|(_, _, _, granted)| *granted);
                    let fresh = granted.is_some_and(|granted| now - granted < TERMS.life);
                    let graced = granted.is_some_and(|granted| now - granted < TERMS.grace);
                    let allowed = ledger.allows(&places[at], holders[who], digest(n), now);
                    prop_assert_eq!(allowed.is_some(), fresh);
                    let remembered = ledger.remembers(&places[at], holders[who], digest(n), now);
                    prop_assert_eq!(remembered.is_some(), graced);
                }
            }
        }
    }
}
