//! A provider's usage object, in every form that speaks OpenAI's dialect, and the disjoint counts that
//! it comes to.

use tokenroute_domain::usage::Usage;

use super::Reasoning;
use crate::value::{Kind, Malformed, Reader};

/// More tokens than any answer has. A larger count is clamped to this and the usage is suspect.
pub const TOKENS_MAX: u64 = 1_000_000_000;

/// The numbers as the provider gave them; many are subsets of others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    /// Inside `prompt`.
    input: Details,
    /// Inside `completion`, but for reasoning perhaps.
    output: Details,
    /// A number was not a count.
    odd: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Details {
    cache_read: u64,
    cache_write: u64,
    audio: u64,
    image: u64,
    reasoning: u64,
}

impl Counts {
    /// Reads a `usage` member's value: `None` if it says nothing.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let mut counts = Self::default();
        match reader.kind()? {
            Kind::Object => {}
            Kind::Null => {
                reader.null()?;
                return Ok(None);
            }
            Kind::Array | Kind::Text | Kind::Number | Kind::Bool => {
                reader.skip()?;
                counts.odd = true;
                return Ok(Some(counts));
            }
        }
        reader.object(|reader, key| {
            let Self { prompt, completion, total, input, output, odd } = &mut counts;
            match &*key.text.decode() {
                "prompt_tokens" => *prompt = read_count(reader, odd)?.or(*prompt),
                "completion_tokens" => *completion = read_count(reader, odd)?.or(*completion),
                "total_tokens" => *total = read_count(reader, odd)?.or(*total),
                // Moonshot, DeepSeek, Mistral.
                "cached_tokens" | "prompt_cache_hit_tokens" | "num_cached_tokens" => {
                    raise(&mut input.cache_read, read_count(reader, odd)?);
                }
                "prompt_tokens_details" => input.read(reader, odd)?,
                "completion_tokens_details" => output.read(reader, odd)?,
                _ => {}
            }
            Ok(())
        })?;
        let says = counts.prompt.or(counts.completion).or(counts.total).is_some();
        Ok((says || counts.odd).then_some(counts))
    }

    /// The disjoint counts, and whether anything about them was not as it should be. `None` if no
    /// count was given.
    pub(super) fn usage(&self, rule: Reasoning) -> (Option<Usage>, bool) {
        let mut odd = self.odd;
        let (prompt, completion) = match (self.prompt, self.completion, self.total) {
            (None, None, None) => return (None, odd),
            (Some(prompt), Some(completion), _) => (prompt, completion),
            (Some(prompt), None, total) => {
                (prompt, total.map_or(0, |total| total.saturating_sub(prompt)))
            }
            (None, completion, total) => {
                let completion = completion.unwrap_or(0);
                (total.map_or(0, |total| total.saturating_sub(completion)), completion)
            }
        };
        let hidden = match self.total {
            Some(total) => total.saturating_sub(prompt).saturating_sub(completion),
            None => 0,
        };
        let given = self.output.reasoning;
        let (output_total, reasoning) = match rule {
            Reasoning::Inside => (completion, given),
            Reasoning::Added => (completion.saturating_add(given), given),
            Reasoning::ByTotal => (completion.saturating_add(hidden), given.max(hidden)),
        };
        odd |= self.total.is_some_and(|total| total < prompt.saturating_add(completion));

        let mut input = Whole { left: prompt, odd: &mut odd };
        let input_cache_read = input.take(self.input.cache_read);
        let input_cache_write = input.take(self.input.cache_write);
        let input_audio = input.take_overlapping(self.input.audio, prompt);
        let input_image = input.take_overlapping(self.input.image, prompt);
        let input_rest = input.left;
        let mut output = Whole { left: output_total, odd: &mut odd };
        let output_reasoning = output.take(reasoning);
        let output_audio = output.take(self.output.audio);
        let output_image = output.take(self.output.image);
        let output_rest = output.left;
        let usage = Usage {
            input: input_rest,
            input_cache_read,
            input_cache_write,
            input_cache_write_long: 0,
            input_audio,
            input_image,
            output: output_rest,
            output_reasoning,
            output_audio,
            output_image,
        };
        (Some(usage), odd)
    }
}

/// A total from which its subsets are taken away one after the other.
struct Whole<'a> {
    left: u64,
    odd: &'a mut bool,
}

impl Whole<'_> {
    /// Takes a subset; one that is larger than what is left is clamped, and that is odd.
    fn take(&mut self, count: u64) -> u64 {
        let taken = count.min(self.left);
        *self.odd |= taken < count;
        self.left -= taken;
        taken
    }

    /// Takes a subset that may share tokens with those taken before: audio can come from the cache.
    fn take_overlapping(&mut self, count: u64, whole: u64) -> u64 {
        let taken = count.min(self.left);
        *self.odd |= count > whole;
        self.left -= taken;
        taken
    }
}

impl Details {
    fn read(&mut self, reader: &mut Reader<'_>, odd: &mut bool) -> Result<(), Malformed> {
        if reader.kind()? != Kind::Object {
            return reader.skip().map(drop);
        }
        reader.object(|reader, key| {
            let slot = match &*key.text.decode() {
                "cached_tokens" => &mut self.cache_read,
                // OpenAI and OpenRouter; Qwen.
                "cache_write_tokens" | "cache_creation_input_tokens" => &mut self.cache_write,
                "audio_tokens" => &mut self.audio,
                "image_tokens" => &mut self.image,
                "reasoning_tokens" => &mut self.reasoning,
                _ => return Ok(()),
            };
            raise(slot, read_count(reader, odd)?);
            Ok(())
        })
    }
}

/// The same count may stand at several places, and a place that does not know says 0.
fn raise(slot: &mut u64, count: Option<u64>) {
    *slot = count.unwrap_or(0).max(*slot);
}

/// Reads a count of tokens: `None` for null. What is no whole number from 0 to [`TOKENS_MAX`] is odd,
/// and the nearest such number is taken.
fn read_count(reader: &mut Reader<'_>, odd: &mut bool) -> Result<Option<u64>, Malformed> {
    match reader.kind()? {
        Kind::Number => Ok(Some(nearest_count(reader.number()?, odd))),
        Kind::Text => {
            *odd = true;
            let text = reader.string()?.decode();
            let mut number = Reader::new(&text);
            let count = match number.number() {
                Ok(number) => nearest_count(number, odd),
                Err(Malformed) => return Ok(None),
            };
            Ok(number.finish().is_ok().then_some(count))
        }
        Kind::Null => reader.null().map(|()| None),
        Kind::Object | Kind::Array | Kind::Bool => {
            *odd = true;
            reader.skip().map(|_| None)
        }
    }
}

/// `number` is in JSON's grammar.
fn nearest_count(number: &str, odd: &mut bool) -> u64 {
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        let count = number.parse().unwrap_or(u64::MAX);
        *odd |= count > TOKENS_MAX;
        return count.min(TOKENS_MAX);
    }
    *odd = true;
    if number.starts_with('-') {
        return 0;
    }
    if number.contains(['e', 'E']) {
        // Nobody writes a count so; whether it is tiny or huge, the bound of it is what it stands for.
        let huge = number.parse().is_ok_and(|value: f64| value >= 1.0);
        return if huge { TOKENS_MAX } else { 0 };
    }
    let whole = number.split('.').next().unwrap_or_default();
    whole.parse().unwrap_or(u64::MAX).min(TOKENS_MAX)
}
