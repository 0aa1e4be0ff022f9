//! The most that a call can cost, before it is made: a true bound, so that what is held for it is enough.
//!
//! Output is bounded by the cap that the provider is told, input by the bytes of the request (a token is
//! a byte at least) and ceilings for what is not text. Of kinds, tiers and targets the dearest counts.

use crate::catalog::{Route, Target};
use crate::money::{LongContext, NanoUsd, PERMILLE, Price, RATE_SCALE, Rate, ServiceTier, nano_up};
use crate::routing::OnBreak;
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// Input tokens that providers add to a request of their own accord: templates, and what explains tools
/// to a model (some 350 at the most talkative one).
pub const TEMPLATE_TOKENS: u64 = 512;

/// Input tokens of one image, where the catalogue says nothing: above what most models make of the
/// largest.
pub const IMAGE_TOKENS_DEFAULT: u64 = 5_000;

/// Input tokens of one file or video, where neither the catalogue nor the model's context says less.
pub const FILE_TOKENS_MAX: u64 = 1_000_000;

/// What a request says about how much it can come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Input tokens of its text at most: [`text_by_bytes`] or [`text_by_count`].
    pub text_tokens: u64,
    /// Images in it.
    pub images: u64,
    /// Files and videos in it. Audio comes as bytes, which bound its tokens.
    pub files: u64,
    /// The cap on the output tokens of one choice that it names; `None` if it names none.
    pub output_cap: Option<u64>,
    /// What the endpoint is documented to generate where none is named; `None` if it goes on to the model's
    /// end.
    pub output_usual: Option<u64>,
    /// How many choices are generated of each prompt.
    pub choices: u64,
    /// How many prompts it has: more than one only where completions are asked for.
    pub prompts: u64,
    /// Whether output is generated at all; embeddings have none.
    pub generates: bool,
    /// The service tier that it names.
    pub tier: Option<ServiceTier>,
}

/// Input tokens of a text, by the bytes of the body that it is in.
pub const fn text_by_bytes(body_bytes: u64) -> u64 {
    body_bytes.saturating_add(TEMPLATE_TOKENS)
}

/// The same by our own count, which other vocabularies exceed by a tenth at most.
pub const fn text_by_count(tokens: u64) -> u64 {
    tokens.saturating_add(tokens.div_ceil(10)).saturating_add(TEMPLATE_TOKENS)
}

/// The cap on the output tokens of one choice at one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// The most that the target generates.
    pub tokens: u64,
    /// Whether the request does not say so, so that it must be told.
    pub inject: bool,
}

/// What a call can come to at one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Input tokens of all kinds.
    pub input_tokens: u64,
    /// Output tokens of all kinds and choices.
    pub output_tokens: u64,
    /// Whether the request itself names the cap on its output.
    pub explicit: bool,
}

/// How the output of a request that names no cap is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The cap where the catalogue knows none.
    pub default: u64,
    /// A cap that goes below all others, because no more is affordable.
    pub clamp: Option<u64>,
}

impl Ask {
    /// How many choices are generated in all.
    pub fn choices_total(&self) -> u64 {
        self.choices.max(1).saturating_mul(self.prompts.max(1))
    }
}

impl Caps {
    /// The cap at one target. The request's own is bounded by what the model can do; where it names
    /// none, it is what the endpoint is documented to generate, else what the model can do, else the default. Only a cap that is not the request's is clamped.
    pub fn cap(&self, ask: &Ask, target: &Target) -> Cap {
        if !ask.generates {
            return Cap { tokens: 0, inject: false };
        }
        let max = target.output_tokens_max;
        if let Some(cap) = ask.output_cap {
            return Cap { tokens: cap.min(max.unwrap_or(u64::MAX)), inject: false };
        }
        let cap = match ask.output_usual {
            Some(usual) => usual.min(max.unwrap_or(u64::MAX)),
            None => max.unwrap_or(self.default),
        };
        Cap { tokens: cap.min(self.clamp.unwrap_or(u64::MAX)), inject: true }
    }
}

