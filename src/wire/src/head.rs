//! The head of an HTTP/1 request as it came, held against one strict reading of RFC 9112. A parser
//! that is kind to what others read otherwise has been here before: what this lets through has one
//! framing, one host and one path, whoever reads it.
//!
//! It is on the path of every call: one pass for bytes that must not occur, one over the lines.

use memchr::{memchr, memchr_iter};

mod chunks;
mod target;

pub use chunks::Chunks;
pub use target::{Target, read_target};

/// Why a head is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// A line does not end, begin or read as one: bare LF, folding, a control byte, a bad field name.
    Line,
    /// The body's extent can be read in more than one way.
    Framing,
    /// Not exactly one host, or one that is none.
    Host,
    /// The target is not in origin form, or its path can be read in more than one way.
    Target,
}

/// How far the body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks, up to the last one.
    Chunked,
}

/// A head that reads in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// As it came. Which methods there are is the path's business.
    pub method: &'a str,
    /// Where to.
    pub target: Target<'a>,
    /// What follows it.
    pub framing: Framing,
    /// The one host.
    pub host: &'a str,
}

/// Longest length that is taken for one, in digits: more would not fit 64 bits.
const LENGTH_DIGITS_MAX: usize = 18;

/// Reads a head from its first byte to the end of its empty line. One empty line before it is
/// overlooked (RFC 9112, section 2.2).
pub fn read(raw: &[u8]) -> Result<Head<'_>, Flaw> {
    let raw = raw.strip_prefix(b"\r\n").unwrap_or(raw);
    if raw.iter().fold(false, |found, byte| found | is_control(*byte)) {
        return Err(Flaw::Line);
    }
    let (first, mut rest) = split_line(raw)?;
    let (method, target, minor) = split_first(first)?;
    let mut fields = Fields::default();
    let mut lines = 1_usize;
    loop {
        let (line, after) = split_line(rest)?;
        rest = after;
        lines = lines.saturating_add(1);
        if line.is_empty() {
            break;
        }
        fields.take(line)?;
    }
    // A CR that ends no line hides among the others.
    if !rest.is_empty() || memchr_iter(b'\r', raw).count() != lines {
        return Err(Flaw::Line);
    }
    let framing = fields.framing(minor)?;
    let host = fields.host.filter(|_| fields.hosts == 1).ok_or(Flaw::Host)?;
    Ok(Head { method, target: read_target(target)?, framing, host: read_host(host)? })
}

/// A host, with a port or without: letters, digits and `.:[]-_`, nothing that a URL parser would
/// take for the beginning of something else.
pub fn read_host(host: &[u8]) -> Result<&str, Flaw> {
    static HOST: Set = Set::new(b".:[]-_");
    if host.is_empty() || !host.iter().all(|byte| HOST.has(*byte)) {
        return Err(Flaw::Host);
    }
    std::str::from_utf8(host).map_err(|_| Flaw::Host)
}

/// The fields that decide where a message ends and whom it is for.
#[derive(Default)]
struct Fields<'a> {
    hosts: usize,
    host: Option<&'a [u8]>,
    lengths: usize,
    length: Option<&'a [u8]>,
    codings: usize,
    coding: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, line: &'a [u8]) -> Result<(), Flaw> {
        let (name, value) = split_field(line)?;
        let (count, place) = match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => (&mut self.hosts, &mut self.host),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                (&mut self.lengths, &mut self.length)
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                (&mut self.codings, &mut self.coding)
            }
            _ => return Ok(()),
        };
        *count = count.saturating_add(1);
        *place = Some(trim(value));
        Ok(())
    }

    fn framing(&self, minor: u8) -> Result<Framing, Flaw> {
        match (self.length, self.coding) {
            (None, None) => Ok(Framing::Empty),
            (Some(length), None) if self.lengths == 1 => read_length(length),
            (None, Some(coding)) if self.codings == 1 && minor == 1 && coding == b"chunked" => {
                Ok(Framing::Chunked)
            }
            _ => Err(Flaw::Framing),
        }
    }
}

fn read_length(digits: &[u8]) -> Result<Framing, Flaw> {
    if digits.is_empty()
        || digits.len() > LENGTH_DIGITS_MAX
        || !digits.iter().all(u8::is_ascii_digit)
    {
        return Err(Flaw::Framing);
    }
    let digit = |sum: u64, byte: &u8| {
        sum.saturating_mul(10).saturating_add(u64::from(byte.saturating_sub(b'0')))
    };
    Ok(Framing::Length(digits.iter().fold(0, digit)))
}

/// What stands before the next CRLF, and what stands after it.
fn split_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Flaw> {
    let end = memchr(b'\n', bytes).ok_or(Flaw::Line)?;
    let (line, rest) = bytes.split_at_checked(end).ok_or(Flaw::Line)?;
    let line = line.strip_suffix(b"\r").ok_or(Flaw::Line)?;
    Ok((line, rest.get(1..).unwrap_or_default()))
}

/// Method, target and the minor version of a request line with one space between each.
fn split_first(line: &[u8]) -> Result<(&str, &[u8], u8), Flaw> {
    let space = memchr(b' ', line).ok_or(Flaw::Line)?;
    let (method, rest) = line.split_at_checked(space).ok_or(Flaw::Line)?;
    let rest = rest.get(1..).unwrap_or_default();
    let (target, minor) = if let Some(target) = rest.strip_suffix(b" HTTP/1.1") {
        (target, 1)
    } else {
        (rest.strip_suffix(b" HTTP/1.0").ok_or(Flaw::Line)?, 0)
    };
    if method.is_empty() || !method.iter().all(|byte| is_name(*byte)) {
        return Err(Flaw::Line);
    }
    Ok((std::str::from_utf8(method).map_err(|_| Flaw::Line)?, target, minor))
}

fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Flaw> {
    // Nothing before the name, nothing between it and its colon.
    let end = line.iter().position(|byte| !is_name(*byte)).ok_or(Flaw::Line)?;
    let (name, value) = line.split_at_checked(end).ok_or(Flaw::Line)?;
    match value.split_first() {
        Some((b':', value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(Flaw::Line),
    }
}

/// Without the spaces and tabs around it.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A byte that has no place in a head, whatever it is part of.
const fn is_control(byte: u8) -> bool {
    (byte < b' ' && !matches!(byte, b'\t' | b'\r' | b'\n')) || byte == 0x7f
}

/// Whether a byte may be part of a method or a field's name (RFC 9110, section 5.6.2).
fn is_name(byte: u8) -> bool {
    static NAME: Set = Set::new(b"!#$%&'*+-.^_`|~");
    NAME.has(byte)
}

/// Letters, digits and some other bytes.
struct Set([bool; 256]);

impl Set {
    #[expect(
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        reason = "the compiler runs it, and says so if it cannot"
    )]
    const fn new(others: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0_u8;
        while byte < u8::MAX {
            set[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut place = 0;
        while place < others.len() {
            set[others[place] as usize] = true;
            place += 1;
        }
        Self(set)
    }

    fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
