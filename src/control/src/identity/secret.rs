//! Codes, tokens and links that open something: drawn, shown once, and kept as a hash alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokenroute_store::Digest;

use crate::app::Problem;

/// What a person types: no vowels, so that no word comes of it, and nothing that looks like another
/// (RFC 8628, section 6.1).
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of what a person types: 20^8, some 34 bits, for ten minutes, behind a login.
const CODE_LETTERS: usize = 8;

/// 256 bits of chance as a text, behind what says what it is.
pub(crate) fn draw(prefix: &str, chance: fn() -> Option<[u8; 32]>) -> Result<String, Problem> {
    let drawn = chance().ok_or(Problem::Internal)?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(drawn)))
}

/// What is kept of it: it is long and random, so that a plain hash tells nothing.
pub(crate) fn hash(secret: &str) -> Digest {
    Sha256::digest(secret.as_bytes()).into()
}

/// A secret for a program, such as a partner's.
pub fn random_secret(chance: fn() -> Option<[u8; 32]>) -> Result<String, Problem> {
    draw("", chance)
}

/// What it is known by, without being kept.
pub fn digest(secret: &str) -> Digest {
    hash(secret)
}

/// A code for a person, as it is kept: letters alone.
pub(crate) fn user_code(chance: [u8; 32]) -> String {
    // 240 is twelve times the alphabet: beyond it letters would not be equally likely.
    let even = chance.into_iter().filter(|byte| *byte < 240);
    let letter = |byte: u8| ALPHABET.get(usize::from(byte) % ALPHABET.len()).copied();
    even.filter_map(letter).take(CODE_LETTERS).map(char::from).collect()
}

/// A code for a person, as it is shown.
pub(crate) fn shown(user_code: &str) -> String {
    let (first, second) = user_code.split_at_checked(CODE_LETTERS / 2).unwrap_or((user_code, ""));
    format!("{first}-{second}")
}

/// What a person has typed, as it is kept; `None` if it is no code.
pub(crate) fn typed(text: &str) -> Option<String> {
    let letters = text.chars().filter(|one| !one.is_whitespace() && *one != '-');
    let code: String = letters.take(CODE_LETTERS + 1).map(|one| one.to_ascii_uppercase()).collect();
    let sound = code.bytes().all(|byte| ALPHABET.contains(&byte)) && code.len() == CODE_LETTERS;
    sound.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_typed_as_it_is_shown_or_nearly() {
        let code = user_code(std::array::from_fn(|place| u8::try_from(place * 7).unwrap()));
        assert_eq!(code.len(), CODE_LETTERS);
        assert_eq!(typed(&shown(&code)).as_deref(), Some(code.as_str()));
        assert_eq!(typed(&format!(" {} ", code.to_lowercase())).as_deref(), Some(code.as_str()));
        assert_eq!(user_code([255; 32]), "", "what would be uneven is left out");
        for wrong in ["", "BCDF-GHJ", "BCDF-GHJKL", "BCDF-GHJA", "BCDF GHJ\u{212a}", "0CDFGHJK"] {
            assert_eq!(typed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_letter_is_as_likely() {
        let mut counts = [0; 256];
        for byte in 0..240_u8 {
            let mut chance = [255; 32];
            chance[0] = byte;
            counts[usize::from(user_code(chance).as_bytes()[0])] += 1;
        }
        assert!(ALPHABET.iter().all(|letter| counts[usize::from(*letter)] == 12));
    }
}
