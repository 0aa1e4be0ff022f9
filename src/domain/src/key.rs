//! API keys: how they look, how they are checked without a look-up, and what is kept of them.
//!
//! A key is `sk-tr-`, 43 base62 characters (256 bits of chance) and 6 base62 characters of CRC-32
//! over everything before them, so that junk and typing errors are refused offline and secret
//! scanners can recognise a leak: `\bsk-tr-[0-9A-Za-z]{49}\b`.
//! What is kept is HMAC-SHA-256 of the whole key under a pepper that lives outside the database.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::id::{AccountId, KeyId};
use crate::limit::Limits;
use crate::policy::{lists_model, lists_provider};
use crate::pool::Ceiling;
use crate::time::Timestamp;

/// What every key starts with.
pub const PREFIX: &str = "sk-tr-";
/// Base62 characters that carry 256 random bits.
const BODY_LEN: usize = 43;
/// Base62 characters that carry the CRC-32.
const CHECK_LEN: usize = 6;
/// Length of a whole key in bytes.
pub const KEY_LEN: usize = PREFIX.len() + BODY_LEN + CHECK_LEN;
/// Characters of a key that listings may show: the prefix and four more.
pub const SHOWN_LEN: usize = PREFIX.len() + 4;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed key as a client presents it. It never shows itself: no `Debug` of its content.
#[derive(Clone, PartialEq, Eq)]
pub struct RawKey([u8; KEY_LEN]);

/// Why a text is no key. The client is told the same thing for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of this gateway")]
pub struct NotAKey;

impl RawKey {
    /// Makes a key from 256 bits of chance.
    pub fn new(chance: [u8; 32]) -> Self {
        let mut key = [b'0'; KEY_LEN];
        let mut digits = chance;
        for (place, byte) in key.iter_mut().enumerate() {
            if let Some(fixed) = PREFIX.as_bytes().get(place) {
                *byte = *fixed;
            } else if place < PREFIX.len().saturating_add(BODY_LEN) {
                *byte = base62(div_rem_62(&mut digits));
            }
        }
        let check = checksum(key.split_at(KEY_LEN.saturating_sub(CHECK_LEN)).0);
        for (byte, digit) in key.iter_mut().rev().zip(check.iter().rev()) {
            *byte = *digit;
        }
        Self(key)
    }

    /// Accepts a text that has the form and the checksum of a key; no look-up is made.
    pub fn parse(text: &[u8]) -> Result<Self, NotAKey> {
        let key: [u8; KEY_LEN] = text.try_into().map_err(|_| NotAKey)?;
        let (payload, check) = key.split_at(KEY_LEN.saturating_sub(CHECK_LEN));
        let body = payload.strip_prefix(PREFIX.as_bytes()).ok_or(NotAKey)?;
        let sound = body.iter().all(u8::is_ascii_alphanumeric) && check == checksum(payload);
        if sound { Ok(Self(key)) } else { Err(NotAKey) }
    }

    /// The key itself, to be shown once at its creation. Never log or store it.
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The part that listings may show.
    pub fn shown(&self) -> &str {
        self.expose().get(..SHOWN_LEN).unwrap_or_default()
    }
}

impl fmt::Debug for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawKey(…)")
    }
}

/// The digit's character; every digit is below 62.
fn base62(digit: u8) -> u8 {
    BASE62.get(usize::from(digit)).copied().unwrap_or(b'0')
}

/// Divides the big-endian number in `digits` by 62 in place and returns the remainder.
fn div_rem_62(digits: &mut [u8]) -> u8 {
    let mut rest = 0_u16;
    for digit in digits {
        let value = (rest << 8) | u16::from(*digit);
        *digit = u8::try_from(value.div_euclid(62)).unwrap_or_default();
        rest = value.rem_euclid(62);
    }
    u8::try_from(rest).unwrap_or_default()
}

/// CRC-32 (IEEE) of `payload`, as six base62 digits.
fn checksum(payload: &[u8]) -> [u8; CHECK_LEN] {
    let mut crc = crc32fast::hash(payload).to_be_bytes();
    let mut check = [b'0'; CHECK_LEN];
    for place in check.iter_mut().rev() {
        *place = base62(div_rem_62(&mut crc));
    }
    check
}

/// What is kept of a key, and what caches are indexed by: all 32 bytes, never fewer.
/// It is no credential: presented as a bearer it does not even parse.
#[derive(Clone, Copy, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::hash::Hash for KeyHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// The secret that keys are hashed under. A stolen database is useless without it.
#[derive(Clone)]
pub struct Pepper(Hmac<Sha256>);

impl Pepper {
    /// Takes the secret's bytes; 32 random ones are usual.
    pub fn new(secret: &[u8; 32]) -> Self {
        // HMAC pads a short key with zeros to its 64-byte block (RFC 2104, section 2).
        let mut block = [0; 64];
        block.split_at_mut(secret.len()).0.copy_from_slice(secret);
        Self(Hmac::<Sha256>::new(&block.into()))
    }

