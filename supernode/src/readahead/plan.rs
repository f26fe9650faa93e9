//! Which layer to fetch before anybody asks for it. Pure; driven by [`super::ReadAhead`].
//!
//! A runtime pulls a few layers at a time, in the manifest's order, and asks for the next when one is done: between them
//! the origin's line would stand idle, though it is what a burst waits for. So when all that was asked for is here,
//! *walkers* fetch what comes behind the farthest layer that was asked for. What lies before it is not fetched: nodes that
//! share a base image ask for the layers above it only.
//!
//! # Invariants
//! - Nothing is begun while a layer that was asked for is on its way.
//! - No layer is fetched that precedes one that was asked for, nor any of an image of which none was asked for.
//! - No more than [`AHEAD`] bytes beyond the farthest asked layer are begun, no more than [`WALKERS`] at once an image,
//!   and [`MAX_WALKERS`] over all.
//! - No more than [`MAX_IMAGES`] images are remembered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::digest::Digest;

use super::manifest::Layer;

/// Images whose layers are known, the latest.
const MAX_IMAGES: usize = 256;
/// Layers of one image on their way ahead of the nodes: while one ends, the others keep the line busy.
const WALKERS: usize = 2;
/// The same over all images: beside what nodes ask for, a share of the line.
const MAX_WALKERS: usize = 8;
/// Bytes beyond the farthest layer that was asked for: a pull that is given up should not have cost a whole large image.
const AHEAD: u64 = 1 << 30;
/// After a rest of so long, what was fetched before may be gone from the cache: it is looked through again.
const AGAIN: Duration = Duration::from_secs(60);

/// An image, by its manifest's digest, in one repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ImageId {
    /// The repository's URL: what precedes `/blobs/`.
    pub(super) repository: Arc<str>,
    /// The manifest.
    pub(super) manifest: Digest,
}

struct Image {
    layers: Vec<Layer>,
    /// The first layer that nobody has begun.
    next: usize,
    /// Behind the farthest layer that was asked for.
    asked: usize,
    walkers: usize,
    active: Instant,
}

/// What is known of images, and how far each has come.
#[derive(Default)]
pub(super) struct Plan {
    images: HashMap<ImageId, Image>,
    /// The latest image with each layer: of images that share it, that one is being pulled.
    by_layer: HashMap<(Arc<str>, Digest), (ImageId, usize)>,
    /// Oldest first.
    order: VecDeque<ImageId>,
    /// Layers that were asked for and are not here yet.
    awaited: HashSet<Digest>,
    walkers: usize,
}

// === impl Plan ===

impl Plan {
    /// Whether an image is known; it counts as the latest of its repository from now on.
    pub(super) fn knows(&mut self, id: &ImageId) -> bool {
        let Some(image) = self.images.get(id) else { return false };
        // A shared layer leads to the image that is wanted now.
        if self.order.back() != Some(id) {
            for (at, layer) in image.layers.iter().enumerate() {
                self.by_layer.insert((id.repository.clone(), layer.digest), (id.clone(), at));
            }
            self.order.retain(|other| other != id);
            self.order.push_back(id.clone());
        }
        true
    }

