//! What names an answer in each of its chunks, kept as it was written.

use crate::value::{Kind, Malformed, Reader};

/// Longest value that is kept, as it is written, in bytes. An answer with a longer one has no identity
/// that could be kept up.
pub const IDENTITY_MEMBER_BYTES_MAX: usize = 512;

const NAMES: [&str; 5] = ["id", "object", "created", "model", "system_fingerprint"];

/// The values of a chunk's `id`, `object`, `created`, `model` and `system_fingerprint`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// One behind the other.
    raw: String,
    /// Where each stands, in the order of their names.
    places: [Option<(usize, usize)>; NAMES.len()],
}

impl Identity {
    /// Whether a member is part of an identity.
    pub(super) fn has(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// Reads a sound chunk.
    pub(super) fn read(chunk: &[u8]) -> Option<Self> {
        let mut identity = Self::default();
        let mut reader = Reader::of_bytes(chunk).ok()?;
        reader.object(|reader, key| identity.read_member(reader, &key.text.decode())).ok()?;
        Some(identity)
    }

    fn read_member(&mut self, reader: &mut Reader<'_>, name: &str) -> Result<(), Malformed> {
        let place = NAMES.iter().zip(&mut self.places).find(|(known, _)| **known == name);
        let Some((_, place)) = place else { return Ok(()) };
        let kind = reader.kind()?;
        let range = reader.skip()?;
        let value = reader.slice(range).unwrap_or_default();
        // A list or an object names nothing, and could break a line; two names are none.
        let odd = matches!(kind, Kind::Object | Kind::Array) || place.is_some();
        if odd || value.len() > IDENTITY_MEMBER_BYTES_MAX {
            return Err(Malformed);
        }
        let start = self.raw.len();
        self.raw.push_str(value);
        *place = Some((start, self.raw.len()));
        Ok(())
    }

    /// The value of a member, as it was written; `None` if the answer does not have it.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.members().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The members that the answer has, each with its value as it was written.
    pub fn members(&self) -> impl Iterator<Item = (&'static str, &str)> {
        NAMES.into_iter().zip(&self.places).filter_map(|(name, place)| {
            let (start, end) = (*place)?;
            Some((name, self.raw.get(start..end)?))
        })
    }
}
