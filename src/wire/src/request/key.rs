//! The keys that decide routing, price or recovery, in every spelling that some upstream would take for them.

use super::text::Characters;

/// A routed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    N,
    BestOf,
    Messages,
    Prompt,
    Input,
    Tools,
    Functions,
    Logprobs,
    ContinueFinalMessage,
    AddGenerationPrompt,
    ServiceTier,
    /// Within `stream_options`.
    IncludeUsage,
    /// Within a conversation: holds an image.
    Image,
    /// Within a conversation: holds a file, a video, or the address of audio.
    File,
}

/// Bytes of the longest routed key.
const KEY_BYTES_MAX: usize = 22;

/// Bytes of the longest spelling of a routed key: each character as `\uXXXX`.
pub(super) const SPELLING_BYTES_MAX: usize = KEY_BYTES_MAX * 6;

/// A key that an upstream could take for a routed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) key: Key,
    /// Whether it is the key itself, rather than the key in another case.
    pub(super) exact: bool,
}

impl Key {
    /// The key of that very name, at the top (`depth` 1), within `stream_options` (2), or deeper within a
    /// conversation.
    fn named(name: &[u8], depth: u32) -> Option<Self> {
        match (depth, name) {
            (1, b"model") => Some(Self::Model),
            (1, b"stream") => Some(Self::Stream),
            (1, b"stream_options") => Some(Self::StreamOptions),
            (1, b"max_tokens") => Some(Self::MaxTokens),
            (1, b"max_completion_tokens") => Some(Self::MaxCompletionTokens),
            (1, b"n") => Some(Self::N),
            (1, b"best_of") => Some(Self::BestOf),
            (1, b"messages") => Some(Self::Messages),
            (1, b"prompt") => Some(Self::Prompt),
            (1, b"input") => Some(Self::Input),
            (1, b"tools") => Some(Self::Tools),
            (1, b"functions") => Some(Self::Functions),
            (1, b"logprobs") => Some(Self::Logprobs),
            (1, b"continue_final_message") => Some(Self::ContinueFinalMessage),
            (1, b"add_generation_prompt") => Some(Self::AddGenerationPrompt),
            (1, b"service_tier") => Some(Self::ServiceTier),
            (2, b"include_usage") => Some(Self::IncludeUsage),
            (3.., b"image_url" | b"image") => Some(Self::Image),
            (3.., b"file" | b"video_url" | b"video" | b"audio_url") => Some(Self::File),
            _ => None,
        }
    }

    /// The routed key that `raw`, the inside of a JSON string, spells in some way.
    pub(super) fn spelled(raw: &[u8], depth: u32) -> Option<Match> {
        if let Some(key) = Self::named(raw, depth) {
            return Some(Match { key, exact: true });
        }
        // Conversations have many keys: most are none of these by their first letter.
        let may_be = |first: &u8| b"iIfFvVaA\\".contains(first);
        if raw.len() > SPELLING_BYTES_MAX || (depth > 2 && !raw.first().is_some_and(may_be)) {
            return None;
        }
        let mut folded = [0; KEY_BYTES_MAX];
        let mut places = folded.iter_mut();
        let mut exact = true;
        let mut len = 0_usize;
        for character in Characters::new(std::str::from_utf8(raw).ok()?) {
            let character = character.ok()?;
            let plain = fold(character)?;
            exact &= character == char::from(plain);
            *places.next()? = plain;
            len = len.saturating_add(1);
        }
        let key = Self::named(folded.get(..len)?, depth)?;
        Some(Match { key, exact })
    }
}

/// A character in lower case, as decoders fold it that match keys whatever their case (Go's, for
/// one): two characters beyond ASCII fold into it. `None` for all others.
fn fold(character: char) -> Option<u8> {
    match character {
        '\u{17f}' => Some(b's'),
        '\u{212a}' => Some(b'k'),
        _ => {
            u8::try_from(character).ok().filter(u8::is_ascii).map(|byte| byte.to_ascii_lowercase())
        }
    }
}
