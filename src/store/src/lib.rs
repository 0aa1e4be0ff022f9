//! What outlives the process: keys and records in SQL, and a cache of keys that edges share in Redis.
//!
//! SQL is the truth; Redis only caches and carries messages, and nothing depends on its being there.
//! **Invariant:** "not found" is `None` and is said only by a store that was read; a store that cannot
//! be read is an [`Error`], so that an outage never looks like an unknown key.
//! This crate knows neither HTTP nor configuration, and it reads no clock: time is an argument.

mod bank;
mod directory;
mod epoch;
mod error;
mod journal;
mod limit_store;
mod posting;
mod record_text;
mod redis_cache;
mod sql;
mod target_hints;
mod terms;
pub mod vault;

pub use bank::books::{Books, Later, Lead, Withdrawal};
pub use bank::redis::{BankOptions, Banked, RedisBank, Withdrawn};
pub use bank::sql::SqlBank;
pub use directory::counts::{Counts, Event};
pub use directory::{Cached, Directory, DirectoryOptions, Unavailable};
pub use epoch::{Leader, audit};
pub use error::Error;
pub use journal::orphan::Orphan;
pub use journal::replay::Replay;
pub use journal::{Journal, JournalGauges, JournalOptions, Unwritable};
pub use limit_store::LimitStore;
pub use redis_cache::{BadAddress, RedisCache, RedisFailure};
pub use sql::Database;
pub use sql::accounts::{Account, AccountTerms};
pub use sql::audit::{Acting, AuditLine, Chain};
pub use sql::escrow::{Escrow, EscrowMove, HotEpoch, Leadership};
pub use sql::findings::{Finding, StoredFinding, finding_kinds};
pub use sql::grants::{NewDevice, NewRefresh, Polled, Rotated};
pub use sql::idempotency::{Ask, Claim};
pub use sql::issuer::{Digest, IssuerKey, LocalUser, Redeemed};
pub use sql::keys::{Added, KeyChange, KeyListing, NewKey, Room, Rotation};
pub use sql::ledger::{Balance, LedgerLine, Moved, Movement, Pocket};
pub use sql::posting::PostedCall;
pub use sql::records::{StoredAttempt, StoredRecord};
pub use sql::search::RecordFilter;
pub use sql::settings::{
    SealedCredential, Setting, SettingChange, SettingKind, SettingVersion, StoredSettings,
};
pub use sql::usage::UsageRow;
pub use sql::users::{Role, User};
pub use sql::version::SchemaVersion;
pub use target_hints::TargetHints;
