//! Who keeps accounts: Redis in front of SQL.

pub mod books;
pub mod redis;

use std::pin::Pin;

/// A future of a trait that is used as an object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
