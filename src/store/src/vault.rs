//! Secrets that are stored, such as credentials of providers: encrypted, and bound to what they are for.
//!
//! A sealed secret opens only under its version of the key, in its own row, for its own provider and host:
//! exchanging two rows, or sending a provider's credential to another host, makes it unreadable. Keys are in
//! a file apart from the database. The newest seals, all of them open, so a new key is taken up without an
//! interruption: add its line everywhere, seal anew what is [`Vault::is_old`], remove the old line.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// Bytes of a key, and the digits that they are in the file.
const KEY_BYTES: usize = 32;
const KEY_DIGITS: usize = 64;
/// Bytes of chance that each sealing takes: enough to be drawn anew for ever.
pub const NONCE_BYTES: usize = 24;
/// What stands before the ciphertext: the key's version and the nonce.
const HEAD_BYTES: usize = 2 + NONCE_BYTES;
/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 16 * 1024;
/// Keys in a file.
const KEYS_MAX: usize = 16;
/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// What a secret is for. Names are compared as they are: the caller gives the host as it is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table that it is in.
    pub table: &'a str,
    /// The row's ID.
    pub row: &'a str,
    /// The provider that it is presented to.
    pub provider: &'a str,
    /// The scheme, host and port that it is sent to, as `https://host:port`.
    pub origin: &'a str,
}

impl Place<'_> {
    /// What is authenticated beside the secret. Lengths keep neighbours apart.
    fn bytes(&self, version: u16) -> Vec<u8> {
        let mut bytes = version.to_be_bytes().to_vec();
        for part in [self.table, self.row, self.provider, self.origin] {
            bytes.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend(part.bytes());
        }
        bytes
    }
}

/// Why a secret cannot be had. It does not say which of the things that it is bound to is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// It is sealed under a key that is not here.
    #[error("it is sealed under version {0} of the key, which is not in the key file")]
    NoKey(u16),
    /// It was changed, or belongs to another row, provider or host.
    #[error("it does not belong here, or was changed")]
    Foreign,
    /// It is longer than what is taken for a secret.
    #[error("it is too long to be a secret")]
    TooLong,
}

/// What is wrong with a file of keys. Never any of its text.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// It cannot be read or made.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Others than its owner may read it.
    #[error("is readable by others: chmod 600 it")]
    Open,
    /// It is not lines of a version and a key.
    #[error("is not lines of a version from 1 to 65535 and a key of 64 hexadecimal digits")]
    Malformed,
}

/// The keys, by their version. It never shows them.
pub struct Vault(BTreeMap<u16, Zeroizing<[u8; KEY_BYTES]>>);

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vault").field(&self.0.keys()).finish()
    }
}

impl Vault {
    /// Reads a file of keys that is its owner's alone.
    pub fn open(path: &Path) -> Result<Self, BadKeys> {
        if std::fs::metadata(path)?.mode() & OTHERS != 0 {
            return Err(BadKeys::Open);
        }
        let text = Zeroizing::new(std::fs::read_to_string(path)?);
        Self::parse(&text).ok_or(BadKeys::Malformed)
    }

    /// Makes a file with version 1 of the key, out of 256 bits of chance. One that is there stays.
    pub fn create(path: &Path, chance: &Zeroizing<[u8; KEY_BYTES]>) -> Result<(), BadKeys> {
        let mut line = Zeroizing::new(String::with_capacity(KEY_DIGITS.saturating_add(3)));
        line.push_str("1 ");
        for byte in chance.iter() {
            let _always_fits = fmt::Write::write_fmt(&mut *line, format_args!("{byte:02x}"));
        }
        line.push('\n');
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        io::Write::write_all(&mut file, line.as_bytes())?;
        Ok(file.sync_all()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut keys = BTreeMap::new();
        for line in text.lines() {
            let (version, digits) = line.split_once(' ')?;
            let version = version.parse().ok().filter(|version| *version > 0)?;
            if keys.len() >= KEYS_MAX || keys.insert(version, parse_key(digits)?).is_some() {
                return None;
            }
        }
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Encrypts a secret for its place under the newest key. `nonce` is chance, drawn for this alone.
    pub fn seal(
        &self,
        place: &Place<'_>,
        secret: &SecretString,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, Locked> {
        let secret = secret.expose_secret().as_bytes();
        let (version, key) = self.0.last_key_value().ok_or(Locked::NoKey(0))?;
        if secret.len() > SECRET_BYTES_MAX {
            return Err(Locked::TooLong);
        }
        let mut sealed = Zeroizing::new(secret.to_vec());
        let cipher = XChaCha20Poly1305::new((&**key).into());
        cipher
            .encrypt_in_place(&XNonce::from(nonce), &place.bytes(*version), &mut *sealed)
            .map_err(|_| Locked::TooLong)?;
        Ok([&version.to_be_bytes(), nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what was sealed for this place.
    pub fn unseal(&self, place: &Place<'_>, sealed: &[u8]) -> Result<SecretString, Locked> {
        let (version, rest) = split(sealed).ok_or(Locked::Foreign)?;
        let key = self.0.get(&version).ok_or(Locked::NoKey(version))?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Locked::Foreign)?;
        let mut secret = Zeroizing::new(sealed.to_vec());
        let cipher = XChaCha20Poly1305::new((&**key).into());
        cipher
            .decrypt_in_place(&XNonce::from(*nonce), &place.bytes(version), &mut *secret)
            .map_err(|_| Locked::Foreign)?;
        let secret = std::str::from_utf8(&secret).map_err(|_| Locked::Foreign)?;
        Ok(SecretString::from(secret))
    }

    /// Whether there is a newer key than the one that it is sealed under.
    pub fn is_old(&self, sealed: &[u8]) -> bool {
        let newest = self.0.last_key_value().map(|(version, _)| *version);
        split(sealed).map(|(version, _)| version) != newest
    }
}

/// The version of the key, and what follows; `None` if it is too long or too short.
fn split(sealed: &[u8]) -> Option<(u16, &[u8])> {
    let (version, rest) = sealed.split_first_chunk()?;
    let longest = HEAD_BYTES.saturating_add(SECRET_BYTES_MAX).saturating_add(KEY_BYTES);
    (sealed.len() <= longest).then_some((u16::from_be_bytes(*version), rest))
}

fn parse_key(digits: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits.len() != KEY_DIGITS || !hexadecimal {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (byte, place) in key.iter_mut().zip((0..KEY_DIGITS).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(place..place.saturating_add(2))?, 16).ok()?;
    }
    // A key that is always the same protects nothing.
    key.iter().any(|byte| Some(byte) != key.first()).then_some(key)
}

#[cfg(test)]
mod tests;
