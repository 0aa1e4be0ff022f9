//! The chain of the audit log: each row's hash is over the row and the hash before it, so that a row that was
//! changed, moved or taken out from among others shows.

use sha2::{Digest, Sha256};

use crate::time::Timestamp;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// What the first row follows.
pub const START: [u8; HASH_BYTES] = [0; HASH_BYTES];

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place, from 1 on without a gap.
    pub sequence: u64,
    /// When it was done.
    pub time: Timestamp,
    /// Who did it.
    pub actor: &'a str,
    /// What was done.
    pub action: &'a str,
    /// To what.
    pub subject: &'a str,
    /// What else is to be known of it.
    pub detail: &'a str,
}

impl Entry<'_> {
    /// The hash of this row behind the one whose hash is `previous`.
    pub fn hash(&self, previous: &[u8; HASH_BYTES]) -> [u8; HASH_BYTES] {
        let mut hasher = Sha256::new();
        hasher.update(previous);
        hasher.update(self.sequence.to_be_bytes());
        hasher.update(self.time.micros().to_be_bytes());
        // Lengths keep neighbours apart.
        for text in [self.actor, self.action, self.subject, self.detail] {
            hasher.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(text);
        }
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry<'_> = Entry {
        sequence: 1,
        time: Timestamp(2),
        actor: "uid 0",
        action: "key.create",
        subject: "key_1",
        detail: "{}",
    };

    #[test]
    fn whatever_is_changed_changes_the_hash() {
        let changed = [
            Entry { sequence: 2, ..ENTRY },
            Entry { time: Timestamp(3), ..ENTRY },
            Entry { actor: "uid 1", ..ENTRY },
            Entry { action: "key.revoke", ..ENTRY },
            Entry { subject: "key_2", ..ENTRY },
            Entry { detail: "{ }", ..ENTRY },
            // Moved over the border of two members.
            Entry { actor: "uid 0k", action: "ey.create", ..ENTRY },
        ];
        let hash = ENTRY.hash(&START);
        for other in changed {
            assert_ne!(other.hash(&START), hash, "{other:?}");
        }
        assert_ne!(ENTRY.hash(&[1; HASH_BYTES]), hash);
        assert_eq!(ENTRY.hash(&START), hash);
    }
}
