//! What each command does. Each asks the gateway and says what came of it, or why nothing did.

pub(crate) mod account;
pub(crate) mod inference;
pub(crate) mod keys;
pub(crate) mod smoke;
