//! The data plane on Pingora: the story of a call, from its head to its record.
//!
//! **Invariants:** nothing here waits for a database; nothing imports `store` (what is needed of it
//! is declared in [`keys`] and [`outbox`]); only [`reply`] knows HTTP status codes.
//!
//! Read in this order: `gateway` tells the story, the modules after it are its stages.

mod accept;
mod account;
pub mod admin;
pub mod bank;
pub mod books;
mod call;
pub mod clock;
pub mod connections;
mod dispatch;
pub mod door;
pub mod egress;
mod estimate;
mod floods;
pub mod frame;
mod funds;
pub mod gateway;
mod gather;
pub mod governor;
mod holders;
pub mod keys;
mod leg;
pub mod lifecycle;
pub mod limits;
pub mod listener;
mod listing;
pub mod metrics;
mod open;
pub mod outbox;
mod patience;
pub mod probe;
mod race;
mod recover;
mod relay;
mod reply;
mod request;
pub mod resolve;
pub mod snapshot;
pub mod targets;
mod upstream;
mod words;

pub use gateway::Gateway;