    /// The keyed hash of `key`.
    pub fn hash(&self, key: &RawKey) -> KeyHash {
        let mut mac = self.0.clone();
        mac.update(&key.0);
        KeyHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

/// How an account pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Funding {
    /// Calls are recorded with their cost, and nothing is drawn from a balance.
    Unmetered,
    /// Calls are paid from a balance, which starts at zero.
    Prepaid,
}

impl Funding {
    /// The stable word for storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmetered => "unmetered",
            Self::Prepaid => "prepaid",
        }
    }

    /// Reads what [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Unmetered, Self::Prepaid].into_iter().find(|one| one.as_str() == text)
    }
}

/// A key as the edge knows it after a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name in records.
    pub id: KeyId,
    /// Who pays.
    pub account: AccountId,
    /// How they pay.
    pub funding: Funding,
    /// When it stops working, if ever.
    pub expires: Option<Timestamp>,
    /// What it may do.
    pub terms: Arc<Terms>,
}

impl ApiKey {
    /// Whether money is counted: its account pays from a balance, or it has a ceiling.
    pub fn is_metered(&self) -> bool {
        self.funding == Funding::Prepaid || !self.terms.ceilings.is_empty()
    }
}

impl Terms {
    /// Whether they name the models or the providers that may be asked, by themselves or by a policy.
    pub fn restrict_routes(&self) -> bool {
        self.models.is_some() || self.providers.is_some() || self.account_policy.is_some()
    }

    /// Whether a model of this name may be asked for.
    pub fn allow_model(&self, model: &str) -> bool {
        lists_model(self.models.as_deref(), model)
    }

    /// Whether a provider of this name may answer.
    pub fn allow_provider(&self, provider: &str) -> bool {
        lists_provider(self.providers.as_deref(), provider)
    }
}

/// What a key may do, beyond what everybody may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How much may be spent with it.
    pub ceilings: Vec<Ceiling>,
    /// The models that may be asked for, as names or as `prefix/*`; `None` is all.
    pub models: Option<Vec<Arc<str>>>,
    /// The providers that may answer, by name; `None` is all.
    pub providers: Option<Vec<Arc<str>>>,
    /// Its own limits.
    pub limits: Limits,
    /// The tier that says what its limits leave open.
    pub tier: Option<Arc<str>>,
    /// The account's own limits, which all its keys share.
    pub account_limits: Limits,
    /// The tier that says what the account's limits leave open.
    pub account_tier: Option<Arc<str>>,
    /// The policy that says which models and providers the account's keys may use.
    pub account_policy: Option<Arc<str>>,
}

/// A known key, shared by all calls that present it.
pub type SharedKey = Arc<ApiKey>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_key_made_parses(chance: [u8; 32]) {
            let key = RawKey::new(chance);
            prop_assert_eq!(RawKey::parse(key.expose().as_bytes()), Ok(key.clone()));
            prop_assert_eq!(key.expose().len(), KEY_LEN);
        }

        #[test]
        fn one_wrong_character_is_noticed(chance: [u8; 32], place in 6..KEY_LEN, byte in "[0-9A-Za-z]") {
            let key = RawKey::new(chance);
            let mut text = key.expose().as_bytes().to_vec();
            prop_assume!(text[place] != byte.as_bytes()[0]);
            text[place] = byte.as_bytes()[0];
            prop_assert_eq!(RawKey::parse(&text), Err(NotAKey));
        }

        #[test]
        fn junk_never_parses(text: Vec<u8>) {
            prop_assert_eq!(RawKey::parse(&text), Err(NotAKey));
        }

        #[test]
        fn different_chance_gives_different_keys(a: [u8; 32], b: [u8; 32]) {
            prop_assume!(a != b);
            prop_assert_ne!(RawKey::new(a), RawKey::new(b));
        }
    }

    #[test]
    fn hashes_depend_on_every_bit_of_key_and_pepper() {
        let (one, two) = (RawKey::new([1; 32]), RawKey::new([2; 32]));
        let (salt, other) = (Pepper::new(&[3; 32]), Pepper::new(&[4; 32]));
        assert_ne!(salt.hash(&one), salt.hash(&two));
        assert_ne!(salt.hash(&one), other.hash(&one));
    }

    #[test]
    fn keys_that_begin_and_end_alike_are_told_apart() {
        const ALIKE: usize = 20;
        const KEYS: u32 = 1_000_000;
        let pepper = Pepper::new(&[3; 32]);
        let mut text = *RawKey::new([1; 32]).expose().as_bytes().first_chunk::<KEY_LEN>().unwrap();
        let mut hashes = std::collections::HashSet::new();
        for number in 0..KEYS {
            // Nothing else differs: what caches are indexed by is made of every character.
            let digits = format!("{number:09}");
            text[ALIKE..ALIKE + digits.len()].copy_from_slice(digits.as_bytes());
            assert!(ALIKE + digits.len() <= KEY_LEN - ALIKE);
            hashes.insert(pepper.hash(&RawKey(text)));
        }
        assert_eq!(hashes.len(), usize::try_from(KEYS).unwrap());
        assert_eq!(size_of::<KeyHash>(), 32, "the whole of HMAC-SHA-256");
    }

    #[test]
    fn nothing_shows_a_secret() {
        let key = RawKey::new([7; 32]);
        let shown =
            format!("{key:?} {:?} {:?}", Pepper::new(&[7; 32]), Pepper::new(&[7; 32]).hash(&key));
        assert!(!shown.contains(key.expose().get(8..).unwrap()));
    }
}
