//! Accounts, credit, ledger, usage and reconciling, as an operator meets them.

use serde_json::json;
use tokenroute_domain::key::Funding;
use tokenroute_domain::pool::Exchange;
use tokenroute_domain::pool::{Settlement, Want};
use tokenroute_domain::time::Tick;
use tokenroute_store::{Finding, SqlBank};

use super::*;

/// What a command prints that is given after `tokenrouted`, and ends well.
fn done(state: &Path, line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let ended = command(state, None, &words);
    assert_eq!((ended.end, ended.err.as_str()), (End::Done, ""), "{line}");
    ended.out
}

/// What it says of a mistake.
fn mistaken(state: &Path, line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let ended = command(state, None, &words);
    assert_eq!((ended.end, ended.out.as_str()), (End::Mistaken, ""), "{line}");
    ended.err
}

fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

/// Does something with the database behind the commands.
fn with_database(state: &Path, act: impl AsyncFnOnce(&Database)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let database = Database::open(&state.join("tokenroute.db")).await.unwrap();
        act(&database).await;
        database.close().await;
    });
}

/// An exchange of an edge that ends calls, each with its record and charge, and then wants so much.
fn told(account: AccountId, calls: &[(Record, i64)], target: i64) -> Exchange {
    let target = NanoUsd(target);
    let one = |(record, charge): &(Record, i64)| Settlement {
        record: std::sync::Arc::new(record.clone()),
        charge: NanoUsd(*charge),
        purses: Vec::new(),
    };
    Exchange {
        account,
        funding: Funding::Prepaid,
        node: tokenroute_domain::id::NodeId::new(NOW, 1),
        asked: Tick(1),
        settlements: calls.iter().map(one).collect(),
        want: Want { target, in_use: target, waiting: NanoUsd::ZERO },
        purses: Vec::new(),
    }
}

async fn exchange(database: &Database, exchange: Exchange) {
    let bank = SqlBank::new(database.clone(), Duration::from_mins(1));
    bank.exchange(&[exchange], NOW).await.remove(0).unwrap();
}

fn account_id(state: &Path, name: &str) -> AccountId {
    let shown = done(state, &format!("accounts show {name} --json"));
    AccountId::parse(json_lines(&shown)[0]["id"].as_str().unwrap()).unwrap()
}

#[test]
fn accounts_are_made_listed_and_shown() {
    let (_folder, state) = folder();
    let made = done(&state, "accounts create --name acme --tier gold --requests-per-minute 60");
    assert!(made.starts_with("acc_") && made.ends_with(" \"acme\" is made, prepaid\n"), "{made}");
    done(&state, "accounts create --name inner --unmetered");
    done(&state, "accounts create --name other --prepaid");
    done(&state, "credit add --account acme --amount 12.5");
    command(&state, None, &["keys", "create", "--name", "ci", "--account", "acme"]);

    let listed = json_lines(&done(&state, "accounts list --json"));
    let names: Vec<_> = listed.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3);
    let acme = listed.iter().find(|one| one["name"] == "acme").unwrap();
    let limits = json!({
        "requests_per_second": null, "requests_per_minute": 60, "tokens_per_minute": null,
        "concurrency": null,
    });
    assert_eq!(
        *acme,
        json!({
            "id": acme["id"], "name": "acme", "funding": "prepaid", "balance": "12.50", "keys": 1,
            "created": "2026-01-01T00:00:00.000000Z", "tier": "gold", "limits": limits,
        })
    );
    assert_eq!(json_lines(&done(&state, "accounts show acme --json"))[0], *acme);

    let table = done(&state, "accounts list");
    let rows = words(&table);
    assert_eq!(rows[0].join(" "), "ID FUNDING BALANCE KEYS CREATED TIER NAME");
    let row =
        |name: &str| rows.iter().find(|row| row.last() == Some(&name)).unwrap()[1..].join(" ");
    assert_eq!(row("acme"), "prepaid 12.50 1 2026-01-01T00:00:00Z gold acme");
    assert_eq!(row("inner"), "unmetered - 0 2026-01-01T00:00:00Z - inner");
    let ends: Vec<_> = table.lines().map(|line| line.find("20").or(line.find("CREATED"))).collect();
    assert!(ends.windows(2).all(|two| two[0] == two[1]), "columns are aligned\n{table}");
    let shown = done(&state, "accounts show acme");
    assert!(shown.contains("\nbalance       12.50\n") && shown.contains("\nrequests/min  60\n"));
}

