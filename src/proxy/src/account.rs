//! What a call's answer comes to: the caller pays for one prompt and what was delivered, each part at the
//! rate of the target that delivered it; the house bears what had to be done twice.

use std::cell::LazyCell;
use std::sync::Arc;

use tokenroute_domain::money::{Billing, NanoUsd, Price, ServiceTier};
use tokenroute_domain::record::Record;
use tokenroute_domain::usage::{self, Usage, UsageSource};
use tokenroute_wire::meter::Meter;

/// How a target began its part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the answer's first word.
    First,
    /// From the end of what had been delivered, which was in its prompt.
    Prefilled,
    /// With the first word once more, which was suppressed.
    Afresh,
}

/// What one target did for a call.
#[derive(Debug)]
pub(crate) struct Part {
    /// Which of the record's attempts.
    pub(crate) attempt: usize,
    pub(crate) price: Option<Arc<Price>>,
    /// The service tier that the request names.
    pub(crate) asked_tier: Option<ServiceTier>,
    pub(crate) meter: Meter,
    pub(crate) start: Start,
    /// Our own count of the output that the client had before it, and of the prompt.
    pub(crate) delivered_tokens: u64,
    pub(crate) prompt_tokens: u64,
}

/// The parts of an answer, and answers that nobody waited for any more.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) spoken: Vec<Part>,
    pub(crate) lost: Vec<Part>,
}

/// Counts the tokens of texts.
pub(crate) trait Count {
    /// Tokens of a text of which `bytes_total` bytes are to be accounted for and `kept` is a part.
    fn text(&self, kept: &str, bytes_total: u64) -> u64;
    /// Tokens of the call's prompt.
    fn prompt(&self) -> u64;
}

impl Account {
    /// Whether providers have reported all that is needed, so that nothing has to be counted.
    pub(crate) fn is_reported(&self) -> bool {
        let told = self.anchor().map_or(0, |(place, _)| place);
        let rest = self.spoken.iter().skip(told);
        self.lost.is_empty() && rest.clone().all(|part| part.meter.usage().is_some())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spoken.is_empty() && self.lost.is_empty()
    }

    /// What the answer has come to so far: by the providers' reports where there are any, else by our
    /// own cautious count, which never exceeds theirs. `prompt_tokens` stands for an unreported prompt.
    pub(crate) fn so_far(&self, prompt_tokens: u64) -> (Usage, NanoUsd) {
        let mut sum = (Usage::default(), NanoUsd::ZERO);
        for (place, part) in self.spoken.iter().enumerate() {
            let usage = part.meter.usage().unwrap_or_else(|| part.guess(prompt_tokens));
            let usage = if place == 0 { usage } else { usage.outputs() };
            let all = sum.0.plus(&usage);
            let cost = part.cost(&usage, (all.input_total(), place == 0));
            sum = (all, sum.1.plus(cost));
        }
        sum
    }

    /// Puts usage and costs into the record.
    pub(crate) fn settle(&self, record: &mut Record, count: &dyn Count) {
        let prompt = LazyCell::new(|| count.prompt());
        let input = self.input();
        let outputs = self.outputs(count);
        let told = input.is_some() && self.is_reported();
        let input = input.unwrap_or_else(|| Usage { input: *prompt, ..Usage::default() });
        for (place, (part, output)) in self.spoken.iter().zip(&outputs).enumerate() {
            let first = place == 0;
            let caller = if first { input.plus(output) } else { *output };
            let house = (!first).then(|| part.house(output, count, || *prompt));
            record.usage = record.usage.plus(&caller);
            note(record, part, (Some(&caller), house.as_ref()));
        }
        for part in &self.lost {
            let house = part.house(&Usage::default(), count, || *prompt);
            note(record, part, (None, Some(&house)));
        }
        let price = self.spoken.first().and_then(|part| part.price.as_ref());
        record.price_version = price.map(|price| Arc::clone(&price.version));
        record.usage_source = match self.spoken.is_empty() {
            true => UsageSource::None,
            false if told => UsageSource::Provider,
            false => UsageSource::Estimated,
        };
    }

    /// The last part that went on with an answer and was reported on: its report tells of all before it.
    fn anchor(&self) -> Option<(usize, &Part)> {
        let tells = |part: &Part| part.start != Start::First && part.meter.usage().is_some();
        let place = self.spoken.iter().rposition(tells)?;
        Some((place, self.spoken.get(place)?))
    }

    /// The one prompt that the caller pays for, as far as a provider has told of it.
    fn input(&self) -> Option<Usage> {
        let first = self.spoken.first()?.meter.usage().map(|usage| usage.inputs());
        first.or_else(|| Some(self.anchor()?.1.prompt()))
    }

