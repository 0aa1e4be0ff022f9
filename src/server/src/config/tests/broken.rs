//! Broken configurations, and exactly the paths that are told of each.

use super::{paths, plan};

fn tells<T: AsRef<str>>(table: &[(T, &[&str])]) {
    for (text, expected) in table {
        let text = text.as_ref();
        assert_eq!(paths(text), *expected, "{text}\n{:?}", plan(text).err());
    }
}

/// A file with one sound provider `p`, and more of its settings.
fn provider(more: &str) -> String {
    format!("[providers.p]\nbase_url = 'https://h'\n{more}")
}

/// A file with one route `m` to the given targets.
fn route(targets: &str) -> String {
    provider(&format!("[[routes]]\nmodel = 'm'\ntargets = [{targets}]"))
}

#[test]
fn of_the_node() {
    tells(&[
        ("stat_dir = 'x'", &["stat_dir"]),
        ("state_dir = ''", &["state_dir"]),
        ("[listen]\naddress = 'localhost:80'", &["listen.address"]),
        ("[listen]\nadress = '127.0.0.1:80'", &["listen.adress"]),
        ("[listen]\nthreads = -1", &["listen.threads"]),
        ("[listen]\nthreads = 'all'", &["listen.threads"]),
        ("[listen.tls]\ncertificate = 'c.pem'", &["listen.tls.key"]),
        ("[listen.tls]\nkey = 'k.pem'", &["listen.tls.certificate"]),
        (
            "[listen.tls]\ncertificate = 'c.pem'\nkey = 'k.pem'",
            &["listen.tls.certificate", "listen.tls.key"],
        ),
        ("[admin]\naddress = '127.0.0.1:8080'", &["admin.address"]),
        ("[redis]\nurl = 'http://h'", &["redis.url"]),
        ("[redis]\nurl = 'redis://'", &["redis.url"]),
        ("[redis]\nurl_env = 'NONE'", &["redis.url_env"]),
        ("[redis]\nurl_file = 'none'", &["redis.url_file"]),
        ("[redis]\nurl = 'redis://h'\nurl_env = 'KEY'", &["redis"]),
        ("[database]\nurl = 'mysql://h/d'", &["database.url"]),
        ("[database]\nurl = 'postgres'", &["database.url"]),
        ("[database]\nurl_env = 'NONE'", &["database.url_env"]),
        ("[database]\nurl_file = 'none'", &["database.url_file"]),
        ("[database]\nurl = 'postgres://h'\nurl_file = 'f'", &["database"]),
        ("[database]\npath = 'f'", &["database.path"]),
        ("[limits]\nbody_bytes_max = 0", &["limits.body_bytes_max"]),
        ("[limits]\nbody_bytes_max = 1_000", &["limits.stream_after_bytes"]),
        ("[limits]\nbuffered_bytes_max = 2_000_000", &["limits.buffered_bytes_max"]),
        ("[limits]\nrecords_max = 0", &["limits.records_max"]),
        ("[limits]\nbody_total_seconds = '30s'", &["limits.body_total_seconds"]),
        ("[limits]\nbody_total_seconds = -1", &["limits.body_total_seconds"]),
        ("[limits]\nbody_total_seconds = nan", &["limits.body_total_seconds"]),
        ("[deadlines]\nhead_seconds = 1e300", &["deadlines.head_seconds"]),
        ("[deadlines]\nstall_seconds = 0", &["deadlines.stall_seconds"]),
        ("[deadlines]\nstall_seconds = 9_999_999_999", &["deadlines.stall_seconds"]),
        ("[deadlines]\nfirst_token_seconds = 0.001", &["deadlines.first_token_seconds"]),
        ("[egress]\nallow_private = '10.0.0.0/8'", &["egress.allow_private"]),
        (
            "[egress]\nallow_private = ['10.0.0.0/8', '10.0.0.1/8', 'all', '10.0.0.0']",
            &["egress.allow_private[1]", "egress.allow_private[2]", "egress.allow_private[3]"],
        ),
        ("[egress]\nallow = ['10.0.0.0/8']", &["egress.allow"]),
        ("[routing]\nattempts_max = 0", &["routing.attempts_max"]),
        ("[routing]\non_break = 'go on'\nhedge = {}", &["routing.hedge", "routing.on_break"]),
        ("[shutdown]\nstreams_seconds = 4_000", &["shutdown.streams_seconds"]),
        ("[log]\nformat = 'xml'\nlevel = 'debug'", &["log.format", "log.level"]),
        ("[demo]\nenabled = 'yes'", &["demo.enabled"]),
        ("providers = 3", &["providers"]),
        (
            "[providers]\np = 3\n[[routes]]\nmodel = 'm'\ntargets = [{ provider = 'p', model = 'x' }]",
            &["providers.p"],
        ),
        ("a = ", &["file"]),
        ("[listen]\n[listen]", &["file"]),
    ]);
}

