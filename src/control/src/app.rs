//! Use cases by noun, without HTTP. Each takes who is asking, and ends in an answer or a [`Problem`].

pub mod problem;

pub use problem::Problem;
