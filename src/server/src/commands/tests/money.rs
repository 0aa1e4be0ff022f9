//! Accounts, credit, ledger, usage, reconciling, migrating, and keys with terms.

use tokenroute_domain::id::NodeId;
use tokenroute_domain::key::Funding;
use tokenroute_domain::pool::{Exchange, Want};
use tokenroute_domain::time::Tick;
use tokenroute_store::SqlBank;

use super::*;

/// A command that succeeds, and what it printed.
fn done(state: &Path, words: &[&str]) -> String {
    let ended = command(state, None, words);
    assert_eq!(ended.end, End::Done, "{words:?}: {}{}", ended.out, ended.err);
    ended.out
}

/// A command that was asked for something wrong, and what it said.
fn mistaken(state: &Path, words: &[&str]) -> String {
    let ended = command(state, None, words);
    assert_eq!((ended.end, ended.out.as_str()), (End::Mistaken, ""), "{words:?}: {}", ended.err);
    assert!(!ended.err.is_empty(), "{words:?}");
    ended.err
}

fn refused(words: &[&str]) {
    assert!(Line::try_parse_from([&["tokenrouted"], words].concat()).is_err(), "{words:?}");
}

fn one_json(state: &Path, words: &[&str]) -> Value {
    let mut lines = json_lines(&done(state, words));
    assert_eq!(lines.len(), 1, "{words:?}");
    lines.remove(0)
}

fn balance(state: &Path, name: &str) -> String {
    let shown = one_json(state, &["accounts", "show", name, "--json"]);
    shown["balance_usd"].as_str().unwrap().to_owned()
}

fn account_id(state: &Path, name: &str) -> AccountId {
    let shown = one_json(state, &["accounts", "show", name, "--json"]);
    AccountId::parse(shown["id"].as_str().unwrap()).unwrap()
}

/// Does something with the database of `state`.
fn with_database<T>(state: &Path, work: impl AsyncFnOnce(Database) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = Database::open(&state.join("tokenroute.db")).await.unwrap();
        let result = work(database.clone()).await;
        database.close().await;
        result
    })
}

/// A prepaid account with some credit.
fn open_account(state: &Path, name: &str, usd: &str) {
    done(state, &["accounts", "create", "--name", name]);
    done(state, &["credit", "add", "--account", name, "--amount", usd]);
}

#[test]
fn accounts_are_made_listed_and_shown() {
    let (_folder, state) = folder();
    let id = done(&state, &["accounts", "create", "--name", "acme", "--tier", "gold"]);
    done(&state, &["accounts", "create", "--name", "own", "--unmetered", "--concurrency", "3"]);
    assert!(mistaken(&state, &["accounts", "create", "--name", "acme"]).contains("already"));
    mistaken(&state, &["accounts", "create", "--name", "a\u{1b}[2J"]);
    refused(&["accounts", "create", "--name", "x", "--prepaid", "--unmetered"]);
    refused(&["accounts", "create", "--name", "x", "--concurrency", "0"]);

    // They are of one moment here, so which comes first is their identifiers' to say.
    let mut listed = json_lines(&done(&state, &["accounts", "list", "--json"]));
    listed.sort_by_key(|one| one["name"].to_string());
    let fundings: Vec<_> = listed.iter().map(|one| one["funding"].as_str().unwrap()).collect();
    assert_eq!(fundings, ["prepaid", "unmetered"]);
    let acme = one_json(&state, &["accounts", "show", "acme", "--json"]);
    let wanted = serde_json::json!({
        "id": id.trim(), "name": "acme", "funding": "prepaid", "balance_usd": "0.00", "keys": 0,
        "tier": "gold", "policy": null, "created": "2026-01-01T00:00:00.000000Z",
        "limits": {
            "requests_per_second": null, "requests_per_minute": null, "tokens_per_minute": null,
            "concurrency": null,
        },
    });
    assert_eq!(acme, wanted);
    done(&state, &["keys", "create", "--name", "k", "--account", "own"]);
    let own = done(&state, &["accounts", "show", "own"]);
    assert!(own.contains("limits    3 at the same time\nkeys      1\n"), "{own}");
    let table = done(&state, &["accounts", "list"]);
    let words: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let acme = words.iter().find(|row| row.last() == Some(&"acme")).unwrap();
    assert_eq!(acme[1..5], ["prepaid", "0.00", "0", "gold"]);
    assert!(mistaken(&state, &["accounts", "show", "nobody"]).contains("accounts list"));
}

