//! What a broken configuration is told, what a sound one comes to, and that no secret shows.

mod broken;
mod files;
mod fuzz;
mod money;
mod routing;
mod stored;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokenroute_domain::catalog::Route;
use tokenroute_domain::money::{NANO_PER_USD, Price, Rate};
use tokenroute_domain::time::Timestamp;
use tokenroute_proxy::snapshot::OnDisconnect;
use tokenroute_wire::meter::Reasoning;

use super::base::{Base, Origin};
use super::{Plan, Problem, check, load, preset, read};

const REFERENCE: &str = include_str!("../../../../conf/tokenroute.toml");
const SECRET: &str = "canary-7f3a9c-secret";

/// An environment in which only the home folder is set.
fn home(name: &str) -> Option<String> {
    (name == "HOME").then(|| "/home/o".to_owned())
}

/// One in which a few credentials are set too.
fn keys(name: &str) -> Option<String> {
    match name {
        "OPENAI_API_KEY" | "XAI_API_KEY" | "KEY" => Some(SECRET.to_owned()),
        "EMPTY" => Some(String::new()),
        "BROKEN" => Some(format!("{SECRET}\r\nx: y")),
        other => home(other),
    }
}

fn plan_in(folder: &Path, text: &str) -> Result<Plan, Vec<Problem>> {
    check::check(read::toml(text).map_err(|problem| vec![problem])?, folder, &keys)
}

fn plan(text: &str) -> Result<Plan, Vec<Problem>> {
    plan_in(Path::new("/etc/tokenroute"), text)
}

/// The paths of all problems, in order.
fn paths(text: &str) -> Vec<String> {
    let problems = plan(text).err().unwrap_or_default();
    problems.into_iter().map(|problem| problem.path).collect()
}

/// The price of a route's first target, in the year 2026.
fn price(route: &Route) -> Option<Arc<Price>> {
    route.targets[0].prices.at(Timestamp(1_775_000_000_000_000)).cloned()
}

/// Everything that a plan says, in a stable order.
fn summary(plan: &Plan) -> String {
    let mut routes: Vec<_> = plan.catalog.patterns().map(ToString::to_string).collect();
    routes.sort();
    let routes: Vec<_> =
        routes.iter().map(|name| plan.catalog.find(&name.replace('*', "x"))).collect();
    let rest = plan.clone();
    format!(
        "{:?}",
        (
            (rest.state, rest.listen, (rest.admin, rest.admin_hosts), rest.sizes),
            (rest.limits, rest.shutdown, rest.log, rest.demo, rest.providers),
            (routes, rest.catalog.listed(), rest.warnings),
            (rest.tiers.into_iter().collect::<BTreeMap<_, _>>(), rest.money, rest.egress),
        )
    )
}

