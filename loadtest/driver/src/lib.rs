//! The load driver: loads an HTTP/1.1 address with model calls and measures the calls and the process behind it.
//!
//! It measures one address at a time and knows nothing of what answers there; `table.py` compares.

mod client;
mod events;
mod histogram;
mod load;
mod meter;
mod process;

pub use histogram::Histogram;
pub use load::{Mode, Plan, run};
pub use process::{Reading, read};
