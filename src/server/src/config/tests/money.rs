//! What prices, tiers and the sections about money come to.

use std::time::Duration;

use secrecy::ExposeSecret;
use tokenroute_domain::limit::Limits;
use tokenroute_domain::money::{LongContext, NanoUsd, Rate, TierFactors};
use tokenroute_domain::time::Timestamp;
use tokenroute_proxy::snapshot::MoneySettings;

use super::super::plan::DatabasePlan;
use super::{SECRET, plan};

const DAY: u64 = 86_400_000_000;
/// The beginning of 2026-07-01.
const JULY: u64 = 20_635 * DAY;

#[test]
fn prices_hold_from_their_days_on() {
    let plan = plan(
        "[providers.p]
        base_url = 'https://h'
        [[providers.p.models]]
        id = 'a'
        input = '1'
        output = '2'
        prices = [
            { from = 2026-07-02, input = '5', output = '6' },
            { from = '2026-07-01', input = '3', output = '4', long_context = { above_tokens = 7, input = '2' } },
        ]
        [[providers.p.models]]
        id = 'b'
        prices = [{ from = '2026-07-01', input = '1', output = '1', service_tiers = { priority = '1.75' } }]",
    )
    .unwrap();
    let at = |model: &str, micros| {
        let route = plan.catalog.find(model).unwrap();
        route.targets[0].prices.at(Timestamp(micros)).cloned()
    };
    let times = [0, JULY - 1, JULY, JULY + DAY - 1, JULY + DAY];
    let all = times.map(|micros| at("p/a", micros).unwrap());
    assert_eq!(all.clone().map(|price| price.input.0 / 1_000_000_000), [1, 1, 3, 3, 5]);
    let [first, _, second, _, third] = all.map(|price| price.version.clone());
    assert!(first != second && second != third && !first.is_empty());
    let long = LongContext { above_tokens: 7, input_permille: 2_000, output_permille: 1_000 };
    assert_eq!(at("p/a", JULY).unwrap().long_context, Some(long));
    assert_eq!(at("p/b", JULY - 1), None);
    let tiers = at("p/b", JULY).unwrap().service_tiers;
    assert_eq!(tiers, TierFactors { flex: 1_000, priority: 1_750, scale: 1_000 });
    assert_eq!(plan.catalog.next_price_change(Timestamp(JULY)), Some(Timestamp(JULY + DAY)));
}

#[test]
fn a_route_can_price_what_no_list_knows() {
    let plan = plan(
        "[providers.p]
        base_url = 'https://h'
        models = [{ id = 'a', input = '1', output = '2', output_tokens_max = 8_192, image_tokens_max = 50 }]
        [[routes]]
        model = 'own/*'
        [[routes.targets]]
        provider = 'p'
        model = '*'
        output_tokens_max = 100
        prices = [{ input = '3', output = '4', request = '0.5' }]
        [[routes]]
        model = 'mine'
        targets = [{ provider = 'p', model = 'a', prices = [{ input = '7', output = '8' }] }]
        [[routes]]
        model = 'theirs'
        targets = [{ provider = 'p', model = 'a' }]",
    )
    .unwrap();
    let target = |model: &str| plan.catalog.find(model).unwrap().targets[0].clone();
    let price = |model: &str| super::price(&plan.catalog.find(model).unwrap()).unwrap();
    let any = price("own/x");
    assert_eq!((any.input, any.request), (Rate(3_000_000_000), NanoUsd(500_000_000)));
    assert_eq!(target("own/x").output_tokens_max, Some(100));
    assert_eq!(price("mine").input, Rate(7_000_000_000));
    assert_eq!(price("theirs").input, Rate(1_000_000_000));
    for model in ["mine", "theirs"] {
        let known = (target(model).output_tokens_max, target(model).image_tokens_max);
        assert_eq!(known, (Some(8_192), Some(50)));
    }
    let known = plan.catalog.prices().iter();
    let mut known: Vec<_> =
        known.map(|(name, prices)| (&**name, prices.all()[0].price.input.0)).collect();
    known.sort_unstable();
    assert_eq!(known, [("p/*", 3_000_000_000), ("p/a", 1_000_000_000), ("p/a", 7_000_000_000)]);
}

#[test]
fn tiers_and_money_are_as_typed() {
    let usual = plan("").unwrap();
    assert!(usual.tiers.is_empty() && matches!(usual.state.database, DatabasePlan::Sqlite));
    assert_eq!(usual.money.lease, Duration::from_mins(1));
    assert_eq!(usual.money.posting_lag_max, Duration::from_mins(15));
    let plan = plan(&format!(
        "[tiers.default]
        requests_per_second = 7
        [tiers.big]
        requests_per_minute = 600
        tokens_per_minute = 5_000_000_000
        concurrency = 9
        [money]
        lease_seconds = 2.5
        output_tokens_default = 1_000
        output_tokens_min = 10
        [database]
        url = 'postgresql://u:{SECRET}@h/d'"
    ))
    .unwrap();
    let settings = plan.settings(1, 0);
    let default = Limits { requests_per_second: Some(7), ..Limits::default() };
    let big = Limits {
        requests_per_second: None,
        requests_per_minute: Some(600),
        tokens_per_minute: Some(5_000_000_000),
        concurrency: Some(9),
    };
    assert_eq!(settings.tiers.get("default"), Some(&default));
    assert_eq!(settings.tiers.get("big"), Some(&big));
    let money = MoneySettings { output_tokens_default: 1_000, output_tokens_min: 10 };
    assert_eq!(settings.money, money);
    assert_eq!(plan.money.lease, Duration::from_millis(2_500));
    let DatabasePlan::Postgres(url, None) = &plan.state.database else { panic!("no database") };
    assert!(url.expose_secret().contains(SECRET));
}
