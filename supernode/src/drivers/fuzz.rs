//! What a fuzzer gives bytes to: the bodies that senders send, and the rules that a user writes. Called by `fuzz/bodies`.

use std::time::{Duration, Instant};

use peer::image::reference::Reference;
use peer::origin::Registries;

use super::backlog::{Backlog, Taken};
use super::events::{self, Event};
use super::image_of::image_of;
use super::rules::Rules;
use super::{dragonfly, harbor};

/// Takes the bytes for a notification, for Harbor's orders, and for a URL and a rule.
///
/// # Panics
/// Where a rule of this house is broken.
pub fn senders(data: &[u8]) {
    let rules = Rules::read(&["**/**=cache".to_owned()]).expect("invariant: that is a rule");
    if let Ok(read) = events::read(data) {
        let mut backlog = Backlog::default();
        for event in read.events {
            let Event::Pushed(image) = event else { continue };
            assert!(image.tag.is_some());
            named(&image);
            let job = rules.of(&image).expect("everything is meant").job(&image);
            job.check().expect("what was read is an image");
            if backlog.push(&image, job.clone(), Instant::now()) != Taken::Full {
                assert_eq!(backlog.push(&image, job, Instant::now()), Taken::Known);
            }
        }
        assert!(backlog.due().is_none_or(|due| due <= Instant::now() + Duration::from_secs(1)));
    }
    let nobody = Registries::default();
    for order in [dragonfly::read(data, &nobody), harbor::read(data, &nobody)].into_iter().flatten() {
        // Times and numbers may make no sense; the image does.
        let image = order.0.image.expect("it is for an image");
        named(&Reference::of_image(&image).expect("an image's name"));
        assert!(!format!("{:?}", order.1).contains("secret"), "a credential is shown");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(meant) = image_of(text) {
        named(&meant.image);
    }
    let _ = Rules::read(&[text.to_owned()]);
}

/// A name means what it was made of.
fn named(image: &Reference) {
    let name = image.spelled();
    assert_eq!(Reference::of_image(&name).as_ref(), Ok(image), "{name}");
}