#[test]
fn credit_counts_once_for_each_id() {
    let (_folder, state) = folder();
    done(&state, &["accounts", "create", "--name", "acme"]);
    done(&state, &["accounts", "create", "--name", "other"]);
    let add = ["credit", "add", "--account", "acme", "--amount", "5.25", "--id", "pay-1"];
    assert!(done(&state, &add).contains("balance 5.25 USD; id pay-1"));
    assert!(done(&state, &add).contains("before"));
    assert_eq!(balance(&state, "acme"), "5.25");
    for other in [
        ["credit", "add", "--account", "acme", "--amount", "5.26", "--id", "pay-1"],
        ["credit", "add", "--account", "other", "--amount", "5.25", "--id", "pay-1"],
        ["credit", "withdraw", "--account", "acme", "--amount", "5.25", "--id", "pay-1"],
    ] {
        assert!(mistaken(&state, &other).contains("--id"), "{other:?}");
    }
    // Without one, each is a movement of its own.
    let plain = ["credit", "add", "--account", "acme", "--amount", "0.000000001"];
    done(&state, &plain);
    done(&state, &plain);
    assert_eq!(
        (balance(&state, "acme"), balance(&state, "other")),
        ("5.250000002".into(), "0.00".into())
    );
    for amount in ["0", "-1", "1e3", "9000000.000000001", ""] {
        refused(&["credit", "add", "--account", "acme", "--amount", amount]);
    }
    refused(&["credit", "add", "--account", "acme", "--amount", "1", "--id", "a b"]);
    let most = ["credit", "add", "--account", "acme", "--amount", "9000000"];
    assert!(mistaken(&state, &most).contains("9000000.00"));
    mistaken(&state, &["credit", "add", "--account", "nobody", "--amount", "1"]);
}

#[test]
fn no_more_is_taken_out_than_is_free() {
    let (_folder, state) = folder();
    open_account(&state, "acme", "10");
    let account = account_id(&state, "acme");
    with_database(&state, async |database| {
        let want =
            Want { target: NanoUsd(4_000_000_000), in_use: NanoUsd::ZERO, waiting: NanoUsd::ZERO };
        let exchange = Exchange {
            account,
            funding: Funding::Prepaid,
            node: NodeId::new(NOW, 1),
            asked: Tick(1),
            settlements: Vec::new(),
            want,
            purses: Vec::new(),
        };
        let bank = SqlBank::new(database, Duration::from_mins(1));
        assert!(bank.exchange(&[exchange], NOW).await.iter().all(Result::is_ok));
    });
    let withdraw = |amount| ["credit", "withdraw", "--account", "acme", "--amount", amount];
    let why = mistaken(&state, &withdraw("6.01"));
    assert!(
        why.contains("has 6.00 USD that is free") && why.contains("4.00 USD more is lent"),
        "{why}"
    );
    assert_eq!(balance(&state, "acme"), "10.00", "nothing was done");
    assert!(done(&state, &withdraw("6")).contains("balance 4.00 USD"));
    mistaken(&state, &withdraw("0.01"));
    assert_eq!(done(&state, &["reconcile"]), "nothing found: the books are right\n");
}

