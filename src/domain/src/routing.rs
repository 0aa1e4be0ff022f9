//! Which target is tried next: the rule, without the doing.

use crate::catalog::{Route, Target};

/// Why an attempt did not do. Decides what is tried next; never shown as such to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The provider's name has no address, or none that is known.
    Resolve,
    /// No connection within the deadline, or refused.
    Connect,
    /// A pooled connection turned out to be closed before any byte of an answer.
    Stale,
    /// The connection broke before a whole response head.
    Reset,
    /// No response head within the deadline.
    HeadTimeout,
    /// What came was not HTTP, or was framed ambiguously.
    Protocol,
    /// The provider refused our credential (401, 403).
    Credential,
    /// The provider asked us to slow down (429).
    RateLimited,
    /// The provider had a fault (5xx).
    Server,
    /// The provider redirected, which is never followed (3xx).
    Redirect,
    /// The provider refused what the client asked for (other 4xx).
    Request,
}

impl Failure {
    /// Every failure, in the order of their bounded metric labels.
    pub const ALL: [Self; 11] = [
        Self::Resolve,
        Self::Connect,
        Self::Stale,
        Self::Reset,
        Self::HeadTimeout,
        Self::Protocol,
        Self::Credential,
        Self::RateLimited,
        Self::Server,
        Self::Redirect,
        Self::Request,
    ];

    /// The stable word for records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Stale => "stale_connection",
            Self::Reset => "reset",
            Self::HeadTimeout => "head_timeout",
            Self::Protocol => "protocol",
            Self::Credential => "provider_auth",
            Self::RateLimited => "rate_limited",
            Self::Server => "server_error",
            Self::Redirect => "redirect",
            Self::Request => "request_rejected",
        }
    }
}

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
        };
        Route { model: Arc::from("m"), pattern: Arc::from("m"), targets: vec![target] }
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
