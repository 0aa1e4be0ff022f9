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

/// The key that signs now, which is made if there is none.
async fn current(parts: &Parts, now: Timestamp) -> Result<(String, EncodingKey), Problem> {
    let keys = parts.database.issuer_keys().await?;
    let newest = keys.iter().find(|key| key.retired.is_none());
    if let Some(key) = newest.filter(|key| now.since(key.created) < KEY_LIFE) {
        match parts.vault.unseal(&place(&key.kid), &key.sealed) {
            Ok(secret) => return Ok((key.kid.clone(), decoded(&secret)?)),
            // Nothing is lost with it: another can be made.
            Err(error) => {
                tracing::warn!(%error, "the issuer's key cannot be read; a new one is made");
            }
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
