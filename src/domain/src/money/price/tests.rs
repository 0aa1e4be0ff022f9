//! Charges against an exact oracle of fractions, versions, and which price holds when.

use proptest::prelude::*;

use super::*;

/// Cases of the property below.
const CASES: u32 = 100_000;

fn rates() -> impl Strategy<Value = [i64; 10]> {
    // Real rates are below 10^14 (100,000 USD for a million); small ones round.
    proptest::array::uniform10(prop_oneof![Just(0), 0_i64..2_000, 0_i64..100_000_000_000_000])
}

fn counts() -> impl Strategy<Value = [u64; 10]> {
    proptest::array::uniform10(prop_oneof![Just(0), 0_u64..100, 0_u64..1_000_000])
}

fn factor() -> impl Strategy<Value = u32> {
    prop_oneof![Just(PERMILLE), 0_u32..5_000]
}

pub(crate) fn price() -> impl Strategy<Value = Price> {
    let long = proptest::option::of((0_u64..3_000_000, factor(), factor()));
    let tiers = (factor(), factor(), factor());
    (rates(), 0_i64..1_000_000_000, long, tiers).prop_map(|(rates, request, long, tiers)| {
        let (flex, priority, scale) = tiers;
        Price {
            input: Rate(rates[0]),
            input_cache_read: Rate(rates[1]),
            input_cache_write: Rate(rates[2]),
            input_cache_write_long: Rate(rates[3]),
            input_audio: Rate(rates[4]),
            input_image: Rate(rates[5]),
            output: Rate(rates[6]),
            output_reasoning: Rate(rates[7]),
            output_audio: Rate(rates[8]),
            output_image: Rate(rates[9]),
            request: NanoUsd(request),
            long_context: long.map(|(above_tokens, input_permille, output_permille)| LongContext {
                above_tokens,
                input_permille,
                output_permille,
            }),
            service_tiers: TierFactors { flex, priority, scale },
            version: Arc::from(""),
        }
    })
}

pub(crate) fn usage() -> impl Strategy<Value = Usage> {
    counts().prop_map(|counts| Usage {
        input: counts[0],
        input_cache_read: counts[1],
        input_cache_write: counts[2],
        input_cache_write_long: counts[3],
        input_audio: counts[4],
        input_image: counts[5],
        output: counts[6],
        output_reasoning: counts[7],
        output_audio: counts[8],
        output_image: counts[9],
    })
}

pub(crate) fn tier() -> impl Strategy<Value = ServiceTier> {
    prop_oneof![
        Just(ServiceTier::Auto),
        Just(ServiceTier::Default),
        Just(ServiceTier::Flex),
        Just(ServiceTier::Priority),
        Just(ServiceTier::Scale),
        Just(ServiceTier::Other),
    ]
}

/// The greatest common divisor.
fn common(mut one: i128, mut other: i128) -> i128 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// A fraction in lowest terms.
#[derive(Clone, Copy)]
struct Fraction(i128, i128);

impl Fraction {
    fn new(over: i128, under: i128) -> Self {
        let common = common(over, under);
        Self(over / common, under / common)
    }

    fn plus(self, other: Self) -> Self {
        let under = self.1 / common(self.1, other.1) * other.1;
        Self::new(self.0 * (under / self.1) + other.0 * (under / other.1), under)
    }

    fn times(self, other: Self) -> Self {
        Self::new(self.0 * other.0, self.1 * other.1)
    }

    /// The least whole number that is not below it.
    fn ceiling(self) -> i128 {
        self.0 / self.1 + i128::from(self.0 % self.1 != 0)
    }
}

