//! What of a call outlives the process that serves it: that it goes upstream, how far it has come, and how
//! it ended. A restart settles from the last of these.

use std::sync::Arc;

use crate::id::{AccountId, CallId, KeyId};
use crate::money::NanoUsd;
use crate::pool::PurseId;
use crate::record::{Endpoint, Record};
use crate::time::Timestamp;
use crate::usage::Usage;

/// What a restart needs to settle a call that its process did not live to settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Which call.
    pub call: CallId,
    /// When its head had been read.
    pub started: Timestamp,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Whose key.
    pub key: KeyId,
    /// Who pays.
    pub account: AccountId,
    /// Whether its account is charged. If not, it only counts under its key's ceilings.
    pub prepaid: bool,
    /// The model's name in the route table.
    pub model: Arc<str>,
    /// What is held for it.
    pub hold: NanoUsd,
    /// The ceilings that the hold is placed under.
    pub purses: Vec<PurseId>,
}

/// How far a call has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which call.
    pub call: CallId,
    /// Tokens by kind so far.
    pub usage: Usage,
    /// What they cost.
    pub cost: NanoUsd,
    /// The target that answers.
    pub target: Arc<str>,
    /// Whether the answer is streamed.
    pub streamed: bool,
    /// Whether the provider has reported the usage: nothing more will come.
    pub reported: bool,
}

/// A call that is over, on its way to the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What is kept of it.
    pub record: Arc<Record>,
    /// What it is to be charged and under which ceilings, if money is in it.
    pub due: Option<Due>,
}

/// What a call that is over is to be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// How much; the record has the true cost.
    pub charge: NanoUsd,
    /// The ceilings that its hold was placed under.
    pub purses: Vec<PurseId>,
}
