//! What a call's answer comes to: the caller pays for one prompt and what was delivered, each part at the
//! rate of the target that delivered it; the house bears what had to be done twice.

use std::cell::LazyCell;

use tokenroute_domain::money::{NanoUsd, Price};
use tokenroute_domain::record::Record;
use tokenroute_domain::usage::{Usage, UsageSource};
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
    pub(crate) price: Option<Price>,
    pub(crate) meter: Meter,
    pub(crate) start: Start,
    /// Output tokens that the client had before it.
    pub(crate) delivered_tokens: u64,
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
    /// Whether all that is needed was reported by providers, so that nothing has to be counted.
    pub(crate) fn is_reported(&self) -> bool {
        let reported = |part: &Part| part.meter.usage().is_some();
        self.lost.is_empty() && self.spoken.iter().all(reported)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spoken.is_empty() && self.lost.is_empty()
    }

    /// Puts usage and costs into the record.
    pub(crate) fn settle(&self, record: &mut Record, count: &dyn Count) {
        let prompt = LazyCell::new(|| count.prompt());
        let mut estimated = false;
        for (place, part) in self.spoken.iter().enumerate() {
            let input = if place == 0 {
                self.input(&mut estimated)
                    .unwrap_or_else(|| Usage { input: *prompt, ..Usage::default() })
            } else {
                Usage::default()
            };
            let output = part.output(count, &mut estimated);
            let caller = input.plus(&output);
            record.usage = record.usage.plus(&caller);
            let house = if place == 0 { None } else { Some(part.house(&output, count, *prompt)) };
            note(record, part, (Some(&caller), house.as_ref()));
        }
        for part in &self.lost {
            let house = part.house(&Usage::default(), count, *prompt);
            note(record, part, (None, Some(&house)));
        }
        record.usage_source = match self.spoken.is_empty() {
            true => UsageSource::None,
            false if estimated => UsageSource::Estimated,
            false => UsageSource::Provider,
        };
    }

    /// The one prompt that the caller pays for, by the first provider that has told of it; `None` if
    /// it has to be counted.
    fn input(&self, estimated: &mut bool) -> Option<Usage> {
        let told = self.spoken.iter().find_map(|part| {
            let usage = part.meter.usage()?.inputs();
            Some(match part.start {
                Start::First | Start::Afresh => usage,
                Start::Prefilled => {
                    let input = usage.input_total().saturating_sub(part.delivered_tokens);
                    Usage { input, ..Usage::default() }
                }
            })
        });
        *estimated |= told.is_none();
        told
    }
}

impl Part {
    /// What of it reached the client.
    fn output(&self, count: &dyn Count, estimated: &mut bool) -> Usage {
        match (self.meter.usage(), self.start) {
            (Some(usage), Start::First | Start::Prefilled) => usage.outputs(),
            (Some(usage), Start::Afresh) => {
                let output = usage.output_total().saturating_sub(self.delivered_tokens);
                Usage { output, ..Usage::default() }
            }
            (None, _) => {
                *estimated = true;
                let output = count.text(self.meter.text(), self.meter.text_bytes_total());
                Usage { output, ..Usage::default() }
            }
        }
    }

    /// What was done for it beside `delivered`: a prompt once more, output that was suppressed.
    fn house(&self, delivered: &Usage, count: &dyn Count, prompt: u64) -> Usage {
        let (input, output) = if let Some(usage) = self.meter.usage() {
            let output = usage.output_total().saturating_sub(delivered.output_total());
            (usage.inputs(), output)
        } else {
            let prefill = match self.start {
                Start::Prefilled => self.delivered_tokens,
                Start::First | Start::Afresh => 0,
            };
            let input = Usage { input: prompt.saturating_add(prefill), ..Usage::default() };
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
        let (Some(price), Some(usage)) = (part.price, usage) else { return NanoUsd::ZERO };
        let fee = if request { price.request } else { NanoUsd::ZERO };
        // A charge beyond what an account can hold is kept at that bound, not lost.
        Price { request: fee, ..price }.charge(usage).unwrap_or(NanoUsd(i64::MAX))
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
