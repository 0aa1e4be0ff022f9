//! How what the hot store has done comes into SQL: every charge, record and withdrawal is an event in a
//! stream of its shard, and leaves it only once SQL has it.
//!
//! **Invariant:** an event is removed after the transaction that holds it was committed, never before; SQL
//! knows a call that it has, so an event that is read twice counts once.

pub(crate) mod event;
pub(crate) mod text;
mod worker;

pub(crate) use worker::{Reading, SEEN_KEPT, Worker, WorkerFailure};
