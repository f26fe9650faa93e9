//! Which layer to fetch before the client asks for it. Pure; driven by [`super::ReadAhead`].
//!
//! A runtime pulls a few layers at a time, in the manifest's order, and asks for the next when one is done. Of small layers
//! most of the time is waiting, for the origin, the supernode, the parents, and the lines stand idle. So *walkers* fetch
//! what comes behind the farthest layer that was asked for. What lies before it is not fetched: who has a base image
//! already asks for the layers above it only.
//!
//! # Invariants
//! - No layer is fetched that precedes one that was asked for, nor any of an image of which none was asked for.
//! - No more than [`WIDTH`] layers of an image are on their way when one is begun, and [`MAX_WALKERS`] ahead over all.
//! - None is begun when [`AHEAD`] bytes beyond the farthest asked layer have been begun.
//! - No more than [`MAX_IMAGES`] images are remembered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::digest::Digest;

use crate::manifest::Layer;

/// Images whose layers are known, the latest.
const MAX_IMAGES: usize = 256;
/// Layers of one image on their way, asked for or ahead: twice what runtimes ask for.
const WIDTH: usize = 6;
/// Layers on their way ahead, over all images.
const MAX_WALKERS: usize = 12;
/// Bytes beyond the farthest layer that was asked for: a pull that is given up should not have cost a whole large image.
const AHEAD: u64 = 256 << 20;
/// After a rest of so long, what was fetched before may be gone from the store: it is looked through again.
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
    /// Layers that were asked for and are not here yet.
    awaited: HashSet<Digest>,
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
        self.images.insert(
            id,
            Image { layers, next: 0, asked: 0, awaited: HashSet::new(), walkers: 0, active: now },
        );
    }

    /// The client asks for a layer; the image that it belongs to, and whether it is news that it is awaited, when it is
    /// not `here`: then [`Plan::arrived`] is due in the end.
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
        Some((id.clone(), !here && image.awaited.insert(layer)))
    }

    /// A layer that was awaited is here, or will not come.
    pub(super) fn arrived(&mut self, id: &ImageId, layer: Digest) {
        if let Some(image) = self.images.get_mut(id) {
            image.awaited.remove(&layer);
        }
    }

    /// How many walkers to start for an image now; each calls [`Plan::next`] until there is nothing.
    pub(super) fn start(&mut self, id: &ImageId) -> usize {
        let Some(image) = self.images.get_mut(id).filter(|image| image.may_begin()) else { return 0 };
        let room = WIDTH.saturating_sub(image.awaited.len() + image.walkers);
        let start = room.min(MAX_WALKERS - self.walkers);
        image.walkers += start;
        self.walkers += start;
        start
    }

    /// The layer that a walker fetches now; with `None` the walker is done.
    pub(super) fn next(&mut self, id: &ImageId, now: Instant) -> Option<Layer> {
        let image = self.images.get_mut(id);
        let Some(image) = image.filter(|image| image.may_begin() && image.is_narrow()) else {
            self.walkers -= 1;
            if let Some(image) = self.images.get_mut(id) {
                image.walkers -= 1;
            }
            return None;
        };
        image.active = now;
        image.next += 1;
        Some(image.layers[image.next - 1])
    }

    /// A layer could not be fetched: nothing more is tried in this pull.
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
    /// Whether no more is on its way than may be, walkers counted.
    fn is_narrow(&self) -> bool {
        self.awaited.len() + self.walkers <= WIDTH
    }

    fn may_begin(&self) -> bool {
        let ahead: u64 = self.layers[self.asked..self.next].iter().map(|layer| layer.size).sum();
        self.next < self.layers.len() && ahead < AHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPOSITORY: &str = "https://r.test/v2/app";

    fn layer(n: u8, size: u64) -> Layer {
        Layer { digest: Digest::of(&[n]), size }
    }

    fn id(n: u8) -> ImageId {
        ImageId { repository: REPOSITORY.into(), manifest: Digest::of(&[n, n]) }
    }

    /// An image of so many layers, whose sizes are their numbers.
    fn plan(layers: u8, now: Instant) -> Plan {
        let mut plan = Plan::default();
        plan.learn(id(1), (0..layers).map(|n| layer(n, u64::from(n))).collect(), now);
        plan
    }

    /// A layer is asked for that is not here; how many begin to walk.
    fn asked(plan: &mut Plan, n: u8, now: Instant) -> usize {
        let (id, _) = plan.asked(REPOSITORY, Digest::of(&[n]), false, now).unwrap();
        plan.start(&id)
    }

    fn next(plan: &mut Plan, now: Instant) -> Option<u64> {
        plan.next(&id(1), now).map(|layer| layer.size)
    }

    #[test]
    fn what_follows_the_farthest_asked_layer_is_fetched_in_order() {
        let now = Instant::now();
        let mut plan = plan(9, now);
        assert_eq!(asked(&mut plan, 1, now), WIDTH - 1);
        assert_eq!((next(&mut plan, now), next(&mut plan, now)), (Some(2), Some(3)));
        assert_eq!(asked(&mut plan, 4, now), 0, "enough walk already");
        assert_eq!(next(&mut plan, now), None, "one too many, now that another is asked for");
        assert_eq!(next(&mut plan, now), Some(5), "4 is on its way");
        plan.arrived(&id(1), Digest::of(&[1]));
        assert_eq!(plan.start(&id(1)), 1);
        assert_eq!([next(&mut plan, now), next(&mut plan, now), next(&mut plan, now)], [6, 7, 8].map(Some));
        (0..5).for_each(|_| assert_eq!(next(&mut plan, now), None));
        assert_eq!((plan.walkers, asked(&mut plan, 0, now)), (0, 0), "nothing is left");
    }

    #[test]
    fn who_asks_for_many_gets_no_more() {
        let now = Instant::now();
        let mut plan = plan(20, now);
        let started: usize = (0..WIDTH as u8).map(|n| asked(&mut plan, n, now)).sum();
        assert_eq!(started, WIDTH - 1, "by the first");
        (0..WIDTH - 1).for_each(|_| assert_eq!(next(&mut plan, now), None));
    }

    #[test]
    fn a_pull_that_is_given_up_costs_a_bounded_number_of_bytes() {
        let now = Instant::now();
        let mut plan = Plan::default();
        plan.learn(id(1), (0..9).map(|n| layer(n, AHEAD / 2)).collect(), now);
        asked(&mut plan, 0, now);
        assert!(next(&mut plan, now).is_some() && next(&mut plan, now).is_some());
        (0..WIDTH - 1).for_each(|_| assert_eq!(next(&mut plan, now), None));
        assert!(asked(&mut plan, 1, now) > 0, "it goes on with the client");
        assert!(next(&mut plan, now).is_some());
    }

    #[test]
    fn after_a_failure_clients_ask_for_themselves() {
        let now = Instant::now();
        let mut plan = plan(5, now);
        asked(&mut plan, 0, now);
        next(&mut plan, now);
        plan.failed(&id(1));
        (0..WIDTH - 1).for_each(|_| assert_eq!(next(&mut plan, now), None));
        assert_eq!(asked(&mut plan, 1, now), 0);
        assert!(asked(&mut plan, 1, now + AGAIN) > 0, "a later pull is another matter");
        assert_eq!(next(&mut plan, now), Some(2));
    }

    #[test]
    fn a_shared_layer_leads_to_the_image_that_was_wanted_last() {
        let now = Instant::now();
        let mut plan = plan(2, now);
        plan.learn(id(2), vec![layer(0, 1), layer(2, 1)], now);
        let image = |plan: &mut Plan| plan.asked(REPOSITORY, Digest::of(&[0]), true, now).unwrap().0;
        assert_eq!(image(&mut plan), id(2));
        assert!(plan.knows(&id(1)));
        assert_eq!(image(&mut plan), id(1));
        assert!(plan.asked("https://r.test/v2/other", Digest::of(&[0]), true, now).is_none());
    }

    #[test]
    fn few_walk_at_once_and_what_is_long_past_is_forgotten() {
        let now = Instant::now();
        let mut plan = Plan::default();
        let of = |n: u8| ImageId { repository: n.to_string().into(), manifest: Digest::of(&[]) };
        for n in 0..=255 {
            plan.learn(of(n), vec![layer(0, 1), layer(1, 2), layer(2, 3)], now);
        }
        let ask = |plan: &mut Plan, n: u8| {
            let (id, _) = plan.asked(&n.to_string(), Digest::of(&[0]), true, now).unwrap();
            plan.start(&id)
        };
        assert_eq!((0..=255).map(|n| ask(&mut plan, n)).sum::<usize>(), MAX_WALKERS);
        plan.learn(id(1), vec![layer(0, 1)], now);
        assert_eq!((plan.order.len(), plan.by_layer.len()), (MAX_IMAGES, 3 * MAX_IMAGES - 2));
        assert_eq!(plan.next(&of(0), now), None, "the image was forgotten meanwhile");
        assert_eq!(plan.walkers, MAX_WALKERS - 1);
    }
}
