//! Images at nodes before anybody wants them.

mod harbor;
mod notifications;
