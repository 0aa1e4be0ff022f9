//! What a route's operator has decided about its attempts.

use std::time::Duration;

/// How a route tries its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most attempts of a call, the first included and a silent retry of a stale connection not.
    pub attempts_max: u32,
    /// No attempt begins later than this after the call.
    pub attempts_within: Duration,
    /// Longest that a call waits in all for targets that have said when to come back, if there is
    /// nothing better.
    pub wait_max: Duration,
    /// What becomes of an answer that breaks off after its first byte went to the client.
    pub on_break: OnBreak,
    /// How a target is chosen among equals.
    pub balance: Balance,
    /// What calls are kept together by.
    pub affinity: Affinity,
    /// Whether a second target is tried when the first is late; `None`: never.
    pub hedge: Option<Hedge>,
    /// Deadlines that take the place of the provider's.
    pub patience: Patience,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            attempts_within: Duration::from_mins(5),
            wait_max: Duration::from_secs(3),
            on_break: OnBreak::Continue,
            balance: Balance::Weighted,
            affinity: Affinity::None,
            hedge: None,
            patience: Patience::default(),
        }
    }
}

/// What becomes of an answer that breaks off after its first byte went to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBreak {
    /// A following target goes on with it, if one can; else as for `Error`.
    Continue,
    /// It ends in an honest error.
    Error,
}

/// How a target is chosen among those of equal rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// By chance, in proportion to the weights.
    Weighted,
    /// The less loaded of two that are drawn by weight.
    LeastLoaded,
}

/// What calls are kept together by: a preference, never a veto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// By nothing.
    None,
    /// By the beginning of the prompt, for the sake of the provider's prompt cache.
    Prefix,
}

/// When a second target is tried while the first has not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// Of the learned times to the first token, how many in a thousand are shorter than the wait.
    pub quantile_permille: u32,
    /// Most hedged calls, in a thousand.
    pub share_permille: u32,
    /// The least that is waited, whatever was learned.
    pub wait_min: Duration,
}

/// Deadlines of a route that take the place of the provider's, where they are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// TCP and TLS connect.
    pub connect: Option<Duration>,
    /// From the end of the request to the response head.
    pub head: Option<Duration>,
    /// From the end of the request to the first semantic token.
    pub first_token: Option<Duration>,
    /// Between two semantic events.
    pub stall: Option<Duration>,
    /// The whole call.
    pub total: Option<Duration>,
}