impl Bound {
    /// What a request can come to at a target.
    pub fn new(ask: &Ask, target: &Target, caps: &Caps) -> Self {
        let cap = caps.cap(ask, target);
        Self {
            input_tokens: input_tokens(ask, target),
            output_tokens: cap.tokens.saturating_mul(ask.choices_total()),
            explicit: !cap.inject,
        }
    }
}

/// Input tokens of a request at a target: never more than its model can hold.
pub fn input_tokens(ask: &Ask, target: &Target) -> u64 {
    let image = target.image_tokens_max.unwrap_or(IMAGE_TOKENS_DEFAULT);
    let images = ask.images.saturating_mul(image);
    let files = ask.files.saturating_mul(FILE_TOKENS_MAX);
    let all = ask.text_tokens.saturating_add(images).saturating_add(files);
    // Each prompt has a context of its own. Embeddings take many, which are not counted.
    let context = target.context_tokens.filter(|_| ask.generates);
    let held = context.map_or(u64::MAX, |context| context.saturating_mul(ask.prompts.max(1)));
    all.min(held)
}

/// The dearest that a token of input and one of output can cost, with all factors, in parts of
/// [`RATE_SCALE`]; and the fixed amount of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    input: i128,
    output: i128,
    request: NanoUsd,
}

impl Tariff {
    /// The dearest of `price` for a prompt of at most `input_tokens`, in the tier that was asked for.
    pub fn new(price: &Price, input_tokens: u64, asked: Option<ServiceTier>) -> Self {
        let long = price.long_context.filter(|long| input_tokens > long.above_tokens);
        // A shorter prompt than the bound may cost the usual.
        let (input, output) = match long {
            Some(LongContext { input_permille, output_permille, .. }) => {
                (input_permille.max(PERMILLE), output_permille.max(PERMILLE))
            }
            None => (PERMILLE, PERMILLE),
        };
        let tier = price.service_tiers.dearest(asked);
        let scaled = |rates: &[(&str, Rate)], factor: u32| {
            let dearest = rates.iter().map(|(_, rate)| rate.0).max().unwrap_or_default().max(0);
            // A rate has 63 bits and each factor 32: together 127 at the most.
            i128::from(dearest).saturating_mul(i128::from(factor)).saturating_mul(i128::from(tier))
        };
        Self {
            input: scaled(&price.inputs(), input),
            output: scaled(&price.outputs(), output),
            request: price.request.at_least_zero(),
        }
    }

    /// The most that a call within `bound` can cost.
    pub fn worst(&self, bound: &Bound) -> NanoUsd {
        let (input, output) = self.scaled(bound);
        sum(input.saturating_add(output), self.request)
    }

    /// The greatest cap on each of `choices` choices that `money` covers; `None` if it does not even
    /// cover the input.
    pub fn affordable(&self, input_tokens: u64, choices: u64, money: NanoUsd) -> Option<u64> {
        let input = self.input.saturating_mul(i128::from(input_tokens));
        let left = left_of(money, self.request, input)?;
        Some(fits(left, self.output, choices))
    }

    /// Whether tokens cost anything.
    fn is_free_of_tokens(&self) -> bool {
        self.input == 0 && self.output == 0
    }

    /// What the input and the output of `bound` come to, in parts of [`RATE_SCALE`].
    fn scaled(&self, bound: &Bound) -> (i128, i128) {
        let times = |rate: i128, tokens: u64| rate.saturating_mul(i128::from(tokens));
        (times(self.input, bound.input_tokens), times(self.output, bound.output_tokens))
    }
}

/// What a call must be held for on `route`: whichever target answers, it costs no more. Targets without a
/// price at `now` count nothing.
pub fn hold(route: &Route, ask: &Ask, caps: &Caps, now: Timestamp) -> NanoUsd {
    let lines = lines(route, ask, caps, now);
    if !is_mixed(route) {
        return lines.map(|line| line.tariff.worst(&line.bound)).max().unwrap_or_default();
    }
    let shared = Shared::of(route, lines);
    sum(shared.input.saturating_add(shared.output), shared.fixed)
}

