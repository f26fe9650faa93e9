//! The connection of a peer's present session, for questions that are put to the supernode beside it. Kept by
//! [`super::remote`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::transport::{CONTROL_PRIORITY, Connection, TransportError};
use common::wire::codec::{self, CodecError, FrameReader};
use common::wire::exchange::Opening;
use common::wire::inquiry::{Inquired, Inquiry};
use common::wire::swarm::Failure;
use tokio::time::timeout;

/// The supernode asks an origin for so long at most before this node does it itself: a little longer than it tries.
const INQUIRY_TIMEOUT: Duration = Duration::from_secs(10);

/// The connection, if there is a session.
#[derive(Default)]
pub(super) struct Line(Mutex<Option<Connection>>);

/// Why a question could not be put.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

// === impl Line ===

impl Line {
    /// A session has begun, or ended.
    pub(super) fn set(&self, connection: Option<Connection>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Has the supernode ask; `None` when it cannot be asked to.
    pub(super) async fn inquire(&self, inquiry: Inquiry) -> Option<Inquired> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        match timeout(INQUIRY_TIMEOUT, inquire(&connection, inquiry)).await {
            Ok(Ok(inquired)) => Some(inquired),
            Ok(Err(error)) => {
                tracing::debug!("the supernode does not ask for us: {error}");
                None
            }
            // It would take as long for the next question.
            Err(_) => Some(Inquired::Unable(Failure::Unavailable("the supernode takes too long".to_owned()))),
        }
    }
}

async fn inquire(connection: &Connection, inquiry: Inquiry) -> Result<Inquired, LineError> {
    let (mut send, receive) = connection.open().await?;
    let _ = send.set_priority(CONTROL_PRIORITY);
    codec::send(&mut send, &Opening::Inquiry(inquiry)).await?;
    Ok(FrameReader::new(receive).expect::<Inquired>().await?)
}