    /// A manifest was handed out.
    pub(super) fn learn(&mut self, id: ImageId, layers: Vec<Layer>, now: Instant) {
        if self.knows(&id) {
            return;
        }
        if self.order.len() >= MAX_IMAGES
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(&oldest);
        }
        for (at, layer) in layers.iter().enumerate() {
            self.by_layer.insert((id.repository.clone(), layer.digest), (id.clone(), at));
        }
        self.order.push_back(id.clone());
        self.images.insert(id, Image { layers, next: 0, asked: 0, walkers: 0, active: now });
    }

    /// A node asks for a layer; the image that it belongs to, and whether it is news that it is awaited, when it is not
    /// `here`: then [`Plan::arrived`] is due in the end.
    pub(super) fn asked(
        &mut self,
        repository: &str,
        layer: Digest,
        here: bool,
        now: Instant,
    ) -> Option<(ImageId, bool)> {
        let (id, at) = self.by_layer.get(&(Arc::from(repository), layer))?;
        let image = self.images.get_mut(id)?;
        if image.walkers == 0 && now.saturating_duration_since(image.active) >= AGAIN {
            (image.asked, image.next) = (0, 0);
        }
        image.active = now;
        image.asked = image.asked.max(at + 1);
        image.next = image.next.max(at + 1);
        Some((id.clone(), !here && self.awaited.insert(layer)))
    }

    /// A layer that was awaited is here, or will not come.
    pub(super) fn arrived(&mut self, layer: Digest) {
        self.awaited.remove(&layer);
    }

    /// How many walkers to start for an image now; each calls [`Plan::next`] until there is nothing.
    pub(super) fn start(&mut self, id: &ImageId) -> usize {
        let Some(image) = self.images.get_mut(id).filter(|image| image.may_begin()) else { return 0 };
        if !self.awaited.is_empty() {
            return 0;
        }
        let start = (WALKERS - image.walkers).min(MAX_WALKERS - self.walkers);
        image.walkers += start;
        self.walkers += start;
        start
    }

    /// The layer that a walker fetches now; with `None` the walker is done.
    pub(super) fn next(&mut self, id: &ImageId, now: Instant) -> Option<Layer> {
        let Some(image) = self.images.get_mut(id) else {
            self.walkers -= 1;
            return None;
        };
        image.active = now;
        if !self.awaited.is_empty() || !image.may_begin() {
            image.walkers -= 1;
            self.walkers -= 1;
            return None;
        }
        image.next += 1;
        Some(image.layers[image.next - 1])
    }

    /// A layer could not be fetched: nothing more is tried before a node asks for more.
    pub(super) fn failed(&mut self, id: &ImageId) {
        if let Some(image) = self.images.get_mut(id) {
            image.next = image.layers.len();
        }
    }

    fn forget(&mut self, id: &ImageId) {
        let Some(image) = self.images.remove(id) else { return };
        for layer in image.layers {
            let key = (id.repository.clone(), layer.digest);
            if self.by_layer.get(&key).is_some_and(|(other, _)| other == id) {
                self.by_layer.remove(&key);
            }
        }
    }
}

// === impl Image ===

