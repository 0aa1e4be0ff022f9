//! How often and how much a key or an account may call.
//!
//! [`gcra`] is the rule for one place. Where several edges share a limit each takes parts of it ahead of
//! need ([`slice`](mod@slice), [`slots`]) from what is common to all ([`shared`]); [`allowance`] puts
//! together what one edge knows of one key or account.

pub mod allowance;
pub mod gcra;
pub mod shared;
pub mod slice;
pub mod slots;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::id::{AccountId, KeyId};
use crate::key::{ApiKey, Funding};

/// The tier that applies where none is named.
pub const DEFAULT_TIER: &str = "default";

/// What a key of a prepaid account may do that has no tier, where there is no tier `default` either. Whoever
/// keeps an unmetered account answers for it, and is limited only on demand.
const BUILT_IN: Limits = Limits {
    requests_per_second: Some(10),
    requests_per_minute: None,
    tokens_per_minute: None,
    concurrency: None,
};

/// Limits by the name of their tier.
pub type Tiers = HashMap<Arc<str>, Limits>;

/// Limits of one key or one account. What is `None` is said elsewhere: by a tier, or by nobody, and then
/// it is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Calls that may come at once, and every second after that.
    pub requests_per_second: Option<u32>,
    /// Calls a minute, sustained.
    pub requests_per_minute: Option<u32>,
    /// Input and output tokens a minute, sustained.
    pub tokens_per_minute: Option<u64>,
    /// Calls at the same time.
    pub concurrency: Option<u32>,
}

impl Limits {
    /// Nothing is limited.
    pub const NONE: Self = Self {
        requests_per_second: None,
        requests_per_minute: None,
        tokens_per_minute: None,
        concurrency: None,
    };

    /// These limits, and where they say nothing, those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(other.tokens_per_minute),
            concurrency: self.concurrency.or(other.concurrency),
        }
    }

    /// Whether nothing is limited.
    pub const fn is_none(&self) -> bool {
        self.requests_per_second.is_none()
            && self.requests_per_minute.is_none()
            && self.tokens_per_minute.is_none()
            && self.concurrency.is_none()
    }

    /// What limits `key` alone: its own limits, and what they leave open by its tier, else by the tier
    /// `default`, else by what is built in. A tier that is not configured is as good as none.
    pub fn of_key(key: &ApiKey, tiers: &Tiers) -> Self {
        let terms = &*key.terms;
        let tier = named(terms.tier.as_deref(), tiers).or_else(|| named(Some(DEFAULT_TIER), tiers));
        let built_in = match key.funding {
            Funding::Prepaid => BUILT_IN,
            Funding::Unmetered => Self::NONE,
        };
        terms.limits.or(tier.unwrap_or(built_in))
    }

    /// What limits all keys of the account of `key` together: its own limits, and what they leave open by
    /// its tier.
    pub fn of_account(key: &ApiKey, tiers: &Tiers) -> Self {
        let terms = &*key.terms;
        let tier = named(terms.account_tier.as_deref(), tiers);
        terms.account_limits.or(tier.unwrap_or(Self::NONE))
    }
}

fn named(name: Option<&str>, tiers: &Tiers) -> Option<Limits> {
    // Nobody pays for hashing a name where there are no tiers.
    if tiers.is_empty() { None } else { tiers.get(name?).copied() }
}

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Calls a second.
    RequestsPerSecond,
    /// Calls a minute.
    RequestsPerMinute,
    /// Input and output tokens a minute.
    TokensPerMinute,
    /// Calls at the same time.
    Concurrency,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::RequestsPerSecond,
        Self::RequestsPerMinute,
        Self::TokensPerMinute,
        Self::Concurrency,
    ];
    /// Those that are rates.
    pub const RATES: [Self; 3] =
        [Self::RequestsPerSecond, Self::RequestsPerMinute, Self::TokensPerMinute];

    /// The stable word for metrics and errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests_per_second",
            Self::RequestsPerMinute => "requests_per_minute",
            Self::TokensPerMinute => "tokens_per_minute",
            Self::Concurrency => "concurrency",
        }
    }
}

/// Whom limits are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// One key, and its account.
    Key(KeyId, AccountId),
    /// All keys of an account.
    Account(AccountId),
}

impl Subject {
    /// The account: what is about it or one of its keys is kept in one place.
    pub const fn account(self) -> AccountId {
        match self {
            Self::Key(_, account) | Self::Account(account) => account,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key, _) => key.fmt(f),
            Self::Account(account) => account.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