#[test]
fn the_ledger_is_shown_the_latest_last() {
    let (_folder, state) = folder();
    open_account(&state, "acme", "10");
    open_account(&state, "other", "1");
    done(
        &state,
        &[
            "credit",
            "withdraw",
            "--account",
            "acme",
            "--amount",
            "2.5",
            "--id",
            "w",
            "--note",
            "refund\u{a0}7",
        ],
    );
    let lines = json_lines(&done(&state, &["ledger", "--json"]));
    assert_eq!(lines.len(), 6, "each movement has two entries");
    let sum: f64 =
        lines.iter().map(|line| line["amount_usd"].as_str().unwrap().parse::<f64>().unwrap()).sum();
    assert!(sum.abs() < 1e-9, "{sum}");
    let acme = json_lines(&done(&state, &["ledger", "--json", "--account", "acme"]));
    let told: Vec<_> = acme
        .iter()
        .map(|line| [&line["kind"], &line["amount_usd"], &line["balance_after_usd"]])
        .collect();
    // Both are of one moment here, so which comes last is their identifiers' to say.
    assert!(told.contains(&[&"withdrawal".into(), &"-2.50".into(), &"7.50".into()]), "{told:?}");
    assert!(told.contains(&[&"grant".into(), &"10.00".into(), &"10.00".into()]), "{told:?}");
    assert_eq!(told.len(), 2);
    let withdrawal = acme.iter().find(|line| line["kind"] == "withdrawal").unwrap();
    assert_eq!(
        (&withdrawal["id"], &withdrawal["note"]),
        (&"credit:w".into(), &"refund\u{a0}7".into())
    );
    assert!(withdrawal["actor"].as_str().unwrap().starts_with("uid "));
    assert_eq!(json_lines(&done(&state, &["ledger", "--json", "--limit", "3"])).len(), 3);
    let table = done(&state, &["ledger", "--account", "acme"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("7.50") && table.contains("credit:w"), "{table}");
    mistaken(&state, &["ledger", "--account", "nobody"]);
    refused(&["ledger", "--limit", "0"]);
}

#[test]
fn usage_is_told_by_account_and_key() {
    let (_folder, state) = folder();
    done(&state, &["keys", "create", "--name", "ci", "--account", "acme"]);
    done(&state, &["keys", "create", "--name", "late", "--account", "acme"]);
    let keys = json_lines(&done(&state, &["keys", "list", "--json"]));
    let key = |name: &str| {
        let key = keys.iter().find(|key| key["name"] == name).unwrap();
        KeyId::parse(key["id"].as_str().unwrap())
    };
    let account = account_id(&state, "acme");
    let of = |number, key| Record { account: Some(account), key, ..record(number) };
    let cut = Record { outcome: Outcome::Cut, ..of(3, key("ci")) };
    let month = Duration::from_hours(24 * 31).as_secs();
    let old = Timestamp(NOW.micros() - month * 1_000_000);
    let old = Record { call: CallId::new(old, 9), started: old, ..of(4, key("ci")) };
    insert(&state, &[of(1, key("ci")), of(2, key("late")), cut, old, record(5)]);

    let lines = json_lines(&done(&state, &["usage", "--json", "--account", "acme"]));
    assert_eq!(lines.len(), 2);
    let wanted = serde_json::json!({
        "account": "acme", "account_id": account.to_string(),
        "key": "ci", "key_id": key("ci").unwrap().to_string(), "calls": 1, "unanswered": 1,
        "input_tokens": 14, "output_tokens": 4,
        "cost_usd": "0.000003", "charge_usd": "0.00", "house_cost_usd": "0.00",
    });
    let ci = lines.iter().find(|line| line["key"] == "ci").unwrap();
    assert_eq!(*ci, wanted);
    let longer = json_lines(&done(&state, &["usage", "--json", "--days", "32"]));
    let ci = longer.iter().find(|line| line["key"] == "ci").unwrap();
    assert_eq!((&ci["calls"], longer.len()), (&2.into(), 3), "whose account is gone is told too");

    let table = done(&state, &["usage", "--account", "acme", "--days", "1"]);
    let words: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["ACCOUNT", "KEY", "NAME", "CALLS", "IN", "OUT", "COST", "CHARGE"]);
    assert_eq!(words[3], ["all", "2", "21", "6", "0.0000045", "0.00"]);
    mistaken(&state, &["usage", "--account", "nobody"]);
    refused(&["usage", "--days", "0"]);
}

