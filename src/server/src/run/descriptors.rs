//! File descriptors: as many as the system permits, and none of them promised twice. A process without one
//! cannot accept, connect, open its database or answer its operator.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept free for stores, operators' pages, look-ups, files, and connections that are just being closed.
const RESERVE: usize = 64;

/// What there are descriptors for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// Connections of clients at once.
    pub(super) connections_max: usize,
    /// Calls at once: each may take a connection to a provider.
    pub(super) calls_max: usize,
}

impl Descriptors {
    /// Raises the limit to what the system permits, and shares out what there are.
    pub(super) fn find(connections_max: usize, calls_max: usize) -> Self {
        let all = raise();
        let shared = share(all, connections_max, calls_max);
        if shared.connections_max < connections_max || shared.calls_max < calls_max {
            tracing::warn!(
                descriptors = all,
                connections_max = shared.connections_max,
                calls_max = shared.calls_max,
                "there are too few file descriptors for limits.connections_max and limits.calls_max: raise \
                 the limit (LimitNOFILE, ulimit -Hn), or lower these"
            );
        }
        shared
    }
}

/// Descriptors that the process may have, after asking for all that it may ask for.
fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Half for each side where there is not enough, and for clients what providers do not need.
fn share(all: usize, connections_max: usize, calls_max: usize) -> Descriptors {
    let all = all.saturating_sub(RESERVE);
    let providers = calls_max.min(all / 2);
    let connections_max = connections_max.min(all.saturating_sub(providers)).max(1);
    Descriptors { connections_max, calls_max: all.saturating_sub(connections_max).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_there() {
        let shared = |all, connections, calls| {
            let shared = share(all, connections, calls);
            (shared.connections_max, shared.calls_max)
        };
        // Enough: all that was asked for, and room for a later configuration's calls.
        assert_eq!(shared(100_064, 10_000, 10_000), (10_000, 90_000));
        assert_eq!(shared(20_000, 10_000, 10_000), (9_968, 9_968));
        assert_eq!(shared(1_024, 10_000, 100), (860, 100));
        assert_eq!(shared(1_024, 100, 10_000), (100, 860));
        // The smallest edge still serves.
        assert_eq!(shared(64, 10_000, 10_000), (1, 1));
        for all in [64, 100, 1_024, 65_536] {
            let (connections, calls) = shared(all, 10_000, 10_000);
            assert!(connections + calls + RESERVE <= all.max(RESERVE + 2), "{all}");
        }
    }

    #[test]
    fn the_limit_is_at_least_what_it_was() {
        assert!(raise() > RESERVE);
    }
}
