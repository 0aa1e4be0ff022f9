//! The device flow, answer by answer, without a moment's sleep.

use serde_json::json as value;

use super::*;
use crate::failure::Exit;
use crate::network::Unreachable;
use crate::testing::{Script, Still, json};

fn discovery() -> Discovery {
    Discovery {
        issuer: "https://id.example.com".to_owned(),
        client_id: "cli".to_owned(),
        device_authorization_endpoint: "https://id.example.com/device".to_owned(),
        token_endpoint: "https://id.example.com/token".to_owned(),
        scopes: "openid offline_access".to_owned(),
        resource: "https://api.example.com".to_owned(),
        inference_base_url: "https://api.example.com/v1".to_owned(),
    }
}

fn device(expires_in: u64, interval: Option<u64>) -> Result<Answer, Unreachable> {
    let mut device = value!({
        "device_code": "device-code", "user_code": "WDJB-MJHT", "expires_in": expires_in,
        "verification_uri": "https://id.example.com/activate",
    });
    if let Some(interval) = interval {
        device["interval"] = value!(interval);
    }
    json(200, &device)
}

fn no(word: &str) -> Result<Answer, Unreachable> {
    json(400, &value!({"error": word}))
}

fn yes() -> Result<Answer, Unreachable> {
    let tokens = value!({"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt"});
    json(200, &tokens)
}

fn run(
    answers: Vec<Result<Answer, Unreachable>>,
) -> (Result<Tokens, Failure>, Vec<u64>, Vec<Prompt>) {
    let (script, clock) = (Script::of(answers), Still::default());
    let mut told = Vec::new();
    let done = login(&discovery(), &script, &clock, &mut |prompt| told.push(prompt.clone()));
    assert!(script.is_at_its_end(), "{:?}", script.seen());
    (done, clock.slept(), told)
}

#[test]
fn it_waits_as_the_issuer_says_until_the_person_has_confirmed() {
    let pending = || no("authorization_pending");
    let (done, slept, told) =
        run(vec![device(600, Some(3)), pending(), no("slow_down"), pending(), yes()]);
    assert!(done.is_ok());
    // `slow_down` adds five seconds, for good.
    assert_eq!(slept, [3, 3, 8, 8]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].user_code, "WDJB-MJHT");
}

#[test]
fn the_forms_are_as_rfc_8628_and_rfc_8707_have_them() {
    let (script, clock) = (Script::of(vec![device(600, None), yes()]), Still::default());
    login(&discovery(), &script, &clock, &mut |_| ()).unwrap();
    let seen = script.seen();
    assert_eq!(seen[0].url, "https://id.example.com/device");
    assert_eq!(
        seen[0].content,
        "client_id=cli;scope=openid offline_access;resource=https://api.example.com;"
    );
    assert_eq!(seen[1].url, "https://id.example.com/token");
    assert_eq!(
        seen[1].content,
        "grant_type=urn:ietf:params:oauth:grant-type:device_code;device_code=device-code;client_id=cli;resource=https://api.example.com;"
    );
    // Five seconds where the issuer does not say.
    assert_eq!(clock.slept(), [5]);
}

#[test]
fn whoever_declines_or_is_late_ends_it_with_3() {
    for word in ["access_denied", "expired_token", "invalid_grant", "invalid_client"] {
        let (done, ..) = run(vec![device(600, Some(1)), no("authorization_pending"), no(word)]);
        let failure = done.unwrap_err();
        assert_eq!((failure.exit, failure.reason.as_str()), (Exit::Server, word));
    }
}

#[test]
fn it_ends_when_the_code_does_whatever_the_issuer_says() {
    let mut answers = vec![device(20, Some(5))];
    answers.extend((0..3).map(|_| no("authorization_pending")));
    let (done, slept, _) = run(answers);
    assert_eq!(done.unwrap_err().reason, "expired_token");
    assert_eq!(slept.iter().sum::<u64>(), 20);
}

#[test]
fn a_network_that_comes_back_is_no_end() {
    let (done, slept, _) = run(vec![
        device(600, Some(1)),
        Err(Unreachable::Timeout),
        json(503, &value!({})),
        no("authorization_pending"),
        Err(Unreachable::Timeout),
        yes(),
    ]);
    assert!(done.is_ok());
    assert_eq!(slept, [1, 2, 4, 4, 8]);
}

#[test]
fn a_network_that_does_not_is_one() {
    let gone = || Err(Unreachable::Failed("refused".to_owned()));
    let (done, ..) = run(vec![device(600, Some(1)), gone(), gone(), gone()]);
    assert_eq!(done.unwrap_err().exit, Exit::Network);
    let failed = || json(500, &value!({}));
    let (done, ..) = run(vec![device(600, Some(1)), failed(), failed(), failed()]);
    assert_eq!(done.unwrap_err().exit, Exit::Server);
    let (done, ..) = run(vec![Err(Unreachable::Timeout)]);
    assert_eq!(done.unwrap_err().exit, Exit::Network);
    let (done, ..) = run(vec![no("unauthorized_client")]);
    assert_eq!(done.unwrap_err().exit, Exit::Server);
}

#[test]
fn a_page_that_is_none_is_shown_to_nobody() {
    for page in ["javascript:alert(1)", "http://example.com/activate", "https://x/\u{1b}[2J"] {
        let device = value!({"device_code": "d", "user_code": "A", "expires_in": 60, "verification_uri": page});
        let (done, _, told) = run(vec![json(200, &device)]);
        assert_eq!(done.unwrap_err().exit, Exit::Server);
        assert_eq!(told, []);
    }
}

#[test]
fn tokens_go_only_where_nobody_reads_along() {
    let mut discovery = discovery();
    discovery.token_endpoint = "http://id.example.com/token".to_owned();
    let script = Script::of(vec![device(600, Some(1))]);
    let done = login(&discovery, &script, &Still::default(), &mut |_| ());
    assert_eq!(done.unwrap_err().reason, "bad_endpoint");
}

#[test]
fn a_token_that_no_request_can_carry_is_none() {
    for tokens in [
        value!({"access_token": "a\nb", "token_type": "Bearer"}),
        value!({"access_token": "at", "token_type": "mac"}),
        value!({"token_type": "Bearer"}),
    ] {
        let (done, ..) = run(vec![device(600, Some(1)), json(200, &tokens)]);
        assert_eq!(done.unwrap_err().reason, "unreadable_answer");
    }
}
