//! What clients and providers say, bytes in and facts out.
//!
//! **Invariant:** this crate does no I/O, is not async, reaches no HTTP library and builds no tree of JSON.
//! It never panics, whatever the bytes.

pub mod envelope;
pub mod head;
pub mod meter;
pub mod request;
pub mod sse;
pub mod value;
mod words;
