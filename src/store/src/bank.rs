//! Who lends accounts' money to edges and settles what they spend: SQL alone, or Redis in front of it.

pub(crate) mod books;
pub(crate) mod redis;
pub(crate) mod sql;