#[test]
fn accounts_that_cannot_be_are_refused() {
    let (_folder, state) = folder();
    done(&state, "accounts create --name acme");
    assert!(mistaken(&state, "accounts create --name acme").contains("already"));
    assert!(mistaken(&state, "accounts create --name a\u{1b}[2J").starts_with("--name: "));
    assert!(mistaken(&state, "accounts create --name b --tier *").starts_with("--tier: "));
    assert!(mistaken(&state, "accounts show nobody").contains("accounts list"));
    assert_eq!(json_lines(&done(&state, "accounts list --json")).len(), 1);
    for words in [
        &["accounts", "create", "--name", "b", "--prepaid", "--unmetered"][..],
        &["accounts", "create", "--name", "b", "--concurrency", "0"],
        &["accounts", "create"],
    ] {
        assert!(Line::try_parse_from([&["tokenrouted"], words].concat()).is_err(), "{words:?}");
    }
}

#[test]
fn credit_moves_once_and_never_below_nothing() {
    let (_folder, state) = folder();
    done(&state, "accounts create --name acme");
    let said = done(&state, "credit add --account acme --amount 5.000000001 --id one --note first");
    assert_eq!(said, "added 5.000000001 USD to \"acme\"; its balance is 5.000000001 USD\n");
    let again = done(&state, "credit add --account acme --amount 5.000000001 --id one");
    assert!(again.contains("done before") && again.ends_with("is 5.000000001 USD\n"), "{again}");
    // The same key for something else.
    for other in [
        "credit add --account acme --amount 6 --id one",
        "credit withdraw --account acme --amount 5.000000001 --id one",
    ] {
        assert!(mistaken(&state, other).contains("--id"), "{other}");
    }
    // Without a key, each is one of its own.
    done(&state, "credit add --account acme --amount 1");
    done(&state, "credit add --account acme --amount 1");
    let said = done(&state, "credit withdraw --account acme --amount 3 --note back");
    assert_eq!(said, "took 3.00 USD from \"acme\"; its balance is 4.000000001 USD\n");
    assert!(mistaken(&state, "credit withdraw --account acme --amount 4.01").contains("not free"));
    // What is lent stays.
    let acme = account_id(&state, "acme");
    with_database(&state, async |database| {
        exchange(database, told(acme, &[], 4_000_000_000)).await;
    });
    assert!(mistaken(&state, "credit withdraw --account acme --amount 1").contains("not free"));
    done(&state, "credit withdraw --account acme --amount 0.000000001");
    assert_eq!(done(&state, "reconcile"), "the books are right\n");
}

#[test]
fn credit_that_cannot_be_is_refused() {
    let (_folder, state) = folder();
    done(&state, "accounts create --name acme");
    done(&state, "accounts create --name inner --unmetered");
    for amount in ["0", "-1", "1e3", "0.0000000001", "", "9000000.01", "99999999999999999999"] {
        for way in ["add", "withdraw"] {
            let words = ["credit", way, "--account", "acme", &format!("--amount={amount}")];
            let ended = command(&state, None, &words);
            assert_eq!((ended.end, ended.out.as_str()), (End::Mistaken, ""), "{amount}");
            assert!(ended.err.starts_with("--amount: "), "{}", ended.err);
        }
    }
    assert!(mistaken(&state, "credit add --account inner --amount 1").contains("unmetered"));
    assert!(mistaken(&state, "credit add --account nobody --amount 1").contains("no account"));
    let long = "x".repeat(501);
    for option in ["--id=", "--id=\u{7}", "--note=\u{7}", &format!("--note={long}")] {
        let words = ["credit", "add", "--account", "acme", "--amount", "1", option];
        assert_eq!(command(&state, None, &words).end, End::Mistaken, "{option}");
    }
    assert_eq!(done(&state, "ledger --json"), "");
}