/// What a charge should be, told apart from how it is reckoned: each kind of token by itself, in USD a
/// token, as a fraction.
fn oracle(price: &Price, usage: &Usage, tier: ServiceTier) -> i128 {
    let kinds = [
        (usage.input, price.input, true),
        (usage.input_cache_read, price.input_cache_read, true),
        (usage.input_cache_write, price.input_cache_write, true),
        (usage.input_cache_write_long, price.input_cache_write_long, true),
        (usage.input_audio, price.input_audio, true),
        (usage.input_image, price.input_image, true),
        (usage.output, price.output, false),
        (usage.output_reasoning, price.output_reasoning, false),
        (usage.output_audio, price.output_audio, false),
        (usage.output_image, price.output_image, false),
    ];
    let prompt: u64 = kinds.iter().filter(|kind| kind.2).map(|kind| kind.0).sum();
    let mut sum = Fraction(0, 1);
    for (count, rate, input) in kinds {
        let mut cost = Fraction::new(i128::from(rate.0), 1_000_000);
        cost = cost.times(Fraction(i128::from(count), 1));
        if let Some(long) = price.long_context
            && prompt > long.above_tokens
        {
            let factor = if input { long.input_permille } else { long.output_permille };
            cost = cost.times(Fraction::new(i128::from(factor), 1_000));
        }
        let factor = match tier {
            ServiceTier::Flex => price.service_tiers.flex,
            ServiceTier::Priority => price.service_tiers.priority,
            ServiceTier::Scale => price.service_tiers.scale,
            ServiceTier::Auto | ServiceTier::Default | ServiceTier::Other => 1_000,
        };
        sum = sum.plus(cost.times(Fraction::new(i128::from(factor), 1_000)));
    }
    sum.ceiling() + i128::from(price.request.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn a_charge_is_exact_and_rounded_up_once(price in price(), usage in usage(), tier in tier()) {
        let expected = i64::try_from(oracle(&price, &usage, tier)).ok().map(NanoUsd);
        prop_assert_eq!(price.charge(&usage, tier), expected);
    }
}

#[test]
fn a_small_embedding_costs_less_than_a_micro_usd() {
    let price = Price::flat(Rate(20_000_000), Rate(0));
    let usage = Usage { input: 10, ..Usage::default() };
    assert_eq!(price.charge(&usage, ServiceTier::Default), Some(NanoUsd(200)));
}

#[test]
fn rounds_up_once() {
    let price = Price::flat(Rate(1), Rate(1));
    let usage = Usage { input: 1, output: 1, ..Usage::default() };
    assert_eq!(price.charge(&usage, ServiceTier::Default), Some(NanoUsd(1)));
}

#[test]
fn refuses_what_does_not_fit() {
    let price = Price::flat(Rate(i64::MAX), Rate(0));
    let usage = Usage { input: u64::MAX, ..Usage::default() };
    assert_eq!(price.charge(&usage, ServiceTier::Default), None);
    let usage = Usage { input: 1 << 40, ..usage };
    assert_eq!(price.charge(&usage, ServiceTier::Default), None);
}

#[test]
fn a_long_prompt_makes_the_whole_call_dearer_but_not_its_fixed_amount() {
    let long = LongContext { above_tokens: 10, input_permille: 2_000, output_permille: 1_500 };
    let price = Price {
        request: NanoUsd(7),
        long_context: Some(long),
        ..Price::flat(Rate(1_000_000), Rate(2_000_000))
    };
    let charge = |input, output| {
        let usage = Usage { input, output, ..Usage::default() };
        price.charge(&usage, ServiceTier::Auto).unwrap().0
    };
    assert_eq!(charge(10, 10), 10 + 20 + 7);
    assert_eq!(charge(11, 10), 22 + 30 + 7);
}

#[test]
fn a_part_is_charged_as_a_part_of_its_whole() {
    let long = LongContext { above_tokens: 10, input_permille: 2_000, output_permille: 1_500 };
    let price = Price {
        request: NanoUsd(7),
        long_context: Some(long),
        service_tiers: TierFactors { priority: 3_000, ..TierFactors::default() },
        ..Price::flat(Rate(1_000_000), Rate(2_000_000))
    };
    let output = Usage { output: 10, ..Usage::default() };
    let part = |input_tokens, tier, request| {
        price.charge_part(&output, &Billing { tier, input_tokens, request }).unwrap().0
    };
    assert_eq!(part(10, ServiceTier::Default, false), 20);
    assert_eq!(part(11, ServiceTier::Default, false), 30);
    assert_eq!(part(11, ServiceTier::Priority, true), 97);
}

#[test]
fn what_the_answer_told_of_its_tier_is_charged() {
    use ServiceTier::{Auto, Default, Flex, Other, Priority};
    for (asked, told, charged) in [
        (None, None, Default),
        (Some(Flex), None, Flex),
        (Some(Flex), Some(Default), Default),
        (None, Some(Priority), Priority),
        (Some(Auto), Some(Other), Other),
    ] {
        assert_eq!(ServiceTier::charged(asked, told), charged);
    }
}

#[test]
fn a_version_names_all_that_a_price_says() {
    let price = Price::flat(Rate(1), Rate(2));
    assert_eq!(price.version.len(), 2 * VERSION_BYTES);
    assert_eq!(price.version, price.clone().versioned().version);
    let long = LongContext { above_tokens: 1, input_permille: 2, output_permille: 3 };
    let others = [
        Price { input: Rate(3), ..price.clone() },
        Price { output_image: Rate(3), ..price.clone() },
        Price { request: NanoUsd(1), ..price.clone() },
        Price { long_context: Some(long), ..price.clone() },
        Price {
            service_tiers: TierFactors { flex: 500, ..TierFactors::default() },
            ..price.clone()
        },
    ];
    for other in others {
        assert_ne!(other.versioned().version, price.version);
    }
}

#[test]
fn the_latest_price_that_has_begun_holds() {
    let price = |rate| Arc::new(Price::flat(Rate(rate), Rate(0)));
    let dated = |from, rate| Dated { from: Timestamp(from), price: price(rate) };
    let prices = Prices::new(vec![dated(20, 2), dated(10, 1), dated(30, 3)]);
    let at = |now| prices.at(Timestamp(now)).map(|price| price.input.0);
    assert_eq!(
        [9, 10, 19, 20, 29, 30, u64::MAX].map(at),
        [None, Some(1), Some(1), Some(2), Some(2), Some(3), Some(3)]
    );
    let next = |now| prices.next_change(Timestamp(now)).map(|from| from.0);
    assert_eq!([9, 10, 29, 30].map(next), [Some(10), Some(20), Some(30), None]);
    assert_eq!(Prices::default().at(Timestamp(9)), None);
    assert!(Prices::always(Price::default()).at(Timestamp(0)).is_some());
}
