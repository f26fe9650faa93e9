//! News for open pages, as server-sent events: the same text for all of them. Asked for with the bearer token like all of
//! the API, so by `fetch` and not by `EventSource`, which cannot show one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream;

use super::Dashboard;

/// Pages that listen at once; more of them ask again and again instead, which costs more and loses nothing.
pub const LISTENERS: usize = 64;
/// A stream ends after so long, and the page begins the next: a token that was taken away is asked for again.
const LIFE: Duration = Duration::from_secs(10 * 60);
/// When a page for which there is no place may try again.
const LATER: &str = "30";

/// The newest overview as JSON; empty before the first.
pub type News = Arc<str>;

/// An `overview` event each time there is a new one
#[utoipa::path(get, path = "/events", tag = "dashboard", responses((status = 200, description = "Server-sent events, for ten minutes", body = String, content_type = "text/event-stream")))]
pub async fn events(State(dashboard): State<Dashboard>) -> Response {
    let Ok(place) = dashboard.listeners.clone().try_acquire_owned() else {
        let later = [(header::RETRY_AFTER, LATER)];
        return (StatusCode::SERVICE_UNAVAILABLE, later, "too many pages listen: ask for /api/v1/overview\n")
            .into_response();
    };
    let mut news = dashboard.news.clone();
    news.mark_unchanged();
    let told = stream::unfold((news, place), async |(mut news, place)| {
        // An error is the recorder's end: the daemon stops.
        news.changed().await.ok()?;
        let text = news.borrow_and_update().clone();
        let event = Event::default().event("overview").data(&*text);
        Some((Ok::<_, Infallible>(event), (news, place)))
    });
    let told = told.take_until(tokio::time::sleep(LIFE));
    Sse::new(told).keep_alive(KeepAlive::default()).into_response()
}
