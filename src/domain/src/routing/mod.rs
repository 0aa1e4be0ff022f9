//! Which target is tried next: the rule, without the doing.

mod failure;
mod policy;

pub use failure::{Blame, Failure, Why};
pub use policy::{Affinity, Balance, Hedge, OnBreak, Patience, Policy};

use crate::catalog::{Route, Target};

/// How the last attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// Why it did not do.
    pub failure: Failure,
    /// Whether the request can be sent again from its first byte.
    pub replayable: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Try this target.
    Try {
        /// Which one.
        target: &'a Target,
        /// Whether a pooled connection may be used.
        pooled: bool,
    },
    /// No target is left; the last failure is the answer.
    GiveUp,
}

/// The next step for a call that has made `attempts` tries so far, the last of which went as `last`.
///
/// The first target of the route answers. A request that met a stale pooled connection was read by
/// nobody, so it is sent once more to the same target over a new connection.
pub fn next(route: &Route, attempts: u32, last: Option<Last>) -> Step<'_> {
    let Some(first) = route.targets.first() else { return Step::GiveUp };
    match last {
        None => Step::Try { target: first, pooled: true },
        Some(Last { failure: Failure::Stale, replayable: true }) if attempts == 1 => {
            Step::Try { target: first, pooled: false }
        }
        Some(_) => Step::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::ProviderIndex;

    fn route() -> Route {
        let target = Target {
            name: Arc::from("p/m"),
            provider: ProviderIndex(0),
            upstream_model: Arc::from("m"),
            price: None,
            weight: 1,
            rank: 0,
            slot: crate::catalog::TargetSlot(0),
            prefill: false,
            context_tokens: None,
        };
        Route {
            model: Arc::from("m"),
            pattern: Arc::from("m"),
            targets: vec![target],
            policy: Arc::default(),
        }
    }

    #[test]
    fn a_stale_connection_is_retried_once_on_a_new_one() {
        let route = route();
        let stale = Last { failure: Failure::Stale, replayable: true };
        assert!(matches!(next(&route, 0, None), Step::Try { pooled: true, .. }));
        assert!(matches!(next(&route, 1, Some(stale)), Step::Try { pooled: false, .. }));
        assert_eq!(next(&route, 2, Some(stale)), Step::GiveUp);
    }

    #[test]
    fn what_cannot_be_sent_again_is_not_tried_again() {
        let route = route();
        let gone = Last { failure: Failure::Stale, replayable: false };
        assert_eq!(next(&route, 1, Some(gone)), Step::GiveUp);
    }

    #[test]
    fn no_other_failure_is_tried_again() {
        let route = route();
        for failure in Failure::ALL.into_iter().filter(|failure| *failure != Failure::Stale) {
            assert_eq!(next(&route, 1, Some(Last { failure, replayable: true })), Step::GiveUp);
        }
    }
}