/// The greatest cap on each choice that `money` covers on `route`, whichever target answers; `None` if it
/// does not even cover the input. It is the greatest [`Caps::clamp`] with which [`hold`] is no more than
/// `money`; `u64::MAX` if there is no need for one.
pub fn affordable(
    route: &Route,
    ask: &Ask,
    now: Timestamp,
    (default, money): (u64, NanoUsd),
) -> Option<u64> {
    let caps = Caps { default, clamp: None };
    let shared = is_mixed(route).then(|| Shared::of(route, lines(route, ask, &caps, now)));
    lines(route, ask, &caps, now).try_fold(u64::MAX, |least, line| {
        let (input, output) = line.tariff.scaled(&line.bound);
        let (fixed, input) =
            shared.as_ref().map_or((line.tariff.request, input), |all| (all.fixed, all.input));
        let left = left_of(money, fixed, input)?;
        let cap = || fits(left, line.tariff.output, ask.choices_total());
        let cap = if output <= left { u64::MAX } else { cap() };
        Some(least.min(cap))
    })
}

/// What a call can come to at one target of a route.
struct Line {
    tariff: Tariff,
    bound: Bound,
}

/// What a call can come to at each target that has a price.
fn lines(route: &Route, ask: &Ask, caps: &Caps, now: Timestamp) -> impl Iterator<Item = Line> {
    route.targets.iter().filter_map(move |target| {
        let price = target.prices.at(now)?;
        let bound = Bound::new(ask, target, caps);
        Some(Line { tariff: Tariff::new(price, bound.input_tokens, ask.tier), bound })
    })
}

/// Whether one call may be answered by several targets, each at its own rates: the prompt is then paid
/// at the first, and the output where it comes from.
fn is_mixed(route: &Route) -> bool {
    route.policy.on_break == OnBreak::Continue && route.targets.len() > 1
}

/// The dearest input, the dearest output and the dearest fixed amount of several targets.
struct Shared {
    input: i128,
    output: i128,
    fixed: NanoUsd,
}

impl Shared {
    fn of(route: &Route, lines: impl Iterator<Item = Line>) -> Self {
        let none = Self { input: 0, output: 0, fixed: NanoUsd::ZERO };
        let mut free = true;
        let shared = lines.fold(none, |all, line| {
            let (input, output) = line.tariff.scaled(&line.bound);
            free &= line.tariff.is_free_of_tokens();
            Self {
                input: all.input.max(input),
                output: all.output.max(output),
                fixed: all.fixed.max(line.tariff.request),
            }
        });
        // Each part of an answer is rounded up by itself.
        let parts = if free { 1 } else { route.policy.attempts_max.max(1) };
        let fixed = shared.fixed.plus(NanoUsd(i64::from(parts).saturating_sub(1)));
        Self { fixed, ..shared }
    }
}

/// Nano-USD of what is in parts of [`RATE_SCALE`], and a fixed amount.
fn sum(scaled: i128, fixed: NanoUsd) -> NanoUsd {
    nano_up(scaled).map_or(NanoUsd::MAX, |tokens| tokens.plus(fixed))
}

/// What `money` leaves beside a fixed amount and `input`, in parts of [`RATE_SCALE`]; `None` if it does
/// not cover them.
fn left_of(money: NanoUsd, fixed: NanoUsd, input: i128) -> Option<i128> {
    let money = i128::from(money.0).saturating_sub(i128::from(fixed.0));
    let left = money.saturating_mul(RATE_SCALE).saturating_sub(input);
    (left >= 0).then_some(left)
}

/// How many tokens at `rate` fit into what is left, for each of `choices`.
fn fits(left: i128, rate: i128, choices: u64) -> u64 {
    let all = left.checked_div(rate).and_then(|tokens| u64::try_from(tokens).ok());
    match all {
        Some(tokens) if tokens < u64::MAX => tokens.checked_div(choices).unwrap_or(tokens),
        Some(_) | None => u64::MAX,
    }
}
