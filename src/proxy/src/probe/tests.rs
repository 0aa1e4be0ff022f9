//! When probes are sent, what they ask, and what their answers mean.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use tokenroute_domain::catalog::{Catalog, ProviderIndex, Route, Target as Configured, TargetSlot};
use tokenroute_domain::money::Prices;
use tokenroute_domain::routing::Policy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::resolve::Resolver;
use crate::snapshot::{Limits, MoneySettings, Settings};
use crate::targets::Targets;
use crate::upstream::tests::settings;

const EVERY: Duration = Duration::from_secs(10);

/// A provider that gives one answer to everybody, and what it was asked.
async fn provider(answer: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asked_too = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !(read.ends_with(b"\r\n\r\n") || read.ends_with(b"}")) {
                assert!(stream.read_buf(&mut read).await.unwrap() > 0);
            }
            asked_too.lock().unwrap().push(String::from_utf8(read).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

fn snapshot(
    port: u16,
    (every, kind): (Duration, ProbeKind),
    models: &[&str],
) -> (Snapshot, Metrics) {
    let metrics = Metrics::new().unwrap();
    let mut provider = settings(("127.0.0.1", port), false);
    provider.probe = Some(Probe { every, kind });
    let route = |(rank, model): (u32, &&str)| Route {
        model: Arc::from(*model),
        pattern: Arc::from(*model),
        targets: vec![Configured {
            name: Arc::from(format!("test/{model}")),
            provider: ProviderIndex(0),
            upstream_model: Arc::from(*model),
            prices: Prices::default(),
            weight: 1,
            rank,
            slot: TargetSlot(0),
            prefill: false,
            context_tokens: None,
            output_tokens_max: None,
            image_tokens_max: None,
        }],
        policy: Arc::new(Policy::default()),
    };
    let settings = Settings {
        generation: 1,
        catalog: Catalog::new((0..).zip(models).map(route).collect(), Vec::new()),
        providers: vec![provider],
        limits: Limits {
            body_bytes_max: 1,
            stream_after_bytes: 1,
            replay_bytes_max: 1,
            first_byte: EVERY,
            head_total: EVERY,
            body_grace: EVERY,
            body_bytes_per_second_min: 0,
            body_idle: EVERY,
            body_total: EVERY,
            write_stall: EVERY,
            buffered_bytes_max: 1,
            calls_max: 1,
            head_bytes_max: 1,
            fields_max: 1,
            target_bytes_max: 1,
            keepalive: EVERY,
        },
        tiers: HashMap::default(),
        money: MoneySettings::default(),
    };
    let (targets, _) = Targets::new(&metrics);
    (Snapshot::new(settings, (&Resolver::default(), &targets), &metrics), metrics)
}

fn names(jobs: &[Arc<Job>]) -> Vec<&str> {
    let mut names: Vec<_> = jobs.iter().map(|job| &*job.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_list_is_asked_once_for_all_targets_and_a_completion_of_each() {
    let models = ["a", "b", "c/*"];
    let lists = plan(&snapshot(1, (EVERY, ProbeKind::Models), &models).0);
    assert_eq!(names(&lists), ["test"]);
    assert_eq!(lists[0].targets.len(), 3);
    let completions = plan(&snapshot(1, (EVERY, ProbeKind::Completion), &models).0);
    assert_eq!(names(&completions), ["test", "test/a", "test/b"]);
    assert!(completions.iter().all(|job| job.targets.len() == 1));
}

#[test]
fn probes_are_spread_repeated_and_never_doubled() {
    let jobs = plan(&snapshot(1, (EVERY, ProbeKind::Completion), &["a", "b", "c"]).0);
    let (start, mut schedule) = (Instant::now(), Schedule::default());
    let chance = |share: u64| move || share << 32;
    // The first one comes some time within the first interval.
    assert!(schedule.due(&jobs, 8, (start, chance(u64::from(u32::MAX) / 2))).is_empty());
    assert!(schedule.due(&jobs, 8, (start + EVERY / 3, chance(0))).is_empty());
    let now = start + EVERY * 2 / 3;
    assert_eq!(schedule.due(&jobs, 2, (now, chance(0))).len(), 2);
    assert_eq!(schedule.due(&jobs, 8, (now, chance(0))).len(), 1);
    // None again while it is under way, however long that takes.
    assert!(schedule.due(&jobs, 8, (now + 3 * EVERY, chance(0))).is_empty());
    for job in &jobs {
        schedule.done(&job.name);
    }
    assert!(schedule.due(&jobs, 8, (now + EVERY * 89 / 100, chance(0))).is_empty());
    assert_eq!(schedule.due(&jobs, 8, (now + EVERY * 91 / 100, chance(0))).len(), 3);
    schedule.keep(&jobs[..1]);
    assert_eq!(schedule.0.len(), 1);
}

#[test]
fn times_differ_by_a_tenth_at_most() {
    let all: Vec<_> = (0..1_000).map(|chance| jittered(EVERY, chance)).collect();
    assert_eq!(all.iter().min(), Some(&Duration::from_secs(9)));
    assert_eq!(all.iter().max(), Some(&Duration::from_secs(11)));
}

async fn outcome(answer: &'static str, model: Option<&str>) -> (Outcome, Vec<String>) {
    let (address, asked) = provider(answer).await;
    let (snapshot, metrics) = snapshot(address.port(), (EVERY, ProbeKind::Models), &["a"]);
    let place = Arc::clone(snapshot.provider(ProviderIndex(0)).unwrap());
    let prober = Prober::new(Arc::new(ArcSwap::from_pointee(snapshot)), metrics);
    let outcome = prober.ask(&place, model).await;
    let asked = asked.lock().unwrap().clone();
    (outcome, asked)
}

#[tokio::test]
async fn what_answers_is_well_unless_it_says_otherwise() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", Ok(())),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Ok(())),
        ("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", Err((Failure::Credential, None))),
        ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", Err((Failure::Credential, None))),
        (
            "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
            Err((Failure::RateLimited, Some(Duration::from_secs(7)))),
        ),
        ("HTTP/1.1 503 Off\r\nContent-Length: 0\r\n\r\n", Err((Failure::Server, None))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Err((Failure::Cut, None))),
        ("", Err((Failure::Reset, None))),
    ] {
        assert_eq!(outcome(answer, None).await.0, expected, "{answer:?}");
        assert_eq!(outcome(answer, Some("a")).await.0, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_probe_asks_for_the_models_or_for_one_token() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let (_, asked) = outcome(answer, None).await;
    assert!(asked[0].starts_with("GET /v1/models HTTP/1.1\r\n"));
    assert!(!asked[0].to_ascii_lowercase().contains("content-length"));
    let (_, asked) = outcome(answer, Some("a\"b")).await;
    assert!(asked[0].starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
    assert!(asked[0].contains(r#"{"model":"a\"b","messages":["#));
    assert!(asked[0].ends_with(r#""max_tokens":1}"#));
}

#[tokio::test]
async fn probes_go_out_and_targets_are_told() {
    let (address, asked) = provider("HTTP/1.1 503 Off\r\nContent-Length: 0\r\n\r\n").await;
    let every = Duration::from_millis(300);
    let models = ["a", "b"];
    let (snapshot, metrics) = snapshot(address.port(), (every, ProbeKind::Models), &models);
    let targets = snapshot.targets().to_vec();
    let prober = Prober::new(Arc::new(ArcSwap::from_pointee(snapshot)), metrics.clone());
    let running = tokio::spawn(prober.run());
    while asked.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.abort();
    assert_eq!(targets.len(), 2);
    assert!(targets.iter().all(|target| target.last_failure() == Some(Failure::Server)));
    assert!(metrics.encode().contains(r#"tokenroute_probes_total{result="failed"}"#));
}
