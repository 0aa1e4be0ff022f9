//! The text of a request that is counted as input, for answers whose provider reports no usage. It
//! judges nothing: what is malformed ends the text.

use std::borrow::Cow;

use super::text::Text;
use crate::value::{Kind, Malformed, Reader};

/// How much of a body that came in several frames is read, in bytes.
pub const PROMPT_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Stands for a token that the client gave by its number: a word of one token.
const TOKEN: &str = " a";

/// Appends to `out` the strings of a request that a model reads (`messages`, `prompt`, `suffix`, `input`,
/// `tools`, `functions`), at most `bytes_max` bytes, and gives the length of all of them in bytes. Keys,
/// ids and embedded files are left out. The body comes in any frames.
#[expect(single_use_lifetimes, reason = "an unnamed one is not yet allowed in an argument's bound")]
pub fn prompt_text<'a>(
    body: impl IntoIterator<Item = &'a [u8]>,
    out: &mut String,
    bytes_max: usize,
) -> u64 {
    let mut frames = body.into_iter();
    let mut bytes = Cow::Borrowed(frames.next().unwrap_or_default());
    for frame in frames {
        let room = PROMPT_BODY_BYTES_MAX.saturating_sub(bytes.len());
        bytes.to_mut().extend_from_slice(frame.get(..room.min(frame.len())).unwrap_or_default());
    }
    let mut text = Text::new(bytes_max);
    // What was read before a fault counts, so the fault itself is no news.
    read(&mut Reader::of_prefix(&bytes), &mut text).unwrap_or_default();
    out.push_str(text.kept());
    text.bytes_total()
}

fn read(reader: &mut Reader<'_>, text: &mut Text) -> Result<(), Malformed> {
    reader.object(|reader, key| match &*key.text.decode() {
        "prompt" | "input" => collect_input(reader, text),
        "messages" | "suffix" | "tools" | "functions" => collect(reader, text),
        _ => Ok(()),
    })
}

/// A text, or token ids, or a list of either.
fn collect_input(reader: &mut Reader<'_>, text: &mut Text) -> Result<(), Malformed> {
    match reader.kind()? {
        Kind::Number => {
            text.push_part(TOKEN);
            reader.number().map(drop)
        }
        Kind::Array => reader.array(|reader| collect_input(reader, text)),
        Kind::Object | Kind::Text | Kind::Bool | Kind::Null => collect(reader, text),
    }
}

/// Adds every string at any depth, which the reader bounds.
fn collect(reader: &mut Reader<'_>, text: &mut Text) -> Result<(), Malformed> {
    match reader.kind()? {
        Kind::Text => {
            let said = reader.string()?;
            if !said.raw().starts_with("data:") {
                text.push(said);
            }
            Ok(())
        }
        Kind::Array => reader.array(|reader| collect(reader, text)),
        Kind::Object => reader.object(|reader, key| match &*key.text.decode() {
            // They tell of things that are not text, or of nothing.
            "type" | "id" | "tool_call_id" | "url" | "data" | "file_data" | "file_id" => Ok(()),
            _ => collect(reader, text),
        }),
        Kind::Number | Kind::Bool | Kind::Null => reader.skip().map(drop),
    }
}
