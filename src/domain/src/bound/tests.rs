//! No call costs more than its bound, the bound grows with what it bounds, and what is affordable is the
//! exact inverse of it.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::catalog::{ProviderIndex, TargetSlot};
use crate::money::tests_of_prices::{price, tier, usage};
use crate::money::{Billing, Prices};
use crate::routing::Policy;
use crate::usage::Usage;

/// Cases of each property.
const CASES: u32 = 20_000;
const NOW: Timestamp = Timestamp(0);

fn target(price: Option<Price>, context: Option<u64>, output: Option<u64>) -> Target {
    Target {
        name: Arc::from("p/m"),
        provider: ProviderIndex(0),
        upstream_model: Arc::from("m"),
        prices: price.map(Prices::always).unwrap_or_default(),
        weight: 1,
        rank: 0,
        slot: TargetSlot(0),
        prefill: false,
        context_tokens: context,
        output_tokens_max: output,
        image_tokens_max: None,
    }
}

fn route(targets: Vec<Target>, on_break: OnBreak) -> Route {
    Route {
        model: Arc::from("m"),
        pattern: Arc::from("m"),
        targets,
        policy: Arc::new(Policy { on_break, ..Policy::default() }),
    }
}

fn routes() -> impl Strategy<Value = Route> {
    let targets =
        (proptest::option::weighted(0.9, price()), proptest::option::of(1_u64..2_000_000));
    let target =
        targets.prop_map(|(price, output)| target(price, None, output.map(|max| max / 100)));
    let targets = proptest::collection::vec(target, 1..4);
    let on_break = prop_oneof![Just(OnBreak::Continue), Just(OnBreak::Error)];
    (targets, on_break).prop_map(|(targets, on_break)| route(targets, on_break))
}

fn asks() -> impl Strategy<Value = Ask> {
    let cap = proptest::option::of(0_u64..1_000_000);
    let (usual, tier) = (proptest::option::of(0_u64..10_000), proptest::option::of(tier()));
    (0_u64..5_000_000, 0_u64..4, cap, usual, 0_u64..5, tier).prop_map(
        |(text_tokens, images, output_cap, output_usual, choices, tier)| Ask {
            text_tokens,
            images,
            output_cap,
            output_usual,
            choices,
            generates: true,
            tier,
            ..Ask::default()
        },
    )
}

fn money() -> impl Strategy<Value = NanoUsd> {
    prop_oneof![0_i64..1_000, 0_i64..1_000_000_000_000, 0_i64..9_000_000_000_000_000]
        .prop_map(NanoUsd)
}

