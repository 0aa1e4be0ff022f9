//! A record read back from JSON. Members that a newer program adds are passed over, and words of it that this one does
//! not know have a stand-in: the money of a call is due all the same.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};
use tokenroute_domain::id::{AccountId, CallId, KeyId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Period, PurseId};
use tokenroute_domain::record::{Attempt, Endpoint, Outcome, Record};
use tokenroute_domain::routing::Why;
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};

use super::words;

/// An identifier as text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id<T>(pub(crate) T);

macro_rules! read_id {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for Id<$name> {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(from)?;
                $name::parse(&text).map(Self).ok_or_else(|| de::Error::custom("no identifier"))
            }
        }
    )*};
}

read_id!(CallId, KeyId, AccountId);

/// Counts in the order of the members of [`Usage`].
pub(crate) type StoredUsage = [u64; 10];

/// The counts by their names.
pub(crate) const fn read_usage(stored: StoredUsage) -> Usage {
    let [
        input,
        input_cache_read,
        input_cache_write,
        input_cache_write_long,
        input_audio,
        input_image,
        output,
        output_reasoning,
        output_audio,
        output_image,
    ] = stored;
    Usage {
        input,
        input_cache_read,
        input_cache_write,
        input_cache_write_long,
        input_audio,
        input_image,
        output,
        output_reasoning,
        output_audio,
        output_image,
    }
}

/// A purse: key, period, number.
#[derive(Deserialize)]
pub(crate) struct StoredPurse<'a>(Id<KeyId>, #[serde(borrow)] Cow<'a, str>, u32);

/// Leaves out those of a newer program's periods: the money is due all the same.
pub(crate) fn read_purses(stored: Vec<StoredPurse<'_>>) -> Vec<PurseId> {
    let read = |StoredPurse(key, period, number): StoredPurse<'_>| {
        Some(PurseId { key: key.0, period: Period::parse(&period)?, number })
    };
    stored.into_iter().filter_map(read).collect()
}

/// The endpoint of that word.
pub(crate) fn endpoint(word: &str) -> Endpoint {
    Endpoint::ALL.into_iter().find(|one| one.as_str() == word).unwrap_or(Endpoint::Unknown)
}

/// See [`Record`].
#[derive(Deserialize)]
pub(crate) struct StoredRecord<'a> {
    call: Id<CallId>,
    started: u64,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    key: Option<Id<KeyId>>,
    account: Option<Id<AccountId>>,
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    target: Option<Cow<'a, str>>,
    #[serde(borrow)]
    attempts: Vec<StoredAttempt<'a>>,
    status: u16,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    streamed: bool,
    usage: StoredUsage,
    #[serde(borrow)]
    usage_source: Cow<'a, str>,
    cost: i64,
    charge: i64,
    #[serde(borrow)]
    price_version: Option<Cow<'a, str>>,
    house_cost: i64,
    latency_micros: u64,
    first_token_micros: Option<u64>,
}

/// See [`Attempt`].
#[derive(Deserialize)]
struct StoredAttempt<'a> {
    #[serde(borrow)]
    target: Cow<'a, str>,
    #[serde(borrow)]
    why: Cow<'a, str>,
    #[serde(borrow)]
    result: Cow<'a, str>,
    status: Option<u16>,
    micros: u64,
    output_tokens: u64,
    cost: i64,
    house_cost: i64,
}

impl From<StoredRecord<'_>> for Record {
    fn from(stored: StoredRecord<'_>) -> Self {
        let outcome = Outcome::ALL.into_iter().find(|one| one.as_str() == stored.outcome);
        Self {
            call: stored.call.0,
            started: Timestamp(stored.started),
            endpoint: endpoint(&stored.endpoint),
            key: stored.key.map(|id| id.0),
            account: stored.account.map(|id| id.0),
            model: stored.model.map(Arc::from),
            target: stored.target.map(Arc::from),
            attempts: stored.attempts.into_iter().map(Attempt::from).collect(),
            status: stored.status,
            // A newer program's way to end: it is no answer, or it would have that word.
            outcome: outcome.unwrap_or(Outcome::Failed),
            error: stored.error.map(|word| words::keep(&word)),
            streamed: stored.streamed,
            usage: read_usage(stored.usage),
            usage_source: UsageSource::parse(&stored.usage_source)
                .unwrap_or(UsageSource::Estimated),
            cost: NanoUsd(stored.cost),
            charge: NanoUsd(stored.charge),
            price_version: stored.price_version.map(Arc::from),
            house_cost: NanoUsd(stored.house_cost),
            latency_micros: stored.latency_micros,
            first_token_micros: stored.first_token_micros,
        }
    }
}

impl From<StoredAttempt<'_>> for Attempt {
    fn from(stored: StoredAttempt<'_>) -> Self {
        let why = Why::ALL.into_iter().find(|one| one.as_str() == stored.why);
        Self {
            target: Arc::from(stored.target),
            why: why.unwrap_or(Why::Chosen),
            result: words::keep(&stored.result),
            status: stored.status,
            micros: stored.micros,
            output_tokens: stored.output_tokens,
            cost: NanoUsd(stored.cost),
            house_cost: NanoUsd(stored.house_cost),
        }
    }
}
