//! A run: connections that call in a loop, a warm-up, a window in which is measured, and a report.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokenroute_provider::monotonic_ns;
use tokio::task::{JoinSet, LocalSet};

use crate::client::{Connection, Exchanged, Failure};
use crate::events::Events;
use crate::meter::Meter;
use crate::process::{self, Reading};

/// Wait before a failed call is followed by another.
const FAILURE_PAUSE: Duration = Duration::from_millis(20);
/// Time between two looks at the memory of the processes.
const SAMPLE_PAUSE: Duration = Duration::from_millis(100);
/// Most connections of a run.
const CONNECTIONS_MAX: u64 = 20_000;

/// What is called in a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// JSON answers.
    Rps,
    /// Event streams.
    Sse,
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where is called.
    pub address: SocketAddr,
    /// The address that is called from, if not the usual one: ports are counted for each.
    pub source: Option<IpAddr>,
    /// The path that is called.
    pub path: String,
    /// The model that is asked for.
    pub model: String,
    /// The bearer credential.
    pub key: String,
    /// JSON or SSE.
    pub mode: Mode,
    /// Calls at once, each on a connection of its own.
    pub connections: u64,
    /// Time over which the connections start.
    pub ramp: Duration,
    /// Time from the last start to the window.
    pub warmup: Duration,
    /// The window.
    pub window: Duration,
    /// Length of the JSON bodies, bytes, about.
    pub body_bytes: usize,
    /// Whether streams ask for their usage.
    pub include_usage: bool,
    /// Calls a second in all; as many as there can be when `None`.
    pub rate: Option<u64>,
    /// The processes whose use is read.
    pub processes: Vec<u32>,
}

/// Runs `plan` and reports. Fails when a process cannot be read or nothing was answered.
pub fn run(plan: &Plan) -> io::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive(plan))
}

async fn drive(plan: &Plan) -> io::Result<Value> {
    let meter = Rc::new(RefCell::new(Meter::default()));
    let request: Rc<[u8]> = Rc::from(request(plan));
    let idle = process::read(&plan.processes)?;
    let mut workers = JoinSet::new();
    let count = plan.connections.clamp(1, CONNECTIONS_MAX);
    let start_ns = monotonic_ns();
    let period_ns = plan
        .rate
        .map(|rate| 1_000_000_000_u64.saturating_mul(count).checked_div(rate).unwrap_or(u64::MAX));
    // At a fixed rate they take turns, or all would call at once in each period.
    let ramp_ns = u64::try_from(plan.ramp.as_nanos()).unwrap_or(u64::MAX);
    let ramp_ns = ramp_ns.max(period_ns.unwrap_or(0));
    for index in 0..count {
        let worker = Worker {
            address: plan.address,
            source: plan.source,
            streams: plan.mode == Mode::Sse,
            request: Rc::clone(&request),
            meter: Rc::clone(&meter),
            starts_ns: start_ns.saturating_add((ramp_ns / count).saturating_mul(index)),
            period_ns,
        };
        workers.spawn_local(worker.work());
    }
    let unmeasured = plan.ramp.saturating_add(plan.warmup);
    // Without either, no worker is polled before the window: every answer is counted.
    if !unmeasured.is_zero() {
        tokio::time::sleep(unmeasured).await;
    }

    let before = process::read(&plan.processes)?;
    let window_ns = monotonic_ns();
    meter.borrow_mut().recording = true;
    let mut peak_kb = before.rss_kb;
    let end = tokio::time::Instant::now() + plan.window;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + SAMPLE_PAUSE)).await;
        peak_kb = peak_kb.max(process::read(&plan.processes)?.rss_kb);
    }
    let after = process::read(&plan.processes)?;
    meter.borrow_mut().recording = false;
    let spent_ns = monotonic_ns().saturating_sub(window_ns);
    workers.shutdown().await;
    let meter = meter.borrow();
    if meter.requests == 0 && meter.events == 0 {
        let kinds = &meter.failures;
        return Err(io::Error::other(format!("nothing was answered; failures: {kinds:?}")));
    }
    Ok(report(plan, &meter, spent_ns, &Use { idle, before, after, peak_kb }))
}