#[test]
fn what_is_wrong_in_the_books_is_told_and_kept() {
    let (_folder, state) = folder();
    open_account(&state, "acme", "10");
    done(&state, &["reconcile"]);
    assert_eq!(done(&state, &["reconcile", "--json"]), "");
    assert_eq!(done(&state, &["findings", "list"]), "");
    insert(&state, &[Record { charge: NanoUsd(5), ..record(1) }]);

    let told = command(&state, None, &["reconcile"]);
    assert_eq!(told.end, End::Mistaken);
    let call = record(1).call.to_string();
    assert!(told.out.starts_with(&format!("record_without_charge {call}: ")), "{}", told.out);
    let json = command(&state, None, &["reconcile", "--json"]);
    assert_eq!((json.end, &json_lines(&json.out)[0]["subject"]), (End::Mistaken, &call.into()));
    let line = one_json(&state, &["findings", "list", "--json"]);
    assert_eq!(line["first_seen"], "2026-01-01T00:00:00.000000Z");
    assert_eq!((&line["amount_usd"], &line["state"]), (&"0.000000005".into(), &"open".into()));

    let id = line["id"].as_str().unwrap();
    assert!(done(&state, &["findings", "list"]).contains(&format!("\"{id}\"")));
    refused(&["findings", "close", id]);
    assert!(mistaken(&state, &["findings", "close", "x", "--note", "?"]).contains("findings list"));
    done(&state, &["findings", "close", id, "--note", "paid back by hand"]);
    mistaken(&state, &["findings", "close", id, "--note", "twice"]);
    // What somebody has seen to is not told again.
    done(&state, &["reconcile"]);
    assert_eq!(done(&state, &["findings", "list"]), "");
    let closed = one_json(&state, &["findings", "list", "--all", "--json"]);
    assert_eq!((&closed["id"], &closed["state"]), (&id.into(), &"closed".into()));
}

#[test]
fn the_schema_is_made_and_then_up_to_date() {
    let (_folder, state) = folder();
    let check = ["migrate", "--check"];
    let before = command(&state, None, &check);
    assert_eq!(before.end, End::Mistaken);
    assert!(before.out.contains("no schema yet") && !state.exists(), "{}", before.out);
    assert!(done(&state, &["migrate"]).contains("is made: version"));
    assert!(done(&state, &["migrate"]).contains("up to date"));
    assert!(done(&state, &check).contains("up to date"));
}

#[test]
fn a_key_has_the_terms_that_were_named() {
    let (_folder, state) = folder();
    let words = [
        "keys",
        "create",
        "--name",
        "ci",
        "--ceiling",
        "5.00",
        "--ceiling",
        "0.5/day",
        "--model",
        "open/*",
        "--model",
        "gpt-x",
        "--provider",
        "openai",
        "--tier",
        "gold",
        "--requests-per-second",
        "2",
        "--tokens-per-minute",
        "9000000000",
    ];
    let made = command(&state, None, &words);
    assert_eq!(made.end, End::Done, "{}", made.err);
    assert!(RawKey::parse(made.out.trim_end().as_bytes()).is_ok());
    let listed = one_json(&state, &["keys", "list", "--json"]);
    let wanted = serde_json::json!({
        "ceilings": [
            { "period": "total", "limit_usd": "5.00", "spent_usd": "0.00" },
            { "period": "day", "limit_usd": "0.50", "spent_usd": "0.00" },
        ],
        "models": ["gpt-x", "open/*"],
        "providers": ["openai"],
        "tier": "gold",
        "limits": {
            "requests_per_second": 2, "requests_per_minute": null,
            "tokens_per_minute": 9_000_000_000_u64, "concurrency": null,
        },
    });
    assert_eq!(listed["terms"], wanted);
    let table = done(&state, &["keys", "list"]);
    for line in [
        "    spent 0.00 of 5.00 USD in all",
        "    spent 0.00 of 0.50 USD this day",
        "    models: gpt-x, open/*",
        "    providers: openai",
        "    limits: tier gold, 2 requests/s, 9000000000 tokens/min",
    ] {
        assert!(table.lines().any(|shown| shown == line), "{line}\n{table}");
    }
    let twice = ["keys", "create", "--name", "x", "--ceiling", "1/day", "--ceiling", "2/day"];
    assert!(mistaken(&state, &twice).contains("--ceiling"));
    refused(&["keys", "create", "--name", "x", "--ceiling", "1/year"]);
    refused(&["keys", "create", "--name", "x", "--model", "*"]);
    refused(&["keys", "create", "--name", "x", "--requests-per-minute", "0"]);
}
