//! The embedded issuer's own keys and the tokens that it signs with them.
//!
//! Private keys are in SQL, encrypted. A new one takes over after a month; those before it are published
//! until nothing that they have signed is valid any more.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use tokenroute_domain::time::Timestamp;
use tokenroute_store::IssuerKey;
use tokenroute_store::vault::{NONCE_BYTES, Place};

use crate::Parts;
use crate::app::Problem;
use crate::identity::secret;

/// How long a token is valid. Whether its user is disabled is asked at each request all the same.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_hours(1);
/// How long a key signs.
const KEY_LIFE: Duration = Duration::from_hours(30 * 24);
/// How long a key signs beside another that has taken over: what it signs last ends before it is forgotten.
const RETIRED_LIFE: Duration = Duration::from_hours(12);
/// What access tokens call themselves (RFC 9068).
const TYPE: &str = "at+jwt";

/// What a token says (RFC 9068).
#[derive(Debug, Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    scope: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
}

/// For whom a token is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant<'a> {
    /// What the issuer calls the user.
    pub(crate) subject: &'a str,
    /// Which client has it.
    pub(crate) client: &'a str,
    /// What it may do.
    pub(crate) scope: &'a str,
}

/// A new access token.
pub(crate) async fn sign(parts: &Parts, grant: Grant<'_>) -> Result<String, Problem> {
    let now = (parts.now)();
    let (kid, key) = current(parts, now).await?;
    let here = parts.settings.public_url.as_str();
    let Grant { subject, client, scope } = grant;
    let claims = Claims {
        iss: here,
        sub: subject,
        aud: here,
        client_id: client,
        scope,
        jti: secret::draw("", parts.chance)?,
        iat: now.seconds(),
        exp: now.plus(TOKEN_LIFE).seconds(),
    };
    let header =
        Header { typ: Some(TYPE.to_owned()), kid: Some(kid), ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, &claims, &key).map_err(|_unsaid| {
        tracing::error!("a token cannot be signed");
        Problem::Internal
    })
}

/// The public keys, as they are published.
pub(crate) async fn published(parts: &Parts) -> Result<Value, tokenroute_store::Error> {
    let keys = parts.database.issuer_keys().await?;
    let keys: Vec<Value> =
        keys.iter().filter_map(|key| serde_json::from_str(&key.public).ok()).collect();
    Ok(json!({ "keys": keys }))
}

/// Whether a key may sign now. One that was retired signs on for a while: where nodes have different vaults, by
/// mistake, each goes on with its own and does not make another at every turn.
fn may_sign(key: &IssuerKey, now: Timestamp) -> bool {
    let retired = key.retired.is_some_and(|retired| now.since(retired) >= RETIRED_LIFE);
    now.since(key.created) < KEY_LIFE && !retired
}

/// The key that signs now, which is made if there is none.
async fn current(parts: &Parts, now: Timestamp) -> Result<(String, EncodingKey), Problem> {
    let keys = parts.database.issuer_keys().await?;
    for key in keys.iter().filter(|key| may_sign(key, now)) {
        match parts.vault.unseal(&place(&key.kid), &key.sealed) {
            Ok(secret) => return Ok((key.kid.clone(), decoded(&secret)?)),
            // Nothing is lost with it: there is another, or one can be made.
            Err(error) => tracing::warn!(%error, "a key of the issuer cannot be read"),
        }
    }
    let (key, encoding) = make(parts, now)?;
    parts.database.add_issuer_key(&key).await?;
    Ok((key.kid, encoding))
}

fn make(parts: &Parts, now: Timestamp) -> Result<(IssuerKey, EncodingKey), Problem> {
    let (curve, chance) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let unable = || {
        tracing::error!("no key to sign with can be made");
        Problem::Internal
    };
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &chance).map_err(|_unsaid| unable())?;
    let pair = EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &chance);
    let pair = pair.map_err(|_unsaid| unable())?;
    // The form of a point: a 4, and then both coordinates.
    let point = pair.public_key().as_ref().strip_prefix(&[4]).unwrap_or_default();
    let (x, y) = point.split_at_checked(32).ok_or_else(unable)?;
    let drawn = (parts.chance)().ok_or_else(unable)?;
    let kid = URL_SAFE_NO_PAD.encode(drawn.first_chunk::<12>().ok_or_else(unable)?);
    let public = json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
    });
    let drawn = (parts.chance)().ok_or_else(unable)?;
    let nonce = *drawn.first_chunk::<NONCE_BYTES>().ok_or_else(unable)?;
    let secret = SecretString::from(STANDARD.encode(pkcs8.as_ref()));
    let sealed = parts.vault.seal(&place(&kid), &secret, nonce).map_err(|_unsaid| unable())?;
    let key = IssuerKey { kid, sealed, public: public.to_string(), created: now, retired: None };
    Ok((key, EncodingKey::from_ec_der(pkcs8.as_ref())))
}

fn place(kid: &str) -> Place<'_> {
    Place { table: "issuer_keys", row: kid, provider: "", origin: "" }
}

fn decoded(secret: &SecretString) -> Result<EncodingKey, Problem> {
    let der = STANDARD.decode(secret.expose_secret()).map_err(|_unsaid| Problem::Internal)?;
    Ok(EncodingKey::from_ec_der(&der))
}

#[cfg(test)]
mod tests {
    use super::super::PURGE_KEEP;
    use super::*;

    #[test]
    fn a_key_signs_for_its_time_and_a_retired_one_for_less() {
        let day = Duration::from_hours(24);
        let start = Timestamp(1_800_000_000_000_000);
        let (kid, sealed, public) = Default::default();
        let key = IssuerKey { kid, sealed, public, created: start, retired: None };
        assert!(may_sign(&key, start.plus(day * 29)) && !may_sign(&key, start.plus(day * 30)));
        let retired = IssuerKey { retired: Some(start.plus(day)), ..key };
        assert!(may_sign(&retired, start.plus(day + day / 3)));
        assert!(!may_sign(&retired, start.plus(day + day / 2)));
        assert!(RETIRED_LIFE + TOKEN_LIFE < PURGE_KEEP, "its tokens end while it is published");
    }
}
