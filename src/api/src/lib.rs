//! The management API's types: what control answers and what the command line reads.
//!
//! serde and nothing else. Names and shapes are the contract with whoever wrote a client: a field may be
//! added, none is renamed or taken away. Money is a decimal string in USD, times are RFC 3339 in UTC.
//! With the feature `schema` each type tells what it looks like, for the OpenAPI document.

pub mod accounts;
pub mod audit;
pub mod auth;
pub mod balance;
pub mod error;
pub mod keys;
pub mod me;
pub mod models;
pub mod requests;
pub mod settings;
pub mod topup;
pub mod usage;
pub mod users;
