//! Whether a call may go upstream, and if not, why.

use std::sync::Arc;

use crate::catalog::{Catalog, Route};
use crate::key::{ApiKey, Funding};
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
    /// The request is framed or addressed ambiguously.
    BadRequest,
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
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 21] = [
        Self::KeyMissing,
        Self::KeyUnknown,
        Self::KeyExpired,
        Self::KeyAmbiguous,
        Self::FundsUnavailable,
        Self::ModelNotFound,
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
        Self::PathNotFound,
        Self::MethodNotAllowed,
        Self::Overloaded,
        Self::KeysUnavailable,
        Self::ShuttingDown,
    ];
}

/// Leave to go upstream.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Where to.
    pub route: Arc<Route>,
}

/// Decides on a call of `key`, which [`check_key`] has let in, for `model`.
pub fn decide(key: &ApiKey, catalog: &Catalog, model: &str) -> Result<Admission, Refusal> {
    let route = catalog.find(model).ok_or(Refusal::ModelNotFound)?;
    match key.funding {
        Funding::Unmetered => Ok(Admission { route }),
        // A prepaid balance starts at zero and nothing can be added to it yet.
        Funding::Prepaid => Err(Refusal::FundsUnavailable),
    }
}

/// Whether a known key still works.
pub fn check_key(key: &ApiKey, now: Timestamp) -> Result<(), Refusal> {
    match key.expires {
        Some(end) if end <= now => Err(Refusal::KeyExpired),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AccountId, KeyId};

    fn key(funding: Funding, expires: Option<Timestamp>) -> ApiKey {
        let now = Timestamp(0);
        ApiKey {
            id: KeyId::new(now, 1),
            account: AccountId::new(now, 1),
            funding,
            expires,
            terms: Arc::default(),
        }
    }

    #[test]
    fn refuses_for_the_first_reason_that_holds() {
        let catalog = Catalog::default();
        let now = Timestamp(10);
        let decide = |key| decide(&key, &catalog, "m").map(|_| ()).unwrap_err();
        assert_eq!(check_key(&key(Funding::Unmetered, Some(now)), now), Err(Refusal::KeyExpired));
        assert_eq!(check_key(&key(Funding::Unmetered, Some(Timestamp(11))), now), Ok(()));
        assert_eq!(decide(key(Funding::Unmetered, None)), Refusal::ModelNotFound);
    }
}
