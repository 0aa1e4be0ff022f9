//! An answer that goes on where another one broke off: what of it the client has, what is new, and how
//! its chunks become chunks of the first answer. It does not know why or whether that is wanted.

use std::sync::Arc;

use bytes::Bytes;

use super::closing::write_usage;
use super::counts::Counts;
use super::edit::{Cutter, Edit};
use super::identity::Identity;
use super::openai::{collect_calls, is_blank, is_reasoning, read_said};
use super::plain::Said;
use super::repeat::Repeat;
use super::text::Text;
use super::{Options, Reasoning};
use crate::value::{Kind, Malformed, Reader, Text as JsonText};
use tokenroute_domain::usage::share;

/// Where an answer goes on.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The first answer's, which each chunk is given.
    pub identity: Identity,
    /// What this answer begins with.
    pub start: Start,
    /// How many tokens of output the client has already.
    pub delivered_tokens: u64,
    /// How many tokens of input the request had at first. Both are one's own counts: what a provider
    /// reports of a prompt that has the beginning of the answer in it is split in their proportion.
    pub prompt_tokens: u64,
}

/// What an answer that goes on begins with.
#[derive(Clone, Debug)]
pub enum Start {
    /// The target was given the text and goes on from its end.
    Prefilled {
        /// White space at the end of the text that was not sent along. As far as the answer begins with
        /// it, it is not delivered again.
        trimmed: String,
    },
    /// The target answers from the beginning: what it says is suppressed while it repeats the text.
    Afresh {
        /// The text.
        delivered: Arc<str>,
    },
}

/// The state of such an answer.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) identity: Identity,
    repeat: Repeat,
    /// One's own counts of the prompt and of the text that it was given with it, if it was.
    prefilled_tokens: Option<(u64, u64)>,
    /// What the target said that was not delivered.
    pub(super) suppressed: Text,
    strip_usage: bool,
    reasoning: Reasoning,
}

/// What becomes of one chunk.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is found at another place in the chunk")]
pub(super) struct Chunk {
    /// What changes in it, in order.
    pub(super) edits: Vec<Edit>,
    /// It says something that the client does not have.
    pub(super) new: bool,
    /// It reports usage.
    pub(super) usage: bool,
    /// What of it is part of a plain text.
    pub(super) said: Said,
    /// It is not part of the answer that the client has the beginning of: nothing of it may go.
    pub(super) diverged: bool,
    /// It has something that is neither text nor known, and not blank.
    odd: bool,
    choices: usize,
    names: usize,
}

/// Members of one chunk that are given the first answer's value; a chunk has five.
const NAMES_MAX: usize = 8;

impl Resumed {
    pub(super) fn new(resume: Resume, options: &Options) -> Self {
        let Resume { identity, start, delivered_tokens, prompt_tokens } = resume;
        let (repeat, prefilled_tokens) = match start {
            Start::Prefilled { trimmed } => {
                (Repeat::perhaps(&trimmed), Some((prompt_tokens, delivered_tokens)))
            }
            Start::Afresh { delivered } => (Repeat::whole(delivered), None),
        };
        Self {
            identity,
            repeat,
            prefilled_tokens,
            suppressed: Text::new(options.text_bytes_max),
            strip_usage: options.strip_usage,
            reasoning: options.reasoning,
        }
    }

    /// Whether the answer must still say what the client has.
    pub(super) fn is_repeating(&self) -> bool {
        self.repeat.is_open()
    }

