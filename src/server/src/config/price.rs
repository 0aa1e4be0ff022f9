//! Prices as typed, decimal strings in USD, into rates for every kind of usage.

use tokenroute_domain::money::{NanoUsd, Price, Rate};

use super::file::Model;
use super::problem::Problem;

/// Dearest rate (USD per million tokens) and request (USD): more is a slip of the pen.
const USD_MAX: i64 = 100_000;

/// The price of a model; `None` if it names none. A kind without a rate of its own takes the one
/// that providers bill instead: reads from a cache as input, reasoning as output, and so on.
pub(super) fn check(path: &str, model: &Model, problems: &mut Vec<Problem>) -> Option<Price> {
    let mut read = |name: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        match amount(text) {
            Ok(amount) => Some(amount),
            Err(why) => {
                problems.push(Problem::new(format!("{path}.{name}"), why));
                None
            }
        }
    };
    let input = read("input", &model.input);
    let output = read("output", &model.output);
    let cache_read = read("input_cache_read", &model.input_cache_read);
    let cache_write = read("input_cache_write", &model.input_cache_write);
    let cache_write_long = read("input_cache_write_long", &model.input_cache_write_long);
    let input_audio = read("input_audio", &model.input_audio);
    let input_image = read("input_image", &model.input_image);
    let reasoning = read("output_reasoning", &model.output_reasoning);
    let output_audio = read("output_audio", &model.output_audio);
    let output_image = read("output_image", &model.output_image);
    let request = read("request", &model.request);

    let typed = |text: &Option<String>| text.is_some();
    let others = [
        &model.input_cache_read,
        &model.input_cache_write,
        &model.input_cache_write_long,
        &model.input_audio,
        &model.input_image,
        &model.output_reasoning,
        &model.output_audio,
        &model.output_image,
        &model.request,
    ];
    if !typed(&model.input) && !typed(&model.output) && !others.into_iter().any(typed) {
        return None;
    }
    for (name, text) in [("input", &model.input), ("output", &model.output)] {
        if !typed(text) {
            let message = "is missing: a price needs input and output (\"0\" if it is free)";
            problems.push(Problem::new(format!("{path}.{name}"), message));
        }
    }
    let rate = |amount: Option<NanoUsd>, or: Rate| amount.map_or(or, |amount| Rate(amount.0));
    let (input, output) = (rate(input, Rate(0)), rate(output, Rate(0)));
    let input_cache_write = rate(cache_write, input);
    Some(Price {
        input,
        input_cache_read: rate(cache_read, input),
        input_cache_write,
        input_cache_write_long: rate(cache_write_long, input_cache_write),
        input_audio: rate(input_audio, input),
        input_image: rate(input_image, input),
        output,
        output_reasoning: rate(reasoning, output),
        output_audio: rate(output_audio, output),
        output_image: rate(output_image, output),
        request: request.unwrap_or(NanoUsd::ZERO),
    })
}

/// An amount that a price can be.
fn amount(text: &str) -> Result<NanoUsd, String> {
    let amount: NanoUsd = text.parse().map_err(|error| format!("is {error}"))?;
    let max = USD_MAX.saturating_mul(tokenroute_domain::money::NANO_PER_USD);
    if amount < NanoUsd::ZERO || amount.0 > max {
        return Err(format!("must be from 0 to {USD_MAX} USD"));
    }
    Ok(amount)
}