#[test]
fn of_money_and_tiers() {
    tells(&[
        ("[money]\nlease_seconds = 1", &["money.lease_seconds"]),
        ("[money]\nposting_lag_max_seconds = 0", &["money.posting_lag_max_seconds"]),
        ("[money]\nlease_seconds = 3_601", &["money.lease_seconds"]),
        ("[money]\nlease = 60", &["money.lease"]),
        ("[money]\noutput_tokens_default = 0", &["money.output_tokens_default"]),
        ("[money]\noutput_tokens_default = 100", &["money.output_tokens_min"]),
        ("[money]\noutput_tokens_min = 0", &["money.output_tokens_min"]),
        ("[tiers]\ntrial = 3", &["tiers.trial"]),
        ("[tiers.Trial]\nconcurrency = 1", &["tiers.Trial"]),
        (
            "[tiers.t]\nrequests_per_second = 0\nrequests_per_minute = -1",
            &["tiers.t.requests_per_second", "tiers.t.requests_per_minute"],
        ),
        (
            "[tiers.t]\ntokens_per_minute = '9'\nconcurrency = 1_000_001",
            &["tiers.t.tokens_per_minute", "tiers.t.concurrency"],
        ),
        ("[tiers.t]\nrequests = 1", &["tiers.t.requests"]),
    ]);
}

#[test]
fn of_providers() {
    tells(&[
        ("[providers.p]".to_owned(), &["providers.p.base_url"]),
        ("[providers.p]\npreset = 'nobody'".to_owned(), &["providers.p.preset"]),
        ("[providers.gemini]\npreset = 'gemini'".to_owned(), &["providers.gemini.credential_env"]),
        ("[providers.'a/b']\nbase_url = 'https://h'".to_owned(), &["providers.a/b"]),
        ("[providers.demo]\nbase_url = 'https://h'".to_owned(), &["providers.demo"]),
        ("[providers.p]\nbase_url = 'http://h'".to_owned(), &["providers.p.base_url"]),
        ("[providers.p]\nbase_url = 'https://u:p@h'".to_owned(), &["providers.p.base_url"]),
        (provider("dialect = 'x'"), &["providers.p.dialect"]),
        (provider("credential_env = 'NONE'"), &["providers.p.credential_env"]),
        (provider("credential_env = 'EMPTY'"), &["providers.p.credential_env"]),
        (provider("credential_env = 'BROKEN'"), &["providers.p.credential_env"]),
        (provider("credential_file = 'none'"), &["providers.p.credential_file"]),
        (provider("credential_file = '/'"), &["providers.p.credential_file"]),
        (provider("credential_file = '/dev/zero'"), &["providers.p.credential_file"]),
        (provider("credential_env = 'KEY'\ncredential_file = 'x'"), &["providers.p"]),
        (provider("on_disconnect = 'stay'"), &["providers.p.on_disconnect"]),
        (provider("quirks.reasoning = 'much'"), &["providers.p.quirks.reasoning"]),
        (provider("quirks.stream_option = true"), &["providers.p.quirks.stream_option"]),
        (provider("quirks.prefill = 'prefixed'"), &["providers.p.quirks.prefill"]),
        (provider("http2 = 'h2'"), &["providers.p.http2"]),
        (provider("probe = 10"), &["providers.p.probe"]),
        (provider("probe = { every_seconds = 0.01 }"), &["providers.p.probe.every_seconds"]),
        (provider("probe = { kind = 'chat' }"), &["providers.p.probe.kind"]),
        (provider("probe = { each = 1 }"), &["providers.p.probe.each"]),
        (provider("deadlines.head_seconds = 1_000"), &["providers.p.deadlines.head_seconds"]),
        (provider("models = [{}]"), &["providers.p.models[0].id"]),
        (provider("models = ['a']"), &["providers.p.models[0]"]),
        (provider("models = [{ id = 'a b' }]"), &["providers.p.models[0].id"]),
        (provider("models = [{ id = 'a' }, { id = 'a' }]"), &["providers.p.models[1].id"]),
        (provider("models = [{ id = 'a', input = '1' }]"), &["providers.p.models[0].output"]),
        (
            provider("models = [{ id = 'a', input = '1e3', output = '-1' }]"),
            &["providers.p.models[0].input", "providers.p.models[0].output"],
        ),
        (
            provider("models = [{ id = 'a', input = 0.15, output = '1' }]"),
            &["providers.p.models[0].input"],
        ),
        (
            provider("models = [{ id = 'a', input = '1', output = '9999999' }]"),
            &["providers.p.models[0].output"],
        ),
        (
            provider("models = [{ id = 'a', context_tokens = 0 }]"),
            &["providers.p.models[0].context_tokens"],
        ),
    ]);
}