    /// Reads a chunk that is sound and carries no error. What of it is new is added to the text.
    pub(super) fn read(&mut self, chunk: &[u8], text: &mut Text) -> Result<Chunk, Malformed> {
        let mut seen = Chunk::default();
        let mut cutter = Cutter::default();
        let mut reader = Reader::of_bytes(chunk)?;
        if reader.kind()? != Kind::Object {
            return Ok(seen);
        }
        reader.object(|reader, key| {
            cutter.meet(&key, &mut seen.edits);
            let name = key.text.decode();
            let named = Identity::has(&name);
            let value = self.identity.value(&name);
            if (named && value.is_none()) || (name == "usage" && self.strip_usage) {
                reader.skip()?;
                cutter.cut(&key, reader.offset(), &mut seen.edits);
                return Ok(());
            }
            cutter.keep();
            match (&*name, value) {
                (_, Some(value)) => {
                    seen.names += 1;
                    if seen.names > NAMES_MAX {
                        seen.diverged = true;
                        return Ok(());
                    }
                    let text = Bytes::copy_from_slice(value.as_bytes());
                    seen.edits.push(Edit { range: reader.skip()?, text });
                }
                ("usage", None) => self.read_usage(reader, &mut seen)?,
                ("choices", None) => {
                    seen.choices += 1;
                    self.read_choices(reader, &mut seen, text)?;
                }
                (_, None) => {}
            }
            Ok(())
        })?;
        seen.edits.sort_by_key(|edit| edit.range.start);
        seen.diverged |= seen.choices > 1;
        // What comes along with text that the client has, it has too.
        seen.odd &= !self.repeat.is_open();
        seen.usage &= !self.repeat.is_open();
        if seen.odd {
            seen.new = true;
            seen.said.note_other();
        }
        Ok(seen)
    }

    fn read_choices(
        &mut self,
        reader: &mut Reader<'_>,
        seen: &mut Chunk,
        text: &mut Text,
    ) -> Result<(), Malformed> {
        if reader.kind()? != Kind::Array {
            return Ok(());
        }
        reader.array(|reader| match reader.kind()? {
            Kind::Object => self.read_choice(reader, seen, text),
            Kind::Array | Kind::Text | Kind::Number | Kind::Bool | Kind::Null => Ok(()),
        })
    }

    fn read_choice(
        &mut self,
        reader: &mut Reader<'_>,
        seen: &mut Chunk,
        text: &mut Text,
    ) -> Result<(), Malformed> {
        let before = self.suppressed.bytes_total();
        let (mut finished, mut deltas, mut logprobs) = (false, 0_usize, None);
        reader.object(|reader, key| {
            match (&*key.text.decode(), reader.kind()?) {
                ("index", Kind::Number) => seen.diverged |= reader.number()?.parse() != Ok(0_u32),
                ("delta", Kind::Object) => {
                    deltas += 1;
                    self.read_delta(reader, seen, text)?;
                }
                ("message", Kind::Object) | ("text", Kind::Text) => {
                    seen.diverged |= !is_blank(reader)?;
                }
                ("finish_reason", Kind::Text) => {
                    reader.skip()?;
                    finished = true;
                }
                ("logprobs", Kind::Object | Kind::Array) => logprobs = Some(reader.skip()?),
                ("usage", _) => self.read_usage(reader, seen)?,
                _ => {}
            }
            Ok(())
        })?;
        if let Some(range) = logprobs {
            if self.suppressed.bytes_total() > before {
                // They are of tokens that do not go.
                seen.edits.push(Edit { range, text: Bytes::from_static(b"null") });
            } else {
                seen.odd = true;
            }
        }
        seen.new |= finished;
        seen.diverged |= deltas > 1 || (finished && self.repeat.is_open());
        Ok(())
    }

