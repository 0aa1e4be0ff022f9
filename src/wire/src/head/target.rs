//! Request targets: a path and perhaps a query, in origin form (RFC 9112, section 3.2.1).

use memchr::memchr;

use super::{Flaw, Set};

/// What may stand in a path as it is: what RFC 3986 allows, without semicolons, which some readers cut
/// paths at.
static PATH: Set = Set::new(b"/-._~:@!$&'()*+,=");
/// The same for a query, in which a few more are usual.
static QUERY: Set = Set::new(b"/-._~:@!$&'()*+,=;?[]|{}^`");

/// A target that reads in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// As it came: percent-encoding is not undone.
    pub path: &'a str,
    /// Whether a slash of the path is encoded, which only the names of models may have.
    pub slash_encoded: bool,
}

/// Reads a target. What is encoded must be of those bytes that could as well stand as they are: no dots,
/// backslashes, semicolons, percent signs or control bytes.
pub fn read_target(target: &[u8]) -> Result<Target<'_>, Flaw> {
    let query = memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at_checked(query).ok_or(Flaw::Target)?;
    let slash_encoded = scan(path, &PATH, |byte| !b".\\;%".contains(&byte))?;
    // Nobody reads the query. But the parser before this encodes what must not stand in a target, so what
    // it would have encoded counts as if it stood there.
    scan(query, &QUERY, |_| true)?;
    let path = std::str::from_utf8(path).map_err(|_| Flaw::Target)?;
    if !path.starts_with('/') || path.contains("//") || path.contains("/.") && has_dots(path) {
        return Err(Flaw::Target);
    }
    // A slash is one to whoever decodes it.
    if slash_encoded {
        decode(path.strip_prefix('/').unwrap_or(path))?;
    }
    Ok(Target { path, slash_encoded })
}

/// Whether a part of the path is no name but a way: here, or up.
fn has_dots(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "." | ".."))
}

/// Looks at each byte as it stands, and at those that are encoded. Tells whether a slash is among these.
fn scan(bytes: &[u8], may_stand: &Set, may_be_encoded: impl Fn(u8) -> bool) -> Result<bool, Flaw> {
    let mut slash = false;
    let mut rest = bytes.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let byte = hex_pair(rest.next(), rest.next()).ok_or(Flaw::Target)?;
            if byte <= b' ' || matches!(byte, b'"' | b'<' | b'>' | 0x7f) || !may_be_encoded(byte) {
                return Err(Flaw::Target);
            }
            slash |= byte == b'/';
        } else if !may_stand.has(byte) {
            return Err(Flaw::Target);
        }
    }
    Ok(slash)
}

/// The byte that two hexadecimal digits stand for (RFC 3986, section 2.1).
pub(super) fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)?.checked_mul(16)?.checked_add(digit(low)?)?).ok()
}

impl Target<'_> {
    /// The part of the path after `prefix`, with what is encoded put back; `None` if the path does not begin so.
    /// What comes out is held to the same rules once more, since it may have slashes now.
    pub fn decode_after(&self, prefix: &str) -> Option<Result<String, Flaw>> {
        let rest = self.path.strip_prefix(prefix)?;
        Some(decode(rest))
    }
}

fn decode(text: &str) -> Result<String, Flaw> {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = match byte {
            b'%' => hex_pair(bytes.next(), bytes.next()).ok_or(Flaw::Target)?,
            other => other,
        };
        name.push(decoded);
    }
    let name = String::from_utf8(name).map_err(|_| Flaw::Target)?;
    if has_dots(&name) || name.split('/').any(str::is_empty) {
        return Err(Flaw::Target);
    }
    Ok(name)
}