impl Image {
    fn may_begin(&self) -> bool {
        let ahead: u64 = self.layers[self.asked..self.next].iter().map(|layer| layer.size).sum();
        self.next < self.layers.len() && ahead < AHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(n: u8, size: u64) -> Layer {
        Layer { digest: Digest::of(&[n]), size }
    }

    fn id(n: u8) -> ImageId {
        ImageId { repository: "https://r.test/v2/app".into(), manifest: Digest::of(&[n, n]) }
    }

    fn plan(layers: Vec<Layer>, now: Instant) -> Plan {
        let mut plan = Plan::default();
        plan.learn(id(1), layers, now);
        plan
    }

    /// A layer is asked for that is here; how many begin to walk.
    fn asked(plan: &mut Plan, n: u8, now: Instant) -> usize {
        let (id, _) = plan.asked("https://r.test/v2/app", Digest::of(&[n]), true, now).unwrap();
        plan.start(&id)
    }

    fn next(plan: &mut Plan, now: Instant) -> Option<u64> {
        plan.next(&id(1), now).map(|layer| layer.size)
    }

    #[test]
    fn what_follows_the_farthest_asked_layer_is_fetched_in_order() {
        let now = Instant::now();
        let mut plan = plan((0..6).map(|n| layer(n, u64::from(n))).collect(), now);
        assert_eq!(asked(&mut plan, 1, now), WALKERS);
        assert_eq!(next(&mut plan, now), Some(2));
        assert_eq!(asked(&mut plan, 3, now), 0, "they walk already");
        assert_eq!(next(&mut plan, now), Some(4), "3 is on its way");
        assert_eq!(next(&mut plan, now), Some(5));
        assert_eq!((next(&mut plan, now), next(&mut plan, now)), (None, None));
        assert_eq!(asked(&mut plan, 0, now), 0, "nothing is left");
        assert_eq!(plan.walkers, 0);
    }

    #[test]
    fn what_nodes_wait_for_goes_first() {
        let now = Instant::now();
        let mut plan = plan((0..6).map(|n| layer(n, u64::from(n))).collect(), now);
        let mut ask = |n: u8| plan.asked("https://r.test/v2/app", Digest::of(&[n]), false, now).unwrap().1;
        assert_eq!((ask(0), ask(1), ask(0)), (true, true, false), "one waits for each");
        plan.arrived(Digest::of(&[0]));
        assert_eq!(plan.start(&id(1)), 0);
        plan.arrived(Digest::of(&[1]));
        assert_eq!(plan.start(&id(1)), WALKERS);
        assert_eq!(next(&mut plan, now), Some(2));
        plan.asked("https://r.test/v2/app", Digest::of(&[2]), false, now).unwrap();
        assert_eq!((next(&mut plan, now), next(&mut plan, now)), (None, None));
        plan.arrived(Digest::of(&[2]));
        assert_eq!(plan.start(&id(1)), WALKERS);
        assert_eq!(next(&mut plan, now), Some(3));
    }

    #[test]
    fn a_pull_that_is_given_up_costs_a_bounded_number_of_bytes() {
        let now = Instant::now();
        let mut plan = plan((0..9).map(|n| layer(n, AHEAD / 2)).collect(), now);
        asked(&mut plan, 0, now);
        assert!(next(&mut plan, now).is_some() && next(&mut plan, now).is_some());
        assert_eq!((next(&mut plan, now), next(&mut plan, now)), (None, None));
        assert_eq!(asked(&mut plan, 1, now), WALKERS, "it goes on with the nodes");
        assert!(next(&mut plan, now).is_some());
    }

    #[test]
    fn after_a_failure_nodes_ask_for_themselves() {
        let now = Instant::now();
        let mut plan = plan((0..5).map(|n| layer(n, 1)).collect(), now);
        asked(&mut plan, 0, now);
        next(&mut plan, now);
        plan.failed(&id(1));
        assert_eq!((next(&mut plan, now), next(&mut plan, now)), (None, None));
        assert_eq!(asked(&mut plan, 1, now), 0);
        assert_eq!(asked(&mut plan, 1, now + AGAIN), WALKERS, "a later pull is another matter");
        assert_eq!(next(&mut plan, now), Some(1));
    }

    #[test]
    fn a_shared_layer_leads_to_the_image_that_was_wanted_last() {
        let now = Instant::now();
        let mut plan = plan(vec![layer(0, 1), layer(1, 1)], now);
        plan.learn(id(2), vec![layer(0, 1), layer(2, 1)], now);
        let image =
            |plan: &mut Plan| plan.asked("https://r.test/v2/app", Digest::of(&[0]), true, now).unwrap().0;
        assert_eq!(image(&mut plan), id(2));
        assert!(plan.knows(&id(1)));
        assert_eq!(image(&mut plan), id(1));
        assert!(plan.asked("https://r.test/v2/other", Digest::of(&[0]), true, now).is_none());
    }

    #[test]
    fn few_walk_at_once_and_what_is_long_past_is_forgotten() {
        let now = Instant::now();
        let mut plan = Plan::default();
        for n in 0..=255 {
            plan.learn(id(n), vec![layer(n, 1), layer(n, 2), layer(n, 3)], now);
        }
        let started: usize = (0..=255).map(|n| asked(&mut plan, n, now)).sum();
        assert_eq!(started, 0, "of twins the last counts, and nothing follows it");
        let ids: Vec<ImageId> = plan.order.iter().cloned().collect();
        for n in 0..20 {
            plan.forget(&ids[n]);
        }
        assert_eq!(plan.by_layer.len(), 236);
        for n in 0..=255u8 {
            let other = ImageId { repository: "x".into(), manifest: Digest::of(&[n]) };
            plan.learn(other, vec![layer(n, 1), layer(1, 1)], now);
        }
        assert_eq!((plan.order.len(), plan.order.front().unwrap().repository.as_ref()), (MAX_IMAGES, "x"));
        let mut start = |n: u8| {
            let (id, _) = plan.asked("x", Digest::of(&[n]), true, now).unwrap();
            plan.start(&id)
        };
        let started: usize = (2..100).map(&mut start).sum();
        assert_eq!(started, MAX_WALKERS);
        assert_eq!(plan.next(&id(1), now), None, "its image was forgotten meanwhile");
        assert_eq!(plan.walkers, MAX_WALKERS - 1);
    }
}
