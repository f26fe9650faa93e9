//! How a clerk is asked: a task that alone keeps things ([`crate::preheat`]'s jobs, [`crate::schedules`]), and hears one order after
//! another.

use tokio::sync::{mpsc, oneshot};

/// The clerk's answer; none while the supernode shuts down.
pub(crate) async fn ask<O, T>(
    orders: &mpsc::Sender<O>,
    order: impl FnOnce(oneshot::Sender<T>) -> O,
) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    orders.send(order(sender)).await.ok()?;
    answer.await.ok()
}
