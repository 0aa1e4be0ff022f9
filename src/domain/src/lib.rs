//! The rules of the gateway: what a key is, where a model goes, what a call costs.
//!
//! **Invariant:** this crate does no I/O, is not async, reads no clock and draws no random number:
//! time and chance are arguments. It knows neither JSON nor HTTP. `tests/tidy.rs` holds this.

pub mod admission;
pub mod allotment;
pub mod audit;
pub mod bound;
pub mod breaker;
pub mod catalog;
pub mod hedge;
pub mod id;
pub mod journal;
pub mod key;
pub mod limit;
pub mod load;
pub mod money;
pub mod policy;
pub mod pool;
pub mod record;
pub mod routing;
pub mod time;
pub mod usage;
