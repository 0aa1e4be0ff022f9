//! What is told of a model: with no node, with one that answers, and with one that talks nonsense.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::End;
use super::{Outcomes, command};

/// Three targets in two ranks, and a wildcard. The credential is one that the operator's shell has not.
const ROUTES: &str = "
    [providers.a]
    base_url = 'https://a'
    credential_env = 'NOT_SET_HERE'
    models = [{ id = 'x', context_tokens = 8_000 }]
    [providers.b]
    base_url = 'https://b'
    credential_file = 'not-there'
    [[routes]]
    model = 'fast'
    attempts_max = 2
    deadlines.first_token_seconds = 0.5
    hedge = { share = 0.1 }
    targets = [
        { provider = 'a', model = 'x', weight = 3, prefill = true },
        { provider = 'b', model = 'y' },
        { provider = 'b', model = 'z', rank = 1 },
    ]
    [[routes]]
    model = 'local/*'
    targets = [{ provider = 'b', model = 'org/*' }]
";

/// An address at which nobody listens.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A node that gives one answer, whatever it is asked.
fn node(answer: String) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.extend_from_slice(&byte);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    });
    (address, answering)
}

fn page(targets: &Value) -> String {
    let body = json!({ "generation": 7, "targets": targets }).to_string();
    format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn explain(admin: &str, config: &str, words: &[&str]) -> Outcomes {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, format!("[admin]\naddress = '{admin}'\n{config}")).unwrap();
    let outcomes = command(Path::new("/nowhere"), Some(&file), &[&["explain"], words].concat());
    assert!(!Path::new("/nowhere").exists(), "it makes nothing");
    outcomes
}

fn told(admin: &str, model: &str) -> Value {
    let told = explain(admin, ROUTES, &["--json", "--model", model]);
    assert_eq!(told.end, End::Done, "{}", told.err);
    serde_json::from_str(&told.out).unwrap()
}

/// Targets and reasons, in the order of attempts.
fn turns(told: &Value) -> Vec<(&str, &str)> {
    let turns = told["order"].as_array().unwrap().iter();
    turns.map(|turn| (turn["target"].as_str().unwrap(), turn["why"].as_str().unwrap())).collect()
}

fn shares(told: &Value) -> Vec<u64> {
    let targets = told["targets"].as_array().unwrap().iter();
    targets.map(|target| target["share_permille"].as_u64().unwrap()).collect()
}

#[test]
fn without_a_node_all_targets_are_taken_to_be_well() {
    let told = told(&nowhere(), "fast");
    assert_eq!((&told["route"], &told["exact"]), (&"fast".into(), &true.into()));
    assert!(told["node"]["problem"].as_str().unwrap().starts_with("no node answers"), "{told}");
    assert_eq!(shares(&told), [750, 250, 0]);
    assert_eq!(turns(&told), [("a/x", "chosen"), ("b/y", "fallback")]);
    assert_eq!(told["left_out"], json!(["b/z"]), "there are two attempts");
    let policy = &told["policy"];
    assert_eq!((&policy["attempts_max"], &policy["on_break"]), (&2.into(), &"continue".into()));
    assert_eq!(policy["deadlines"]["first_token_seconds"], 0.5);
    assert_eq!(policy["deadlines"]["head_seconds"], Value::Null);
    assert_eq!(policy["hedge"]["share_permille"], 100);
    let first = json!({
        "name": "a/x", "rank": 0, "weight": 3, "share_permille": 750, "prefill": true,
        "context_tokens": 8_000, "live": null,
    });
    assert_eq!(told["targets"][0], first);
}

#[test]
fn what_the_node_says_decides_who_is_first() {
    let (address, asked) = node(page(&json!([
        { "name": "a/x", "state": "open", "left_ms": 4200, "attempts": 9, "last_failure": "reset" },
        { "name": "b/y", "state": "cooling", "left_ms": 60_000, "hinted": true },
        { "name": "b/z", "state": "closed", "outstanding": 4, "latency_ms": 230 },
    ])));
    // A node that listens everywhere is asked on this machine.
    let told = told(&address.replace("127.0.0.1", "0.0.0.0"), "fast");
    assert!(asked.join().unwrap().starts_with("GET /admin/targets HTTP/1.0\r\n"));
    assert_eq!(told["node"], json!({ "address": address, "generation": 7 }));
    assert_eq!(shares(&told), [0, 0, 1_000]);
    assert_eq!(turns(&told), [("b/z", "fallback")]);
    assert_eq!(told["left_out"], json!(["a/x", "b/y"]));
    let live = &told["targets"][0]["live"];
    assert_eq!((&live["state"], &live["left_ms"]), (&"open".into(), &4_200.into()));
    assert_eq!((&live["attempts"], &live["last_failure"]), (&9.into(), &"reset".into()));
}

