//! The exchange of pieces between two nodes: [`select`] decides which piece to ask of whom, [`reveal`] which piece
//! to show to whom (both pure), [`fetch`] and [`serve`] move a piece, [`link`] carries the piece sets, [`pool`]
//! keeps one connection a neighbour, [`guests`] sees that no neighbour takes what is there for all, [`line`] what the
//! tasks of this node have under way together.

pub mod courtesy;
pub mod fetch;
pub mod fuzz;
pub mod guests;
pub mod line;
pub mod link;
pub mod pool;
pub mod reveal;
pub mod select;
pub mod serve;
