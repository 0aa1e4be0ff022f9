//! What must not be seen: keys and tokens. They are printed where a command is for printing them, by
//! [`Secret::reveal`], and nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::brand::KEY_PREFIX;

/// What stands for something that is not shown.
const HIDDEN: &str = "…";
/// Characters of a key that listings may show of it, after what all keys begin with.
const SHOWN_MAX: usize = 8;
/// Longest text of a server that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 600;

/// A key or a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text of a key or token, without what surrounds it; `None` if it is none that a header can carry.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_whole = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        is_whole.then(|| Self(text.to_owned()))
    }

    /// The text itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` without this secret.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, HIDDEN)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Text that others wrote, fit for a terminal: no control characters (a name could move the cursor), nothing
/// that looks like a key, not endless.
pub(crate) fn presentable(text: &str) -> String {
    let mut rest = text;
    let mut shown = String::new();
    while let Some((before, after)) = rest.split_once(KEY_PREFIX) {
        shown.push_str(before);
        shown.push_str(KEY_PREFIX);
        let behind = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
        let (run, _) = after.split_at(after.len() - behind.len());
        shown.push_str(if run.len() > SHOWN_MAX { HIDDEN } else { run });
        rest = behind;
    }
    shown.push_str(rest);
    shown.chars().map(shown_as).take(TEXT_CHARS_MAX).collect()
}

/// Bidirectional overrides and invisible marks make a text look like another one.
fn shown_as(c: char) -> char {
    let deceives =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c == '\n' {
        ' '
    } else if c.is_control() || deceives {
        '\u{fffd}'
    } else {
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_by_accident() {
        let secret = Secret::parse(" sk-tr-abc\n").unwrap();
        assert_eq!(secret.reveal(), "sk-tr-abc");
        assert!(!format!("{secret:?}").contains("abc"));
        assert_eq!(secret.hide_in("no sk-tr-abc here"), "no … here");
    }

    #[test]
    fn what_a_header_cannot_carry_is_no_secret() {
        for text in ["", "  ", "a b", "a\nb", "ä", "a\u{7f}"] {
            assert_eq!(Secret::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn others_text_is_made_presentable() {
        assert_eq!(presentable("a\x1b[2Jb\u{202e}"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(
            presentable("wrong key sk-tr-0aZ9b0aZ9. Or sk-tr-b"),
            "wrong key sk-tr-…. Or sk-tr-b"
        );
        assert_eq!(presentable(&"x".repeat(10_000)).len(), TEXT_CHARS_MAX);
    }
}
