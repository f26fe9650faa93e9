//! An open page of the dashboard, as the supernode sees it: it hears the events, and asks for what its page shows after each.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Client;

use crate::supernode::Supernode;

/// How long the CPU time is taken over: ten events.
const WATCHED: Duration = Duration::from_secs(20);
/// The first answers, and their connections, are not what an open page costs.
const SETTLE: Duration = Duration::from_secs(4);

/// Pages that people keep open: a name, and what is asked for after each event.
pub(crate) const PAGES: [(&str, Option<&str>); 2] = [("overview", None), ("nodes", Some("nodes"))];

/// The supernode's share of a core while nothing is asked of it, in percent.
pub(crate) async fn alone(supernode: &Supernode) -> f64 {
    let cpu = supernode.cpu();
    tokio::time::sleep(WATCHED).await;
    (supernode.cpu() - cpu).as_secs_f64() * 100.0 / WATCHED.as_secs_f64()
}

/// The same while a page is open.
pub(crate) async fn beside(supernode: &Supernode, detail: Option<&str>) -> f64 {
    let (http, detail) = (supernode.http(), detail.map(str::to_owned));
    let page = tokio::spawn(async move { look(http, detail).await });
    tokio::time::sleep(SETTLE).await;
    let share = alone(supernode).await;
    assert!(!page.is_finished(), "the page lost its events");
    page.abort();
    share
}

async fn look(http: SocketAddr, detail: Option<String>) {
    let client = Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| client.get(format!("http://{http}/api/v1/{path}")).send().await.unwrap();
    get("overview").await.bytes().await.unwrap();
    let mut events = get("events").await;
    while let Some(event) = events.chunk().await.unwrap() {
        assert!(!event.is_empty());
        if let Some(detail) = &detail {
            get(detail).await.bytes().await.unwrap();
        }
    }
}
