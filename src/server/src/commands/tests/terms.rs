//! Changing what keys and accounts may do.

use super::*;

/// A command that succeeds, and what it printed.
fn done(state: &Path, words: &[&str]) -> String {
    let ended = command(state, None, words);
    assert_eq!(ended.end, End::Done, "{words:?}: {}{}", ended.out, ended.err);
    ended.out
}

/// A command that was asked for something wrong, and what it said.
fn mistaken(state: &Path, config: Option<&Path>, words: &[&str]) -> String {
    let ended = command(state, config, words);
    assert_eq!((ended.end, ended.out.as_str()), (End::Mistaken, ""), "{words:?}: {}", ended.err);
    ended.err
}

fn only(state: &Path, words: &[&str]) -> Value {
    let lines = json_lines(&done(state, words));
    assert_eq!(lines.len(), 1, "{words:?}");
    lines[0].clone()
}

#[test]
fn a_key_keeps_what_is_not_named_and_loses_what_is_cleared() {
    let (_folder, state) = folder();
    done(
        &state,
        &["keys", "create", "--name", "ci", "--ceiling", "5", "--ceiling", "1/day", "--model", "a"],
    );
    let id = only(&state, &["keys", "list", "--json"])["id"].as_str().unwrap().to_owned();
    let set = |words: &[&str]| {
        done(&state, &[&["keys", "set", &id], words].concat());
        only(&state, &["keys", "list", "--json"])
    };
    let limits = |terms: &Value| -> Vec<String> {
        let all = terms["ceilings"].as_array().unwrap().iter();
        all.map(|one| format!("{}/{}", one["limit_usd"], one["period"]).replace('"', "")).collect()
    };
    let key = set(&["--ceiling", "2/day", "--tier", "gold", "--concurrency", "3"]);
    let terms = &key["terms"];
    assert_eq!(limits(terms), ["5.00/total", "2.00/day"]);
    assert_eq!((&terms["tier"], &terms["limits"]["concurrency"]), (&"gold".into(), &3.into()));
    assert_eq!((&terms["models"], &key["expires"]), (&serde_json::json!(["a"]), &Value::Null));

    let key = set(&[
        "--model",
        "b*",
        "--provider",
        "p",
        "--requests-per-second",
        "9",
        "--expires-in-days",
        "1",
    ]);
    let terms = &key["terms"];
    assert_eq!((&terms["models"], &terms["providers"]), (&["b*"].into(), &["p"].into()));
    let (rate, at_once) =
        (&terms["limits"]["requests_per_second"], &terms["limits"]["concurrency"]);
    assert_eq!((rate, at_once), (&9.into(), &3.into()));
    assert_eq!(key["expires"], "2026-01-02T00:00:00.000000Z");

    let key = set(&[
        "--clear",
        "ceilings",
        "--clear",
        "limits",
        "--clear",
        "expiry",
        "--ceiling",
        "7/week",
    ]);
    let terms = &key["terms"];
    assert_eq!((limits(terms), &key["expires"]), (vec!["7.00/week".to_owned()], &Value::Null));
    assert_eq!((&terms["limits"]["concurrency"], &terms["tier"]), (&Value::Null, &"gold".into()));
    let key = set(&[
        "--clear",
        "ceilings",
        "--clear",
        "models",
        "--clear",
        "providers",
        "--clear",
        "tier",
    ]);
    let none = serde_json::json!({
        "ceilings": [], "models": null, "providers": null, "tier": null,
        "limits": {
            "requests_per_second": null, "requests_per_minute": null, "tokens_per_minute": null,
            "concurrency": null,
        },
    });
    assert_eq!(key["terms"], none);
}

