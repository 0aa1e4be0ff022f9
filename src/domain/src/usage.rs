//! What a call consumed, in counts that do not overlap.

/// Tokens by kind. The counts are disjoint: a cached input token is not also an uncached one, a
/// reasoning token is not also an output text token, so a charge is a plain sum of count times rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens that were neither read from nor written to a cache, and are not audio or image.
    pub input: u64,
    /// Input tokens that the provider read from its prompt cache.
    pub input_cache_read: u64,
    /// Input tokens written to a prompt cache that lives about five minutes.
    pub input_cache_write: u64,
    /// Input tokens written to a prompt cache that lives an hour or more.
    pub input_cache_write_long: u64,
    /// Audio input tokens.
    pub input_audio: u64,
    /// Image input tokens, where the provider counts them apart.
    pub input_image: u64,
    /// Output tokens that are neither reasoning nor audio nor image.
    pub output: u64,
    /// Output tokens spent on reasoning.
    pub output_reasoning: u64,
    /// Audio output tokens.
    pub output_audio: u64,
    /// Image output tokens.
    pub output_image: u64,
}

impl Usage {
    /// All input tokens together, as an OpenAI `prompt_tokens` counts them.
    pub const fn input_total(&self) -> u64 {
        self.input
            .saturating_add(self.input_cache_read)
            .saturating_add(self.input_cache_write)
            .saturating_add(self.input_cache_write_long)
            .saturating_add(self.input_audio)
            .saturating_add(self.input_image)
    }

    /// The input tokens alone.
    #[must_use]
    pub fn inputs(&self) -> Self {
        Self { output: 0, output_reasoning: 0, output_audio: 0, output_image: 0, ..*self }
    }

    /// The output tokens alone.
    #[must_use]
    pub fn outputs(&self) -> Self {
        Self {
            output: self.output,
            output_reasoning: self.output_reasoning,
            output_audio: self.output_audio,
            output_image: self.output_image,
            ..Self::default()
        }
    }

    /// Both together, kind by kind.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            input_cache_read: self.input_cache_read.saturating_add(other.input_cache_read),
            input_cache_write: self.input_cache_write.saturating_add(other.input_cache_write),
            input_cache_write_long: self
                .input_cache_write_long
                .saturating_add(other.input_cache_write_long),
            input_audio: self.input_audio.saturating_add(other.input_audio),
            input_image: self.input_image.saturating_add(other.input_image),
            output: self.output.saturating_add(other.output),
            output_reasoning: self.output_reasoning.saturating_add(other.output_reasoning),
            output_audio: self.output_audio.saturating_add(other.output_audio),
            output_image: self.output_image.saturating_add(other.output_image),
        }
    }

    /// All output tokens together, as an OpenAI `completion_tokens` counts them.
    pub const fn output_total(&self) -> u64 {
        self.output
            .saturating_add(self.output_reasoning)
            .saturating_add(self.output_audio)
            .saturating_add(self.output_image)
    }
}

/// The part of `all` that falls to `one`, where `one` and `other` share it in proportion. A provider's
/// count of a whole is split so by our own counts of its parts, since no two vocabularies count alike.
pub fn share(all: u64, one: u64, other: u64) -> u64 {
    let product = u128::from(all).saturating_mul(u128::from(one));
    let share = product.checked_div(u128::from(one).saturating_add(u128::from(other)));
    share.and_then(|share| u64::try_from(share).ok()).unwrap_or(all)
}

/// Where the counts of a record come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageSource {
    /// Nothing was consumed, so nothing was counted (a refusal, a failure before any answer).
    #[default]
    None,
    /// The provider reported them.
    Provider,
    /// The provider reported none, or the answer was cut: counted by the edge's own tokenizer.
    Estimated,
}

impl UsageSource {
    /// The stable word for records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Provider => "provider",
            Self::Estimated => "estimated",
        }
    }

    /// Reads what [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Provider, Self::Estimated].into_iter().find(|one| one.as_str() == text)
    }
}