    fn read_delta(
        &mut self,
        reader: &mut Reader<'_>,
        seen: &mut Chunk,
        text: &mut Text,
    ) -> Result<(), Malformed> {
        let mut cutter = Cutter::default();
        let (mut contents, mut reasoned) = (0_usize, false);
        reader.object(|reader, key| {
            cutter.meet(&key, &mut seen.edits);
            let name = key.text.decode();
            let kind = reader.kind()?;
            let goes = match (&*name, kind) {
                ("role", _) => {
                    reader.skip()?;
                    true
                }
                ("content", Kind::Text) => {
                    contents += 1;
                    self.read_content(reader, seen, text)?;
                    false
                }
                ("content", Kind::Array) if is_thinking(&mut reader.clone())? => {
                    read_said(reader, &mut self.suppressed)?;
                    true
                }
                ("content", Kind::Object | Kind::Array) => {
                    seen.diverged |= !is_blank(reader)?;
                    false
                }
                (name, _) if is_reasoning(name) => {
                    // Some providers send the same reasoning under two names.
                    if reasoned {
                        reader.skip()?;
                    } else {
                        reasoned = read_said(reader, &mut self.suppressed)?;
                    }
                    true
                }
                ("tool_calls" | "function_call" | "refusal", _) => {
                    self.read_other(reader, seen, text)?;
                    false
                }
                ("content" | "name" | "obfuscation", _) => false,
                _ => {
                    seen.odd |= !is_blank(reader)?;
                    false
                }
            };
            if goes {
                cutter.cut(&key, reader.offset(), &mut seen.edits);
            } else {
                cutter.keep();
            }
            Ok(())
        })?;
        seen.diverged |= contents > 1;
        Ok(())
    }

    /// Content goes without what the client has of it.
    fn read_content(
        &mut self,
        reader: &mut Reader<'_>,
        seen: &mut Chunk,
        text: &mut Text,
    ) -> Result<(), Malformed> {
        let start = reader.offset() + 1;
        let said: JsonText<'_> = reader.string()?;
        let Ok(known) = self.repeat.take(said) else {
            seen.diverged = true;
            return Ok(());
        };
        let (known_text, new_text) = said.split_at(known);
        if known > 0 {
            self.suppressed.push(known_text);
            seen.edits.push(Edit::cut(start..start + known));
        }
        if !new_text.is_empty() {
            seen.new = true;
            seen.said.note_content(text.bytes_total());
            text.push(new_text);
        }
        Ok(())
    }

    /// What is no plain text goes as it is, but not before all that the client has was repeated.
    fn read_other(
        &mut self,
        reader: &mut Reader<'_>,
        seen: &mut Chunk,
        text: &mut Text,
    ) -> Result<(), Malformed> {
        if is_blank(&mut reader.clone())? {
            return Ok(());
        }
        seen.diverged |= self.repeat.is_open();
        self.repeat.end();
        seen.new = true;
        seen.said.note_other();
        match reader.kind()? {
            Kind::Text => read_said(reader, text).map(drop),
            Kind::Object | Kind::Array => collect_calls(reader, text),
            Kind::Number | Kind::Bool | Kind::Null => Ok(()),
        }
    }

    /// A report of usage comes to count one prompt and all of the output.
    fn read_usage(&self, reader: &mut Reader<'_>, seen: &mut Chunk) -> Result<(), Malformed> {
        let start = reader.offset();
        let counts = Counts::read(reader)?;
        let Some(usage) = counts.and_then(|counts| counts.usage(self.reasoning).0) else {
            return Ok(());
        };
        seen.usage = true;
        if let Some((prompt, delivered)) = self.prefilled_tokens {
            let all = usage.input_total();
            let input = share(all, prompt, delivered);
            let output = usage.output_total().saturating_add(all.saturating_sub(input));
            let text = write_usage(input, output).into();
            seen.edits.push(Edit { range: start..reader.offset(), text });
        }
        Ok(())
    }
}

/// Whether a list of parts has nothing but reasoning in it.
fn is_thinking(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    let mut thinking = true;
    reader.array(|reader| {
        let mut part = false;
        if reader.kind()? == Kind::Object {
            reader.object(|reader, key| {
                if key.text.decode() == "type" && reader.kind()? == Kind::Text {
                    part = reader.string()?.decode() == "thinking";
                }
                Ok(())
            })?;
        }
        thinking &= part;
        Ok(())
    })?;
    Ok(thinking)
}
