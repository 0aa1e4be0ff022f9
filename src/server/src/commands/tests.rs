//! The operator's commands against a state folder of their own: what they print, and how they end.

mod explain;
mod money;
mod terms;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;
use tokenroute_domain::id::{AccountId, CallId, KeyId};
use tokenroute_domain::key::{RawKey, Terms};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{Attempt, Endpoint, Outcome, Record};
use tokenroute_domain::routing::Why;
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};
use tokenroute_store::Database;

use super::{Command, End, Surroundings, Terminal, perform, records};

/// 2026-01-01T00:00:00Z
const NOW: Timestamp = Timestamp(1_767_225_600_000_000);

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// How a command ended and what it wrote.
struct Outcomes {
    end: End,
    out: String,
    err: String,
}

fn command(state: &Path, config: Option<&Path>, words: &[&str]) -> Outcomes {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let line = Line::try_parse_from([&["tokenrouted"], words].concat()).unwrap();
    let environment =
        |name: &str| (name == "TOKENROUTE_STATE_DIR").then(|| state.to_str().unwrap().to_owned());
    let surroundings = Surroundings { config, environment: &environment, now: NOW };
    let mut terminal = Terminal::new(&mut out, &mut err);
    let end = perform(line.command, surroundings, &mut terminal);
    drop(terminal);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcomes { end, out: text(out), err: text(err) }
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder for state, which does not exist yet.
fn folder() -> (TempDir, std::path::PathBuf) {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    (folder, state)
}

#[test]
fn a_key_is_made_shown_once_listed_and_revoked() {
    let (_folder, state) = folder();
    let made =
        command(&state, None, &["keys", "create", "--name", "ci", "--expires-in-days", "30"]);
    assert_eq!(made.end, End::Done, "{}", made.err);
    let raw = made.out.strip_suffix('\n').unwrap();
    assert!(RawKey::parse(raw.as_bytes()).is_ok(), "only the key is on standard output");
    assert!(made.err.contains("2026-01-31T00:00:00Z") && !made.err.contains(raw));

    let listed = command(&state, None, &["keys", "list", "--json"]);
    let keys = json_lines(&listed.out);
    assert_eq!(keys.len(), 1);
    let id = keys[0]["id"].as_str().unwrap();
    assert_eq!((&keys[0]["name"], &keys[0]["account"]), (&"ci".into(), &"default".into()));
    assert_eq!((&keys[0]["state"], &keys[0]["revoked"]), (&"active".into(), &Value::Null));
    assert!(!listed.out.contains(raw));

    let revoked = command(&state, None, &["keys", "revoke", id]);
    assert_eq!(revoked.end, End::Done, "{}", revoked.err);
    assert_eq!(command(&state, None, &["keys", "revoke", id]).end, End::Done, "twice is as good");
    let table = command(&state, None, &["keys", "list"]).out;
    assert!(table.contains("revoked") && table.contains("2026-01-31T00:00:00Z"), "{table}");
}

#[test]
fn keys_that_cannot_be_are_refused() {
    let (_folder, state) = folder();
    for words in [
        ["keys", "create", "--name", ""],
        ["keys", "create", "--name", "a\u{1b}[2J"],
        ["keys", "create", "--name", &"x".repeat(101)],
    ] {
        assert_eq!(command(&state, None, &words).end, End::Mistaken, "{words:?}");
    }
    let unknown = KeyId::new(NOW, 1).to_string();
    for id in [unknown.as_str(), "key_1", "' OR 1=1 --"] {
        let refused = command(&state, None, &["keys", "revoke", id]);
        assert_eq!((refused.end, refused.out.as_str()), (End::Mistaken, ""));
    }
    assert_eq!(json_lines(&command(&state, None, &["keys", "list", "--json"]).out).len(), 0);
    for days in ["0", "-1", "40000"] {
        let words = ["tokenrouted", "keys", "create", "--name", "n", "--expires-in-days", days];
        assert!(Line::try_parse_from(words).is_err(), "{days}");
    }
}

#[test]
fn many_keys_of_one_account_are_all_listed() {
    let (_folder, state) = folder();
    command(&state, None, &["keys", "list"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pepper = tokenroute_domain::key::Pepper::new(&[1; 32]);
    runtime.block_on(async {
        let database = Database::open(&state.join("tokenroute.db")).await.unwrap();
        for number in 0..(super::keys::PAGE + 2) {
            let name = &number.to_string();
            let terms = Terms::default();
            let wish = super::keys::Wish { name, account: "a", expires: None, terms };
            super::keys::issue(database.acting("tester"), &pepper, wish, NOW).await.unwrap();
        }
        database.close().await;
    });
    let listed = command(&state, None, &["keys", "list", "--json"]).out;
    assert_eq!(u32::try_from(listed.lines().count()).unwrap(), super::keys::PAGE + 2);
}

#[test]
fn check_tells_all_is_well_or_every_problem() {
    let (folder, state) = folder();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, "[demo]\nenabled = true").unwrap();
    let path = file.to_str().unwrap();
    let good = command(&state, None, &["check", path]);
    assert_eq!(good.end, End::Done);
    assert_eq!(good.out, format!("{path}: ok (1 providers, 1 routes)\n"));
    assert!(!state.exists(), "check makes nothing");
    std::fs::write(&file, "x = 1\n[log]\nlevel = 'all'").unwrap();
    let bad = command(&state, None, &["check", path]);
    assert_eq!((bad.end, bad.out.as_str()), (End::Mistaken, ""));
    let paths: Vec<_> = bad.err.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(paths, ["x", "log.level"]);
}

#[test]
fn commands_take_the_state_folder_of_the_file_without_its_credentials() {
    let (folder, elsewhere) = folder();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, "state_dir = 'here'\n[providers.p]\npreset = 'openai'").unwrap();
    assert_eq!(command(&elsewhere, Some(&file), &["keys", "list"]).end, End::Done);
    assert!(folder.path().join("here/pepper").exists() && !elsewhere.exists());
    std::fs::write(&file, "state_dir = 1").unwrap();
    assert_eq!(command(&elsewhere, Some(&file), &["keys", "list"]).end, End::Mistaken);
}

#[test]
fn a_state_folder_that_cannot_be_used_is_an_unable_end() {
    let (folder, _) = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for state in [file.as_path(), &file.join("below")] {
        let ended = command(state, None, &["records"]);
        assert_eq!((ended.end, ended.err.is_empty()), (End::Unable, false));
    }
}

fn record(number: u32) -> Record {
    let started = NOW.plus(Duration::from_secs(number.into()));
    Record {
        call: CallId::new(started, number.into()),
        started,
        endpoint: Endpoint::ChatCompletions,
        key: Some(KeyId::new(NOW, 1)),
        account: Some(AccountId::new(NOW, 1)),
        model: Some("demo/echo".into()),
        target: Some("demo/echo".into()),
        attempts: vec![],
        status: 200,
        outcome: Outcome::Answered,
        error: None,
        streamed: true,
        usage: Usage { input: 7, output: number.into(), ..Usage::default() },
        usage_source: UsageSource::Provider,
        cost: NanoUsd(1_500),
        charge: NanoUsd::ZERO,
        price_version: None,
        house_cost: NanoUsd::ZERO,
        latency_micros: 1_234_567,
        first_token_micros: Some(9_000),
    }
}

fn write_records(state: &Path, numbers: std::ops::Range<u32>) {
    insert(state, &numbers.map(record).collect::<Vec<_>>());
}

fn insert(state: &Path, records: &[Record]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = Database::open(&state.join("tokenroute.db")).await.unwrap();
        database.insert_records(records).await.unwrap();
        database.close().await;
    });
}

