//! A defect in a hook ends one call, with an honest answer and its record; the process lives on.

#![cfg(test)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::listening::Service;
use tokenroute_domain::catalog::Catalog;
use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::journal::{Ended, Intent, Mark};
use tokenroute_domain::key::{KeyHash, Pepper, RawKey, SharedKey};
use tokenroute_domain::pool::Exchange;
use tokenroute_domain::record::{Outcome, Record};
use tokenroute_domain::time::Timestamp;
use tokenroute_proxy::bank::{Bank, Banked, Journal, Later, Unavailable as Away, Unwritable};
use tokenroute_proxy::books::Books;
use tokenroute_proxy::frame::{self, Frame};
use tokenroute_proxy::gateway::{Gateway, Parts};
use tokenroute_proxy::governor::Governor;
use tokenroute_proxy::keys::{Find, Keys};
use tokenroute_proxy::lifecycle::Lifecycle;
use tokenroute_proxy::limits::Limiter;
use tokenroute_proxy::metrics::Metrics;
use tokenroute_proxy::outbox::Outbox;
use tokenroute_proxy::resolve::Resolver;
use tokenroute_proxy::snapshot::{Limits, MoneySettings, Settings, Snapshot};
use tokenroute_proxy::targets::Targets;
use tokio::sync::mpsc::Receiver;

/// A directory with a defect.
#[derive(Debug)]
struct Broken;

impl Keys for Broken {
    fn cached(&self, _: &KeyHash, _: Timestamp) -> Option<Option<SharedKey>> {
        None
    }

    fn find<'a>(&'a self, _: &'a KeyHash, _: Timestamp) -> Find<'a> {
        Box::pin(async { panic!("a defect") })
    }
}

/// Neither lends nor writes: these calls have no money in them.
#[derive(Debug)]
struct Nobody;

impl Bank for Nobody {
    fn exchange<'a>(&'a self, all: &'a [Exchange]) -> Later<'a, Vec<Result<Banked, Away>>> {
        Box::pin(async { all.iter().map(|_| Err(Away)).collect() })
    }

    fn write<'a>(&'a self, _: &'a [Arc<Record>]) -> Later<'a, Result<(), Away>> {
        Box::pin(async { Err(Away) })
    }

    fn posted<'a>(&'a self, _: &'a [CallId]) -> Later<'a, Result<Vec<CallId>, Away>> {
        Box::pin(async { Err(Away) })
    }

    fn recall(&self, _: AccountId) {}

    fn recalled(&self) -> Later<'_, AccountId> {
        Box::pin(std::future::pending())
    }

    fn posts_at_once(&self) -> bool {
        true
    }

    fn lease(&self) -> Duration {
        Duration::ZERO
    }
}

impl Journal for Nobody {
    fn intend(&self, _: &Intent) -> Result<(), Unwritable> {
        Err(Unwritable)
    }

    fn mark(&self, _: &[Mark]) {}

    fn ended(&self, _: &[Arc<Ended>]) -> Result<(), Unwritable> {
        Err(Unwritable)
    }

    fn forget(&self, _: &[CallId]) {}

    fn is_writable(&self) -> bool {
        false
    }
}

fn limits() -> Limits {
    let short = Duration::from_secs(5);
    Limits {
        body_bytes_max: 1 << 20,
        stream_after_bytes: 1 << 20,
        replay_bytes_max: 1 << 20,
        buffered_bytes_max: 1 << 30,
        first_byte: short,
        head_total: short,
        body_grace: short,
        body_bytes_per_second_min: 0,
        body_idle: short,
        body_total: short,
        write_stall: short,
        calls_max: 8,
        head_bytes_max: 1 << 16,
        fields_max: 100,
        target_bytes_max: 1 << 13,
        keepalive: short,
    }
}

/// Starts a gateway; it ends with the test's process.
fn start(slots_max: usize) -> (SocketAddr, Metrics, Receiver<Ended>) {
    let (outbox, records) = Outbox::new(slots_max);
    let metrics = Metrics::new().unwrap();
    let settings = Settings {
        generation: 1,
        catalog: Catalog::default(),
        providers: vec![],
        limits: limits(),
        tiers: HashMap::new(),
        money: MoneySettings::default(),
    };
    let (targets, _changes) = Targets::new(&metrics);
    let snapshot = Snapshot::new(settings, (&Resolver::default(), &targets), &metrics);
    let gateway = Gateway::new(Parts {
        targets,
        keys: Arc::new(Broken),
        peppers: vec![Pepper::new(&[1; 32])],
        snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
        outbox,
        metrics: metrics.clone(),
        lifecycle: Lifecycle::default(),
        books: Books::new(NodeId::new(Timestamp(0), 0), Arc::new(Nobody), Arc::new(Nobody)),
        limiter: Limiter::default(),
        governor: Governor::new(metrics.registry(), 100).unwrap(),
    })
    .unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = Server::new_with_opt_and_conf(None, ServerConf::default());
    server.bootstrap();
    let settings = frame::Settings {
        h2c: false,
        requests_max: 1_000,
        http2: default_h2_options(),
        http2_idle: Duration::from_mins(1),
    };
    let mut edge = Service::new("edge".into(), Frame::new(gateway, settings));
    edge.add_tcp(&address.to_string());
    server.add_service(edge);
    std::thread::spawn(move || server.run(RunArgs::default()));
    (address, metrics, records)
}

/// Connects as soon as the server listens.
fn connect(address: SocketAddr) -> TcpStream {
    for _ in 0..1_000 {
        if let Ok(stream) = TcpStream::connect(address) {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            return stream;
        }
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the server does not listen");
}

fn call(stream: &mut TcpStream) -> String {
    let key = RawKey::new([7; 32]);
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        key.expose()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.ends_with(b"}}}") {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(part.get(..read).unwrap());
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_panic_ends_one_call_with_an_answer_and_a_record() {
    let (address, metrics, mut records) = start(8);
    let mut stream = connect(address);
    for served in 1..=2 {
        let answer = call(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("\"reason\":\"internal_error\""), "{answer}");
        let record = records.blocking_recv().unwrap().record;
        assert_eq!((record.outcome, record.status), (Outcome::Panicked, 500));
        assert!(answer.contains(&record.call.to_string()), "{answer}");
        assert_eq!(metrics.panics.get(), served);
    }
}

#[test]
fn without_a_slot_a_call_is_refused_and_counted() {
    // Callers that nobody knows may use the first half, so of one slot none.
    let (address, metrics, mut records) = start(1);
    let taken = call(&mut connect(address));
    assert!(taken.starts_with("HTTP/1.1 500 "), "{taken}");
    // The record of the first call stays in the only slot, so the second one finds none.
    let refused = call(&mut connect(address));
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.to_lowercase().contains("retry-after: 1"), "{refused}");
    // It is counted when the call is over, which is just after its answer is written.
    let counted = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        metrics.calls_without_slot.get() == 1
    });
    assert!(counted, "{}", metrics.calls_without_slot.get());
    assert_eq!(records.blocking_recv().unwrap().record.status, 500);
    assert!(records.try_recv().is_err());
}
