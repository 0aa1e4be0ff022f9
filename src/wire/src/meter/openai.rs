//! What one document in OpenAI's dialect says: a chunk of a stream, or a whole answer.

use tokenroute_domain::money::ServiceTier;

use super::counts::Counts;
use super::edit::{Cutter, Edit};
use super::plain::Said;
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
    /// The service tier that it was processed in.
    pub(super) service_tier: Option<ServiceTier>,
    /// What to leave out so that the top level has no `usage`.
    pub(super) cuts: Vec<Edit>,
    /// What it says, if it is part of a plain text.
    pub(super) said: Said,
}

impl Seen {
    fn note_reasoning(&mut self, says: bool) {
        if says {
            self.semantic = true;
            self.said.note_reasoning();
        }
    }

    fn note_other(&mut self, says: bool) {
        if says {
            self.semantic = true;
            self.said.note_other();
        }
    }
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

    /// Whether no other choice than the first is in it.
    pub(super) fn only_first(self) -> bool {
        self.0 & !1 == 0
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
    let mut cutter = Cutter::default();
    reader.object(|reader, key| {
        cutter.meet(&key, &mut seen.cuts);
        let name = key.text.decode();
        if name == "usage" {
            seen.usage = Counts::read(reader)?;
            if seen.cuts.len() < CUTS_MAX {
                cutter.cut(&key, reader.offset(), &mut seen.cuts);
            }
            return Ok(());
        }
        cutter.keep();
        match &*name {
            "choices" => {
                text.back_to(before);
                if seen.choices {
                    seen.said.note_other();
                }
                read_choices(reader, seen, text)?;
            }
            "error" => seen.error |= reader.kind()? != Kind::Null,
            "service_tier" if reader.kind()? == Kind::Text => {
                seen.service_tier = Some(ServiceTier::named(&reader.string()?.decode()));
            }
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
            "delta" if reader.kind()? == Kind::Object => read_message(reader, seen, text)?,
            "message" if reader.kind()? == Kind::Object => {
                seen.said.note_other();
                read_message(reader, seen, text)?;
            }
            "text" if reader.kind()? == Kind::Text => {
                let said = reader.string()?;
                seen.note_other(!said.is_empty());
                text.push(said);
            }
            "finish_reason" if reader.kind()? == Kind::Text => {
                let error = reader.string()?.decode() == "error";
                seen.error |= error;
                seen.semantic |= !error;
                finished |= !error;
            }
            // A token whose text is still to come has log probabilities already.
            "logprobs" => seen.note_other(!is_blank(reader)?),
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
            "content" if reader.kind()? == Kind::Text => {
                let said = reader.string()?;
                if !said.is_empty() {
                    seen.semantic = true;
                    seen.said.note_content(text.bytes_total());
                }
                text.push(said);
            }
            "content" | "refusal" => seen.note_other(read_said(reader, text)?),
            // Some providers send the same reasoning under both names: it is counted once.
            "reasoning_content" | "reasoning" if !reasoned => {
                reasoned = read_said(reader, text)?;
                seen.note_reasoning(reasoned);
            }
            "tool_calls" | "function_call" => {
                seen.note_other(!is_blank(&mut reader.clone())?);
                collect_calls(reader, text)?;
            }
            name if is_reasoning(name) => seen.note_reasoning(!is_blank(reader)?),
            // What is not known here may be what the client waits for.
            _ => seen.note_other(!is_blank(reader)?),
        }
        Ok(())
    })
}

/// Whether a member of a message holds reasoning, in some provider's form.
pub(super) fn is_reasoning(name: &str) -> bool {
    name.starts_with("reasoning") || name.starts_with("thinking")
}

/// Adds a text, or the texts of a list of parts; whether it says anything.
pub(super) fn read_said(reader: &mut Reader<'_>, text: &mut Text) -> Result<bool, Malformed> {
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
pub(super) fn collect_calls(reader: &mut Reader<'_>, text: &mut Text) -> Result<(), Malformed> {
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
pub(super) fn is_blank(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
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
