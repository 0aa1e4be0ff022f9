//! What the file and the database come to together: one generation, or every problem with its path.

use std::sync::Arc;

use secrecy::SecretString;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::vault::Vault;
use tokenroute_store::{SealedCredential, Setting, SettingKind, StoredSettings};
use zeroize::Zeroizing;

use super::*;
use crate::config::stored::{self, Kept, Unsound, Whole};

const FILE: &str = "
    [demo]
    enabled = false
    [tiers.gold]
    concurrency = 2
    [policies.none]
    models = []
    [providers.typed]
    base_url = 'https://typed.test/v1'
    credential_env = 'KEY'
    models = [{ id = 'a', input = '1', output = '2' }]
    [[routes]]
    model = 'fast'
    targets = [{ provider = 'typed', model = 'a' }]
";

fn vault() -> Arc<Vault> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("vault");
    let chance = Zeroizing::new(std::array::from_fn(|place| u8::try_from(place).unwrap()));
    Vault::create(&path, &chance).unwrap();
    Arc::new(Vault::open(&path).unwrap())
}

fn setting(kind: SettingKind, name: &str, content: &str) -> Setting {
    let (name, content) = (name.to_owned(), content.to_owned());
    Setting { kind, name, content, version: 1, changed: Timestamp(1) }
}

fn provider(content: &str) -> Setting {
    setting(SettingKind::Provider, "acme", content)
}

/// Our secret for `acme`, bound to `origin`.
fn sealed(vault: &Vault, origin: &str) -> SealedCredential {
    let place = stored::place("acme", origin);
    let sealed = vault.seal(&place, &SecretString::from(SECRET), [7; 24]).unwrap();
    let (provider, origin) = ("acme".to_owned(), origin.to_owned());
    SealedCredential { provider, origin, sealed, changed: Timestamp(1) }
}

fn judge(
    text: &str,
    all: Vec<Setting>,
    credentials: Vec<SealedCredential>,
) -> Result<Whole, Unsound> {
    let settings = StoredSettings { version: 1, settings: all, credentials };
    let kept = Kept { settings: Arc::new(settings), vault: Some(vault()) };
    let written = read::toml(text).unwrap();
    stored::judge(written, (Path::new("/etc/tokenroute"), &keys), &kept)
}

fn flaws(all: Vec<Setting>, credentials: Vec<SealedCredential>) -> Vec<String> {
    match judge(FILE, all, credentials).unwrap_err() {
        Unsound::Problems(problems) => problems.iter().map(ToString::to_string).collect(),
        Unsound::DefinedInFile(kind, name) => panic!("{kind:?} {name}"),
    }
}

fn paths_of(all: Vec<Setting>) -> Vec<String> {
    let flaws = flaws(all, Vec::new());
    flaws.iter().map(|flaw| flaw.split(": ").next().unwrap().to_owned()).collect()
}

#[test]
fn what_is_stored_is_as_good_as_what_is_typed() {
    let all = vec![
        provider(
            r#"{"base_url":"https://acme.test/v1","models":[{"id":"m","input":"1","output":"4"}],
                "deadlines":{"stall_seconds":5},"dialect":null}"#,
        ),
        setting(
            SettingKind::Route,
            "gpt-4.1",
            r#"{"targets":[{"provider":"acme","model":"m"},{"provider":"typed","model":"a"}]}"#,
        ),
        setting(SettingKind::Tier, "silver", r#"{"concurrency":7}"#),
        setting(SettingKind::Policy, "acme", r#"{"providers":["acme"]}"#),
    ];
    let secret = sealed(&vault(), "https://acme.test:443");
    let Whole { plan, fixed } = judge(FILE, all, vec![secret]).unwrap();
    let names: Vec<_> = plan.providers.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["acme", "typed"]);
    let credential = plan.providers[0].credential.as_ref().unwrap();
    assert_eq!(credential.expose_secret(), SECRET);
    assert_eq!(plan.providers[0].deadlines.stall.as_secs(), 5);
    let route = plan.catalog.find("gpt-4.1").unwrap();
    assert_eq!(route.targets.len(), 2);
    assert_eq!(price(&route).unwrap().output, Rate(4 * NANO_PER_USD));
    assert!(plan.catalog.find("acme/m").is_some() && plan.catalog.find("fast").is_some());
    assert_eq!(plan.tiers["silver"].concurrency, Some(7));
    assert!(!plan.catalog.policy("acme").unwrap().allow_provider("typed"));
    assert!(!plan.catalog.policy("none").unwrap().allow_model("fast"));
    let fixed: Vec<_> =
        fixed.iter().map(|(kind, name, source, _)| (*kind, &**name, *source)).collect();
    let expected = [
        (SettingKind::Provider, "typed", "file"),
        (SettingKind::Route, "fast", "file"),
        (SettingKind::Tier, "gold", "file"),
        (SettingKind::Policy, "none", "file"),
    ];
    assert_eq!(fixed, expected);
}

