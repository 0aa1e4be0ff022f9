//! A record as JSON, where it is on its way into SQL: in the journal, and in the hot store's events.

pub(crate) mod read;
mod words;
pub(crate) mod write;