#[test]
fn the_ledger_is_shown_the_latest_last() {
    let (_folder, state) = folder();
    for name in ["acme", "other"] {
        done(&state, &format!("accounts create --name {name}"));
    }
    done(&state, "credit add --account acme --amount 5 --id one --note first");
    done(&state, "credit add --account other --amount 7 --id two");
    let acme = account_id(&state, "acme");
    let paid = Record { account: Some(acme), cost: NanoUsd(300), ..record(1) };
    with_database(&state, async |database| {
        exchange(database, told(acme, &[(paid, 300)], 0)).await;
    });
    let lines = json_lines(&done(&state, "ledger --account acme --json"));
    let shown = |line: &Value| {
        ["kind", "amount", "balance_after", "note"]
            .map(|name| line[name].as_str().unwrap().to_owned())
    };
    assert_eq!(
        lines.iter().map(shown).collect::<Vec<_>>(),
        [["grant", "5.00", "5.00", "first"], ["charge", "-0.0000003", "4.9999997", ""],]
    );
    assert_eq!(lines[0]["actor"], "operator");
    assert_eq!(lines[0]["account"], format!("customer:{acme}"));
    let last = done(&state, "ledger --account acme --limit 1");
    assert_eq!(words(&last).len(), 2);
    assert_eq!(
        words(&last)[1][1..5].join(" "),
        format!("charge customer:{acme} -0.0000003 4.9999997")
    );
    // Everybody's, and the house's: every transaction has two entries.
    assert_eq!(json_lines(&done(&state, "ledger --json")).len(), 6);
    assert_eq!(json_lines(&done(&state, "ledger --json --limit 3")).len(), 3);
    assert_eq!(done(&state, "ledger --json --limit 0"), "");
    assert!(mistaken(&state, "ledger --account nobody").contains("no account"));
}

#[test]
fn usage_is_summed_by_account_and_key() {
    let (_folder, state) = folder();
    done(&state, "accounts create --name acme");
    done(&state, "credit add --account acme --amount 5");
    command(&state, None, &["keys", "create", "--name", "ci", "--account", "acme"]);
    let acme = account_id(&state, "acme");
    let listed = json_lines(&done(&state, "keys list --json"));
    let key = KeyId::parse(listed[0]["id"].as_str().unwrap());
    let call = |number: u64, outcome, started: Timestamp| Record {
        call: CallId::new(started, number.into()),
        started,
        key,
        account: Some(acme),
        outcome,
        cost: NanoUsd(1_000),
        house_cost: NanoUsd(10),
        ..record(5)
    };
    let ago = |hours: u64| Timestamp(NOW.0 - hours * 3_600_000_000);
    let calls = [
        (call(1, Outcome::Answered, ago(0)), 1_000),
        (call(2, Outcome::Answered, ago(23)), 1_000),
        (call(3, Outcome::Cut, ago(1)), 400),
        (call(4, Outcome::Answered, ago(25)), 1_000),
    ];
    with_database(&state, async |database| exchange(database, told(acme, &calls, 0)).await);
    let day = json_lines(&done(&state, "usage --days 1 --json"));
    assert_eq!(
        day,
        [json!({
            "account": acme.to_string(), "account_name": "acme",
            "key": key.unwrap().to_string(), "key_name": "ci",
            "calls": 2, "unanswered": 1, "input_tokens": 21, "output_tokens": 15,
            "cost": "0.000003", "charge": "0.0000024", "house_cost": "0.00000003",
        })]
    );
    assert_eq!(json_lines(&done(&state, "usage --days 2 --json"))[0]["calls"], 3);
    let table = done(&state, "usage --days 1 --account acme");
    let row = "2 1 21 15 0.000003 0.0000024 0.00000003";
    let rows: Vec<_> = words(&table).iter().map(|row| row.join(" ")).collect();
    assert_eq!(rows[1..], [format!("acme ci {row}"), format!("all {row}")]);
    done(&state, "accounts create --name other");
    assert_eq!(done(&state, "usage --account other --json"), "");
    assert!(mistaken(&state, "usage --account nobody").contains("no account"));
}