#[test]
fn all_problems_are_told_at_once() {
    let text = "
        stat_dir = 'x'
        [listen]
        threads = true
        address = 7
        [log]
        level = 'all'
        [providers.p]
        base_url = 'ftp://h'
        models = [{ id = 3 }, { id = 'b', price = '1' }]
        [[routes]]
        model = 'm'
        targets = [{ provider = 'q', model = 'x', weight = 'all' }, 5, { provider = 'p', model = 'y', weight = -1 }]
    ";
    let mut found = paths(text);
    found.sort();
    let expected = [
        "listen.address",
        "listen.threads",
        "log.level",
        "providers.p.base_url",
        "providers.p.models[0].id",
        "providers.p.models[1].price",
        "routes[0].targets[0].provider",
        "routes[0].targets[0].weight",
        "routes[0].targets[1]",
        "routes[0].targets[2].weight",
        "stat_dir",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_flood_of_problems_is_bounded() {
    let wrong: Vec<_> = (0..2_000).map(|n| format!("[providers.p{n}]\nbase_url = {n}\n")).collect();
    assert!(paths(&wrong.concat()).len() <= super::problem::PROBLEMS_MAX);
    let unknown: Vec<_> = (0..2_000).map(|n| format!("x{n} = {n}\n")).collect();
    assert_eq!(paths(&unknown.concat()).len(), super::problem::PROBLEMS_MAX);
}

#[test]
fn no_secret_shows_in_problems_or_debug() {
    for text in [
        format!("[redis]\nurl = 'http://{SECRET}'"),
        format!("[redis]\nurl = 'redis://{SECRET}"),
        format!("[redis]\nurl = ['{SECRET}']"),
        format!("[database]\nurl = 'mysql://{SECRET}@h'"),
        "[database]\nurl_env = 'BROKEN'".to_owned(),
        format!("[limits]\nbody_bytes_max = '{SECRET}'\n[log]\nlevel = '{SECRET}'"),
        format!("[limits]\nbody_total_seconds = '{SECRET}, expected {SECRET}'"),
        format!("[demo]\nenabled = '{SECRET}'"),
        format!("[providers.p]\nbase_url = 'https://u:{SECRET}@h'"),
        format!("[providers.p]\nbase_url = 'https://h'\nquirks.reasoning = '{SECRET}'"),
        // The secret itself, where its variable is to be named.
        format!("[providers.p]\nbase_url = 'https://h'\ncredential_env = '{SECRET}'"),
        format!("[redis]\nurl_env = '{SECRET}'"),
        "[providers.p]\nbase_url = 'https://h'\ncredential_env = 'BROKEN'".to_owned(),
    ] {
        let problems = plan(&text).unwrap_err();
        let told: Vec<_> =
            problems.iter().map(|problem| format!("{problem} {problem:?}")).collect();
        assert!(!told.concat().contains("canary") && !told.concat().contains("7f3a9c"), "{told:?}");
    }
    let text = format!(
        "[redis]\nurl = 'redis://:{SECRET}@h'\n[database]\nurl = 'postgres://u:{SECRET}@h/d'\n[providers.p]\nbase_url = 'https://h'\ncredential_env = 'KEY'"
    );
    let written: read::Written = read::toml(&text).unwrap();
    let plan = plan(&text).unwrap();
    assert_eq!(plan.providers[0].credential.as_ref().unwrap().expose_secret(), SECRET);
    assert!(plan.state.redis_url.as_ref().unwrap().expose_secret().contains(SECRET));
    assert!(!format!("{written:?} {plan:#?}").contains("canary"));
}

#[test]
fn the_reference_file_is_the_defaults() {
    let environments: [super::Environment<'_>; 2] = [&home, &keys];
    for environment in environments {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tokenroute.toml");
        std::fs::write(&path, REFERENCE).unwrap();
        let reference = load(Some(&path), environment).unwrap();
        let defaults = load(None, environment).unwrap();
        assert_eq!(summary(&reference), summary(&defaults));
    }
}

#[test]
fn the_reference_file_shows_every_setting() {
    let uncommented: String = REFERENCE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let written: read::Written = read::toml(&uncommented).unwrap();
    assert_eq!(written.problems, []);
    let file = serde_json::to_value(&written.file).unwrap();
    let mut fields = BTreeMap::new();
    collect_fields("", &file, &mut fields);
    for (path, schema) in [
        (".deadlines", "Deadlines"),
        (".providers", "Provider"),
        (".routes", "Route"),
        (".tiers.trial", "Tier"),
        (".policies.eu", "Policy"),
    ] {
        add_fields(path, &schemas()[schema], &mut fields);
    }
    // They are explained at `[deadlines]` and at the model's own price.
    let elsewhere =
        [".providers.deadlines", ".providers.models.prices.", ".routes.targets.prices."];
    let missing: Vec<_> = fields
        .into_iter()
        .filter(|(path, shown)| !shown && !elsewhere.iter().any(|own| path.starts_with(own)))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

/// What the management API's document says of its types: a field that says nothing is not written.
fn schemas() -> serde_json::Value {
    let document = serde_json::to_value(tokenroute_control::openapi()).unwrap();
    document["components"]["schemas"].clone()
}

/// Adds each field that a schema has, as one that is not shown if it was not there yet.
fn add_fields(path: &str, schema: &serde_json::Value, fields: &mut BTreeMap<String, bool>) {
    if !schema.is_object() {
        return;
    }
    let alternatives =
        ["oneOf", "anyOf", "allOf"].iter().filter_map(|word| schema[word].as_array());
    for one in alternatives.flatten().chain([&schema["items"]]) {
        add_fields(path, one, fields);
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        add_fields(path, &schemas()[name], fields);
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        fields.entry(path.clone()).or_insert(false);
        add_fields(&path, schema, fields);
    }
}

/// Every field, and whether it is shown in any place: providers and list items have no names here.
fn collect_fields(path: &str, value: &serde_json::Value, fields: &mut BTreeMap<String, bool>) {
    match value {
        serde_json::Value::Null => {
            fields.entry(path.to_owned()).or_insert(false);
        }
        serde_json::Value::Object(table) if path == ".providers" => {
            let fields_of = table.values().filter_map(serde_json::Value::as_object).flatten();
            for (key, value) in fields_of {
                collect_fields(&format!("{path}.{key}"), value, fields);
            }
        }
        serde_json::Value::Object(table) => {
            fields.insert(path.to_owned(), true);
            table
                .iter()
                .for_each(|(key, value)| collect_fields(&format!("{path}.{key}"), value, fields));
        }
        serde_json::Value::Array(list) => {
            fields.entry(path.to_owned()).or_insert(false);
            for value in list {
                collect_fields(path, value, fields);
            }
        }
        serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {
            fields.insert(path.to_owned(), true);
        }
    }
}

#[test]
fn without_a_file_the_demo_answers_and_set_keys_bring_providers_up() {
    let alone = load(None, &home).unwrap();
    assert!(alone.demo);
    assert_eq!(alone.state.dir, Path::new("/home/o/.local/state/tokenroute"));
    assert_eq!(alone.state.pepper_file, alone.state.dir.join("pepper"));
    let listed: Vec<_> = alone.catalog.listed().iter().map(|model| model.id.to_string()).collect();
    assert_eq!(listed, ["demo/echo"]);
    let echo = alone.catalog.find("demo/echo").unwrap();
    assert_eq!(echo.targets[0].upstream_model.as_ref(), "echo");
    assert_eq!(alone.providers[echo.targets[0].provider.0].base, Base::Demo);
    assert!(alone.catalog.find("openai/gpt-4o-mini").is_none());

    let with_keys = load(None, &keys).unwrap();
    let names: Vec<_> = with_keys.providers.iter().map(|one| one.name.to_string()).collect();
    assert_eq!(names, ["openai", "xai", "demo"]);
    let listed = with_keys.catalog.find("openai/gpt-4o-mini").unwrap();
    assert_eq!(price(&listed).unwrap().input.0, 150_000_000);
    let other = with_keys.catalog.find("openai/ft:gpt-4o:acme").unwrap();
    assert_eq!(other.targets[0].upstream_model.as_ref(), "ft:gpt-4o:acme");
    assert_eq!(price(&other), None);

    let closed = plan("[providers.p]\nbase_url = 'https://h'").unwrap();
    assert!(!closed.demo);
    assert_eq!(closed.providers.len(), 1);
}

#[test]
fn the_state_folder_is_found_by_the_usual_variables() {
    let dir = |set: &[(&str, &str)]| {
        let lookup = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        load(None, &lookup).map(|plan| plan.state.dir)
    };
    assert_eq!(
        dir(&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")]).unwrap(),
        Path::new("/x/tokenroute")
    );
    let all = [("HOME", "/h"), ("XDG_STATE_HOME", "/x"), ("TOKENROUTE_STATE_DIR", "/s")];
    assert_eq!(dir(&all).unwrap(), Path::new("/s"));
    assert_eq!(dir(&[]).unwrap_err()[0].path, "state_dir");
}

#[test]
fn every_preset_is_sound() {
    for name in preset::names() {
        let typed = preset::find(name).unwrap().unwrap();
        let variable = typed.credential_env.clone().unwrap();
        let lookup =
            |asked: &str| (asked == variable).then(|| "key".to_owned()).or_else(|| home(asked));
        let plan = load(None, &lookup).unwrap();
        assert_eq!(plan.providers[0].name.as_ref(), name);
        assert!(plan.catalog.find(&format!("{name}/any")).is_some());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/providers");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().replace(".toml", ""))
        .collect();
    files.sort();
    assert_eq!(files, preset::names().collect::<Vec<_>>(), "a preset is not built in");
}

#[test]
fn a_file_overrides_its_preset_by_field_and_by_model() {
    let plan = plan(
        "[providers.eu]
        preset = 'openai'
        base_url = 'https://eu.api.openai.com/v1/'
        credential_env = 'KEY'
        quirks.reasoning = 'added'
        deadlines.head_seconds = 0.5
        [[providers.eu.models]]
        id = 'gpt-4o-mini'
        input = '1'
        output = '2'
        [[providers.eu.models]]
        id = 'new'
        [deadlines]
        stall_seconds = 7",
    )
    .unwrap();
    let eu = &plan.providers[0];
    let Base::At(origin) = &eu.base else { panic!("{eu:?}") };
    assert_eq!((origin.host.as_str(), origin.path_prefix.as_str()), ("eu.api.openai.com", "/v1"));
    assert_eq!(eu.reasoning, Reasoning::Added);
    assert!(eu.stream_options);
    assert_eq!((eu.deadlines.head.as_millis(), eu.deadlines.stall.as_secs()), (500, 7));
    let of = |model| price(&plan.catalog.find(model).unwrap());
    let mini = of("eu/gpt-4o-mini").unwrap();
    assert_eq!((mini.input.0, mini.input_cache_read.0), (1_000_000_000, 1_000_000_000));
    assert!(of("eu/gpt-4o").is_some());
    assert_eq!(of("eu/new"), None);
}

#[test]
fn a_route_of_ones_own_is_listed_and_takes_a_lists_place() {
    let plan = plan(
        "[providers.a]
        base_url = 'https://a'
        models = [{ id = 'x', input = '1', output = '1' }]
        [providers.b]
        base_url = 'https://b'
        [[routes]]
        model = 'fast'
        targets = [{ provider = 'b', model = 'y', rank = 1, weight = 5 }, { provider = 'a', model = 'x' }]
        [[routes]]
        model = 'a/x'
        targets = [{ provider = 'b', model = 'z' }]
        [[routes]]
        model = 'b/*'
        targets = [{ provider = 'b', model = 'org/*' }]",
    )
    .unwrap();
    let fast = plan.catalog.find("fast").unwrap();
    let targets: Vec<_> = fast.targets.iter().map(|one| (one.name.as_ref(), one.weight)).collect();
    assert_eq!(targets, [("a/x", 1), ("b/y", 5)]);
    assert!(price(&fast).is_some());
    assert_eq!(plan.catalog.find("a/x").unwrap().targets[0].name.as_ref(), "b/z");
    assert_eq!(plan.catalog.find("b/m").unwrap().targets[0].name.as_ref(), "b/org/m");
    let listed: Vec<_> = plan.catalog.listed().iter().map(|one| one.id.as_ref()).collect();
    assert_eq!(listed, ["a/x", "fast"]);
}

/// What is no base URL, or points to where no provider can be, however it is written.
const ODD_URLS: &[&str] = &[
    "",
    "api.openai.com",
    "https://",
    "https:///v1",
    "https://:443",
    "https://h:",
    "https://h:0",
    "https://h:65536",
    "https://h:+1",
    "https://h:1:2",
    "https://u@h",
    "https://a@b:c@h",
    "https://h\\@evil",
    "https://h/?q",
    "https://h?q",
    "https://h#f",
    "https://h#@e",
    "https://h/..",
    "https://h/a//b",
    "https://h//",
    "https://h/%2e",
    "https://h /",
    "https://h\r\n",
    "https://ex\u{e4}mple",
    "https://h.",
    "https://.h",
    "https://a..b",
    "https://-a",
    "https://localhost.",
    "https://127.1",
    "https://2130706433",
    "https://0x7f.1",
    "https://0x7f000001",
    "https://0.0.0.0",
    "https://169.254.169.254",
    "https://[::]",
    "https://[fe80::1]",
    "https://[::ffff:169.254.169.254]",
    "https://[127.0.0.1]",
    "https://[h]",
    "https://[::1",
    "https://[::1]x",
    "https://224.0.0.1",
    "https://0",
    "https://127.0.1",
    "https://0177.0.0.1",
    "https://017700000001",
    "https://127.0.0.1.",
    "https://127.0.0.0x1",
    "https://1.2.3.4.5",
    "https://127\u{3002}0\u{3002}0\u{3002}1",
    "https://\u{ff11}27.0.0.1",
    "https://127.0.0.1\t",
    "https://127.0.0.1%00",
    "https://127.0.0.1@evil",
    "https://evil#@127.0.0.1",
    "https://evil\\@127.0.0.1",
    "https://evil;@127.0.0.1",
    "https://255.255.255.255",
    "https://192.0.0.192",
    "https://100.100.100.200",
    "https://168.63.129.16",
    "https://[fd00:ec2::254]",
    "https://[64:ff9b::a9fe:a9fe]",
    "https://[2002:a9fe:a9fe::]",
    "https://[::ffff:0:0]",
    "https://[::127.0.0.1]",
    "https://[ff02::1]",
    "gopher://127.0.0.1",
    "https://[fd00::1%25eth0]",
    "file:///etc/passwd",
    "HTTPS://h",
];

#[test]
fn base_urls_are_read_strictly() {
    let sound = [
        ("https://api.openai.com/v1", "api.openai.com", 443, "/v1"),
        ("https://API.x.ai:8443/", "api.x.ai", 8443, ""),
        ("http://127.0.0.1:9100/v1/", "127.0.0.1", 9100, "/v1"),
        ("http://[::1]:80/a/b", "::1", 80, "/a/b"),
        ("http://vllm_1", "vllm_1", 80, ""),
    ];
    for (url, host, port, prefix) in sound {
        let origin = Origin::parse(url).unwrap();
        assert_eq!((origin.host.as_str(), origin.port), (host, port), "{url}");
        assert_eq!(origin.path_prefix, prefix, "{url}");
        assert_eq!(origin.tls, url.starts_with("https"));
    }
    for url in ODD_URLS {
        assert!(Origin::parse(url).is_err(), "{url}");
    }
    assert!(Origin::parse(&format!("https://h/{}", "x".repeat(600))).is_err());
    let loopback = |url| Origin::parse(url).unwrap().is_loopback();
    assert!(
        loopback("http://localhost") && loopback("http://127.9.9.9") && loopback("http://[::1]")
    );
    assert!(!loopback("http://localhost.evil.com") && !loopback("http://10.0.0.1"));
}

#[test]
fn what_needs_a_restart_is_told() {
    let base = plan("").unwrap();
    assert_eq!(base.needs_restart(&base), Vec::<&str>::new());
    let changed = plan(
        "state_dir = '/x'\n[listen]\nthreads = 7\n[admin]\naddress = '127.0.0.1:1'\n[control]\nadmins = ['x']\n[log]\nlevel = 'warn'
        [redis]\nurl = 'redis://h'\n[database]\nurl = 'postgres://h/d'\n[money]\nlease_seconds = 5\nposting_lag_max_seconds = 5\n[demo]\nenabled = false\n[limits]\nrecords_max = 5",
    )
    .unwrap();
    let expected = [
        "state_dir",
        "keys.pepper_file",
        "redis",
        "database",
        "money.lease_seconds",
        "money.posting_lag_max_seconds",
        "listen",
        "admin",
        "control",
        "keys.vault_file",
        "limits.records_max",
        "log",
        "demo",
    ];
    assert_eq!(base.needs_restart(&changed), expected);
    let live = plan(
        "[limits]\ncalls_max = 5\n[deadlines]\nhead_seconds = 3\n[money]\noutput_tokens_min = 9
        [tiers.t]\nconcurrency = 5",
    )
    .unwrap();
    assert_eq!(base.needs_restart(&live), Vec::<&str>::new());
}

#[test]
fn what_a_provider_does_not_say_is_what_most_of_them_do() {
    let plan = plan(
        "[providers.p]
        base_url = 'https://h'
        models = [{ id = 'a', input = '4', output = '8', input_cache_write = '5', request = '0.01' }]",
    )
    .unwrap();
    let provider = &plan.providers[0];
    assert!(provider.stream_options && provider.credential.is_none());
    assert_eq!(provider.reasoning, Reasoning::Inside);
    assert_eq!(provider.on_disconnect, OnDisconnect::Cancel);
    let price = provider.models[0].prices.at(Timestamp(0)).unwrap();
    let usd = |rate: Rate| rate.0 / NANO_PER_USD;
    let input = [price.input, price.input_cache_read, price.input_audio, price.input_image];
    assert_eq!(input.map(usd), [4; 4]);
    assert_eq!([price.input_cache_write, price.input_cache_write_long].map(usd), [5; 2]);
    let output = [price.output, price.output_reasoning, price.output_audio, price.output_image];
    assert_eq!(output.map(usd), [8; 4]);
    assert_eq!(price.request.to_string(), "0.01");
}
