//! The supernode: who has what ([`tracker`]), who gets it from whom ([`scheduler`], a pure state machine behind
//! [`hub`]), the seed that asks the origin ([`seed`]), the peers' [`sessions`] and what they are told ([`feeder`],
//! [`bulletin`], [`outbox`]), what outlives a supernode
//! ([`testimony`]), how much is taken on ([`admission`], [`openings`]), how strangers become members ([`enrolment`], [`tokens`]) and
//! who is one ([`membership`]), who can be reached ([`roster`]) and is given something ahead of need ([`preheat`]), by [`schedules`] and by ImagePreheats ([`controller`]) too, what is asked of Kubernetes ([`kubernetes`]), where
//! jobs and schedules are kept (`shelf`) and how their keepers are asked (`clerk`), its HTTP ([`api`]) and what people see of it ([`dashboard`]), the cache in a bucket that several of them share ([`vault`]) and the
//! [`daemon`] around them.

pub mod admission;
pub mod api;
pub mod bulletin;
mod clerk;
pub mod controller;
pub mod daemon;
pub mod dashboard;
pub mod drivers;
pub mod enrolment;
pub mod feeder;
pub mod hub;
pub mod kubernetes;
pub mod membership;
pub mod openings;
pub mod outbox;
pub mod preheat;
pub mod roster;
pub mod scheduler;
pub mod schedules;
pub mod seed;
pub mod sessions;
mod shelf;
pub mod testimony;
pub mod tokens;
pub mod tracker;
pub mod vault;