#[test]
fn reconciling_tells_what_is_wrong_by_its_end_as_well() {
    let (_folder, state) = folder();
    done(&state, "accounts create --name acme");
    done(&state, "credit add --account acme --amount 5");
    assert_eq!(done(&state, "reconcile"), "the books are right\n");
    assert_eq!(done(&state, "reconcile --json"), "");
    // What was found by others is told, and is no mistake in the books.
    with_database(&state, async |database| {
        let text = |text: &str| text.to_owned();
        let (kind, subject) = (text("abandoned"), text("acc_1 node_1"));
        let finding = Finding { kind, subject, detail: text("an edge\nwas not heard of again") };
        database.note_finding(&finding, NOW).await.unwrap();
    });
    let told = done(&state, "reconcile");
    assert!(told.starts_with("abandoned  acc_1 node_1  an edge\u{fffd}was"), "{told}");
    // A record that says that it was charged, of which the ledger knows nothing.
    insert(&state, &[Record { charge: NanoUsd(7), ..record(1) }]);
    let ended = command(&state, None, &["reconcile", "--json"]);
    assert_eq!((ended.end, ended.err.as_str()), (End::Mistaken, ""));
    let lines = json_lines(&ended.out);
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["record_without_charge", "abandoned"]);
    assert_eq!(lines[0]["subject"], record(1).call.to_string());
    assert_eq!(lines[0]["seen_before"], Value::Null);
}

#[test]
fn a_database_is_brought_up_to_date() {
    let (_folder, state) = folder();
    let said = done(&state, "migrate");
    assert!(said.starts_with("the database has version "), "{said}");
    assert_eq!(done(&state, "migrate"), said);
}

#[test]
fn a_key_has_the_terms_that_it_was_made_with() {
    let (_folder, state) = folder();
    let line = "keys create --name ci --ceiling 5.00 --ceiling 1/day --ceiling 2.5/month --model demo/* \
                --model gpt --provider demo --tier gold --requests-per-second 5 --requests-per-minute 60 \
                --tokens-per-minute 100000 --concurrency 3";
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(command(&state, None, &words).end, End::Done);
    let listed = json_lines(&done(&state, "keys list --json"));
    assert_eq!(
        listed[0]["terms"],
        json!({
            "ceilings": [
                {"period": "total", "limit": "5.00"},
                {"period": "day", "limit": "1.00"},
                {"period": "month", "limit": "2.50"},
            ],
            "models": ["demo/*", "gpt"],
            "providers": ["demo"],
            "tier": "gold",
            "limits": {
                "requests_per_second": 5, "requests_per_minute": 60, "tokens_per_minute": 100_000,
                "concurrency": 3,
            },
        })
    );
    for (option, value) in [
        ("--ceiling", "5/year"),
        ("--ceiling", "x"),
        ("--ceiling", "-1"),
        ("--ceiling", "1/"),
        ("--ceiling", "9000000.01/day"),
        ("--model", ""),
        ("--model", "a*"),
        ("--model", "/*"),
        ("--provider", "a\u{7}"),
        ("--tier", ""),
    ] {
        let ended =
            command(&state, None, &["keys", "create", "--name", "n", &format!("{option}={value}")]);
        assert_eq!((ended.end, ended.out.as_str()), (End::Mistaken, ""), "{option} {value}");
        assert!(ended.err.starts_with(option), "{}", ended.err);
    }
    let twice = mistaken(&state, "keys create --name n --ceiling 1/day --ceiling 2/day");
    assert!(twice.contains("two of the period"), "{twice}");
    assert_eq!(json_lines(&done(&state, "keys list --json")).len(), 1);
}
