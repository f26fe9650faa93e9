//! Why a task cannot be had. One failure is told to every client that waits for the task, so the type is cheap to
//! clone; the proxy turns it into an HTTP answer, `get` into an exit code.

use std::sync::Arc;

use common::task::{OriginFailure, TaskId};

use crate::origin::OriginError;
use crate::store::StoreError;

/// Why a task cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The origin's own answer, to be passed on as it came.
    #[error("{0}")]
    Origin(OriginFailure),
    /// The configuration forbids this origin.
    #[error("{0}")]
    Forbidden(String),
    /// The origin cannot be reached, or says things that cannot be used.
    #[error(transparent)]
    Unavailable(Arc<OriginError>),
    /// The supernode could not get it, and neither could this node.
    #[error("{0}")]
    Swarm(String),
    /// The bytes do not have the digest that they were asked by.
    #[error(
        "the content of task {task} does not have its digest: the digest is wrong or the origin's copy is damaged; nothing of it was kept"
    )]
    Poisoned {
        /// Which task.
        task: TaskId,
    },
    /// The disk or the quota is full: the caller may stream from the origin without keeping.
    #[error(transparent)]
    StoreFull(Arc<StoreError>),
    /// The store failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// This node is shutting down.
    #[error("longshore is shutting down")]
    Closing,
}

// === impl FetchError ===

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        let full = error.is_full();
        let error = Arc::new(error);
        if full { Self::StoreFull(error) } else { Self::Store(error) }
    }
}

impl From<OriginError> for FetchError {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::Answer(failure) => Self::Origin(failure),
            OriginError::Forbidden { .. } => Self::Forbidden(error.to_string()),
            other => Self::Unavailable(Arc::new(other)),
        }
    }
}
