//! `POST /registry/notifications`: pushes as registries tell of them, and as Harbor's Kraken driver asks for them. What a
//! rule fits goes into the backlog; the answer says what was done with each event. Routed by [`super::router`].

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use common::telemetry::Notified;
use serde::Serialize;

use super::backlog::Taken;
use super::events::{self, Event};
use super::refusal::{Refusal, body};
use super::{Drivers, Jobs};

/// A thousand events of the usual size; registries send one in a request.
const MAX_BODY: usize = 1024 * 1024;
/// What a stranger's name is cut to in an error.
const MAX_SHOWN: usize = 200;

/// What was done with the events of one body.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Done {
    /// Pushes that wait to be preheated.
    queued: usize,
    /// Pushes of images that waited already.
    known: usize,
    /// What else happened.
    ignored: usize,
    /// Pushes that no rule fits.
    unmatched: usize,
    /// Pushes whose image has no name here.
    nameless: usize,
}

/// `GET /health`: whether a notification would come to anything.
pub(super) async fn health<J: Jobs>(State(drivers): State<Drivers<J>>) -> Result<Response, Refusal> {
    drivers.has_rules()?;
    Ok(Json(serde_json::json!({"status": "ok"})).into_response())
}

/// Takes events.
pub(super) async fn take<J: Jobs>(
    State(drivers): State<Drivers<J>>,
    request: Request,
) -> Result<(StatusCode, impl IntoResponse), Refusal> {
    drivers.has_rules()?;
    let read = {
        let _turn = drivers.desk.acquire().await.map_err(|_| Refusal::Full)?;
        events::read(&body(request, MAX_BODY).await?)?
    };
    let mut done = Done::default();
    let mut lost = None;
    for event in read.events {
        match drivers.judge(event) {
            Judged::Queued => done.queued += 1,
            Judged::Known => done.known += 1,
            Judged::Ignored => done.ignored += 1,
            Judged::Unmatched(why) => {
                done.unmatched += 1;
                lost.get_or_insert(why);
            }
            Judged::Nameless(why) => {
                done.nameless += 1;
                lost.get_or_insert(why);
            }
            // The sender has all of it again, and what waits already is known then.
            Judged::Full => return Err(Refusal::Full),
        }
    }
    match lost {
        // A registry tells of everything; Harbor asks for this one, and shows what it is told.
        Some(why) if read.wish && done.queued + done.known == 0 => Err(Refusal::Unfit(why)),
        _ if done.queued > 0 => Ok((StatusCode::ACCEPTED, Json(done))),
        _ => Ok((StatusCode::OK, Json(done))),
    }
}

/// What is done with an event.
enum Judged {
    Queued,
    Known,
    Ignored,
    Unmatched(String),
    Nameless(String),
    Full,
}

// === impl Drivers ===

impl<J: Jobs> Drivers<J> {
    fn has_rules(&self) -> Result<(), Refusal> {
        match self.rules.is_empty() {
            false => Ok(()),
            true => Err(Refusal::Unfit(
                "no rule says which pushes are preheated: start the supernode with --preheat-rule".into(),
            )),
        }
    }

    fn judge(&self, event: Event) -> Judged {
        let (judged, counted) = match event {
            Event::Other => (Judged::Ignored, Notified::Ignored),
            Event::Nameless(why) => {
                tracing::debug!("a push has no name here: {why}");
                let why = why.chars().take(MAX_SHOWN * 2).collect();
                (Judged::Nameless(why), Notified::Nameless)
            }
            Event::Pushed(image) => match self.rules.of(&image) {
                None => {
                    let name: String = image.spelled().chars().take(MAX_SHOWN).collect();
                    let why = format!("no --preheat-rule fits {name:?}");
                    (Judged::Unmatched(why), Notified::Unmatched)
                }
                Some(rule) => match self.waiting.push(&image, rule.job(&image)) {
                    Taken::New => (Judged::Queued, Notified::Queued),
                    Taken::Known => (Judged::Known, Notified::Known),
                    Taken::Full => (Judged::Full, Notified::Full),
                },
            },
        };
        self.metrics.notifications.of(counted).inc();
        judged
    }
}
