//! Who lends accounts' money to edges and settles what they spend.

pub(crate) mod sql;
