//! As much as a connection takes: requests whose answers nobody reads, requests that are taken back at once, links
//! over links, and piece sets without end.

use std::collections::VecDeque;
use std::sync::Arc;

use common::transport::Connection;
use common::wire::codec;
use common::wire::exchange::{Link, MAX_RUNS, Opening};
use tokio::task::JoinSet;

use super::Villain;

/// Workers of each sort on a connection.
const WORKERS: usize = 4;
/// Answers that one worker leaves unread before it lets the oldest go.
const UNREAD: usize = 128;

pub(super) fn begin(villain: &Arc<Villain>, connection: &Connection, deeds: &mut JoinSet<()>) {
    for _ in 0..WORKERS {
        deeds.spawn(requests(villain.clone(), connection.clone(), UNREAD));
        deeds.spawn(requests(villain.clone(), connection.clone(), 0));
        deeds.spawn(links(villain.clone(), connection.clone()));
    }
    deeds.spawn(boasts(villain.clone(), connection.clone()));
}

/// Asks for pieces for ever; the last `unread` answers wait at the neighbour.
async fn requests(villain: Arc<Villain>, connection: Connection, unread: usize) {
    let mut waiting = VecDeque::new();
    while let Ok(receive) = villain.ask(&connection).await {
        waiting.push_back(receive);
        if waiting.len() > unread {
            waiting.pop_front();
        }
    }
}

/// Opens links for ever, each in the place of the one before.
async fn links(villain: Arc<Villain>, connection: Connection) {
    let opening = Opening::Link { task: villain.task, geometry: villain.geometry };
    while let Ok((mut send, receive)) = connection.open().await {
        let all = villain.everything();
        if codec::send(&mut send, &opening).await.is_err() || codec::send(&mut send, &all).await.is_err() {
            continue;
        }
        drop(receive);
    }
}

/// Shows the same pieces for ever, in as many runs as a message holds.
async fn boasts(villain: Arc<Villain>, connection: Connection) {
    let pieces = villain.geometry.pieces();
    let every_other =
        |first: u32| (first..pieces).step_by(2).map(|index| index..index + 1).take(MAX_RUNS).collect();
    let opening = Opening::Link { task: villain.task, geometry: villain.geometry };
    while let Ok((mut send, _receive)) = connection.open().await {
        let mut sent = codec::send(&mut send, &opening).await;
        for turn in 0u32.. {
            let runs = every_other(turn % 2);
            let message = if turn % 4 < 2 { Link::Have(runs) } else { Link::Hold(runs) };
            if sent.is_err() {
                break;
            }
            sent = codec::send(&mut send, &message).await;
        }
    }
}
