//! Use cases by noun, without HTTP. Each takes who is asking, and ends in an answer or a [`Problem`].

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod balance;
pub mod credit;
pub(crate) mod discovery;
pub(crate) mod idempotency;
pub mod invitations;
pub(crate) mod keys;
pub(crate) mod logins;
pub(crate) mod models;
pub(crate) mod page;
pub mod problem;
pub(crate) mod requests;
pub(crate) mod settings;
pub(crate) mod terms;
pub(crate) mod text;
pub(crate) mod topup;
pub(crate) mod usage;
pub(crate) mod users;

pub use problem::Problem;