#[test]
fn what_cannot_be_changed_is_told() {
    let (_folder, state) = folder();
    done(&state, &["keys", "create", "--name", "ci"]);
    let id = only(&state, &["keys", "list", "--json"])["id"].as_str().unwrap().to_owned();
    assert!(mistaken(&state, None, &["keys", "set", &id]).contains("--help"));
    assert!(mistaken(&state, None, &["keys", "set", "key_1", "--tier", "x"]).contains("keys list"));
    let unknown = KeyId::new(NOW, 1).to_string();
    mistaken(&state, None, &["keys", "set", &unknown, "--tier", "x"]);
    let twice = ["keys", "set", &id, "--ceiling", "1/day", "--ceiling", "2/day"];
    assert!(mistaken(&state, None, &twice).contains("--ceiling"));
    done(&state, &["keys", "revoke", &id]);
    assert!(mistaken(&state, None, &["keys", "set", &id, "--tier", "x"]).contains("revoked"));
    let words = ["tokenrouted", "keys", "set", &id, "--clear", "name"];
    assert!(Line::try_parse_from(words).is_err());
}

#[test]
fn an_account_keeps_what_is_not_named_and_loses_what_is_cleared() {
    let (_folder, state) = folder();
    done(&state, &["accounts", "create", "--name", "acme", "--tier", "gold", "--concurrency", "3"]);
    let set = |words: &[&str]| {
        done(&state, &[&["accounts", "set", "acme"], words].concat());
        let account = only(&state, &["accounts", "show", "acme", "--json"]);
        let limits = &account["limits"];
        [&account["tier"], &limits["concurrency"], &limits["requests_per_minute"]].map(Value::clone)
    };
    assert_eq!(set(&["--requests-per-minute", "60"]), [Value::from("gold"), 3.into(), 60.into()]);
    assert_eq!(set(&["--clear", "tier"]), [Value::Null, 3.into(), 60.into()]);
    let cleared = set(&["--clear", "limits", "--tier", "silver", "--concurrency", "4"]);
    assert_eq!(cleared, [Value::from("silver"), 4.into(), Value::Null]);
    assert!(mistaken(&state, None, &["accounts", "set", "acme"]).contains("--help"));
    mistaken(&state, None, &["accounts", "set", "nobody", "--tier", "x"]);
}

#[test]
fn names_are_looked_up_in_the_configuration_that_is_given() {
    let (folder, state) = folder();
    let file = folder.path().join("tokenroute.toml");
    let config = "[tiers.gold]\nconcurrency = 5\n[providers.own]\nbase_url = 'http://localhost'\n";
    std::fs::write(&file, config).unwrap();
    done(&state, &["accounts", "create", "--name", "acme"]);
    done(&state, &["keys", "create", "--name", "k"]);
    let id = only(&state, &["keys", "list", "--json"])["id"].as_str().unwrap().to_owned();
    let cases: [(&[&str], &str); 6] = [
        (&["accounts", "create", "--name", "b", "--tier", "glod"], "gold"),
        (&["accounts", "set", "acme", "--tier", "glod"], "gold"),
        (&["keys", "create", "--name", "b", "--tier", "glod"], "gold"),
        (&["keys", "create", "--name", "b", "--provider", "openai"], "own"),
        (&["keys", "set", &id, "--tier", "glod"], "gold"),
        (&["keys", "set", &id, "--provider", "own", "--provider", "onw"], "own"),
    ];
    for (words, known) in cases {
        let told = mistaken(&state, Some(&file), words);
        assert!(told.contains(&format!("the configuration has {known}")), "{words:?}: {told}");
        let good = words.iter().map(|word| match *word {
            "glod" => "gold",
            "openai" | "onw" => "own",
            other => other,
        });
        // Some of these make what the one before has made.
        let good = command(&state, Some(&file), &good.collect::<Vec<_>>());
        assert!(good.end == End::Done || good.err.contains("already"), "{words:?}: {}", good.err);
    }
    std::fs::write(&file, "providers_from_environment = true\n").unwrap();
    let preset = ["keys", "set", &id, "--provider", "openai", "--provider", "demo"];
    assert_eq!(command(&state, Some(&file), &preset).end, End::Done);
    let told = mistaken(&state, Some(&file), &["keys", "set", &id, "--tier", "gold"]);
    assert!(told.contains("no tiers"), "{told}");
}