#[test]
fn the_last_records_are_shown_the_latest_last() {
    let (_folder, state) = folder();
    command(&state, None, &["records"]);
    write_records(&state, 0..1_200);
    let output = |words: &[&str]| -> Vec<_> {
        let shown = command(&state, None, words);
        assert_eq!(shown.end, End::Done, "{}", shown.err);
        json_lines(&shown.out)
            .iter()
            .map(|line| line["usage"]["output"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(output(&["records", "--json"]), (1_180..1_200).collect::<Vec<_>>());
    assert_eq!(output(&["records", "--json", "--limit", "1100"]), (100..1_200).collect::<Vec<_>>());
    assert_eq!(output(&["records", "--json", "--limit", "0"]), Vec::<u64>::new());

    let line = &json_lines(&command(&state, None, &["records", "--json", "--limit", "1"]).out)[0];
    assert_eq!(line["started"], "2026-01-01T00:19:59.000000Z");
    assert_eq!(line["cost_nano_usd"], 1_500);
    assert_eq!((&line["status"], &line["outcome"]), (&200.into(), &"answered".into()));
    let table = command(&state, None, &["records", "--limit", "1"]).out;
    let words: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words.len(), 2);
    assert_eq!(
        words[1],
        [
            "2026-01-01T00:19:59Z",
            "200",
            "answered",
            "demo/echo",
            "7",
            "1199",
            "0.0000015",
            "1.234",
            "0.009"
        ],
    );
}

#[test]
fn what_was_tried_is_shown_where_there_is_something_to_tell() {
    let (_folder, state) = folder();
    command(&state, None, &["records"]);
    let leg = |target: &str, why, result, status| Attempt {
        target: target.into(),
        why,
        result,
        status,
        micros: 12_900,
        output_tokens: 0,
        cost: NanoUsd::ZERO,
        house_cost: NanoUsd::ZERO,
    };
    let legs = vec![
        leg("a/x", Why::Chosen, "server_error", Some(503)),
        leg("b/y\u{1b}", Why::Fallback, "reset", None),
        Attempt {
            output_tokens: 9,
            cost: NanoUsd(3_000),
            house_cost: NanoUsd(500),
            ..leg("c/z", Why::Continue, "ok", Some(200))
        },
    ];
    let told = Record { attempts: legs, house_cost: NanoUsd(500), ..record(1) };
    let one = leg("a/x", Why::Chosen, "ok", Some(200));
    insert(&state, &[told, Record { attempts: vec![one], ..record(2) }]);

    let table = command(&state, None, &["records"]).out;
    let words: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words.len(), 7, "a call that was answered at once is one line\n{table}");
    assert_eq!(words[2].join(" "), "1. a/x chosen server_error 503 12 ms");
    assert_eq!(words[3].join(" "), "2. b/y\u{fffd} fallback reset - 12 ms");
    let last = "3. c/z continue ok 200 12 ms 0.000003 USD + 0.0000005 USD the house's";
    assert_eq!(words[4].join(" "), last);
    assert_eq!(words[5].join(" "), "the house bears 0.0000005 USD");

    let lines = json_lines(&command(&state, None, &["records", "--json"]).out);
    assert_eq!(lines[0]["house_cost_nano_usd"], 500);
    assert_eq!(lines[1]["house_cost_nano_usd"], 0);
    let leg = serde_json::json!({
        "target": "c/z", "why": "continue", "result": "ok", "status": 200, "micros": 12_900,
        "output_tokens": 9, "cost": 3_000, "house_cost": 500,
    });
    assert_eq!(lines[0]["attempts"][2], leg);
}

/// A reader that leaves after some lines, and lets something happen after the first.
struct Reader<'a> {
    lines: usize,
    seen: &'a mut Vec<u8>,
    after_first: Option<Box<dyn FnOnce() + 'a>>,
}

