//! Why a use case was not done. Closed: each face of this plane matches all of it.

use std::time::Duration;

use tokenroute_api::error::Flaw;

/// Why not. Words are for people and say what to do; `reason` is for programs and never changes.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// What was asked is not well formed.
    #[error("{message}")]
    Invalid {
        /// A stable word.
        reason: &'static str,
        /// The field that is wrong, if it is one.
        param: Option<&'static str>,
        /// What it should be.
        message: String,
    },
    /// Nobody, or somebody whose word is not good.
    #[error("{message}")]
    Unauthenticated {
        /// A stable word.
        reason: &'static str,
        /// What to present.
        message: String,
    },
    /// Somebody, who may not.
    #[error("{message}")]
    Forbidden {
        /// A stable word.
        reason: &'static str,
        /// Who may.
        message: String,
    },
    /// It is not there, or is another's: the two are told alike.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It cannot be done as things are.
    #[error("{message}")]
    Conflict {
        /// A stable word.
        reason: &'static str,
        /// What stands in the way.
        message: String,
    },
    /// Settings that do not fit together.
    #[error("{}", in_words(.flaws))]
    Flawed {
        /// A stable word.
        reason: &'static str,
        /// Everything that is wrong.
        flaws: Vec<Flaw>,
    },
    /// Too often.
    #[error("too many requests: try again in {} s", .retry_after.as_secs())]
    TooMany {
        /// When to try again.
        retry_after: Duration,
    },
    /// A part that this needs is not set up.
    #[error("{message}")]
    NotConfigured {
        /// A stable word.
        reason: &'static str,
        /// What to configure.
        message: String,
    },
    /// A store or an issuer cannot be reached.
    #[error("it cannot be done now: try again in a moment")]
    Unavailable,
    /// A defect of ours, or of what is stored. The log says more.
    #[error("an internal error: see the server's log")]
    Internal,
}

/// The first thing that is wrong, and how many there are.
fn in_words(flaws: &[Flaw]) -> String {
    let first =
        flaws.first().map_or_else(String::new, |one| format!("{}: {}", one.path, one.message));
    match flaws.len() {
        0 | 1 => first,
        count => format!("{first} (the first of {count} problems)"),
    }
}

impl From<tokenroute_store::Error> for Problem {
    fn from(error: tokenroute_store::Error) -> Self {
        match error {
            tokenroute_store::Error::Unavailable(_) => {
                tracing::warn!(%error, "the database cannot be reached");
                Self::Unavailable
            }
            tokenroute_store::Error::Corrupt(_) => {
                tracing::error!(%error, "the database holds what cannot be read");
                Self::Internal
            }
        }
    }
}
