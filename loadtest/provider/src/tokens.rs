//! The token rule of the provider in a box: simple enough for a test to compute again.
//!
//! A token begins at the start of the text and at every whitespace character that follows another character;
//! so `"Hello big world"` is `"Hello"`, `" big"`, `" world"`. It is no tokenizer of any real model.

/// The tokens of `text`, in order; joined they are `text`.
pub fn split(text: &str) -> Vec<&str> {
    let mut starts = vec![];
    let mut before_is_space = true;
    for (at, character) in text.char_indices() {
        if at > 0 && character.is_whitespace() && !before_is_space {
            starts.push(at);
        }
        before_is_space = character.is_whitespace();
    }
    let mut tokens = Vec::with_capacity(starts.len().saturating_add(1));
    let mut rest = text;
    for at in starts.into_iter().rev() {
        let (head, tail) = rest.split_at(at);
        tokens.push(tail);
        rest = head;
    }
    if !rest.is_empty() {
        tokens.push(rest);
    }
    tokens.reverse();
    tokens
}

/// How many tokens `text` has.
pub fn count(text: &str) -> u64 {
    u64::try_from(split(text).len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_carry_the_space_before_them_and_join_to_the_text() {
        assert_eq!(split("Hello big world"), ["Hello", " big", " world"]);
        assert_eq!(split(""), Vec::<&str>::new());
        for text in ["  a  b\n", "x", "äö ü", "one\ttwo  three "] {
            assert_eq!(split(text).concat(), text);
        }
        assert_eq!(count("  a  b"), 2);
    }
}
