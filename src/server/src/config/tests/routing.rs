//! What a configuration's words about attempts, deadlines and probes come to.

use std::time::Duration;

use tokenroute_domain::routing::{Affinity, Balance, Hedge, OnBreak, Patience, Policy};
use tokenroute_proxy::snapshot::{Probe, ProbeKind};
use tokenroute_wire::request::PrefillForm;

use super::plan;

const SECOND: Duration = Duration::from_secs(1);

/// A file with one provider that lists a model, and more settings.
fn with(more: &str) -> String {
    format!(
        "[providers.p]\nbase_url = 'https://h'\nmodels = [{{ id = 'x', context_tokens = 8_000 }}]\n{more}"
    )
}

fn policy(text: &str, model: &str) -> Policy {
    plan(text).unwrap().catalog.find(model).unwrap().policy.as_ref().clone()
}

#[test]
fn a_route_that_says_nothing_is_tried_by_the_rules_own_defaults() {
    let text = with("[[routes]]\nmodel = 'm'\ntargets = [{ provider = 'p', model = 'y' }]");
    assert_eq!(policy(&text, "m"), Policy::default());
    assert_eq!(policy(&text, "p/x"), Policy::default());
    let target = plan(&text).unwrap().catalog.find("m").unwrap().targets[0].clone();
    assert_eq!((target.prefill, target.context_tokens, target.weight), (false, None, 1));
}

#[test]
fn a_route_says_more_than_the_section_for_all_which_says_more_than_the_defaults() {
    let text = with(
        "[routing]
        attempts_max = 2
        wait_seconds_max = 0
        on_break = 'error'
        [[routes]]
        model = 'own'
        on_break = 'continue'
        attempts_seconds = 0.5
        balance = 'least_loaded'
        affinity = 'prefix'
        deadlines = { connect_seconds = 1, head_seconds = 2, first_token_seconds = 3, stall_seconds = 4, total_seconds = 5 }
        hedge = { quantile = 0.999, share = 0, wait_seconds_min = 0.05 }
        targets = [{ provider = 'p', model = 'y' }, { provider = 'p', model = 'z' }]",
    );
    let all = Policy {
        attempts_max: 2,
        wait_max: Duration::ZERO,
        on_break: OnBreak::Error,
        ..Policy::default()
    };
    assert_eq!(policy(&text, "p/x"), all);
    let own = Policy {
        on_break: OnBreak::Continue,
        attempts_within: Duration::from_millis(500),
        balance: Balance::LeastLoaded,
        affinity: Affinity::Prefix,
        patience: Patience {
            connect: Some(SECOND),
            head: Some(SECOND * 2),
            first_token: Some(SECOND * 3),
            stall: Some(SECOND * 4),
            total: Some(SECOND * 5),
        },
        hedge: Some(Hedge {
            quantile_permille: 999,
            share_permille: 0,
            wait_min: Duration::from_millis(50),
        }),
        ..all
    };
    assert_eq!(policy(&text, "own"), own);
    let hedge = "[[routes]]\nmodel = 'm'\nhedge = {}\ntargets = [{ provider = 'p', model = 'y' }]";
    let usual =
        Hedge { quantile_permille: 950, share_permille: 50, wait_min: Duration::from_millis(500) };
    assert_eq!(policy(&with(hedge), "m").hedge, Some(usual));
}

#[test]
fn a_target_knows_what_it_can_hold_and_whether_it_goes_on() {
    let text = with(
        "[[routes]]
        model = 'm'
        [[routes.targets]]
        provider = 'p'
        model = 'x'
        prefill = true
        weight = 0
        [[routes.targets]]
        provider = 'p'
        model = 'y'
        context_tokens = 16_000",
    );
    let plan = plan(&text).unwrap();
    let targets: Vec<_> = plan
        .catalog
        .find("m")
        .unwrap()
        .targets
        .iter()
        .map(|target| (target.prefill, target.context_tokens, target.weight))
        .collect();
    assert_eq!(targets, [(true, Some(8_000), 0), (false, Some(16_000), 1)]);
    assert_eq!(plan.catalog.find("p/x").unwrap().targets[0].context_tokens, Some(8_000));
}

#[test]
fn a_provider_says_how_it_is_spoken_to_and_looked_after() {
    let plan = plan(
        "[deadlines]
        first_token_seconds = 9
        [providers.a]
        base_url = 'https://h'
        http2 = true
        quirks.prefill = 'continue_final_message'
        deadlines.first_token_seconds = 7
        probe = { every_seconds = 0.5, kind = 'completion' }
        [providers.b]
        base_url = 'https://h'
        probe = {}
        [providers.c]
        preset = 'mistral'
        credential_env = 'KEY'
        [providers.d]
        preset = 'mistral'
        credential_env = 'KEY'
        quirks.prefill = 'message'",
    )
    .unwrap();
    let found: Vec<_> = plan.settings(1, 0).providers;
    let http2: Vec<_> = found.iter().map(|one| one.http2).collect();
    assert_eq!(http2, [true, false, false, false]);
    let forms: Vec<_> = found.iter().map(|one| one.prefill).collect();
    let expected = [
        PrefillForm::ContinueFinalMessage,
        PrefillForm::Message,
        PrefillForm::Prefix,
        PrefillForm::Message,
    ];
    assert_eq!(forms, expected);
    let probes: Vec<_> = found.iter().map(|one| one.probe).collect();
    let often = Probe { every: Duration::from_millis(500), kind: ProbeKind::Completion };
    let usual = Probe { every: Duration::from_secs(10), kind: ProbeKind::Models };
    assert_eq!(probes, [Some(often), Some(usual), None, None]);
    let first: Vec<_> = found.iter().map(|one| one.deadlines.first_token.as_secs()).collect();
    assert_eq!(first, [7, 9, 9, 9]);
}

#[test]
fn what_can_have_no_effect_is_warned_of() {
    let warnings = |text: &str| plan(&with(text)).unwrap().warnings;
    let one = "targets = [{ provider = 'p', model = 'x' }]";
    let two = "targets = [{ provider = 'p', model = 'x' }, { provider = 'p', model = 'y' }]";
    let route = |more: &str, targets| format!("[[routes]]\nmodel = 'm'\n{more}\n{targets}");
    let told = warnings(&route("on_break = 'continue'", one));
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("routes[0].on_break "), "{told:?}");
    assert!(warnings(&route("hedge = {}", one))[0].starts_with("routes[0].hedge "));
    for quiet in [
        route("on_break = 'continue'\nhedge = {}", two),
        route("on_break = 'error'", one),
        route("", one),
        format!("[routing]\non_break = 'continue'\n{}", route("", one)),
    ] {
        assert_eq!(warnings(&quiet), Vec::<String>::new(), "{quiet}");
    }
}