#[test]
fn of_prices() {
    let model = |more: &str| {
        provider(&format!("models = [{{ id = 'a', input = '1', output = '2', {more} }}]"))
    };
    let dated = |more: &str| model(&format!("prices = [{{ input = '1', output = '2', {more} }}]"));
    let target = |more: &str| route(&format!("{{ provider = 'p', model = 'x', {more} }}"));
    tells(&[
        (model("request = '-1'"), &["providers.p.models[0].request"]),
        (model("image_tokens_max = 0"), &["providers.p.models[0].image_tokens_max"]),
        (model("long_context = 2"), &["providers.p.models[0].long_context"]),
        (model("long_context = {}"), &["providers.p.models[0].long_context.above_tokens"]),
        (
            model("long_context = { above_tokens = 1, input = '1.0001', output = '101' }"),
            &[
                "providers.p.models[0].long_context.input",
                "providers.p.models[0].long_context.output",
            ],
        ),
        (
            model("service_tiers = { flex = '-1', batch = '1' }"),
            &[
                "providers.p.models[0].service_tiers.batch",
                "providers.p.models[0].service_tiers.flex",
            ],
        ),
        (
            model("service_tiers = { priority = 2 }"),
            &["providers.p.models[0].service_tiers.priority"],
        ),
        (
            provider("models = [{ id = 'a', service_tiers = { flex = '1' } }]"),
            &["providers.p.models[0].input", "providers.p.models[0].output"],
        ),
        (
            model("prices = [{}]"),
            &[
                "providers.p.models[0].prices[0].input",
                "providers.p.models[0].prices[0].output",
                "providers.p.models[0].prices[0].from",
            ],
        ),
        (dated("from = '2026-02-30'"), &["providers.p.models[0].prices[0].from"]),
        (dated("from = '1.1.2026'"), &["providers.p.models[0].prices[0].from"]),
        (dated("from = 2026"), &["providers.p.models[0].prices[0].from"]),
        (dated("from = 2026-01-01T00:00:00Z"), &["providers.p.models[0].prices[0].from"]),
        (dated("from = '2026-01-01', until = 'x'"), &["providers.p.models[0].prices[0].until"]),
        (dated("from = '2026-01-01', request = 'x'"), &["providers.p.models[0].prices[0].request"]),
        (
            dated("from = '2026-01-01' }, { from = '2026-01-01', input = '1', output = '2'"),
            &["providers.p.models[0].prices[1].from"],
        ),
        (target("output_tokens_max = 0"), &["routes[0].targets[0].output_tokens_max"]),
        (target("image_tokens_max = 'x'"), &["routes[0].targets[0].image_tokens_max"]),
        (target("prices = [{ input = '1' }]"), &["routes[0].targets[0].prices[0].output"]),
        (target("price = { input = '1' }"), &["routes[0].targets[0].price"]),
    ]);
}

