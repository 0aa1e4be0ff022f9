//! The frames of a chunked body, held against RFC 9112, section 7.1, to the letter: what one reader takes
//! for an extension and another for the next chunk is not taken at all.

use super::{Flaw, is_control};

/// Longest size that is read, in digits: more would not fit 64 bits.
const SIZE_DIGITS_MAX: u8 = 15;
/// Longest extension of a chunk, in bytes.
const EXTENSION_BYTES_MAX: usize = 1024;
/// All trailing fields together, in bytes. Nobody reads them.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Watches a chunked body go by, however it is split.
#[derive(Debug, Default)]
pub struct Chunks {
    place: Place,
    /// Bytes of the extension, or of the trailing fields, so far.
    spent: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    /// Before the LF of a size's line.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// Before the CR after the data, and before its LF.
    DataEnd,
    DataLast,
    /// In a trailing field, or before one.
    Trailer {
        begun: bool,
    },
    TrailerEnd {
        begun: bool,
    },
    Done,
}

impl Default for Place {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl Chunks {
    /// Looks at the next bytes. What comes after the body's end is not looked at.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Flaw> {
        while let Some((first, rest)) = bytes.split_first() {
            bytes = match self.place {
                Place::Done => return Ok(()),
                Place::Data { left } => self.pass(bytes, left),
                Place::Size { size, digits } => {
                    self.place = after_digit(*first, size, digits)?;
                    rest
                }
                Place::Extension { size } => {
                    self.place = self
                        .after_text(*first, EXTENSION_BYTES_MAX)?
                        .map_or(Place::SizeEnd { size }, |()| Place::Extension { size });
                    rest
                }
                Place::SizeEnd { size } => {
                    self.spent = 0;
                    let next = if size > 0 {
                        Place::Data { left: size }
                    } else {
                        Place::Trailer { begun: false }
                    };
                    self.place = expect(*first, b'\n', next)?;
                    rest
                }
                Place::DataEnd => {
                    self.place = expect(*first, b'\r', Place::DataLast)?;
                    rest
                }
                Place::DataLast => {
                    self.place = expect(*first, b'\n', Place::default())?;
                    rest
                }
                Place::Trailer { begun } => {
                    self.place = self
                        .after_text(*first, TRAILER_BYTES_MAX)?
                        .map_or(Place::TrailerEnd { begun }, |()| Place::Trailer { begun: true });
                    rest
                }
                Place::TrailerEnd { begun } => {
                    let next = if begun { Place::Trailer { begun: false } } else { Place::Done };
                    self.place = expect(*first, b'\n', next)?;
                    rest
                }
            };
        }
        Ok(())
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Lets data pass, and returns what is behind it.
    fn pass<'a>(&mut self, bytes: &'a [u8], left: u64) -> &'a [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
        self.place = if left > 0 { Place::Data { left } } else { Place::DataEnd };
        bytes.get(here..).unwrap_or_default()
    }

    /// One byte of a text that ends with CRLF: `None` if it is the CR.
    fn after_text(&mut self, byte: u8, bytes_max: usize) -> Result<Option<()>, Flaw> {
        self.spent = self.spent.saturating_add(1);
        match byte {
            b'\r' => Ok(None),
            b'\n' => Err(Flaw::Framing),
            byte if is_control(byte) || self.spent > bytes_max => Err(Flaw::Framing),
            _ => Ok(Some(())),
        }
    }
}

/// One byte of a size, or what ends it.
fn after_digit(byte: u8, size: u64, digits: u8) -> Result<Place, Flaw> {
    match (char::from(byte).to_digit(16), byte) {
        (Some(digit), _) if digits < SIZE_DIGITS_MAX => Ok(Place::Size {
            size: size.saturating_mul(16).saturating_add(u64::from(digit)),
            digits: digits.saturating_add(1),
        }),
        (None, b';') if digits > 0 => Ok(Place::Extension { size }),
        (None, b'\r') if digits > 0 => Ok(Place::SizeEnd { size }),
        _ => Err(Flaw::Framing),
    }
}

fn expect(byte: u8, expected: u8, next: Place) -> Result<Place, Flaw> {
    if byte == expected { Ok(next) } else { Err(Flaw::Framing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same answer for every split into two.
    fn feed(bytes: &[u8]) -> Result<bool, Flaw> {
        let split = |at| {
            let (one, two) = bytes.split_at(at);
            let mut chunks = Chunks::default();
            chunks.feed(one).and_then(|()| chunks.feed(two)).map(|()| chunks.is_done())
        };
        let whole = split(0);
        for at in 0..=bytes.len() {
            assert_eq!(split(at), whole, "{at}");
        }
        whole
    }

    #[test]
    fn sound_bodies_pass() {
        for (body, done) in [
            (&b"3\r\nabc\r\n0\r\n\r\n"[..], true),
            (b"0\r\n\r\n", true),
            (b"0\r\n\r\nGET", true),
            (b"00A\r\n0123456789\r\n0;x\r\n\r\n", true),
            (b"3;a=\"b c\"\r\na\nb\r\n0\r\nx: y\r\nz: \xff\r\n\r\n", true),
            (b"3\r\nabc\r\n0\r\nx: y\r\n", false),
            (b"3\r\nab", false),
            (b"", false),
        ] {
            assert_eq!(feed(body), Ok(done), "{body:?}");
        }
    }

    #[test]
    fn other_bodies_do_not() {
        for body in [
            &b"3;a\nabc\r\n"[..],
            b"3\nabc\r\n",
            b"3 \r\nabc\r\n",
            b" 3\r\nabc\r\n",
            b"3\r\nabcd\r\n",
            b"3\r\nabc\n",
            b"3\r\nabc\rx",
            b"\r\n",
            b";a\r\n",
            b"0x3\r\n",
            b"+3\r\n",
            b"-1\r\n",
            b"0000000000000003\r\n",
            b"3;a\rb\r\n",
            b"3;\0\r\n",
            b"0\r\n\n",
            b"0\r\nx: y\n",
            b"0\n\n",
        ] {
            assert_eq!(feed(body), Err(Flaw::Framing), "{body:?}");
        }
        let mut chunks = Chunks::default();
        assert_eq!(chunks.feed(b"3;"), Ok(()));
        assert_eq!(chunks.feed(&[b'x'; EXTENSION_BYTES_MAX]), Ok(()));
        assert_eq!(chunks.feed(b"x"), Err(Flaw::Framing));
        let mut chunks = Chunks::default();
        assert_eq!(chunks.feed(b"0\r\n"), Ok(()));
        assert_eq!(chunks.feed(&[b'x'; TRAILER_BYTES_MAX + 1]), Err(Flaw::Framing));
    }
}
