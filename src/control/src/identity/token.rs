//! Tokens (JWTs, RFC 7519 and 9068): what of one is believed, and why not. No I/O, no clock.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors};
use serde::Deserialize;
use serde_json::Value;
use tokenroute_domain::time::Timestamp;

use super::crypto::ALLOWED;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Keys of an issuer that are looked at.
const KEYS_MAX: usize = 64;
/// By how much an issuer's clock may differ from ours, in seconds.
const LEEWAY_SECONDS: u64 = 10;
/// Longest subject, in bytes (OpenID Connect Core, section 2).
const SUBJECT_BYTES_MAX: usize = 255;
/// What a token may call itself. An access token is the first; many issuers write the last.
const TYPES: [&str; 3] = ["at+jwt", "application/at+jwt", "jwt"];

/// Whose tokens are believed, and what they must be for.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Their `iss`, to the letter.
    pub(crate) issuer: String,
    /// Among their `aud`.
    pub(crate) audience: String,
}

/// Why a token is not believed. Whoever presents it is told the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    #[error("it is not a token (a JWT)")]
    Malformed,
    #[error("it is signed with an algorithm that is not accepted")]
    Algorithm,
    #[error("it is of another type than an access token")]
    Type,
    #[error("it is signed with a key that its issuer does not publish")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is of another issuer")]
    Issuer,
    #[error("it is for another audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    Early,
    #[error("it does not name its subject")]
    Subject,
}

/// What a token says that is of use here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    #[serde(default)]
    pub(crate) sub: String,
    #[serde(default)]
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    pub(crate) name: Option<Value>,
    pub(crate) username: Option<Value>,
    pub(crate) email: Option<Value>,
    pub(crate) email_verified: Option<Value>,
}

/// One or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// An issuer's public key.
#[derive(Clone, Debug)]
struct Key {
    kid: Option<String>,
    /// What it is for alone, if it says so.
    algorithm: Option<Algorithm>,
    decoding: DecodingKey,
}

/// An issuer's public keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads a key set (RFC 7517). Keys that cannot be used here are left out, as it asks for.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let Set { keys } = serde_json::from_slice(json).ok()?;
        Some(Self(keys.into_iter().take(KEYS_MAX).filter_map(key).collect()))
    }

    /// Whether a token's key is among them.
    pub(crate) fn have(&self, head: &Head) -> bool {
        self.of(head).next().is_some()
    }

    fn of(&self, head: &Head) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| {
            let named = head.kid.is_none() || key.kid == head.kid;
            let for_it = key.algorithm.is_none_or(|algorithm| algorithm == head.algorithm);
            named && for_it && ALLOWED.contains(&(head.algorithm, key.decoding.family()))
        })
    }
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let signs =
        jwk.common.public_key_use.as_ref().is_none_or(|what| *what == PublicKeyUse::Signature);
    // A secret in a published set is no secret.
    let public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
    if !signs || !public {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm {
        Some(said) => Some(Algorithm::try_from(said).ok()?),
        None => None,
    };
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { kid: jwk.common.key_id, algorithm, decoding })
}

/// What a token's head says, believed by nobody yet.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    kid: Option<String>,
    algorithm: Algorithm,
}

/// Reads a token's head.
pub(crate) fn head(token: &str) -> Result<Head, Bad> {
    if token.len() > TOKEN_BYTES_MAX || token.split('.').count() != 3 {
        return Err(Bad::Malformed);
    }
    // An algorithm that the library does not know, `none` above all, is not read either.
    let header = jsonwebtoken::decode_header(token).map_err(|_unsaid| Bad::Malformed)?;
    if !ALLOWED.iter().any(|(algorithm, _)| *algorithm == header.alg) {
        return Err(Bad::Algorithm);
    }
    let typ = header.typ.unwrap_or_default().to_ascii_lowercase();
    // `crit` names what must be understood, and nothing of it is.
    if !TYPES.contains(&typ.as_str()) || header.crit.is_some() {
        return Err(Bad::Type);
    }
    Ok(Head { kid: header.kid, algorithm: header.alg })
}

/// What a token says, if it is to be believed.
pub(crate) fn verify(
    token: &str,
    head: &Head,
    keys: &Keys,
    rules: &Rules,
    now: Timestamp,
) -> Result<Claims, Bad> {
    let mut validation = Validation::new(head.algorithm);
    // All of these follow below, with our clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let mut found = Err(Bad::UnknownKey);
    for key in keys.of(head) {
        found = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation)
            .map(|data| data.claims)
            .map_err(why);
        if found.is_ok() {
            break;
        }
    }
    let claims = found?;
    check(&claims, rules, now)?;
    Ok(claims)
}

fn why(error: errors::Error) -> Bad {
    if *error.kind() == ErrorKind::InvalidSignature { Bad::Signature } else { Bad::Malformed }
}

fn check(claims: &Claims, rules: &Rules, now: Timestamp) -> Result<(), Bad> {
    let audience = &rules.audience;
    let for_us = match &claims.aud {
        Audience::One(one) => one == audience,
        Audience::Several(several) => several.contains(audience),
    };
    let earliest = seconds(now.seconds().saturating_sub(LEEWAY_SECONDS));
    let latest = seconds(now.seconds().saturating_add(LEEWAY_SECONDS));
    let subject = &claims.sub;
    let named = (1..=SUBJECT_BYTES_MAX).contains(&subject.len());
    if claims.iss != rules.issuer {
        Err(Bad::Issuer)
    } else if !for_us {
        Err(Bad::Audience)
    } else if claims.exp.is_nan() || claims.exp <= earliest {
        Err(Bad::Expired)
    } else if claims.nbf.is_some_and(|nbf| nbf.is_nan() || nbf > latest) {
        Err(Bad::Early)
    } else if !named || subject.chars().any(char::is_control) {
        Err(Bad::Subject)
    } else {
        Ok(())
    }
}

/// Seconds as JSON has them; until the year 2106 to the second.
fn seconds(seconds: u64) -> f64 {
    f64::from(u32::try_from(seconds).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
