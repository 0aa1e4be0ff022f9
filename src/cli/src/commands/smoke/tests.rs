//! Which failure is which, and that whatever is planted where, evidence does not have it.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json as value;

use super::*;
use crate::credentials::Credentials;
use crate::network::Unreachable;
use crate::testing::{Script, Still, json, said};

const KEY: &str = "sk-tr-0123456789abcdefghijABCDEFGHIJ0123456789abcdef";

type Answers = Vec<Result<Answer, Unreachable>>;

fn discovery() -> Result<Answer, Unreachable> {
    json(
        200,
        &value!({
            "issuer": "https://id.example.com", "client_id": "cli", "scopes": "openid",
            "device_authorization_endpoint": "https://id.example.com/device",
            "token_endpoint": "https://id.example.com/token", "resource": "https://api.example.com",
            "inference_base_url": "https://api.example.com/v1",
        }),
    )
}

fn listing() -> Result<Answer, Unreachable> {
    json(
        200,
        &value!({"object": "list", "data": [{"id": "acme/one"}, {"id": "openai/gpt-4o-mini"}]}),
    )
}

fn chat_answer() -> Result<Answer, Unreachable> {
    json(200, &value!({"choices": [{"message": {"role": "assistant", "content": "OK"}}]}))
}

fn stream(body: &str) -> Result<Answer, Unreachable> {
    said(200, "text/event-stream; charset=utf-8", body)
}

fn whole() -> Result<Answer, Unreachable> {
    stream("data: {\"choices\":[{\"delta\":{\"content\":\"OK\"}}]}\n\ndata: [DONE]\n\n")
}

fn refused(status: u16, reason: &str) -> Result<Answer, Unreachable> {
    let error = value!({"message": "no", "type": "x", "code": status, "param": null, "metadata": {"reason": reason}});
    json(status, &value!({"error": error}))
}