impl std::io::Write for Reader<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.lines == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.seen.extend_from_slice(bytes);
        if bytes.ends_with(b"\n") {
            self.lines -= 1;
            if let Some(happen) = self.after_first.take() {
                happen();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn following_goes_on_until_its_reader_leaves() {
    let (_folder, state) = folder();
    command(&state, None, &["records"]);
    write_records(&state, 0..1);
    let mut seen = Vec::new();
    let writing = state.clone();
    // Another thread, because the writer's runtime cannot run within the follower's.
    let write = move || {
        std::thread::spawn(move || write_records(&writing, 1..4)).join().unwrap();
    };
    let reader = Reader { lines: 3, seen: &mut seen, after_first: Some(Box::new(write)) };
    let mut terminal = Terminal::new(reader, std::io::sink());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let follow = Some(Duration::from_millis(1));
    let end = runtime.block_on(async {
        let database = Database::open(&state.join("tokenroute.db")).await.unwrap();
        let choice = records::Choice { limit: 5, follow, json: true };
        records::show(&database, choice, &mut terminal).await
    });
    assert_eq!((end, terminal.gone), (End::Unable, true));
    drop(terminal);
    let lines = json_lines(std::str::from_utf8(&seen).unwrap());
    let outputs: Vec<_> =
        lines.iter().map(|line| line["usage"]["output"].as_u64().unwrap()).collect();
    assert_eq!(outputs, [0, 1, 2]);
}
