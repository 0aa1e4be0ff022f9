//! Who may ask what: one type for each, so that an endpoint says by its arguments who may ask it.
//!
//! Each is found out from the request's head. What a person presents and what a partner presents are never
//! taken together, and never one for the other.

use axum::extract::FromRequestParts;
use axum::http::request;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{self, ApiKey, RawKey};
use tokenroute_store::{Role, User};

use crate::Parts;
use crate::app::{Problem, users};
use crate::http::error::Refused;

/// Where a partner's secret is.
pub(crate) const SECRET_HEADER: &str = "x-internal-secret";

/// A person who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// The user.
    pub(crate) user: User,
    /// Whose money the user spends.
    pub(crate) account: AccountId,
    /// Whether the user may administer.
    pub(crate) is_admin: bool,
}

impl Person {
    /// How the audit log calls it.
    pub(crate) fn actor(&self) -> String {
        format!("user {}", self.user.id)
    }
}

/// A person, or a program with an API key: what both may read is the account's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A person, who sees all of the account.
    Person(Person),
    /// An API key, which sees its own part.
    Key {
        /// The account that pays.
        account: AccountId,
        /// The key.
        key: KeyId,
    },
}

/// A person who may administer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admin(pub(crate) Person);

/// Who has one of the internal secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partner {
    /// The secret's name.
    pub(crate) name: String,
}

impl Partner {
    /// How the audit log calls it.
    pub(crate) fn actor(&self) -> String {
        format!("partner {}", self.name)
    }
}

/// What a request presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presented<'a> {
    /// Nothing.
    Nothing,
    /// `Authorization: Bearer …`
    Bearer(&'a str),
    /// `X-Internal-Secret: …`
    Secret(&'a [u8]),
}

impl<'a> Presented<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Problem> {
        let mut bearers = headers.get_all(header::AUTHORIZATION).iter();
        let mut secrets = headers.get_all(SECRET_HEADER).iter();
        match (bearers.next(), secrets.next(), bearers.next().is_some() || secrets.next().is_some())
        {
            (None, None, _) => Ok(Self::Nothing),
            (Some(value), None, false) => {
                let text = value.to_str().ok();
                let bearer =
                    text.and_then(|text| text.split_once(' ')).filter(|(scheme, token)| {
                        scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()
                    });
                bearer.map(|(_, token)| Self::Bearer(token.trim())).ok_or_else(|| {
                    unauthenticated("token_malformed", "send it as 'Authorization: Bearer …'")
                })
            }
            (None, Some(value), false) => Ok(Self::Secret(value.as_bytes())),
            (Some(_), Some(_), _) | (_, _, true) => Err(unauthenticated(
                "credentials_ambiguous",
                "send one credential: either Authorization or X-Internal-Secret, once",
            )),
        }
    }
}

fn unauthenticated(reason: &'static str, message: &str) -> Problem {
    Problem::Unauthenticated { reason, message: message.to_owned() }
}

fn forbidden(reason: &'static str, message: &str) -> Problem {
    Problem::Forbidden { reason, message: message.to_owned() }
}

/// The user whom a bearer token is of.
async fn person(parts: &Parts, token: &str) -> Result<Person, Problem> {
    let claims = parts.identity.claims(parts, token).await?;
    let user = users::recognise(parts, &claims, token).await?;
    if !user.is_active {
        return Err(forbidden("user_disabled", "this user is disabled: ask an administrator"));
    }
    let is_admin = user.role == Role::Admin || parts.settings.admins.contains(&user.subject);
    Ok(Person { account: user.account, user, is_admin })
}

/// The key that a bearer is, unless it is unknown, revoked or expired.
async fn api_key(parts: &Parts, bearer: &str) -> Result<ApiKey, Problem> {
    let unknown = || {
        let message =
            "the API key is not valid: check that it is complete and has not been revoked";
        unauthenticated("key_unknown", message)
    };
    let raw = RawKey::parse(bearer.as_bytes()).map_err(|_unsaid| unknown())?;
    let found = parts.database.find_key(&parts.pepper.hash(&raw)).await?.ok_or_else(unknown)?;
    if found.expires.is_some_and(|expires| expires <= (parts.now)()) {
        return Err(unauthenticated("key_expired", "the API key has expired: create a new one"));
    }
    Ok(found)
}