#[test]
fn of_routes() {
    tells(&[
        ("[[routes]]\nmodel = 'm'".to_owned(), &["routes[0].targets"]),
        ("[[routes]]\ntargets = []".to_owned(), &["routes[0].model", "routes[0].targets"]),
        (
            route("{ provider = 'q', model = 'x', weight = -1 }").replace("'m'", "'m m'"),
            &["routes[0].model", "routes[0].targets[0].weight", "routes[0].targets[0].provider"],
        ),
        (route(""), &["routes[0].targets"]),
        (route("{ provider = 'q', model = 'x' }"), &["routes[0].targets[0].provider"]),
        (route("{ provider = 'p' }"), &["routes[0].targets[0].model"]),
        (route("{ model = 'x' }"), &["routes[0].targets[0].provider"]),
        (route("{ provider = 'p', model = '*' }"), &["routes[0].targets[0].model"]),
        (route("{ provider = 'p', model = 'a b' }"), &["routes[0].targets[0].model"]),
        (route("{ provider = 'p', model = 'x', weight = -1 }"), &["routes[0].targets[0].weight"]),
        (route("{ provider = 'p', model = 'x', rank = -1 }"), &["routes[0].targets[0].rank"]),
        (route("{ provider = 'p', model = 'x', wait = 1 }"), &["routes[0].targets[0].wait"]),
        (
            route("{ provider = 'p', model = 'x' }, { provider = 'p', model = 'x', rank = 1 }"),
            &["routes[0].targets"],
        ),
        (
            route(
                "{ provider = 'p', model = 'x' }]\n[[routes]]\nmodel = 'm'\ntargets = [{ provider = 'p', model = 'y' }",
            ),
            &["routes[1].model"],
        ),
        (route("{ provider = 'p', model = 'x' }").replace("'m'", "'a*'"), &["routes[0].model"]),
        (route("{ provider = 'p', model = 'x' }").replace("'m'", "'*'"), &["routes[0].model"]),
    ]);
}

#[test]
fn of_how_routes_are_tried() {
    let route = |more: &str| {
        provider(&format!(
            "[[routes]]\nmodel = 'm'\n{more}\n[[routes.targets]]\nprovider = 'p'\nmodel = 'x'\n"
        ))
    };
    tells(&[
        (route("attempts_max = 11"), &["routes[0].attempts_max"]),
        (route("attempts_max = 1.5"), &["routes[0].attempts_max"]),
        (route("attempts_seconds = 0"), &["routes[0].attempts_seconds"]),
        (route("wait_seconds_max = 61"), &["routes[0].wait_seconds_max"]),
        (route("on_break = 'retry'"), &["routes[0].on_break"]),
        (
            route("balance = 'fair'\naffinity = 'user'"),
            &["routes[0].balance", "routes[0].affinity"],
        ),
        (route("attempt_max = 1"), &["routes[0].attempt_max"]),
        (route("deadlines.drain_seconds = 1"), &["routes[0].deadlines.drain_seconds"]),
        (route("deadlines.connect_seconds = 61"), &["routes[0].deadlines.connect_seconds"]),
        (route("deadlines.first_token_seconds = 0"), &["routes[0].deadlines.first_token_seconds"]),
        (route("hedge = { quantile = 0.4 }"), &["routes[0].hedge.quantile"]),
        (route("hedge = { quantile = 0.9999 }"), &["routes[0].hedge.quantile"]),
        (route("hedge = { quantile = nan }"), &["routes[0].hedge.quantile"]),
        (route("hedge = { quantile = 'most' }"), &["routes[0].hedge.quantile"]),
        (route("hedge = { share = -0.1 }"), &["routes[0].hedge.share"]),
        (route("hedge = { share = 1 }"), &["routes[0].hedge.share"]),
        (route("hedge = { wait_seconds_min = -1 }"), &["routes[0].hedge.wait_seconds_min"]),
        (route("hedge = true"), &["routes[0].hedge"]),
        (route("") + "prefill = 'prefix'", &["routes[0].targets[0].prefill"]),
        (route("") + "context_tokens = 0", &["routes[0].targets[0].context_tokens"]),
        (route("") + "weight = 10_001", &["routes[0].targets[0].weight"]),
    ]);
}