/// Does `what` in a world with these answers, where nothing is kept yet.
fn with<T>(answers: Answers, what: impl FnOnce(&World<'_>, &Files, &Path) -> T) -> T {
    let home = tempfile::tempdir().unwrap();
    let files = Files::of(Some(home.path()));
    let (network, clock) = (Script::of(answers), Still::default());
    let world = World {
        network: &network,
        clock: &clock,
        credentials: Credentials::of(files.clone()),
        gateway: Address::parse_base("https://api.example.com").unwrap(),
        key: None,
    };
    what(&world, &files, home.path())
}

/// What `smoke` says with these answers, and what it has kept.
fn run(answers: Answers, model: Option<&str>) -> (Result<Output, Failure>, String) {
    with(answers, |world, files, home| {
        let said = smoke(world, files, model, Some(KEY));
        (said, kept(home))
    })
}

fn kept(home: &Path) -> String {
    std::fs::read_to_string(home.join(brand::FOLDER).join(FILE)).unwrap()
}

fn class_of(answers: Answers) -> (u8, String) {
    let (said, kept) = run(answers, None);
    let failure = said.unwrap_err();
    let evidence: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(evidence["failure_class"], failure.reason.as_str());
    (failure.exit.code(), failure.reason)
}

#[test]
fn a_proof_has_exactly_these_fields() {
    let (said, kept) = run(vec![discovery(), listing(), chat_answer(), whole()], None);
    let said: Value = serde_json::from_str(&said.unwrap().json).unwrap();
    assert_eq!(said, serde_json::from_str::<Value>(&kept).unwrap());
    let step = |path: &str, stream: bool| value!({"endpoint_path": path, "stream": stream, "status": 200, "elapsed_ms": 0, "failure_class": null});
    let wanted = value!({
        "v": 1, "tool_version": brand::VERSION, "model_count": 2, "model": "openai/gpt-4o-mini",
        "failure_class": null,
        "steps": [
            step("/v1/models", false),
            step("/v1/chat/completions", false),
            step("/v1/chat/completions", true),
        ],
    });
    assert_eq!(said, wanted);
}

#[test]
fn each_failure_has_its_class_and_exit_code() {
    let gone = || Err(Unreachable::Failed("refused".to_owned()));
    let call = |answer| vec![discovery(), listing(), answer];
    let streamed = |answer| vec![discovery(), listing(), chat_answer(), answer];
    let cases = [
        (vec![gone()], (2, "endpoint")),
        (vec![refused(503, "unavailable")], (3, "endpoint")),
        (vec![discovery(), gone()], (2, "endpoint")),
        (vec![discovery(), stream("<html>")], (3, "endpoint")),
        (vec![discovery(), refused(404, "not_found")], (1, "endpoint")),
        (vec![discovery(), refused(401, "key_unknown")], (1, "key")),
        (vec![discovery(), json(200, &value!({"data": []}))], (1, "model_id")),
        (call(refused(404, "model_not_found")), (1, "model_id")),
        (call(refused(403, "model_not_allowed")), (1, "model_id")),
        (call(refused(400, "model_not_priced")), (1, "model_id")),
        (call(refused(400, "http_status")), (1, "request_shape")),
        (call(refused(402, "balance")), (1, "quota")),
        (call(refused(429, "rate")), (1, "quota")),
        (call(refused(502, "upstream")), (3, "endpoint")),
        (call(refused(504, "upstream")), (3, "timeout")),
        (call(Err(Unreachable::Timeout)), (2, "timeout")),
        (call(json(200, &value!({"choices": []}))), (3, "capability")),
        (streamed(chat_answer()), (3, "capability")),
        (streamed(stream("data: {\"choices\":[{}]}\n\n")), (3, "capability")),
        (streamed(stream("data: {\"error\":{}}\n\ndata: [DONE]\n\n")), (3, "capability")),
    ];
    for (answers, (code, reason)) in cases {
        assert_eq!(class_of(answers), (code, reason.to_owned()));
    }
}

#[test]
fn a_model_that_is_not_listed_is_not_called() {
    let (said, kept) = run(vec![discovery(), listing()], Some("acme/two"));
    assert_eq!(said.unwrap_err().reason, "model_id");
    assert!(kept.contains("\"model\": null"), "{kept}");
    let (said, _) = run(vec![discovery(), listing(), chat_answer(), whole()], Some("acme/one"));
    assert!(said.unwrap().json.contains("acme/one"));
}

#[test]
fn a_model_that_reasons_is_asked_in_its_own_words() {
    let error = value!({"error": {"message": "use another", "param": "max_tokens"}});
    let answers =
        vec![discovery(), listing(), json(400, &error), chat_answer(), json(400, &error), whole()];
    let (said, _) = run(answers, None);
    assert!(said.is_ok());
}

/// What must not be told, of every kind.
fn canaries() -> impl Strategy<Value = String> {
    prop_oneof![
        "sk-tr-[0-9A-Za-z]{38}",
        "sk-[0-9A-Za-z]{40}",
        "eyJ[0-9A-Za-z_-]{20,40}\\.eyJ[0-9A-Za-z_-]{30,60}\\.[0-9A-Za-z_-]{43}",
        "(key|acct|user)_[0-9A-HJKMNP-TV-Z]{26}",
        "[1-9][0-9]{1,2}\\.[1-9][0-9]{0,2}\\.[0-9]{1,3}\\.[1-9][0-9]{0,2}",
        "2001:db8::[0-9a-f]{4}",
        "[a-z]{8}@example\\.com",
        "Please tell me about [a-z]{9}",
    ]
}

/// A canary in every place of every answer.
fn planted(word: &str) -> Vec<Answers> {
    let named = format!("acme/{word}");
    let listing =
        || json(200, &value!({"data": [{"id": named, "owned_by": word}], "account": word}));
    let error = |status: u16| {
        let error = value!({"message": word, "type": word, "code": word, "param": word, "metadata": {"reason": word}});
        json(status, &value!({"error": error, "request_id": word}))
    };
    let chat = || json(200, &value!({"id": word, "choices": [{"message": {"content": word}}]}));
    let event = value!({"id": word, "choices": [{"delta": {"content": word}}]});
    let begun = || vec![discovery(), listing(), chat()];
    let mut all = vec![
        vec![Err(Unreachable::Failed(word.to_owned()))],
        vec![discovery(), said(200, word, word)],
        [begun(), vec![stream(&format!(": {word}\n\ndata: {event}\n\ndata: [DONE]\n\n"))]].concat(),
        [begun(), vec![stream(&format!("data: {word}\n\n"))]].concat(),
    ];
    for status in [302, 400, 401, 402, 403, 404, 408, 429, 500, 503] {
        all.push(vec![error(status)]);
        all.push(vec![discovery(), error(status)]);
        all.push([begun(), vec![error(status)]].concat());
        // A parameter that is named is asked for once more.
        all.push(vec![discovery(), listing(), error(status)]);
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn nothing_that_was_planted_is_told(word in canaries()) {
        let key = Secret::parse(if word.contains(' ') { KEY } else { &word }).unwrap();
        for answers in planted(&word) {
            let told = with(answers, |world, _, _| {
                let mut evidence = Evidence::new();
                let failed = prove(world, &key, None, &mut evidence).map_err(|why| failure(why, &evidence));
                let failed = failed.map_err(|failure| failure.line() + &failure.json());
                format!("{}{}{:?}", evidence.pretty(), evidence.json(), failed)
            });
            prop_assert!(!told.contains(&word), "{told}");
            prop_assert!(!told.contains("Reply"), "{told}");
        }
    }
}