/// A tier that an answer can have come from, if that was asked for.
fn possible(asked: Option<ServiceTier>, told: ServiceTier) -> ServiceTier {
    match asked {
        Some(ServiceTier::Auto | ServiceTier::Other) | None => told,
        Some(asked) if told == asked => told,
        Some(asked) if told == ServiceTier::Other => asked,
        Some(_) => ServiceTier::Default,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn no_usage_within_a_bound_costs_more(
        price in price(),
        usage in usage(),
        (asked, told) in (proptest::option::of(tier()), tier()),
        (more_input, more_output) in (0_u64..1_000, 0_u64..1_000),
    ) {
        let told = possible(asked, told);
        let bound = Bound {
            input_tokens: usage.input_total() + more_input,
            output_tokens: usage.output_total() + more_output,
            explicit: true,
        };
        let worst = Tariff::new(&price, bound.input_tokens, asked).worst(&bound);
        let charge = price.charge(&usage, told).unwrap_or(NanoUsd::MAX);
        prop_assert!(charge <= worst, "{charge} > {worst}");
    }

    #[test]
    fn more_tokens_are_never_cheaper(
        price in price(),
        asked in proptest::option::of(tier()),
        (input_tokens, output_tokens) in (0_u64..5_000_000, 0_u64..5_000_000),
        (more_input, more_output) in (0_u64..5_000_000, 0_u64..5_000_000),
    ) {
        let worst = |input_tokens, output_tokens| {
            let bound = Bound { input_tokens, output_tokens, explicit: false };
            Tariff::new(&price, input_tokens, asked).worst(&bound)
        };
        let more = worst(input_tokens + more_input, output_tokens + more_output);
        prop_assert!(worst(input_tokens, output_tokens) <= more);
    }

    #[test]
    fn what_is_affordable_at_a_price_fits_and_one_token_more_does_not(
        price in price(),
        asked in proptest::option::of(tier()),
        (input_tokens, choices) in (0_u64..5_000_000, 0_u64..5),
        money in money(),
    ) {
        let tariff = Tariff::new(&price, input_tokens, asked);
        let worst = |cap: u64| {
            let output_tokens = cap.saturating_mul(choices.max(1));
            tariff.worst(&Bound { input_tokens, output_tokens, explicit: false })
        };
        match tariff.affordable(input_tokens, choices, money) {
            None => prop_assert!(worst(0) > money),
            Some(cap) => {
                prop_assert!(worst(cap) <= money, "{cap}");
                prop_assert!(cap == u64::MAX || worst(cap + 1) > money, "{cap}");
            }
        }
    }

    #[test]
    fn what_is_affordable_on_a_route_fits_and_one_token_more_does_not(
        route in routes(),
        ask in asks(),
        money in money(),
    ) {
        let (ask, default) = (Ask { output_cap: None, ..ask }, 4_096);
        let held = |clamp| hold(&route, &ask, &Caps { default, clamp: Some(clamp) }, NOW);
        match affordable(&route, &ask, NOW, (default, money)) {
            None => prop_assert!(held(0) > money),
            Some(cap) => {
                prop_assert!(held(cap) <= money, "{cap}");
                prop_assert!(cap == u64::MAX || held(cap + 1) > money, "{cap}");
            }
        }
    }

    /// The prompt is paid at the first target and the output wherever it comes from, each part rounded.
    #[test]
    fn no_way_through_a_route_costs_more_than_is_held(
        route in routes(),
        ask in asks(),
        tiers in proptest::collection::vec(tier(), 3),
        kinds in usage(),
        cuts in proptest::collection::vec(0_u64..1_000, 3),
    ) {
        let caps = Caps { default: 4_096, clamp: None };
        let priced: Vec<_> = route.targets.iter().filter(|one| one.prices.at(NOW).is_some()).collect();
        let mixed = route.policy.on_break == OnBreak::Continue;
        let parts = if mixed { priced.len() } else { priced.len().min(1) };
        let input = Usage { input: kinds.input, input_audio: kinds.input_audio, ..Usage::default() };
        let text_tokens = ask.text_tokens.max(input.input_total());
        let ask = Ask { text_tokens, ..ask };
        let held = hold(&route, &ask, &caps, NOW);
        let mut left = u64::MAX;
        let mut cost = NanoUsd::ZERO;
        for place in 0..parts {
            let (target, told) = (priced[place], possible(ask.tier, tiers[place]));
            // All parts together stay below the cap of the target that speaks.
            let all = caps.cap(&ask, target).tokens * ask.choices_total();
            let output = all.min(left) * cuts[place] / 1_000;
            left = all.min(left) - output;
            let output = if place % 2 == 0 {
                Usage { output, ..Usage::default() }
            } else {
                Usage { output_reasoning: output, ..Usage::default() }
            };
            let part = if place == 0 { input.plus(&output) } else { output };
            let billing = Billing {
                tier: told,
                input_tokens: input.input_total(),
                request: place == 0,
            };
            let price = target.prices.at(NOW).unwrap();
            cost = cost.plus(price.charge_part(&part, &billing).unwrap_or(NanoUsd::MAX));
        }
        prop_assert!(cost <= held, "{cost} > {held}");
    }
}

const DEFAULT: Caps = Caps { default: 4_096, clamp: None };

#[test]
fn the_output_is_capped_by_the_request_the_catalogue_or_the_default() {
    let named = |output_cap| Ask { output_cap, generates: true, ..Ask::default() };
    let (known, unknown) = (target(None, None, Some(8_192)), target(None, None, None));
    let cap = |tokens, inject| Cap { tokens, inject };
    assert_eq!(DEFAULT.cap(&named(Some(100)), &known), cap(100, false));
    assert_eq!(DEFAULT.cap(&named(Some(100_000)), &known), cap(8_192, false));
    assert_eq!(DEFAULT.cap(&named(Some(100_000)), &unknown), cap(100_000, false));
    assert_eq!(DEFAULT.cap(&named(None), &known), cap(8_192, true));
    assert_eq!(DEFAULT.cap(&named(None), &unknown), cap(4_096, true));
    let clamped = Caps { clamp: Some(300), ..DEFAULT };
    assert_eq!(clamped.cap(&named(None), &known), cap(300, true));
    assert_eq!(clamped.cap(&named(Some(1_000)), &known), cap(1_000, false));
    let usual = |tokens, output_cap| Ask { output_usual: Some(tokens), ..named(output_cap) };
    assert_eq!(DEFAULT.cap(&usual(16, None), &known), cap(16, true));
    assert_eq!(DEFAULT.cap(&usual(16, None), &unknown), cap(16, true));
    assert_eq!(DEFAULT.cap(&usual(16, Some(100)), &known), cap(100, false));
    assert_eq!(DEFAULT.cap(&usual(9_000, None), &known), cap(8_192, true), "no more than it can");
    let embeddings = Ask { generates: false, ..named(Some(9)) };
    assert_eq!(DEFAULT.cap(&embeddings, &known), cap(0, false));
}

#[test]
fn every_choice_of_every_prompt_counts() {
    let ask = Ask { generates: true, choices: 3, prompts: 4, ..Ask::default() };
    let bound = Bound::new(&ask, &target(None, None, Some(10)), &DEFAULT);
    assert_eq!((bound.output_tokens, bound.explicit), (120, false));
}

#[test]
fn what_is_not_text_has_a_ceiling_and_a_context_bounds_it_all() {
    let ask = Ask { text_tokens: text_by_bytes(1_000), images: 2, ..Ask::default() };
    let generates = Ask { generates: true, ..ask };
    let any = target(None, None, None);
    assert_eq!(input_tokens(&ask, &any), 1_000 + TEMPLATE_TOKENS + 2 * IMAGE_TOKENS_DEFAULT);
    let dear = Target { image_tokens_max: Some(50_000), ..any };
    assert_eq!(input_tokens(&ask, &dear), 1_000 + TEMPLATE_TOKENS + 100_000);
    let small = target(None, Some(8_192), None);
    assert_eq!(input_tokens(&generates, &small), 8_192);
    assert_eq!(input_tokens(&Ask { prompts: 2, files: 1, ..generates }, &small), 2 * 8_192);
    // Each of many inputs has a context of its own.
    assert_eq!(input_tokens(&ask, &small), 1_000 + TEMPLATE_TOKENS + 2 * IMAGE_TOKENS_DEFAULT);
}

#[test]
fn what_is_priced_by_the_request_alone_is_held_for_exactly() {
    let price = Price { request: NanoUsd(100), ..Price::default() };
    let ask = Ask { text_tokens: 1_000, generates: true, ..Ask::default() };
    let two = vec![target(Some(price.clone()), None, None), target(Some(price), None, None)];
    let route = route(two, OnBreak::Continue);
    assert_eq!(hold(&route, &ask, &DEFAULT, NOW), NanoUsd(100));
    assert_eq!(affordable(&route, &ask, NOW, (4_096, NanoUsd(100))), Some(u64::MAX));
    assert_eq!(affordable(&route, &ask, NOW, (4_096, NanoUsd(99))), None);
}

#[test]
fn a_prompt_that_may_be_long_is_held_for_as_one() {
    let long = LongContext { above_tokens: 200, input_permille: 2_000, output_permille: 1_500 };
    let price = Price { long_context: Some(long), ..Price::flat(Rate(1_000_000), Rate(1_000_000)) };
    let worst = |input_tokens| {
        let bound = Bound { input_tokens, output_tokens: 100, explicit: true };
        Tariff::new(&price, input_tokens, None).worst(&bound).0
    };
    assert_eq!((worst(200), worst(201)), (300, 402 + 150));
}

#[test]
fn each_part_of_a_mixed_answer_is_rounded_up_by_itself() {
    let price = || Price::flat(Rate(0), Rate(1));
    let two = vec![target(Some(price()), None, None), target(Some(price()), None, None)];
    let ask = Ask { output_cap: Some(2), generates: true, ..Ask::default() };
    let token = Usage { output: 1, ..Usage::default() };
    let billing = Billing { tier: ServiceTier::Default, input_tokens: 0, request: false };
    let part = price().charge_part(&token, &billing).unwrap();
    let held = |on_break| hold(&route(two.clone(), on_break), &ask, &DEFAULT, NOW);
    assert!(part.plus(part) <= held(OnBreak::Continue));
    assert_eq!(held(OnBreak::Error), NanoUsd(1));
}
