//! Prices as typed, decimal strings in USD and days, into rates for every kind of usage.

use std::collections::HashSet;
use std::sync::Arc;

use tokenroute_domain::money::{
    Dated, LongContext, NANO_PER_USD, NanoUsd, PERMILLE, Price, Prices, Rate, TierFactors,
};
use tokenroute_domain::time::Timestamp;

use super::check::{Checker, bounds};
use super::file::{self, Model};
use super::providers::TOKENS_MAX;

/// Dearest rate (USD per million tokens) and request (USD): more is a slip of the pen.
const USD_MAX: i64 = 100_000;
/// Greatest factor of long prompts and service tiers.
const FACTOR_MAX: i64 = 100;
/// Most prices of a model.
const PRICES_MAX: usize = 100;
/// Nano-USD in a thousandth: factors are typed as amounts are.
const NANO_PER_PERMILLE: i64 = 1_000_000;
/// Years that prices can be of.
const YEARS: std::ops::RangeInclusive<u64> = 2000..=2999;

/// The prices of a model: the one that stands in its own table, and those of its list.
pub(super) fn of_model(checker: &mut Checker<'_>, path: &str, model: &Model) -> Prices {
    let own = file::Price {
        from: None,
        input: model.input.clone(),
        input_cache_read: model.input_cache_read.clone(),
        input_cache_write: model.input_cache_write.clone(),
        input_cache_write_long: model.input_cache_write_long.clone(),
        input_audio: model.input_audio.clone(),
        input_image: model.input_image.clone(),
        output: model.output.clone(),
        output_reasoning: model.output_reasoning.clone(),
        output_audio: model.output_audio.clone(),
        output_image: model.output_image.clone(),
        request: model.request.clone(),
        long_context: model.long_context.clone(),
        service_tiers: model.service_tiers.clone(),
    };
    let own = says_anything(&own).then(|| check_one(checker, path, &own));
    listed(checker, path, own, &model.prices)
}

/// The prices of a route's target; none if it lists none.
pub(super) fn of_target(checker: &mut Checker<'_>, path: &str, typed: &[file::Price]) -> Prices {
    listed(checker, path, None, typed)
}

/// All prices together, each of a day of its own.
fn listed(
    checker: &mut Checker<'_>,
    path: &str,
    own: Option<Price>,
    typed: &[file::Price],
) -> Prices {
    let dated = |from, price| Dated { from, price: Arc::new(price) };
    if typed.len() > PRICES_MAX {
        checker.problem(format!("{path}.prices"), format!("are too many: at most {PRICES_MAX}"));
    }
    let mut days = HashSet::new();
    let mut all = Vec::new();
    if let Some(own) = own {
        days.insert(Timestamp::default());
        all.push(dated(Timestamp::default(), own));
    }
    for (place, typed) in typed.iter().take(PRICES_MAX).enumerate() {
        let path = format!("{path}.prices[{place}]");
        let field = format!("{path}.from");
        let from = match typed.from.as_deref().map(day) {
            None => Some(Timestamp::default()),
            Some(day) => day,
        };
        let price = check_one(checker, &path, typed);
        match from {
            None => checker.problem(field, "must be a day (UTC), such as \"2026-01-31\""),
            Some(from) if !days.insert(from) => {
                checker.problem(field, "is said of another price of this model too");
            }
            Some(from) => all.push(dated(from, price)),
        }
    }
    Prices::new(all)
}

/// Whether a table names any part of a price.
fn says_anything(typed: &file::Price) -> bool {
    let amounts = amounts(typed);
    amounts.iter().any(|(_, text)| text.is_some())
        || typed.long_context.is_some()
        || typed.service_tiers.is_some()
}