#[test]
fn a_route_of_which_no_target_takes_calls_says_when_one_may() {
    let (address, _asked) = node(page(&json!([
        { "name": "a/x", "state": "open", "left_ms": 9_000 },
        { "name": "b/y", "state": "benched", "left_ms": 1.8e22 },
        { "name": "b/z", "state": "cooling", "left_ms": 4_200 },
    ])));
    let told = explain(&address, ROUTES, &["--model", "fast"]).out;
    assert!(told.contains("no target takes calls; the soonest may in 4.2 s"), "{told}");
    for line in ["not a/x: it is off", "not b/y: it is off", "not b/z: its limit is used up"] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn a_model_of_a_wildcard_stands_as_its_own_name_does() {
    let wild = json!({ "name": "b/org/*", "state": "open", "left_ms": 5_000 });
    let (address, _asked) = node(page(&json!([wild])));
    let fresh = told(&address, "local/one");
    assert_eq!((&fresh["route"], &fresh["exact"]), (&"local/*".into(), &false.into()));
    assert_eq!(turns(&fresh), [("b/org/one", "chosen")], "what others are is not its concern");
    assert_eq!(fresh["targets"][0]["live"]["state"], "closed");
    let one = json!({ "name": "b/org/one", "state": "open", "left_ms": 5_000 });
    let (address, _asked) = node(page(&json!([wild, one])));
    assert_eq!(turns(&told(&address, "local/one")), []);
}

#[test]
fn people_are_told_the_same_in_words() {
    let (address, _asked) = node(page(&json!([
        { "name": "a/x", "state": "closed\u{1b}[2J", "latency_ms": 230, "failing_permille": 25 },
        { "name": "b/y", "state": "closed", "hinted": true },
    ])));
    let told = explain(&address, ROUTES, &["--model", "fast"]);
    assert_eq!(told.end, End::Done, "{}", told.err);
    let lines: Vec<_> = told
        .out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "fast: a route of its own",
        "attempts at most 2, none later than 300 s after the call",
        "deadlines first token 500 ms, else the providers'",
        "hedge a second target when 95 % of calls would have spoken, after 500 ms at least; at most 10 % of calls",
        "0 3 100 % closed\u{fffd}[2J 0 230 ms 2.5 % yes 8000 a/x",
        "0 1 0 % closed, hinted 0 - 0 % no - b/y",
        "1 1 0 % - - - - no - b/z",
        "1. a/x: the first of its rank that takes calls",
        "2. b/z: the next that takes calls",
    ] {
        assert!(lines.iter().any(|told| told == line), "{line}\n{}", told.out);
    }
    assert!(told.out.contains(&format!("as the node at {address} sees them (generation 7)")));
}

#[test]
fn a_node_that_talks_nonsense_is_told_and_costs_nothing_else() {
    for answer in [
        String::new(),
        "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
    ] {
        let (address, _asked) = node(answer.clone());
        let told = told(&address, "fast");
        assert!(told["node"]["problem"].is_string(), "{answer}");
        assert_eq!(shares(&told), [750, 250, 0], "{answer}");
    }
}

#[test]
fn a_model_that_no_route_answers_for_is_told_with_its_neighbours() {
    let unknown = |model: &str| explain(&nowhere(), ROUTES, &["--model", model]);
    for (model, near) in
        [("fsat", "did you mean fast?"), ("x", "did you mean a/x?"), ("LOCAL/", "local/*")]
    {
        let told = unknown(model);
        assert_eq!((told.end, told.out.as_str()), (End::Mistaken, ""), "{model}");
        assert!(told.err.contains(near), "{model}: {}", told.err);
    }
    let hostile = unknown("\u{1b}[2J");
    assert_eq!(hostile.end, End::Mistaken);
    assert!(hostile.err.contains("GET /v1/models") && !hostile.err.contains('\u{1b}'));
    assert_eq!(unknown(&"x".repeat(100_000)).end, End::Mistaken);
}

#[test]
fn a_configuration_that_is_wrong_where_it_matters_is_refused() {
    let wrong = "[log]\nlevel = 'all'\n[redis]\nurl_env = 'NOT_SET'\n[routing]\nbalance = 'fair'
        [listen.tls]\ncertificate = 'c.pem'\nkey = 'k.pem'\n[providers.p]\ncredential_file = 3";
    let told = explain(&nowhere(), wrong, &["--model", "m"]);
    assert_eq!((told.end, told.out.as_str()), (End::Mistaken, ""));
    let mut paths: Vec<_> = told.err.lines().map(|line| line.split(": ").next().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["providers.p.base_url", "routing.balance"], "{}", told.err);
}