fn is_key(bearer: &str) -> bool {
    bearer.starts_with(key::PREFIX)
}

/// Who has this secret. All are compared, whole, whichever it is: time tells nothing.
fn partner(parts: &Parts, secret: &[u8]) -> Option<Partner> {
    let hash: [u8; 32] = Sha256::digest(secret).into();
    let (mut found, mut place) = (Choice::from(0), 0_u32);
    for (number, known) in (0_u32..).zip(&parts.settings.internal_secrets) {
        let same = known.sha256.ct_eq(&hash);
        place.conditional_assign(&number, same);
        found |= same;
    }
    let known = parts.settings.internal_secrets.get(usize::try_from(place).ok()?)?;
    bool::from(found).then(|| Partner { name: known.name.clone() })
}

impl FromRequestParts<Parts> for Person {
    type Rejection = Refused;

    async fn from_request_parts(
        request: &mut request::Parts,
        parts: &Parts,
    ) -> Result<Self, Refused> {
        match Presented::of(&request.headers)? {
            Presented::Bearer(bearer) if is_key(bearer) => {
                api_key(parts, bearer).await?;
                Err(forbidden("key_not_allowed", "an API key cannot do this: log in"))?
            }
            Presented::Bearer(token) => Ok(person(parts, token).await?),
            Presented::Nothing | Presented::Secret(_) => {
                Err(unauthenticated("token_missing", "log in, and send 'Authorization: Bearer …'"))?
            }
        }
    }
}

impl FromRequestParts<Parts> for Holder {
    type Rejection = Refused;

    async fn from_request_parts(
        request: &mut request::Parts,
        parts: &Parts,
    ) -> Result<Self, Refused> {
        match Presented::of(&request.headers)? {
            Presented::Bearer(bearer) if is_key(bearer) => {
                let ApiKey { account, id, .. } = api_key(parts, bearer).await?;
                Ok(Self::Key { account, key: id })
            }
            Presented::Bearer(token) => Ok(Self::Person(person(parts, token).await?)),
            Presented::Nothing | Presented::Secret(_) => Err(unauthenticated(
                "token_missing",
                "log in or take an API key, and send 'Authorization: Bearer …'",
            ))?,
        }
    }
}

impl FromRequestParts<Parts> for Admin {
    type Rejection = Refused;

    async fn from_request_parts(
        request: &mut request::Parts,
        parts: &Parts,
    ) -> Result<Self, Refused> {
        let person = Person::from_request_parts(request, parts).await?;
        if !person.is_admin {
            Err(forbidden("admin_only", "only an administrator can do this"))?;
        }
        Ok(Self(person))
    }
}

impl FromRequestParts<Parts> for Partner {
    type Rejection = Refused;

    async fn from_request_parts(
        request: &mut request::Parts,
        parts: &Parts,
    ) -> Result<Self, Refused> {
        let missing = || {
            let message = "send one of the configured secrets as X-Internal-Secret";
            unauthenticated("secret_missing", message)
        };
        match Presented::of(&request.headers)? {
            Presented::Secret(secret) => Ok(partner(parts, secret).ok_or_else(|| {
                let message = "the secret is none of those in [control.internal_secrets]";
                unauthenticated("secret_unknown", message)
            })?),
            Presented::Nothing | Presented::Bearer(_) => Err(missing())?,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn one_credential_is_presented() {
        let bearer = headers(&[("authorization", "bearer  abc ")]);
        assert_eq!(Presented::of(&bearer).unwrap(), Presented::Bearer("abc"));
        let secret = headers(&[("x-internal-secret", "abc")]);
        assert_eq!(Presented::of(&secret).unwrap(), Presented::Secret(b"abc"));
        assert_eq!(Presented::of(&headers(&[])).unwrap(), Presented::Nothing);
    }

    #[test]
    fn more_than_one_or_another_is_refused() {
        let auth = ("authorization", "Bearer abc");
        let secret = ("x-internal-secret", "abc");
        for bad in [
            &[auth, secret][..],
            &[auth, auth],
            &[secret, secret],
            &[auth, secret, secret],
            &[("authorization", "Basic abc")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer  ")],
            &[("authorization", "Bearer abc"), ("authorization", "")],
        ] {
            let problem = Presented::of(&headers(bad)).unwrap_err();
            assert!(matches!(problem, Problem::Unauthenticated { .. }), "{bad:?}");
        }
    }
}
