//! Who may ask for what: refusals in their order, and routes with what is left of them.

use super::*;
use crate::catalog::{ProviderIndex, TargetSlot};
use crate::id::{AccountId, KeyId};
use crate::key::{Funding, Terms};
use crate::money::{Dated, NanoUsd, Price, Prices, Rate};
use crate::policy::Policy;
use crate::pool::{Ceiling, Period};

const NOW: Timestamp = Timestamp(10);

fn key(funding: Funding, terms: Terms) -> ApiKey {
    ApiKey {
        id: KeyId::new(NOW, 1),
        account: AccountId::new(NOW, 1),
        funding,
        expires: None,
        terms: Arc::new(terms),
    }
}

fn names(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|name| Arc::from(*name)).collect()
}

fn target(name: &str, prices: Prices) -> Target {
    Target {
        name: Arc::from(name),
        provider: ProviderIndex(0),
        upstream_model: Arc::from("m"),
        prices,
        weight: 1,
        rank: 0,
        slot: TargetSlot(0),
        prefill: false,
        context_tokens: None,
        output_tokens_max: None,
        image_tokens_max: None,
    }
}

fn catalog() -> Catalog {
    let price = || Price::flat(Rate(1), Rate(1));
    let later = Prices::new(vec![Dated { from: Timestamp(11), price: Arc::new(price()) }]);
    let route = |pattern: &str, targets: Vec<Target>| Route {
        model: Arc::from(pattern),
        pattern: Arc::from(pattern),
        targets,
        policy: Arc::default(),
    };
    Catalog::new(
        vec![
            route(
                "fast",
                vec![
                    target("a/x", Prices::always(price())),
                    target("b/org/y", Prices::default()),
                    target("c/z", later),
                ],
            ),
            route("b/*", vec![target("b/*", Prices::default())]),
        ],
        vec![],
    )
}

/// The targets that are left of a route.
fn decided(key: &ApiKey, model: &str, now: Timestamp) -> Result<Vec<String>, Refusal> {
    let admission = decide(key, &catalog(), model, now)?;
    Ok(admission.route.targets.iter().map(|target| target.name.to_string()).collect())
}

#[test]
fn a_key_works_until_it_expires() {
    let expiring = |end| ApiKey { expires: end, ..key(Funding::Unmetered, Terms::default()) };
    assert_eq!(check_key(&expiring(Some(NOW)), NOW), Err(Refusal::KeyExpired));
    assert_eq!(check_key(&expiring(Some(Timestamp(11))), NOW), Ok(()));
    assert_eq!(check_key(&expiring(None), NOW), Ok(()));
}

#[test]
fn a_key_without_terms_gets_the_route_itself() {
    let (key, catalog) = (key(Funding::Unmetered, Terms::default()), catalog());
    let admission = decide(&key, &catalog, "fast", NOW).unwrap();
    assert!(Arc::ptr_eq(&admission.route, &catalog.find("fast").unwrap()));
    assert_eq!(decide(&key, &catalog, "slow", NOW).unwrap_err(), Refusal::ModelNotFound);
}

#[test]
fn only_models_and_providers_that_are_named_are_left() {
    let key = |models: Option<&[&str]>, providers: Option<&[&str]>| {
        let (models, providers) = (models.map(names), providers.map(names));
        key(Funding::Unmetered, Terms { models, providers, ..Terms::default() })
    };
    let fast = |models, providers| decided(&key(models, providers), "fast", NOW);
    assert_eq!(fast(Some(&["fast"]), None).unwrap().len(), 3);
    assert_eq!(fast(Some(&["f*"]), Some(&["a", "b"])).unwrap(), ["a/x", "b/org/y"]);
    assert_eq!(fast(None, Some(&["b"])).unwrap(), ["b/org/y"]);
    for (models, providers) in [
        (Some(&["fas", "fast*", "b/*"][..]), None),
        (Some(&[][..]), None),
        (None, Some(&["org", "A", "a/x", ""][..])),
        (None, Some(&[][..])),
    ] {
        assert_eq!(fast(models, providers), Err(Refusal::ModelNotAllowed));
    }
    assert_eq!(decided(&key(Some(&["b/*"]), None), "b/q", NOW).unwrap(), ["b/q"]);
    assert_eq!(decided(&key(Some(&["b/r"]), None), "b/q", NOW), Err(Refusal::ModelNotAllowed));
}

#[test]
fn where_money_is_counted_only_targets_with_a_price_are_left() {
    let ceiling = Ceiling { period: Period::Day, limit: NanoUsd(1) };
    let capped = Terms { ceilings: vec![ceiling], ..Terms::default() };
    for key in [key(Funding::Prepaid, Terms::default()), key(Funding::Unmetered, capped)] {
        assert_eq!(decided(&key, "fast", NOW).unwrap(), ["a/x"]);
        assert_eq!(decided(&key, "fast", Timestamp(11)).unwrap(), ["a/x", "c/z"]);
        assert_eq!(decided(&key, "b/q", NOW), Err(Refusal::ModelNotPriced));
    }
    let terms = Terms { providers: Some(names(&["b", "c"])), ..Terms::default() };
    assert_eq!(decided(&key(Funding::Prepaid, terms), "fast", NOW), Err(Refusal::ModelNotPriced));
}

#[test]
fn a_policy_takes_away_from_what_the_key_may_use() {
    let under = |policy: &str, providers: Option<&[&str]>| {
        let providers = providers.map(names);
        let terms = Terms { account_policy: Some(policy.into()), providers, ..Terms::default() };
        key(Funding::Unmetered, terms)
    };
    let policy = |models: Option<&[&str]>, providers: Option<&[&str]>| Policy {
        models: models.map(names),
        providers: providers.map(names),
    };
    let policies = [
        ("open", policy(None, None)),
        ("ab", policy(None, Some(&["a", "b"]))),
        ("fast", policy(Some(&["f*"]), None)),
        ("closed", policy(Some(&[]), None)),
    ];
    let policies = policies.into_iter().map(|(name, policy)| (Arc::from(name), policy));
    let catalog = catalog().with_policies(policies.collect());
    let left = |key: &ApiKey, model: &str| {
        let targets = decide(key, &catalog, model, NOW)?.route.targets.clone();
        Ok(targets.iter().map(|target| target.name.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(left(&under("open", None), "fast").unwrap().len(), 3);
    assert_eq!(left(&under("ab", None), "fast").unwrap(), ["a/x", "b/org/y"]);
    assert_eq!(left(&under("ab", Some(&["b", "c"])), "fast").unwrap(), ["b/org/y"]);
    assert_eq!(left(&under("fast", None), "fast").unwrap().len(), 3);
    for (policy, providers, model) in [
        ("fast", None, "b/q"),
        ("closed", None, "fast"),
        ("gone", None, "fast"),
        ("ab", Some(&["c"][..]), "fast"),
    ] {
        let refused = left(&under(policy, providers), model);
        assert_eq!(refused, Err(Refusal::ModelNotAllowed), "{policy} {model}");
    }
    assert!(under("open", None).terms.restrict_routes(), "lists are written for it alone");
}