/// What the processes used, at several times.
struct Use {
    idle: Reading,
    before: Reading,
    after: Reading,
    peak_kb: u64,
}

fn report(plan: &Plan, meter: &Meter, spent_ns: u64, usage: &Use) -> Value {
    let mut report = meter.to_json();
    let run_ns = usage.after.run_ns.saturating_sub(usage.before.run_ns);
    let ticks_ns = usage.after.user_system_ns.saturating_sub(usage.before.user_system_ns);
    let grown_kb = usage.peak_kb.saturating_sub(usage.idle.rss_kb);
    let seconds = ratio(spent_ns, 1_000_000_000);
    let more = json!({
        "seconds": seconds,
        "requests_per_second": (seconds > 0.0).then(|| ratio(meter.requests, 1) / seconds),
        "events_per_second": (seconds > 0.0).then(|| ratio(meter.events, 1) / seconds),
    });
    let of_processes = json!({
        "cpu_seconds": ratio(run_ns, 1_000_000_000),
        "cpu_seconds_by_ticks": ratio(ticks_ns, 1_000_000_000),
        "cpu_seconds_by_thread": by_thread(usage),
        "cpu_us_per_request": (meter.requests > 0).then(|| ratio(run_ns, meter.requests) / 1_000.0),
        "cpu_us_per_event": (meter.events > 0).then(|| ratio(run_ns, meter.events) / 1_000.0),
        "rss_kb_idle": usage.idle.rss_kb,
        "rss_kb_begin": usage.before.rss_kb,
        "rss_kb_peak": usage.peak_kb,
        "rss_kb_end": usage.after.rss_kb,
        "rss_kb_peak_ever": usage.after.rss_peak_kb,
        "rss_kb_per_stream": (plan.mode == Mode::Sse && meter.streams_open_max > 0)
            .then(|| ratio(grown_kb, meter.streams_open_max)),
    });
    let parts = if plan.processes.is_empty() { vec![more] } else { vec![more, of_processes] };
    if let Value::Object(report) = &mut report {
        for part in parts {
            if let Value::Object(part) = part {
                report.extend(part);
            }
        }
    }
    report
}

/// What each thread, or threads of one name, ran in the window, seconds; without those that hardly did.
fn by_thread(usage: &Use) -> BTreeMap<String, f64> {
    let before = |name| usage.before.run_ns_by_thread.get(name).copied().unwrap_or(0);
    let spent = usage.after.run_ns_by_thread.iter().map(|(name, after_ns)| {
        (name.clone(), ratio(after_ns.saturating_sub(before(name)), 1_000_000_000))
    });
    spent.filter(|(_, seconds)| *seconds > 0.001).collect()
}

/// A quotient for people; counts beyond 2^32 lose what lies under their thousands.
fn ratio(count: u64, per: u64) -> f64 {
    let float = |count: u64| match u32::try_from(count) {
        Ok(count) => f64::from(count),
        Err(_) => f64::from(u32::try_from(count / 1_000).unwrap_or(u32::MAX)) * 1_000.0,
    };
    float(count) / float(per).max(1.0)
}

