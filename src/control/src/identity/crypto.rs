//! The cryptography of tokens: ring, behind the library that knows their format.
//!
//! It verifies what issuers sign with, and signs with ES256 alone. No secret ever verifies anything here: an
//! issuer's public key taken for the secret of an HMAC is the oldest forgery of tokens.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ED25519,
    EcdsaKeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};

/// Everything that a token may be signed with, and whose keys it takes.
pub(super) const ALLOWED: [(Algorithm, AlgorithmFamily); 9] = [
    (Algorithm::RS256, AlgorithmFamily::Rsa),
    (Algorithm::RS384, AlgorithmFamily::Rsa),
    (Algorithm::RS512, AlgorithmFamily::Rsa),
    (Algorithm::PS256, AlgorithmFamily::Rsa),
    (Algorithm::PS384, AlgorithmFamily::Rsa),
    (Algorithm::PS512, AlgorithmFamily::Rsa),
    (Algorithm::ES256, AlgorithmFamily::Ec),
    (Algorithm::ES384, AlgorithmFamily::Ec),
    (Algorithm::EdDSA, AlgorithmFamily::Ed),
];

/// With RSA, whose moduli have 2048 bits at least.
static RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
];

/// With curves; each knows the length of its points, so that none is taken for another's.
static CURVES: [(Algorithm, &(dyn VerificationAlgorithm + Sync)); 3] = [
    (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED),
    (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED),
    (Algorithm::EdDSA, &ED25519),
];

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes the library use it. Doing so again changes nothing.
pub(super) fn install() {
    let _was_there = PROVIDER.install_default();
}

struct Verifying(Algorithm, DecodingKey);

impl Verifying {
    fn is_sound(&self, message: &[u8], signature: &[u8]) -> bool {
        let Self(algorithm, key) = self;
        match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let known = RSA.iter().find(|(name, _)| name == algorithm);
                let (n, e) = (without_zeros(n), without_zeros(e));
                known.is_some_and(|(_, parameters)| {
                    RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
                })
            }
            DecodingKeyKind::SecretOrDer(point) => {
                let known = CURVES.iter().find(|(name, _)| name == algorithm);
                known.is_some_and(|(_, curve)| {
                    UnparsedPublicKey::new(*curve, point).verify(message, signature).is_ok()
                })
            }
        }
    }
}

/// Some write a sign's zero before a number that has none.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

impl Verifier<Vec<u8>> for Verifying {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        if self.is_sound(message, signature) { Ok(()) } else { Err(signature::Error::new()) }
    }
}

impl JwtVerifier for Verifying {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "it is as the library calls it")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if !ALLOWED.contains(&(*algorithm, key.family())) {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Verifying(*algorithm, key.clone())))
}

/// Signs with ES256. What it needs of chance the library draws itself.
struct Signing(EcdsaKeyPair);

impl Signer<Vec<u8>> for Signing {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let signed = self.0.sign(&SystemRandom::new(), message);
        Ok(signed.map_err(|_unsaid| signature::Error::new())?.as_ref().to_vec())
    }
}

impl JwtSigner for Signing {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "it is as the library calls it")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if *algorithm != Algorithm::ES256 {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let (curve, chance) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let pair = EcdsaKeyPair::from_pkcs8(curve, key.as_bytes(), &chance);
    Ok(Box::new(Signing(pair.map_err(|_unsaid| ErrorKind::InvalidEcdsaKey)?)))
}