#[test]
fn a_name_in_both_is_refused() {
    for (kind, name) in [
        (SettingKind::Provider, "typed"),
        (SettingKind::Route, "fast"),
        (SettingKind::Tier, "gold"),
        (SettingKind::Policy, "none"),
    ] {
        let judged = judge(FILE, vec![setting(kind, name, "{}")], Vec::new());
        let Err(Unsound::DefinedInFile(found, other)) = judged else { panic!("{kind:?}") };
        assert_eq!((found, other.as_str()), (kind, name));

        // At a start or a reload it is a problem among others.
        let mut written: read::Written = read::toml(FILE).unwrap();
        let settings = vec![setting(kind, name, "{}")];
        let settings = StoredSettings { settings, ..StoredSettings::default() };
        stored::merge(&mut written, &Kept { settings: Arc::new(settings), vault: None });
        let problems = check::check(written, Path::new("/"), &keys).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.contains("take it out"), "{}", problems[0]);
    }
}

#[test]
fn every_problem_is_told_with_its_path() {
    let mut found = paths_of(vec![
        provider(
            r#"{"base_url":"ftp://x","http2":"yes","modles":[],"models":[{"id":"m","input":1}]}"#,
        ),
        setting(
            SettingKind::Route,
            "slow",
            r#"{"targets":[{"provider":"gone","model":"m"}],"weight":1}"#,
        ),
        setting(SettingKind::Route, "other", r#"{"model":"another","targets":[]}"#),
        setting(SettingKind::Tier, "Bad Name", r#"{"concurrency":0}"#),
        setting(SettingKind::Policy, "eu", r#"{"providers":["gone"],"models":["a*b"]}"#),
        setting(SettingKind::Policy, "list", "[]"),
    ]);
    found.sort();
    let expected = [
        "policies.eu.models[0]",
        "policies.eu.providers[0]",
        "policies.list",
        "providers.acme.base_url",
        "providers.acme.http2",
        "providers.acme.models[0].input",
        "providers.acme.modles",
        "routes.other.model",
        "routes.other.targets",
        "routes.slow.targets[0].provider",
        "routes.slow.weight",
        "tiers.Bad Name",
        "tiers.Bad Name.concurrency",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_node_gives_its_own_secrets_to_no_stored_provider() {
    // The environment of these tests has a key for it; an administrator says where the provider is.
    let all = vec![provider(r#"{"preset":"openai","base_url":"https://elsewhere.test/v1"}"#)];
    let plan = judge(FILE, all, Vec::new()).unwrap().plan;
    assert!(plan.providers[0].credential.is_none());

    let named = r#"{"base_url":"https://acme.test","credential_env":"KEY","credential_file":"/x"}"#;
    let paths = paths_of(vec![provider(named)]);
    assert_eq!(paths, ["providers.acme.credential_env", "providers.acme.credential_file"]);
}

#[test]
fn a_secret_goes_only_where_it_was_given_for() {
    let at = |url: &str| vec![provider(&format!(r#"{{"base_url":"{url}"}}"#))];
    let bound = || sealed(&vault(), "https://acme.test:443");
    assert!(
        judge(FILE, at("https://acme.test/other"), vec![bound()]).is_ok(),
        "a path is no origin"
    );
    for other in ["https://acme.test:8443", "https://evil.test", "https://acme.test.evil.test"] {
        let flaws = flaws(at(other), vec![bound()]);
        assert_eq!(flaws.len(), 1, "{flaws:?}");
        assert!(flaws[0].starts_with("providers.acme.credential: is for https://acme.test:443"));
    }
    // Whoever changes the row so that it fits has still not the key.
    let forged = SealedCredential { origin: "https://evil.test:443".to_owned(), ..bound() };
    let flaws = flaws(at("https://evil.test"), vec![forged]);
    assert!(flaws[0].contains("cannot be opened") && !flaws[0].contains(SECRET), "{flaws:?}");
}

#[test]
fn an_administrator_leads_calls_to_no_host_of_the_operators_own() {
    for url in ["http://127.0.0.1:8080", "http://localhost", "https://10.1.2.3/v1", "https://[::1]"]
    {
        let all = || vec![provider(&format!(r#"{{"base_url":"{url}","allow_http":true}}"#))];
        let found = flaws(all(), Vec::new());
        assert!(found[0].starts_with("providers.acme.base_url: is a private address"), "{found:?}");
        let allowed = "[egress]\nallow_private = ['127.0.0.0/8', '10.0.0.0/8', '::1/128']\n";
        assert!(judge(&format!("{allowed}{FILE}"), all(), Vec::new()).is_ok(), "{url}");
    }
}

#[test]
fn what_is_stored_changes_nothing_of_what_the_file_leaves_open() {
    let all = vec![provider(r#"{"base_url":"https://acme.test"}"#)];
    let Whole { plan, fixed } = judge("", all, Vec::new()).unwrap();
    let names: Vec<_> = plan.providers.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["acme", "openai", "xai", "demo"]);
    let sources: Vec<_> = fixed.iter().map(|(_, name, source, _)| (&**name, *source)).collect();
    assert_eq!(sources, [("openai", "environment"), ("xai", "environment"), ("demo", "built_in")]);
}
