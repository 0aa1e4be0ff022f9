//! Tokens that are believed, and those that are not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;
use crate::identity::crypto;

const NOW: u64 = 1_800_000_000;

/// An issuer with one key on a curve.
struct Issuer {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        crypto::install();
        let (curve, chance) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &chance).unwrap();
        Self { pair: EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &chance).unwrap(), kid }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "alg": "ES256",
               "x": encode(x), "y": encode(y)})
    }

    fn keys(&self) -> Keys {
        Keys::parse(json!({"keys": [self.jwk()]}).to_string().as_bytes()).unwrap()
    }

    fn sign(&self, head: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(head.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "typ": "at+jwt", "kid": self.kid}), claims)
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rules() -> Rules {
    Rules {
        issuer: "https://issuer.example".to_owned(),
        audience: "https://api.example".to_owned(),
    }
}

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": "https://api.example", "sub": "ann",
           "exp": NOW + 60, "iat": NOW})
}

/// The claims with one of them changed, or taken away.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn judge(token: &str, keys: &Keys) -> Result<String, Bad> {
    let now = Timestamp(NOW * 1_000_000);
    let head = head(token)?;
    verify(token, &head, keys, &rules(), now).map(|claims| claims.sub)
}

#[test]
fn a_good_token_is_believed() {
    let issuer = Issuer::new("a");
    for good in [
        claims(),
        with("aud", json!(["https://else.example", "https://api.example"])),
        with("exp", json!(NOW - 5)),
        with("exp", json!(f64::from(u32::try_from(NOW).unwrap()) + 0.5)),
        with("nbf", json!(NOW + 5)),
        with("name", json!({"not": "a name"})),
    ] {
        assert_eq!(judge(&issuer.token(&good), &issuer.keys()).as_deref(), Ok("ann"), "{good}");
    }
    for typ in ["JWT", "AT+JWT", "application/at+jwt"] {
        let token = issuer.sign(&json!({"alg": "ES256", "typ": typ, "kid": "a"}), &claims());
        assert!(judge(&token, &issuer.keys()).is_ok());
    }
}

#[test]
fn claims_that_do_not_fit_are_refused() {
    let issuer = Issuer::new("a");
    for (name, value, why) in [
        ("iss", json!("https://issuer.example/"), Bad::Issuer),
        ("iss", json!("https://ISSUER.example"), Bad::Issuer),
        ("iss", json!(["https://issuer.example"]), Bad::Malformed),
        ("aud", json!("https://api.example/"), Bad::Audience),
        ("aud", json!([]), Bad::Audience),
        ("aud", Value::Null, Bad::Malformed),
        ("exp", json!(NOW - 60), Bad::Expired),
        ("exp", json!("never"), Bad::Malformed),
        ("exp", Value::Null, Bad::Malformed),
        ("nbf", json!(NOW + 60), Bad::Early),
        ("sub", json!(""), Bad::Subject),
        ("sub", json!("a\u{0}b"), Bad::Subject),
        ("sub", json!("x".repeat(256)), Bad::Subject),
        ("sub", json!(7), Bad::Malformed),
    ] {
        let token = issuer.token(&with(name, value.clone()));
        assert_eq!(judge(&token, &issuer.keys()), Err(why), "{name}: {value}");
    }
    for missing in ["iss", "aud", "exp", "sub"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(missing);
        assert!(judge(&issuer.token(&claims), &issuer.keys()).is_err(), "without {missing}");
    }
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let issuer = Issuer::new("a");
    for (head, why) in [
        (json!({"alg": "none", "typ": "JWT", "kid": "a"}), Bad::Malformed),
        (json!({"alg": "HS256", "typ": "JWT", "kid": "a"}), Bad::Algorithm),
        (json!({"alg": "ES256", "kid": "a"}), Bad::Type),
        (json!({"alg": "ES256", "typ": "id_token", "kid": "a"}), Bad::Type),
        (json!({"alg": "ES256", "typ": "JWT", "kid": "a", "crit": ["exp"]}), Bad::Type),
        (json!({"alg": "ES256", "typ": "JWT", "kid": "b"}), Bad::UnknownKey),
        // A key is for its own algorithm.
        (json!({"alg": "ES384", "typ": "JWT", "kid": "a"}), Bad::UnknownKey),
        (json!({"alg": "RS256", "typ": "JWT", "kid": "a"}), Bad::UnknownKey),
        (json!({"alg": "EdDSA", "typ": "JWT", "kid": "a"}), Bad::UnknownKey),
    ] {
        assert_eq!(judge(&issuer.sign(&head, &claims()), &issuer.keys()), Err(why), "{head}");
    }
}

#[test]
fn a_signature_is_over_all_of_it_and_the_issuers() {
    let issuer = Issuer::new("a");
    let token = issuer.token(&claims());
    assert_eq!(judge(&Issuer::new("a").token(&claims()), &issuer.keys()), Err(Bad::Signature));
    let parts: Vec<_> = token.split('.').collect();
    let other = encode(with("sub", json!("eve")).to_string());
    let swapped = format!("{}.{other}.{}", parts[0], parts[2]);
    assert_eq!(judge(&swapped, &issuer.keys()), Err(Bad::Signature));
    for broken in [
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}.{}", parts[2]),
        format!("{token}="),
        token.replace('.', ""),
        String::new(),
        "..".to_owned(),
        "x".repeat(TOKEN_BYTES_MAX + 1),
    ] {
        assert!(judge(&broken, &issuer.keys()).is_err(), "{broken}");
    }
}

#[test]
fn what_is_published_as_a_secret_verifies_nothing() {
    let issuer = Issuer::new("a");
    let secret = json!({"kty": "oct", "kid": "a", "k": encode("secret"), "alg": "HS256"});
    let set = json!({"keys": [secret, {"kty": "new", "x": 1}, 7, {"use": "enc", "kty": "RSA"}]});
    let keys = Keys::parse(set.to_string().as_bytes()).unwrap();
    assert!(keys.0.is_empty());
    assert_eq!(judge(&issuer.token(&claims()), &keys), Err(Bad::UnknownKey));
}

#[test]
fn a_token_without_a_key_id_is_tried_with_all_that_fit() {
    let (one, other) = (Issuer::new("a"), Issuer::new("b"));
    let set = json!({"keys": [one.jwk(), other.jwk()]});
    let keys = Keys::parse(set.to_string().as_bytes()).unwrap();
    let token = other.sign(&json!({"alg": "ES256", "typ": "JWT"}), &claims());
    assert!(judge(&token, &keys).is_ok());
    assert_eq!(judge(&token, &one.keys()), Err(Bad::Signature));
}

#[test]
fn edwards_curves_are_known_too() {
    crypto::install();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "e",
                     "x": encode(pair.public_key().as_ref())});
    let keys = Keys::parse(json!({"keys": [jwk]}).to_string().as_bytes()).unwrap();
    let head = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "e"});
    let message = format!("{}.{}", encode(head.to_string()), encode(claims().to_string()));
    let token = format!("{message}.{}", encode(pair.sign(message.as_bytes())));
    assert!(judge(&token, &keys).is_ok());
}
