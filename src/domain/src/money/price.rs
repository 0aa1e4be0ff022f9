//! What a model costs: rates by kind of token, factors for long prompts and service tiers, and from which
//! day on. Integers only; a charge is rounded once, up.

use std::fmt::Write;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::NanoUsd;
use crate::time::Timestamp;
use crate::usage::Usage;

#[cfg(test)]
pub(crate) mod tests;

/// A price in nano-USD per million units (tokens). `$0.15 / 1M tokens` is `Rate(150_000_000)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub i64);

/// Units that a [`Rate`] is quoted for.
const RATE_UNITS: i128 = 1_000_000;

/// The factor that changes nothing: factors are thousandths.
pub const PERMILLE: u32 = 1_000;

/// What a product of tokens, a rate and two factors is divided by to give nano-USD.
pub const RATE_SCALE: i128 = RATE_UNITS * 1_000 * 1_000;

/// Bytes of a price's hash that name its version, as twice as many hexadecimal digits.
const VERSION_BYTES: usize = 6;

/// With which urgency a provider processes a call. Closed: names that are not known are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceTier {
    /// Whichever the account at the provider is set to.
    Auto,
    /// The usual one.
    Default,
    /// Slower and cheaper.
    Flex,
    /// Faster and dearer.
    Priority,
    /// Bought beforehand.
    Scale,
    /// One that is not known here.
    Other,
}

impl ServiceTier {
    /// The tier of that name on the wire.
    pub fn named(name: &str) -> Self {
        match name {
            "auto" => Self::Auto,
            "default" => Self::Default,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            "scale" => Self::Scale,
            _ => Self::Other,
        }
    }

    /// The tier that is charged: the one that the answer told, else the one that was asked for.
    pub fn charged(asked: Option<Self>, told: Option<Self>) -> Self {
        told.or(asked).unwrap_or(Self::Default)
    }
}

/// By how much the tokens of a service tier cost more or less, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierFactors {
    /// Of the tier `flex`.
    pub flex: u32,
    /// Of the tier `priority`.
    pub priority: u32,
    /// Of the tier `scale`.
    pub scale: u32,
}

impl Default for TierFactors {
    fn default() -> Self {
        Self { flex: PERMILLE, priority: PERMILLE, scale: PERMILLE }
    }
}

impl TierFactors {
    /// The factor of a tier. `auto` and tiers that are not known cost as the usual one.
    pub fn of(self, tier: ServiceTier) -> u32 {
        match tier {
            ServiceTier::Flex => self.flex,
            ServiceTier::Priority => self.priority,
            ServiceTier::Scale => self.scale,
            ServiceTier::Auto | ServiceTier::Default | ServiceTier::Other => PERMILLE,
        }
    }

    /// The dearest that a call can come to. A tier that was asked for is either given or not, and then
    /// the usual one is; where none was named, or one that is not known, it can be any.
    pub fn dearest(self, asked: Option<ServiceTier>) -> u32 {
        let any = self.flex.max(self.priority).max(self.scale).max(PERMILLE);
        match asked {
            Some(ServiceTier::Default) => PERMILLE,
            Some(tier @ (ServiceTier::Flex | ServiceTier::Priority | ServiceTier::Scale)) => {
                self.of(tier).max(PERMILLE)
            }
            Some(ServiceTier::Auto | ServiceTier::Other) | None => any,
        }
    }
}

/// By how much calls with long prompts cost more, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongContext {
    /// Prompts of more input tokens than this are long.
    pub above_tokens: u64,
    /// The factor of all their input.
    pub input_permille: u32,
    /// The factor of all their output.
    pub output_permille: u32,
}

/// What a model costs, by the kinds of [`Usage`]. Every kind has a rate: where a provider names
/// none, the configuration check has filled in the one that the provider bills instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Uncached input.
    pub input: Rate,
    /// Input read from a prompt cache.
    pub input_cache_read: Rate,
    /// Input written to a short-lived prompt cache.
    pub input_cache_write: Rate,
    /// Input written to a long-lived prompt cache.
    pub input_cache_write_long: Rate,
    /// Audio input.
    pub input_audio: Rate,
    /// Image input.
    pub input_image: Rate,
    /// Output.
    pub output: Rate,
    /// Reasoning output.
    pub output_reasoning: Rate,
    /// Audio output.
    pub output_audio: Rate,
    /// Image output.
    pub output_image: Rate,
    /// A fixed amount for each answered request; no factor applies to it.
    pub request: NanoUsd,
    /// What long prompts cost more.
    pub long_context: Option<LongContext>,
    /// What other service tiers cost more or less.
    pub service_tiers: TierFactors,
    /// Names this price in records: a short hash of all the rest. See [`Self::versioned`].
    pub version: Arc<str>,
}

/// What decides a part's charge beside its own tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Billing {
    /// The tier that it was processed in.
    pub tier: ServiceTier,
    /// The input tokens of the whole prompt, which tell whether it is long.
    pub input_tokens: u64,
    /// Whether the fixed amount of a request is in it.
    pub request: bool,
}

impl Price {
    /// A price with one input and one output rate for all kinds.
    #[must_use]
    pub fn flat(input: Rate, output: Rate) -> Self {
        Self {
            input,
            input_cache_read: input,
            input_cache_write: input,
            input_cache_write_long: input,
            input_audio: input,
            input_image: input,
            output,
            output_reasoning: output,
            output_audio: output,
            output_image: output,
            ..Self::default()
        }
        .versioned()
    }

