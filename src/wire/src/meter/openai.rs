//! What one document in OpenAI's dialect says: a chunk of a stream, or a whole answer.

use std::ops::Range;

use super::counts::Counts;
use super::text::Text;
use crate::value::{Kind, Malformed, Reader, Text as JsonText};

/// Most `usage` members that are cut out of one document; a document has one.
const CUTS_MAX: usize = 8;

/// What was found in a document.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// It has a `choices` member that is an array or null.
    pub(super) choices: bool,
    /// How many choices it has.
    pub(super) choice_count: usize,
    /// It says something to the client.
    pub(super) semantic: bool,
    /// It carries an error.
    pub(super) error: bool,
    /// The choices that it speaks of, and those that it ends.
    pub(super) begun: Choices,
    /// The choices that it ends.
    pub(super) finished: Choices,
    /// The usage that it reports at its top level.
    pub(super) usage: Option<Counts>,
    /// The usage that it reports at another place.
    pub(super) usage_elsewhere: Option<Counts>,
    /// What to leave out so that the top level has no `usage`.
    pub(super) cuts: Vec<Range<usize>>,
}

/// A set of choices by their index. Those past the end share one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Choices(u128);

impl Choices {
    fn insert(&mut self, index: u32) {
        self.0 |= 1 << index.min(u128::BITS - 1);
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn contains_all(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }
}

/// Reads a document and adds what it delivers to `text`. On an error `seen` holds what came before it.
pub(super) fn read(
    reader: &mut Reader<'_>,
    seen: &mut Seen,
    text: &mut Text,
) -> Result<(), Malformed> {
    if reader.kind()? != Kind::Object {
        reader.skip()?;
        return reader.finish();
    }
    let before = text.mark();
    let (mut kept, mut open_cut) = (0_usize, None::<usize>);
    reader.object(|reader, key| {
        if let (Some(index), Some(comma)) = (open_cut.take(), key.comma)
            && let Some(cut) = seen.cuts.get_mut(index)
        {
            cut.end = comma + 1;
        }
        let name = key.text.decode();
        if name == "usage" {
            seen.usage = Counts::read(reader)?;
            if seen.cuts.len() < CUTS_MAX {
                // The first members have their comma behind them, the others before.
                let start = if kept == 0 { key.start } else { key.comma.unwrap_or(key.start) };
                open_cut = (kept == 0).then_some(seen.cuts.len());
                seen.cuts.push(start..reader.offset());
            }
            return Ok(());
        }
        kept += 1;
        match &*name {
            "choices" => {
                text.back_to(before);
                read_choices(reader, seen, text)?;
            }
            "error" => seen.error |= reader.kind()? != Kind::Null,
            "x_groq" => read_usage_within(reader, seen)?,
            _ => {}
        }
        Ok(())
    })?;
    reader.finish()
}

fn read_choices(
    reader: &mut Reader<'_>,
    seen: &mut Seen,
    text: &mut Text,
) -> Result<(), Malformed> {
    seen.choice_count = 0;
    seen.choices = matches!(reader.kind()?, Kind::Array | Kind::Null);
    if reader.kind()? != Kind::Array {
        return Ok(());
    }
    reader.array(|reader| {
        seen.choice_count += 1;
        if reader.kind()? == Kind::Object { read_choice(reader, seen, text) } else { Ok(()) }
    })
}

fn read_choice(reader: &mut Reader<'_>, seen: &mut Seen, text: &mut Text) -> Result<(), Malformed> {
    let (mut index, mut finished) = (0, false);
    reader.object(|reader, key| {
        match &*key.text.decode() {
            "index" if reader.kind()? == Kind::Number => {
                index = reader.number()?.parse().unwrap_or(u32::MAX);
            }
            "delta" | "message" if reader.kind()? == Kind::Object => {
                read_message(reader, seen, text)?;
            }
            "text" if reader.kind()? == Kind::Text => {
                let said = reader.string()?;
                seen.semantic |= !said.is_empty();
                text.push(said);
            }
            "finish_reason" if reader.kind()? == Kind::Text => {
                let error = reader.string()?.decode() == "error";
                seen.error |= error;
                seen.semantic |= !error;
                finished |= !error;
            }
            // A token whose text is still to come has log probabilities already.
            "logprobs" => seen.semantic |= !is_blank(reader)?,
            "usage" => seen.usage_elsewhere = Counts::read(reader)?.or(seen.usage_elsewhere),
            _ => {}
        }
        Ok(())
    })?;
    seen.begun.insert(index);
    if finished {
        seen.finished.insert(index);
    }
    Ok(())
}

/// Reads a `delta` or a `message`.
fn read_message(
    reader: &mut Reader<'_>,
    seen: &mut Seen,
    text: &mut Text,
) -> Result<(), Malformed> {
    let mut reasoned = false;
    reader.object(|reader, key| {
        match &*key.text.decode() {
            // They say who speaks, or nothing; padding is there to hide lengths.
            "role" | "name" | "obfuscation" => {}
            "content" | "refusal" => seen.semantic |= read_said(reader, text)?,
            // Some providers send the same reasoning under both names: it is counted once.
            "reasoning_content" | "reasoning" if !reasoned => {
                reasoned = read_said(reader, text)?;
                seen.semantic |= reasoned;
            }
            "tool_calls" | "function_call" => {
                seen.semantic |= !is_blank(&mut reader.clone())?;
                collect_calls(reader, text)?;
            }
            // What is not known here may be what the client waits for.
            _ => seen.semantic |= !is_blank(reader)?,
        }
        Ok(())
    })
}

/// Adds a text, or the texts of a list of parts; whether it says anything.
fn read_said(reader: &mut Reader<'_>, text: &mut Text) -> Result<bool, Malformed> {
    match reader.kind()? {
        Kind::Text => {
            let said = reader.string()?;
            text.push(said);
            Ok(!said.is_empty())
        }
        Kind::Object | Kind::Array => {
            let blank = is_blank(&mut reader.clone())?;
            collect(reader, text, &|name| matches!(name, "text" | "refusal"))?;
            Ok(!blank)
        }
        Kind::Number | Kind::Bool | Kind::Null => reader.skip().map(|_| false),
    }
}

/// Adds what a model writes of its tool calls: names and arguments, but no ids.
fn collect_calls(reader: &mut Reader<'_>, text: &mut Text) -> Result<(), Malformed> {
    collect(reader, text, &|name| matches!(name, "name" | "arguments" | "input"))
}

/// Adds every string member of a wanted name, at any depth; depth is bounded by the reader.
fn collect(
    reader: &mut Reader<'_>,
    text: &mut Text,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<(), Malformed> {
    match reader.kind()? {
        Kind::Array => reader.array(|reader| collect(reader, text, wanted)),
        Kind::Object => reader.object(|reader, key| match reader.kind()? {
            Kind::Text if wanted(&key.text.decode()) => {
                let said: JsonText<'_> = reader.string()?;
                text.push(said);
                Ok(())
            }
            Kind::Object | Kind::Array => collect(reader, text, wanted),
            Kind::Text | Kind::Number | Kind::Bool | Kind::Null => Ok(()),
        }),
        Kind::Text | Kind::Number | Kind::Bool | Kind::Null => reader.skip().map(drop),
    }
}

/// Reads any value; whether it is null, or an empty text, list or object.
fn is_blank(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    let mut items = 0_usize;
    match reader.kind()? {
        Kind::Text => return Ok(reader.string()?.is_empty()),
        Kind::Object => reader.object(|_, _| {
            items += 1;
            Ok(())
        })?,
        Kind::Array => reader.array(|_| {
            items += 1;
            Ok(())
        })?,
        Kind::Null => reader.null()?,
        Kind::Number | Kind::Bool => items = reader.skip().map(|_| 1)?,
    }
    Ok(items == 0)
}

/// Groq once gave its usage as `x_groq.usage`.
fn read_usage_within(reader: &mut Reader<'_>, seen: &mut Seen) -> Result<(), Malformed> {
    if reader.kind()? != Kind::Object {
        return Ok(());
    }
    reader.object(|reader, key| {
        if key.text.decode() == "usage" {
            seen.usage_elsewhere = Counts::read(reader)?.or(seen.usage_elsewhere);
        }
        Ok(())
    })
}
