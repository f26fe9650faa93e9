//! What waits to be said to one peer. Feeders and the scheduler put letters in, the session's writer sends them in that
//! order, those that wait together in one go.
//!
//! An idle peer costs a queue without letters, so a letter is small: what is said to one peer is boxed, what is said
//! alike to many is encoded once and shared.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::transport::CONTROL_PRIORITY;
use common::wire::codec::{self, CodecError};
use common::wire::swarm::ToPeer;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Letters waiting for a peer.
const LETTERS: usize = 1024;
/// Room that feeders leave in it: they wait when a peer is slow, while the scheduler's commands cannot.
const RESERVE: usize = 256;
/// How often a feeder looks whether a slow peer has taken something.
const LOOK: Duration = Duration::from_millis(4);
/// A peer that does not take what was written within this is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// So much is written in one go, and one letter more.
const BATCH: usize = 64 * 1024;

/// Something to say.
#[derive(Debug)]
pub enum Letter {
    /// To this peer.
    Message(Box<ToPeer>),
    /// Encoded messages, as others get them, too.
    Frames(Bytes),
}

/// A peer's queue. Cheap to clone.
#[derive(Clone)]
pub struct Outbox(mpsc::Sender<Letter>);

/// The other end of an [`Outbox`].
pub struct Letters(mpsc::Receiver<Letter>);

/// The peer is gone, or does not read.
#[derive(Debug)]
pub struct Gone;

// === impl Letter ===

impl From<ToPeer> for Letter {
    fn from(message: ToPeer) -> Self {
        Self::Message(Box::new(message))
    }
}

impl Letter {
    fn into_frames(self) -> Result<Bytes, CodecError> {
        match self {
            Self::Message(message) => Ok(codec::encode(&*message)?.into()),
            Self::Frames(frames) => Ok(frames),
        }
    }
}

// === impl Outbox ===

impl Outbox {
    /// A queue, and what comes out of it.
    pub fn new() -> (Self, Letters) {
        let (sender, receiver) = mpsc::channel(LETTERS);
        (Self(sender), Letters(receiver))
    }

    /// Puts a letter in, behind a peer's back: it may take the last room.
    ///
    /// # Errors
    /// When there is no room, so that the peer would miss it.
    pub fn push(&self, letter: impl Into<Letter>) -> Result<(), Gone> {
        self.0.try_send(letter.into()).map_err(|_| Gone)
    }

    /// Puts a letter in as soon as the peer has taken enough of those before it.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn say(&self, letter: impl Into<Letter>) -> Result<(), Gone> {
        while self.0.capacity() < RESERVE && !self.0.is_closed() {
            sleep(LOOK).await;
        }
        self.0.send(letter.into()).await.map_err(|_| Gone)
    }
}

// === impl Letters ===

impl Letters {
    /// Sends what comes, until the stream ends; returns why it did.
    pub async fn send(mut self, mut stream: quinn::SendStream) -> String {
        let _ = stream.set_priority(CONTROL_PRIORITY);
        while let Some(letter) = self.0.recv().await {
            let frames = match self.gather(letter) {
                Ok(frames) => frames,
                Err(error) => return error.to_string(),
            };
            match timeout(SEND_TIMEOUT, stream.write_chunk(frames)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return "it does not read".into(),
            }
        }
        "nothing more to say".into()
    }

    /// A letter and those that wait behind it.
    fn gather(&mut self, first: Letter) -> Result<Bytes, CodecError> {
        let first = first.into_frames()?;
        let Ok(second) = self.0.try_recv() else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second.into_frames()?);
        while all.len() < BATCH
            && let Ok(next) = self.0.try_recv()
        {
            all.extend_from_slice(&next.into_frames()?);
        }
        Ok(all.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::task::TaskId;

    fn proven(number: u8) -> ToPeer {
        ToPeer::Proven(TaskId([number; 32]))
    }

    #[tokio::test]
    async fn what_waits_together_goes_together_and_in_order() {
        let (outbox, mut letters) = Outbox::new();
        let shared = Bytes::from(codec::encode(&proven(2)).unwrap());
        outbox.push(proven(1)).unwrap();
        outbox.say(Letter::Frames(shared.clone())).await.unwrap();
        outbox.push(proven(3)).unwrap();
        let first = letters.0.recv().await.unwrap();
        let mut together = BytesMut::from(letters.gather(first).unwrap());
        for number in 1..=3 {
            assert_eq!(codec::decode::<ToPeer>(&mut together).unwrap(), Some(proven(number)));
        }
        outbox.push(Letter::Frames(shared.clone())).unwrap();
        let alone = letters.0.recv().await.unwrap();
        assert_eq!(letters.gather(alone).unwrap().as_ptr(), shared.as_ptr(), "nothing is copied");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_noticed() {
        let (outbox, letters) = Outbox::new();
        for _ in 0..LETTERS - RESERVE {
            outbox.say(proven(1)).await.unwrap();
        }
        let waits = timeout(LOOK * 3, outbox.say(proven(1))).await.is_ok_and(|said| said.is_ok());
        assert!(waits, "the last one before the reserve is free");
        assert!(timeout(LOOK * 3, outbox.say(proven(1))).await.is_err(), "feeders wait");
        (0..RESERVE - 1).for_each(|_| outbox.push(proven(1)).unwrap());
        assert!(outbox.push(proven(1)).is_err(), "and the scheduler does not");
        drop(letters);
        assert!(outbox.say(proven(1)).await.is_err());
    }
}
