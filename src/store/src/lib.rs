//! What outlives the process: keys and records in SQL, and a cache of keys that edges share in Redis.
//!
//! SQL is the truth; Redis only caches and carries messages, and nothing depends on its being there.
//! **Invariant:** "not found" is `None` and is said only by a store that was read; a store that cannot
//! be read is an [`Error`], so that an outage never looks like an unknown key.
//! This crate knows neither HTTP nor configuration, and it reads no clock: time is an argument.

pub mod bank;
mod directory;
pub mod epoch;
mod error;
mod posting;
mod record_writer;
mod redis_cache;
mod sql;
mod target_hints;

pub use directory::counts::{Counts, Event};
pub use directory::{Cached, Directory, DirectoryOptions, Unavailable};
pub use error::Error;
pub use record_writer::{RecordWriter, WriterGauges};
pub use redis_cache::{BadAddress, RedisCache, RedisFailure};
pub use sql::Database;
pub use sql::keys::{KeyChange, KeyListing, NewKey};
pub use sql::records::{StoredAttempt, StoredRecord};
pub use target_hints::TargetHints;
