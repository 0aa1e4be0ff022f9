//! The text of a cached key. It names its own hash, and whatever does not read back exactly is ignored.

use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{ApiKey, Funding, KeyHash, SharedKey, Terms};
use tokenroute_domain::time::Timestamp;

use crate::terms::{LimitsText, TermsText};

/// The form written here; other forms are not read.
const VERSION: u32 = 3;

/// What Redis holds for a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// Nothing.
    Nothing,
    /// A key, and when the database last confirmed it.
    Key(SharedKey, Timestamp),
    /// The mark of a revoked key.
    Revoked,
    /// Something that was not written for this hash, or not by us.
    Foreign,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    hash: String,
    id: String,
    account: String,
    funding: String,
    expires: Option<u64>,
    terms: TermsText,
    account_limits: LimitsText,
    account_tier: Option<String>,
    account_policy: Option<String>,
    confirmed: u64,
}

pub(super) fn write(hash: &KeyHash, key: &ApiKey, confirmed: Timestamp) -> Option<String> {
    let text = Text {
        version: VERSION,
        hash: hex(hash),
        id: key.id.to_string(),
        account: key.account.to_string(),
        funding: key.funding.as_str().to_owned(),
        expires: key.expires.map(Timestamp::micros),
        terms: TermsText::from(&*key.terms),
        account_limits: key.terms.account_limits.into(),
        account_tier: key.terms.account_tier.as_deref().map(str::to_owned),
        account_policy: key.terms.account_policy.as_deref().map(str::to_owned),
        confirmed: confirmed.micros(),
    };
    serde_json::to_string(&text).ok()
}

pub(super) fn tombstone(hash: &KeyHash) -> String {
    format!("revoked:{}", hex(hash))
}

pub(super) fn read(bytes: &[u8], hash: &KeyHash) -> Fetched {
    if bytes.is_empty() {
        return Fetched::Nothing;
    }
    if let Some(marked) = bytes.strip_prefix(b"revoked:") {
        let same = read_hash(marked).is_some_and(|marked| marked == *hash);
        return if same { Fetched::Revoked } else { Fetched::Foreign };
    }
    read_key(bytes, hash).unwrap_or(Fetched::Foreign)
}

fn read_key(bytes: &[u8], hash: &KeyHash) -> Option<Fetched> {
    let text: Text = serde_json::from_slice(bytes).ok()?;
    if text.version != VERSION || read_hash(text.hash.as_bytes())? != *hash {
        return None;
    }
    let terms = Terms {
        account_limits: text.account_limits.into(),
        account_tier: text.account_tier.map(Arc::from),
        account_policy: text.account_policy.map(Arc::from),
        ..text.terms.read()?
    };
    let key = ApiKey {
        id: KeyId::parse(&text.id)?,
        account: AccountId::parse(&text.account)?,
        funding: Funding::parse(&text.funding)?,
        expires: text.expires.map(Timestamp),
        terms: Arc::new(terms),
    };
    Some(Fetched::Key(Arc::new(key), Timestamp(text.confirmed)))
}

/// 64 lower-case hexadecimal digits.
pub(super) fn hex(hash: &KeyHash) -> String {
    hash.0.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a `String` cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// Reads what [`hex`] wrote.
pub(crate) fn read_hash(text: &[u8]) -> Option<KeyHash> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = digits else { return None };
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(KeyHash(hash))
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => character.checked_sub(b'0'),
        b'a'..=b'f' => character.checked_sub(b'a')?.checked_add(10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApiKey {
        ApiKey {
            id: KeyId::new(Timestamp(1_000_000), 7),
            account: AccountId::new(Timestamp(1_000_000), 8),
            funding: Funding::Prepaid,
            expires: Some(Timestamp(99)),
            terms: Arc::new(crate::terms::tests::all()),
        }
    }

    #[test]
    fn reads_what_it_wrote_for_the_same_hash_only() {
        let (mine, other) = (KeyHash([0xab; 32]), KeyHash([0xac; 32]));
        let text = write(&mine, &key(), Timestamp(5)).unwrap();
        let read_back = read(text.as_bytes(), &mine);
        assert_eq!(read_back, Fetched::Key(Arc::new(key()), Timestamp(5)));
        assert_eq!(read(text.as_bytes(), &other), Fetched::Foreign);
        assert_eq!(read(tombstone(&mine).as_bytes(), &mine), Fetched::Revoked);
        assert_eq!(read(tombstone(&mine).as_bytes(), &other), Fetched::Foreign);
        assert_eq!(read(b"", &mine), Fetched::Nothing);
        assert!(text.len() < 576, "{}", text.len());
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_foreign_or_the_same_key() {
        let hash = KeyHash([0x5a; 32]);
        let text = write(&hash, &key(), Timestamp(5)).unwrap().into_bytes();
        for cut in 1..text.len() {
            assert_eq!(read(&text[..cut], &hash), Fetched::Foreign, "{cut}");
        }
        assert_eq!(read(&[0xff; 300], &hash), Fetched::Foreign);
    }

    #[test]
    fn hashes_are_read_strictly() {
        let hash = KeyHash(std::array::from_fn(|place| u8::try_from(place * 7).unwrap()));
        assert_eq!(read_hash(hex(&hash).as_bytes()), Some(hash));
        assert_eq!(read_hash(hex(&hash).to_uppercase().as_bytes()), None);
        assert_eq!(read_hash(&hex(&hash).as_bytes()[1..]), None);
    }
}
