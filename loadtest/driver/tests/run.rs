//! Short runs against the provider in a box. They prove what is counted, not how fast it is.
#![cfg(test)]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokenroute_driver::{Mode, Plan, run};
use tokenroute_provider::{Options, serve};

/// A provider on a thread of its own, for as long as the test process lives.
fn provider() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let options = Options { expect_key: Some("sk-load".to_owned()), ..Options::default() };
            serve(listener, options, std::future::pending()).await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn plan(model: &str, mode: Mode) -> Plan {
    Plan {
        address: provider(),
        source: None,
        path: "/v1/chat/completions".to_owned(),
        model: model.to_owned(),
        key: "sk-load".to_owned(),
        mode,
        connections: 4,
        ramp: Duration::ZERO,
        warmup: Duration::from_millis(10),
        window: Duration::from_millis(150),
        body_bytes: 3_000,
        include_usage: false,
        rate: None,
        processes: vec![std::process::id()],
    }
}

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("{name} in {report}"))
}

#[test]
fn json_calls_are_counted_and_measured() {
    let report = run(&plan("load-json-600", Mode::Rps)).unwrap();
    assert!(number(&report, "requests") >= 1.0 && report["errors"] == 0, "{report}");
    assert!(report["body_bytes"].as_u64().unwrap() >= 600);
    assert!(number(&report, "cpu_us_per_request") > 0.0);
    assert!(report["latency_us"]["p50"].as_f64() <= report["latency_us"]["max"].as_f64());
    assert!(number(&report, "rss_kb_peak") > 0.0);
}

#[test]
fn events_are_counted_with_their_delay() {
    for model in ["load-sse-50-0", "load-sse-100000-1"] {
        let report = run(&plan(model, Mode::Sse)).unwrap();
        assert!(number(&report, "events") >= 4.0 && report["errors"] == 0, "{report}");
        assert!(report["event_delay_us"]["p99"].as_f64().unwrap() > 0.0);
    }
    // Paced streams outlast the window: all are open at once.
    let report = run(&plan("load-sse-100000-1", Mode::Sse)).unwrap();
    assert_eq!(report["streams_open_max"], 4);
}

#[test]
fn a_fixed_rate_is_not_exceeded() {
    let mut plan = plan("load-json-600", Mode::Rps);
    plan.rate = Some(100);
    let report = run(&plan).unwrap();
    // 15 are due in the window; late ones from before it may be added.
    assert!(number(&report, "requests") <= 20.0, "{report}");
}

#[test]
fn who_is_turned_away_has_not_failed() {
    let mut plan = plan("words-3+first-2-status-503-retry-1", Mode::Rps);
    plan.warmup = Duration::ZERO;
    plan.source = Some([127, 0, 0, 2].into());
    let report = run(&plan).unwrap();
    assert_eq!((&report["sheds"], &report["errors"]), (&2.into(), &0.into()), "{report}");
    assert!(report["shed_us"]["p50"].as_f64().unwrap() > 0.0);
    assert!(number(&report, "requests") >= 1.0);
}

#[test]
fn failures_are_told_by_kind() {
    for (model, kind) in [
        ("status-500", "Status"),
        ("reset-before-head", "Broken"),
        ("bad-chunk", "Framing"),
        ("echo+no-done", "NotDone"),
    ] {
        let mode = if model.contains("done") { Mode::Sse } else { Mode::Rps };
        let told = match run(&plan(model, mode)) {
            Ok(report) => report["errors_by_kind"].to_string(),
            Err(error) => error.to_string(),
        };
        assert!(told.contains(kind), "{model}: {told}");
    }
    let mut keyless = plan("load-json-600", Mode::Rps);
    keyless.key = "sk-other".to_owned();
    assert!(run(&keyless).unwrap_err().to_string().contains("Status"));
}