    /// What of each part reached the client. What a later provider has told of parts that nobody has
    /// reported on is shared among them by the length of their texts.
    fn outputs(&self, count: &dyn Count) -> Vec<Usage> {
        let anchor = self.anchor();
        let told = anchor.map_or(0, |(place, _)| place);
        let before = self.spoken.iter().take(told);
        let reported = |part: &Part| part.meter.usage().map(|usage| usage.outputs());
        let mut tokens = anchor.map_or(0, |(_, part)| part.tokens_before());
        let mut bytes = 0_u64;
        for part in before {
            match reported(part) {
                Some(usage) => tokens = tokens.saturating_sub(usage.output_total()),
                None => bytes = bytes.saturating_add(part.meter.text_bytes_total()),
            }
        }
        let shares = self.spoken.iter().enumerate().map(|(place, part)| {
            if let Some(usage) = reported(part) {
                return part.delivered(usage);
            }
            let own = part.meter.text_bytes_total();
            let output = if place < told {
                let share = usage::share(tokens, own, bytes.saturating_sub(own));
                tokens = tokens.saturating_sub(share);
                bytes = bytes.saturating_sub(own);
                share
            } else {
                count.text(part.meter.text(), own)
            };
            Usage { output, ..Usage::default() }
        });
        shares.collect()
    }
}

/// Bytes of output in a token, at the most: an event with more than that has more than one.
const BYTES_PER_TOKEN_MAX: u64 = 8;

impl Part {
    /// A count of what has come that a provider's will not be below: each event has a token at least.
    fn guess(&self, prompt_tokens: u64) -> Usage {
        let bytes = self.meter.text_bytes_total();
        let output = self.meter.semantic_events().max(bytes / BYTES_PER_TOKEN_MAX);
        Usage { input: prompt_tokens, output, ..Usage::default() }
    }

    /// What tokens of it cost in a call of `input_tokens`, and the request's own amount with them if wanted.
    fn cost(&self, usage: &Usage, (input_tokens, request): (u64, bool)) -> NanoUsd {
        let Some(price) = &self.price else { return NanoUsd::ZERO };
        let tier = ServiceTier::charged(self.asked_tier, self.meter.service_tier());
        let billing = Billing { tier, input_tokens, request };
        // A charge beyond what an account can hold is kept at that bound, not lost.
        price.charge_part(usage, &billing).unwrap_or(NanoUsd::MAX)
    }

    /// The caller's prompt, by the report on a part that went on with an answer.
    fn prompt(&self) -> Usage {
        let inputs = self.meter.usage().unwrap_or_default().inputs();
        match self.start {
            Start::First | Start::Afresh => inputs,
            Start::Prefilled => {
                let (all, own) = (inputs.input_total(), self.prompt_tokens);
                let input = usage::share(all, own, self.delivered_tokens);
                Usage { input, ..Usage::default() }
            }
        }
    }

    /// What the client had before it, by the report on it.
    fn tokens_before(&self) -> u64 {
        let usage = self.meter.usage().unwrap_or_default();
        match self.start {
            Start::First => 0,
            Start::Prefilled => usage.input_total().saturating_sub(self.prompt().input_total()),
            Start::Afresh => {
                let (again, new) = (self.meter.suppressed_bytes(), self.meter.text_bytes_total());
                usage::share(usage.output, again, new)
            }
        }
    }

    /// What of its reported usage reached the client.
    fn delivered(&self, outputs: Usage) -> Usage {
        match self.start {
            Start::First | Start::Prefilled => outputs,
            Start::Afresh => {
                let output = outputs.output.saturating_sub(self.tokens_before());
                Usage { output, ..Usage::default() }
            }
        }
    }

    /// What was done for it beside `delivered`: a prompt once more, output that was suppressed.
    fn house(&self, delivered: &Usage, count: &dyn Count, prompt: impl Fn() -> u64) -> Usage {
        let (input, output) = if let Some(usage) = self.meter.usage() {
            let output = usage.output_total().saturating_sub(delivered.output_total());
            (usage.inputs(), output)
        } else {
            let prefill = match self.start {
                Start::Prefilled => self.delivered_tokens,
                Start::First | Start::Afresh => 0,
            };
            let input = Usage { input: prompt().saturating_add(prefill), ..Usage::default() };
            let suppressed = self.meter.suppressed();
            (input, count.text(suppressed, self.meter.suppressed_bytes()))
        };
        input.plus(&Usage { output, ..Usage::default() })
    }
}

/// Puts a part's tokens and costs into its attempt and the record. The fixed amount of a request is
/// the caller's once, with the first part, and the house's for every further request.
fn note(record: &mut Record, part: &Part, (caller, house): (Option<&Usage>, Option<&Usage>)) {
    let charge = |usage: Option<&Usage>, request: bool| {
        usage.map_or(NanoUsd::ZERO, |usage| {
            part.cost(usage, (record.usage.input_total().max(usage.input_total()), request))
        })
    };
    let cost = charge(caller, house.is_none());
    let house_cost = charge(house, true);
    let add = |sum: &mut NanoUsd, more: NanoUsd| *sum = NanoUsd(sum.0.saturating_add(more.0));
    add(&mut record.cost, cost);
    add(&mut record.house_cost, house_cost);
    if let Some(attempt) = record.attempts.get_mut(part.attempt) {
        attempt.output_tokens = caller.map_or(0, Usage::output_total);
        attempt.cost = cost;
        attempt.house_cost = house_cost;
    }
}
