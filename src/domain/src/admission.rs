//! Whether a call may go upstream, and if not, why.

use std::sync::Arc;

use crate::catalog::{Catalog, Route, Target};
use crate::key::ApiKey;
use crate::limit::Kind;
use crate::time::Timestamp;

/// Why we said no. Closed, without strings: `proxy::reply` alone knows what a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No key was presented.
    KeyMissing,
    /// What was presented is no key, or one that nobody has, or was revoked. One answer for all.
    KeyUnknown,
    /// The key's time is over.
    KeyExpired,
    /// Two different keys were presented.
    KeyAmbiguous,
    /// What the account has cannot be asked now.
    FundsUnavailable,
    /// No route answers for the model.
    ModelNotFound,
    /// The key may not ask for the model, or none of its providers may answer.
    ModelNotAllowed,
    /// Nobody has said what the model costs, and the key pays.
    ModelNotPriced,
    /// The body names no model.
    ModelMissing,
    /// The body is not one JSON object in UTF-8 within the limits.
    InvalidJson,
    /// A member that decides routing or price occurs twice.
    DuplicateKey,
    /// A member that decides routing or price has a value that it cannot have.
    InvalidValue,
    /// The body is longer than `body_bytes_max`.
    BodyTooLarge,
    /// The body is compressed, or is not JSON by its content type.
    UnsupportedMedia,
    /// The body stopped arriving.
    BodyTimeout,
    /// The request's head is longer than allowed.
    HeadTooLarge,
    /// The request's target is longer than allowed.
    TargetTooLong,
    /// The body is framed in a way that cannot be read.
    BadRequest,
    /// A line of the head is not as it should be.
    HeadMalformed,
    /// Where the body ends can be read in more than one way.
    FramingAmbiguous,
    /// Not exactly one host is named, or one that is none.
    HostInvalid,
    /// The path can be read in more than one way.
    TargetInvalid,
    /// The head stopped arriving.
    HeadTimeout,
    /// Something is expected that nobody gives.
    ExpectationFailed,
    /// No such path.
    PathNotFound,
    /// The path has no such method.
    MethodNotAllowed,
    /// There is no room to take the call on.
    Overloaded,
    /// The key cannot be looked up now.
    KeysUnavailable,
    /// The edge is shutting down.
    ShuttingDown,
    /// More calls a second than the key or its account may make.
    RequestsPerSecond,
    /// More calls a minute.
    RequestsPerMinute,
    /// More tokens a minute.
    TokensPerMinute,
    /// More calls at the same time.
    Concurrency,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 33] = [
        Self::KeyMissing,
        Self::KeyUnknown,
        Self::KeyExpired,
        Self::KeyAmbiguous,
        Self::FundsUnavailable,
        Self::ModelNotFound,
        Self::ModelNotAllowed,
        Self::ModelNotPriced,
        Self::ModelMissing,
        Self::InvalidJson,
        Self::DuplicateKey,
        Self::InvalidValue,
        Self::BodyTooLarge,
        Self::UnsupportedMedia,
        Self::BodyTimeout,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::BadRequest,
        Self::HeadMalformed,
        Self::FramingAmbiguous,
        Self::HostInvalid,
        Self::TargetInvalid,
        Self::HeadTimeout,
        Self::ExpectationFailed,
        Self::PathNotFound,
        Self::MethodNotAllowed,
        Self::Overloaded,
        Self::KeysUnavailable,
        Self::ShuttingDown,
        Self::RequestsPerSecond,
        Self::RequestsPerMinute,
        Self::TokensPerMinute,
        Self::Concurrency,
    ];
}

impl From<Kind> for Refusal {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::RequestsPerSecond => Self::RequestsPerSecond,
            Kind::RequestsPerMinute => Self::RequestsPerMinute,
            Kind::TokensPerMinute => Self::TokensPerMinute,
            Kind::Concurrency => Self::Concurrency,
        }
    }
}

/// Leave to go upstream.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Where to: only targets that the key may use, and if money is counted, only such as have a price.
    pub route: Arc<Route>,
}

/// Decides on a call of `key`, which [`check_key`] has let in, for `model`. What routing, hedging, recovery
/// and lists of models see is what is admitted here, and no more.
pub fn decide(
    key: &ApiKey,
    catalog: &Catalog,
    model: &str,
    now: Timestamp,
) -> Result<Admission, Refusal> {
    let route = catalog.find(model).ok_or(Refusal::ModelNotFound)?;
    let terms = &*key.terms;
    // One that nobody knows (any more) may be a restriction: it allows nothing.
    let policy = terms
        .account_policy
        .as_deref()
        .map(|name| catalog.policy(name).ok_or(Refusal::ModelNotAllowed));
    let policy = policy.transpose()?;
    if !terms.allow_model(model) || policy.is_some_and(|policy| !policy.allow_model(model)) {
        return Err(Refusal::ModelNotAllowed);
    }
    let allowed = |target: &Target| {
        let name = target.provider_name();
        terms.allow_provider(name) && policy.is_none_or(|policy| policy.allow_provider(name))
    };
    let route = only(route, allowed).ok_or(Refusal::ModelNotAllowed)?;
    let priced = |target: &Target| !key.is_metered() || target.prices.at(now).is_some();
    let route = only(route, priced).ok_or(Refusal::ModelNotPriced)?;
    Ok(Admission { route })
}

/// The route with those targets alone that pass; `None` if none does.
fn only(route: Arc<Route>, pass: impl Fn(&Target) -> bool) -> Option<Arc<Route>> {
    if route.targets.iter().all(&pass) {
        return Some(route);
    }
    let targets: Vec<_> = route.targets.iter().filter(|target| pass(target)).cloned().collect();
    (!targets.is_empty()).then(|| {
        Arc::new(Route {
            model: Arc::clone(&route.model),
            pattern: Arc::clone(&route.pattern),
            targets,
            policy: Arc::clone(&route.policy),
        })
    })
}

/// Whether a known key still works.
pub fn check_key(key: &ApiKey, now: Timestamp) -> Result<(), Refusal> {
    match key.expires {
        Some(end) if end <= now => Err(Refusal::KeyExpired),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
