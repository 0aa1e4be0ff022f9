//! Use cases by noun, without HTTP. Each takes who is asking, and ends in an answer or a [`Problem`].

pub(crate) mod discovery;
pub mod problem;
pub(crate) mod users;

pub use problem::Problem;