/// The request of `plan`, head and body, with `messages` first and `model` last as SDKs send them.
fn request(plan: &Plan) -> Vec<u8> {
    let stream = match plan.mode {
        Mode::Rps => "",
        Mode::Sse if plan.include_usage => {
            r#","stream":true,"stream_options":{"include_usage":true}"#
        }
        Mode::Sse => r#","stream":true"#,
    };
    let body = |text: &str| {
        format!(
            r#"{{"messages":[{{"role":"system","content":"You are a helpful assistant."}},{{"role":"user","content":"{text}"}}],"temperature":0.7,"max_tokens":256{stream},"model":"{}"}}"#,
            plan.model
        )
    };
    // A line of prose with an escape at its end, over and over.
    let line = r"It was a bright cold day in the middle of the week and nobody was counting.\n";
    let lines = plan.body_bytes.saturating_sub(body("").len()) / line.len();
    let body = body(&line.repeat(lines.max(1)));
    format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nAccept: application/json\r\nUser-Agent: driver\r\nContent-Length: {}\r\n\r\n{body}",
        plan.path,
        plan.address,
        plan.key,
        body.len()
    )
    .into_bytes()
}

/// One connection's loop of calls.
struct Worker {
    address: SocketAddr,
    source: Option<IpAddr>,
    streams: bool,
    request: Rc<[u8]>,
    meter: Rc<RefCell<Meter>>,
    starts_ns: u64,
    /// Time from one call to the next; none when they follow each other at once.
    period_ns: Option<u64>,
}

impl Worker {
    /// Calls until it is aborted at the end of the run.
    async fn work(self) {
        let mut connection = None;
        let mut turn = 0_u64;
        loop {
            let due_ns =
                self.starts_ns.saturating_add(self.period_ns.unwrap_or(0).saturating_mul(turn));
            let now_ns = monotonic_ns();
            if now_ns < due_ns {
                tokio::time::sleep(Duration::from_nanos(due_ns.saturating_sub(now_ns))).await;
            }
            // At a fixed rate a late call counts from when it was due: waiting is part of its latency.
            let from_ns = if self.period_ns.is_some() { due_ns } else { monotonic_ns() };
            turn = turn.saturating_add(1);
            match self.call(&mut connection, from_ns).await {
                Ok(Exchanged { keeps, shed }) => {
                    if !keeps {
                        connection = None;
                        let mut meter = self.meter.borrow_mut();
                        meter.reconnects = meter.reconnects.saturating_add(1);
                    }
                    // At a fixed rate others call meanwhile, as they would.
                    if shed && self.period_ns.is_none() {
                        tokio::time::sleep(FAILURE_PAUSE).await;
                    }
                }
                Err(failure) => {
                    connection = None;
                    self.meter.borrow_mut().failed(failure);
                    tokio::time::sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    async fn call(
        &self,
        connection: &mut Option<Connection>,
        from_ns: u64,
    ) -> Result<Exchanged, Failure> {
        let opened = match connection.take() {
            Some(opened) => opened,
            None => Connection::open(self.address, self.source).await?,
        };
        let opened = connection.insert(opened);
        let mut events = Events::default();
        let mut is_first = true;
        let sent_ns = monotonic_ns();
        let read = opened.exchange(&self.request, |data| {
            if data.is_empty() {
                return;
            }
            let mut meter = self.meter.borrow_mut();
            let now_ns = monotonic_ns();
            if is_first {
                is_first = false;
                meter.first(now_ns.saturating_sub(from_ns), now_ns.saturating_sub(sent_ns));
            }
            if meter.recording {
                meter.bytes = meter.bytes.saturating_add(u64::try_from(data.len()).unwrap_or(0));
            }
            if self.streams {
                events.add(data, |stamp| {
                    meter.event(stamp.map(|stamp| now_ns.saturating_sub(stamp)));
                });
            }
        });
        let exchanged = read.await;
        let mut meter = self.meter.borrow_mut();
        if !is_first {
            meter.streams_open = meter.streams_open.saturating_sub(1);
        }
        let exchanged = exchanged?;
        if exchanged.shed {
            meter.shed(monotonic_ns().saturating_sub(sent_ns));
            return Ok(exchanged);
        }
        if self.streams && !events.is_done() {
            return Err(Failure::NotDone);
        }
        meter.answered(monotonic_ns().saturating_sub(from_ns));
        Ok(exchanged)
    }
}