fn amounts(typed: &file::Price) -> [(&'static str, Option<&str>); 11] {
    [
        ("input", &typed.input),
        ("input_cache_read", &typed.input_cache_read),
        ("input_cache_write", &typed.input_cache_write),
        ("input_cache_write_long", &typed.input_cache_write_long),
        ("input_audio", &typed.input_audio),
        ("input_image", &typed.input_image),
        ("output", &typed.output),
        ("output_reasoning", &typed.output_reasoning),
        ("output_audio", &typed.output_audio),
        ("output_image", &typed.output_image),
        ("request", &typed.request),
    ]
    .map(|(name, text)| (name, text.as_deref()))
}

/// One price. A kind without a rate of its own takes the one that providers bill instead: reads from a
/// cache as input, reasoning as output, and so on.
fn check_one(checker: &mut Checker<'_>, path: &str, typed: &file::Price) -> Price {
    let read = amounts(typed).map(|(name, text)| {
        let read = text.map(amount);
        if let Some(Err(why)) = &read {
            checker.problem(format!("{path}.{name}"), why.clone());
        }
        read.and_then(Result::ok)
    });
    for (name, text) in [("input", &typed.input), ("output", &typed.output)] {
        if text.is_none() {
            let message = "is missing: a price needs input and output (\"0\" if it is free)";
            checker.problem(format!("{path}.{name}"), message);
        }
    }
    let [input, cache_read, cache_write, cache_write_long, audio, image, rest @ ..] = read;
    let [output, reasoning, output_audio, output_image, request] = rest;
    let rate = |amount: Option<NanoUsd>, or: Rate| amount.map_or(or, |amount| Rate(amount.0));
    let (input, output) = (rate(input, Rate(0)), rate(output, Rate(0)));
    let input_cache_write = rate(cache_write, input);
    let price = Price {
        input,
        input_cache_read: rate(cache_read, input),
        input_cache_write,
        input_cache_write_long: rate(cache_write_long, input_cache_write),
        input_audio: rate(audio, input),
        input_image: rate(image, input),
        output,
        output_reasoning: rate(reasoning, output),
        output_audio: rate(output_audio, output),
        output_image: rate(output_image, output),
        request: request.unwrap_or(NanoUsd::ZERO),
        long_context: long_context(checker, path, typed.long_context.as_ref()),
        service_tiers: service_tiers(checker, path, typed.service_tiers.as_ref()),
        version: Arc::default(),
    };
    price.versioned()
}

fn long_context(
    checker: &mut Checker<'_>,
    path: &str,
    typed: Option<&file::LongContext>,
) -> Option<LongContext> {
    let typed = typed?;
    let path = format!("{path}.long_context");
    let field = format!("{path}.above_tokens");
    if typed.above_tokens.is_none() {
        checker.problem(&field, "is missing");
    }
    Some(LongContext {
        above_tokens: checker.count(&field, typed.above_tokens, bounds(0, 1, TOKENS_MAX)),
        input_permille: factor(checker, &path, ("input", &typed.input)),
        output_permille: factor(checker, &path, ("output", &typed.output)),
    })
}

fn service_tiers(
    checker: &mut Checker<'_>,
    path: &str,
    typed: Option<&file::ServiceTiers>,
) -> TierFactors {
    let Some(typed) = typed else { return TierFactors::default() };
    let path = format!("{path}.service_tiers");
    TierFactors {
        flex: factor(checker, &path, ("flex", &typed.flex)),
        priority: factor(checker, &path, ("priority", &typed.priority)),
        scale: factor(checker, &path, ("scale", &typed.scale)),
    }
}

/// A factor in thousandths; 1 if none was typed.
fn factor(checker: &mut Checker<'_>, path: &str, (name, typed): (&str, &Option<String>)) -> u32 {
    let Some(text) = typed.as_deref() else { return PERMILLE };
    let nano = text.parse::<NanoUsd>().ok().map(|NanoUsd(nano)| nano);
    let whole = nano.filter(|nano| nano.checked_rem(NANO_PER_PERMILLE) == Some(0));
    let permille = whole.and_then(|nano| nano.checked_div(NANO_PER_PERMILLE));
    let max = FACTOR_MAX.saturating_mul(i64::from(PERMILLE));
    let permille = permille.filter(|permille| (0..=max).contains(permille));
    permille.and_then(|permille| u32::try_from(permille).ok()).unwrap_or_else(|| {
        let message = format!(
            "must be a factor from 0 to {FACTOR_MAX} with at most three decimals, such as \"1.5\""
        );
        checker.problem(format!("{path}.{name}"), message);
        PERMILLE
    })
}

/// An amount that a price can be.
fn amount(text: &str) -> Result<NanoUsd, String> {
    let amount: NanoUsd = text.parse().map_err(|error| format!("is {error}"))?;
    let max = USD_MAX.saturating_mul(NANO_PER_USD);
    if amount < NanoUsd::ZERO || amount.0 > max {
        return Err(format!("must be from 0 to {USD_MAX} USD"));
    }
    Ok(amount)
}

/// The beginning of a day, written as `YYYY-MM-DD`, in UTC.
fn day(text: &str) -> Option<Timestamp> {
    let mut parts = text.split('-');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse::<u64>().ok())?
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    let sound = parts.next().is_none()
        && YEARS.contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day);
    let before_year = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<u64>();
    let before_month = (1..month).map(|month| days_of(year, month)).sum::<u64>();
    let days = before_year.checked_add(before_month)?.checked_add(day)?.checked_sub(1)?;
    sound.then(|| days.checked_mul(MICROS_PER_DAY))?.map(Timestamp)
}

const MICROS_PER_DAY: u64 = 86_400 * 1_000_000;

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_strictly() {
        let days = |text| day(text).map(|time| time.0 / MICROS_PER_DAY);
        assert_eq!(days("2000-01-01"), Some(10_957));
        assert_eq!(days("2024-02-29"), Some(19_782));
        assert_eq!(days("2026-11-21"), Some(20_778));
        assert_eq!(days("2100-03-01"), Some(47_541));
        for bad in [
            "",
            "2026",
            "2026-1-1",
            "2026-00-10",
            "2026-13-01",
            "2026-02-29",
            "2100-02-29",
            "2026-04-31",
            "2026-01-00",
            "1999-12-31",
            "3000-01-01",
            "+026-01-01",
            "2026-01-01Z",
            "2026-01-01-1",
            "01-01-2026",
            "9999-99-99",
        ] {
            assert_eq!(day(bad), None, "{bad}");
        }
    }
}