    /// The same price, named by what it says.
    #[must_use]
    pub fn versioned(mut self) -> Self {
        let mut name = String::with_capacity(2 * VERSION_BYTES);
        for byte in Sha256::digest(self.content()).iter().take(VERSION_BYTES) {
            // Writing to a string cannot fail.
            write!(name, "{byte:02x}").unwrap_or_default();
        }
        self.version = name.into();
        self
    }

    /// All that it says but its version, as text: amounts in nano-USD (per million tokens), factors in
    /// thousandths. Enough to reckon any charge of this version again.
    pub fn content(&self) -> String {
        let mut text = String::new();
        for (name, rate) in self.inputs().into_iter().chain(self.outputs()) {
            write!(text, "{name}={} ", rate.0).unwrap_or_default();
        }
        let TierFactors { flex, priority, scale } = self.service_tiers;
        write!(text, "request={} flex={flex} priority={priority} scale={scale}", self.request.0)
            .unwrap_or_default();
        if let Some(LongContext { above_tokens, input_permille, output_permille }) =
            self.long_context
        {
            write!(text, " long={above_tokens}:{input_permille}:{output_permille}")
                .unwrap_or_default();
        }
        text
    }

    /// The rate of each kind of input, by the name of its field.
    pub fn inputs(&self) -> [(&'static str, Rate); 6] {
        [
            ("input", self.input),
            ("input_cache_read", self.input_cache_read),
            ("input_cache_write", self.input_cache_write),
            ("input_cache_write_long", self.input_cache_write_long),
            ("input_audio", self.input_audio),
            ("input_image", self.input_image),
        ]
    }

    /// The same for output.
    pub fn outputs(&self) -> [(&'static str, Rate); 4] {
        [
            ("output", self.output),
            ("output_reasoning", self.output_reasoning),
            ("output_audio", self.output_audio),
            ("output_image", self.output_image),
        ]
    }

    /// What a whole call of `usage` costs, processed in `tier`: exact products, one rounding up to the
    /// next nano-USD. `None` if the sum is beyond what an account can hold, which no real call is.
    pub fn charge(&self, usage: &Usage, tier: ServiceTier) -> Option<NanoUsd> {
        let input_tokens = usage.input_total();
        self.charge_part(usage, &Billing { tier, input_tokens, request: true })
    }

    /// The same for a part of a call.
    pub fn charge_part(&self, usage: &Usage, billing: &Billing) -> Option<NanoUsd> {
        let inputs = [
            (usage.input, self.input),
            (usage.input_cache_read, self.input_cache_read),
            (usage.input_cache_write, self.input_cache_write),
            (usage.input_cache_write_long, self.input_cache_write_long),
            (usage.input_audio, self.input_audio),
            (usage.input_image, self.input_image),
        ];
        let outputs = [
            (usage.output, self.output),
            (usage.output_reasoning, self.output_reasoning),
            (usage.output_audio, self.output_audio),
            (usage.output_image, self.output_image),
        ];
        let long = self.long_context.filter(|long| billing.input_tokens > long.above_tokens);
        let (input, output) =
            long.map_or((PERMILLE, PERMILLE), |long| (long.input_permille, long.output_permille));
        let input = sum(&inputs)?.checked_mul(i128::from(input))?;
        let output = sum(&outputs)?.checked_mul(i128::from(output))?;
        let factor = i128::from(self.service_tiers.of(billing.tier));
        let tokens = nano_up(input.checked_add(output)?.checked_mul(factor)?)?;
        let fee = if billing.request { self.request } else { NanoUsd::ZERO };
        tokens.checked_add(fee)
    }
}

/// The sum of counts at their rates.
fn sum(parts: &[(u64, Rate)]) -> Option<i128> {
    parts.iter().try_fold(0_i128, |sum, (count, rate)| {
        sum.checked_add(i128::from(*count).checked_mul(i128::from(rate.0))?)
    })
}

/// Nano-USD of a sum in parts of [`RATE_SCALE`], rounded up.
pub(crate) fn nano_up(scaled: i128) -> Option<NanoUsd> {
    let rounded = scaled.checked_add(RATE_SCALE.checked_sub(1)?)?.div_euclid(RATE_SCALE);
    i64::try_from(rounded).ok().map(NanoUsd)
}

/// A price, and from when on it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    /// The first moment at which it holds.
    pub from: Timestamp,
    /// The price.
    pub price: Arc<Price>,
}

/// The prices of a target in the course of time. Empty: nobody has said what it costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices(Option<Arc<[Dated]>>);

impl Prices {
    /// Prices in any order.
    pub fn new(mut dated: Vec<Dated>) -> Self {
        dated.sort_by_key(|one| one.from);
        Self((!dated.is_empty()).then(|| dated.into()))
    }

    /// One price for all time.
    pub fn always(price: Price) -> Self {
        Self::new(vec![Dated { from: Timestamp::default(), price: Arc::new(price) }])
    }

    /// The price that holds at `now`; `None` if nobody has said, or only of later times.
    pub fn at(&self, now: Timestamp) -> Option<&Arc<Price>> {
        let past = self.all().partition_point(|one| one.from <= now);
        Some(&self.all().get(past.checked_sub(1)?)?.price)
    }

    /// Every price, the earliest first.
    pub fn all(&self) -> &[Dated] {
        self.0.as_deref().unwrap_or_default()
    }

    /// When the price that holds at `now` is followed by another.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.all().iter().map(|one| one.from).find(|from| *from > now)
    }
}
