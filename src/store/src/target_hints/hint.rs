//! The text of a hint. Whatever does not read back exactly is ignored.

use std::time::Duration;

/// Longest name of a target, in bytes: a provider's name, a slash and a model's.
pub(super) const NAME_BYTES_MAX: usize = 512;
/// Digits of an edge's number.
pub(super) const EDGE_BYTES: usize = 16;
/// Longest time that a target is said to be off: whatever is wrong with it, others look for themselves.
const OFF_MAX: Duration = Duration::from_hours(1);

/// What an edge says of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hint<'a> {
    /// Who says so.
    pub edge: u64,
    /// The target's name in the configuration.
    pub target: &'a str,
    /// For how long it is left alone; zero: it is well again.
    pub off_for: Duration,
}

impl<'a> Hint<'a> {
    /// `edge milliseconds target`
    pub(super) fn write(&self) -> String {
        format!("{} {} {}", self.edge_text(), self.milliseconds(), self.target)
    }

    /// The number of the edge, in hexadecimal.
    pub(super) fn edge_text(&self) -> String {
        format!("{:016x}", self.edge)
    }

    /// How long the target is off. Zero is said for nothing else than for being well again.
    pub(super) fn milliseconds(&self) -> u64 {
        if self.off_for.is_zero() {
            return 0;
        }
        u64::try_from(self.off_for.min(OFF_MAX).as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Reads what [`Self::write`] wrote.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.splitn(3, ' ');
        let (edge, milliseconds, target) = (words.next()?, words.next()?, words.next()?);
        let plain = milliseconds.bytes().all(|byte| byte.is_ascii_digit());
        let milliseconds = plain.then(|| milliseconds.parse().ok()).flatten()?;
        Self::of(edge, target, milliseconds)
    }

    /// Reads what is kept for edges that begin to listen: the edge, and in how many milliseconds it will
    /// be forgotten. What has no end, or is not there, is no hint.
    pub(super) fn held(edge: &[u8], target: &'a str, left: i64) -> Option<Self> {
        let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
        Self::of(std::str::from_utf8(edge).ok()?, target, left)
    }

    fn of(edge: &str, target: &'a str, milliseconds: u64) -> Option<Self> {
        let digits = edge.len() == EDGE_BYTES && edge.bytes().all(|byte| byte.is_ascii_hexdigit());
        let edge = digits.then(|| u64::from_str_radix(edge, 16).ok()).flatten()?;
        let sound = !target.is_empty()
            && target.len() <= NAME_BYTES_MAX
            && target.bytes().all(|byte| byte.is_ascii_graphic());
        let off_for = Duration::from_millis(milliseconds).min(OFF_MAX);
        sound.then_some(Self { edge, target, off_for })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        for off_for in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(5), OFF_MAX] {
            let hint = Hint { edge: 0xab, target: "openai/gpt-4o", off_for };
            assert_eq!(Hint::read(hint.write().as_bytes()), Some(hint));
        }
        let hint = Hint { edge: u64::MAX, target: "p/*", off_for: Duration::from_nanos(1) };
        assert_eq!(hint.write(), "ffffffffffffffff 1 p/*", "off for a moment is not well again");
    }

    #[test]
    fn no_target_is_off_for_ever() {
        let hint = Hint { edge: 1, target: "p/m", off_for: Duration::MAX };
        assert_eq!(Hint::read(hint.write().as_bytes()).unwrap().off_for, OFF_MAX);
        let far = "0000000000000001 18446744073709551615 p/m";
        assert_eq!(Hint::read(far.as_bytes()).unwrap().off_for, OFF_MAX);
        assert_eq!(Hint::held(b"0000000000000001", "p/m", i64::MAX).unwrap().off_for, OFF_MAX);
    }

    #[test]
    fn what_was_not_written_by_an_edge_is_ignored() {
        for text in [
            "",
            "1 2 p/m",
            "0000000000000001",
            "0000000000000001 5",
            "0000000000000001 5 ",
            "0000000000000001 -5 p/m",
            "0000000000000001 +5 p/m",
            "0000000000000001 18446744073709551616 p/m",
            "000000000000000g 5 p/m",
            "+000000000000001 5 p/m",
            "0000000000000001 5 p/m m",
            "0000000000000001 5 p/\u{1b}",
        ] {
            assert_eq!(Hint::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Hint::read(b"0000000000000001 5 p/\xff"), None);
        let long = format!("0000000000000001 5 {}", "x".repeat(NAME_BYTES_MAX + 1));
        assert_eq!(Hint::read(long.as_bytes()), None);
        for (edge, left) in [("", -2), ("0000000000000001", -1), ("0000000000000001", 0), ("1", 5)]
        {
            assert_eq!(Hint::held(edge.as_bytes(), "p/m", left), None, "{edge} {left}");
        }
    }
}
