//! Looks after targets while nobody calls: asks their providers from time to time, and tells the
//! breakers. Decides nothing itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use pingora_timeout::timeout;
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::routing::{Failure, Standing};
use tokenroute_wire::envelope::push_json_string;
use tokio::task::JoinSet;

use crate::clock;
use crate::metrics::Metrics;
use crate::open::{failure_of, retry_after};
use crate::snapshot::{Probe, ProbeKind, Provider, Snapshot};
use crate::targets::{Target, Ticket};
use crate::upstream::Connector;

/// Probes at once.
const AT_ONCE_MAX: usize = 8;
/// Longest time from a probe's request to the end of its answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Longest answer to a probe that is read.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How often targets are looked at: one that is off gets its trial when its time is up.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long callers leave a target its trial once its time is up. A probe that has not begun by then
/// comes too late.
const TRIAL_RESERVE: Duration = Duration::from_secs(1);
/// Times between probes differ by chance, up to this many thousandths either way.
const JITTER_PERMILLE: u64 = 100;

/// Sends the probes of every provider that wants them.
#[derive(Debug)]
pub struct Prober {
    snapshot: Arc<ArcSwap<Snapshot>>,
    metrics: Metrics,
    connector: Connector,
}

/// What one probe asks, and whom it tells something about.
struct Job {
    /// The provider's name, or the target's.
    name: Arc<str>,
    provider: Arc<Provider>,
    every: Duration,
    targets: Vec<Arc<Target>>,
    /// The model that is asked; `None`: for a list of models.
    model: Option<Arc<str>>,
}

/// How a probe went.
type Outcome = Result<(), (Failure, Option<Duration>)>;

impl Prober {
    /// A prober for whatever snapshot there is.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, metrics: Metrics) -> Self {
        // A connection that is there proves less than a new one.
        Self { snapshot, metrics, connector: Connector::unpooled() }
    }

    /// Sends probes for ever.
    pub async fn run(self) {
        let prober = Arc::new(self);
        let (mut jobs, mut generation) = (Vec::new(), None);
        let (mut schedule, mut running) = (Schedule::default(), JoinSet::new());
        loop {
            let snapshot = prober.snapshot.load_full();
            if generation != Some(snapshot.generation) {
                generation = Some(snapshot.generation);
                jobs = plan(&snapshot);
                schedule.keep(&jobs);
            }
            drop(snapshot);
            let room = AT_ONCE_MAX.saturating_sub(running.len());
            for job in schedule.due(&jobs, room, (Instant::now(), clock::chance_bits)) {
                let prober = Arc::clone(&prober);
                running.spawn(async move {
                    prober.probe(&job).await;
                    job.name.clone()
                });
            }
            tokio::select! {
                Some(done) = running.join_next() => match done {
                    Ok(name) => schedule.done(&name),
                    // A defect in one probe: all are planned anew.
                    Err(_) => schedule = Schedule::default(),
                },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Asks, and tells the targets that take it.
    async fn probe(&self, job: &Job) {
        let targets = job.targets.iter().flat_map(Target::all);
        let tickets: Vec<_> = targets.filter_map(|target| target.admit_probe()).collect();
        if tickets.is_empty() {
            return;
        }
        let outcome = self.ask(&job.provider, job.model.as_deref()).await;
        self.metrics.probed(outcome.is_ok());
        for ticket in tickets {
            tell(ticket, outcome, job.model.is_some());
        }
    }

    async fn ask(&self, provider: &Arc<Provider>, model: Option<&str>) -> Outcome {
        let only = |failure: Failure| (failure, None);
        let connect = self.connector.connect(provider, false, provider.deadlines.connect);
        let connection = connect.await.map_err(only)?;
        let within = provider.deadlines.first_token.min(ANSWER_MAX);
        let answered = async {
            let (endpoint, body) = match model {
                Some(model) => (Endpoint::ChatCompletions, vec![completion(model)]),
                None => (Endpoint::Models, Vec::new()),
            };
            let mut exchange = connection.send(endpoint, body).await.map_err(only)?;
            let head = exchange.head().await.map_err(only)?;
            match failure_of(head.status.as_u16()) {
                // What it thinks of the request does not matter: it answers.
                None | Some(Failure::Request) => {}
                Some(failure) => return Err((failure, retry_after(&head))),
            }
            let mut bytes = 0_usize;
            while bytes <= ANSWER_BYTES_MAX
                && let Some(part) = exchange.read().await.map_err(only)?
            {
                bytes = bytes.saturating_add(part.len());
            }
            Ok(())
        };
        timeout(within, answered).await.unwrap_or(Err(only(Failure::HeadTimeout)))
    }
}

/// Tells a target how its probe went. Only a completion speaks for a target that takes calls: one that
/// lists its models may still fail whoever calls.
fn tell(mut ticket: Ticket, outcome: Outcome, completed: bool) {
    match outcome {
        Ok(()) if completed || ticket.is_trial() => ticket.succeeded(),
        Ok(()) => {}
        Err((failure, retry_after)) => ticket.failed(failure, retry_after),
    }
}

/// A completion of one token.
fn completion(model: &str) -> Bytes {
    let mut body = br#"{"model":"#.to_vec();
    push_json_string(&mut body, model);
    body.extend_from_slice(br#","messages":[{"role":"user","content":"ping"}],"max_tokens":1}"#);
    Bytes::from(body)
}

/// The probes of a snapshot: one for all targets of a provider that is asked for its models, else one
/// for each. A target that stands for any model has none to ask.
fn plan(snapshot: &Snapshot) -> Vec<Arc<Job>> {
    let mut lists: HashMap<Arc<str>, Job> = HashMap::new();
    let mut jobs = Vec::new();
    for (configured, provider, target) in snapshot.probed() {
        let Some(Probe { every, kind }) = provider.probe else { continue };
        let job = |name: &Arc<str>, model| Job {
            name: Arc::clone(name),
            provider: Arc::clone(provider),
            every,
            targets: Vec::new(),
            model,
        };
        if kind == ProbeKind::Models || configured.upstream_model.contains('*') {
            let list = lists.entry(Arc::clone(&provider.name));
            let list = list.or_insert_with(|| job(&provider.name, None));
            list.targets.push(Arc::clone(target));
        } else {
            let model = Some(Arc::clone(&configured.upstream_model));
            jobs.push(Job { targets: vec![Arc::clone(target)], ..job(&target.name, model) });
        }
    }
    jobs.into_iter().chain(lists.into_values()).map(Arc::new).collect()
}

/// When each probe is due.
#[derive(Debug, Default)]
struct Schedule(HashMap<Arc<str>, Due>);

#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// When it began last, if it has.
    began: Option<Instant>,
    running: bool,
}

impl Schedule {
    /// Forgets probes that there are no more.
    fn keep(&mut self, jobs: &[Arc<Job>]) {
        self.0.retain(|name, _| jobs.iter().any(|job| job.name == *name));
    }

    /// The probes to begin now, at most `room` of them.
    fn due(
        &mut self,
        jobs: &[Arc<Job>],
        room: usize,
        (now, chance): (Instant, impl Fn() -> u64),
    ) -> Vec<Arc<Job>> {
        let mut begin = Vec::new();
        for job in jobs {
            let targets = job.targets.iter().flat_map(Target::all);
            let trial = targets.filter_map(|target| trial_in(&target)).min();
            let is_due = self.is_due(job, trial, (now, chance()));
            if is_due && begin.len() < room {
                self.begin(job, (now, chance()));
                begin.push(Arc::clone(job));
            }
        }
        begin
    }

    fn is_due(
        &mut self,
        job: &Job,
        trial: Option<Duration>,
        (now, chance): (Instant, u64),
    ) -> bool {
        let due = self.0.entry(Arc::clone(&job.name)).or_insert_with(|| {
            // Those of one provider, and of many edges, do not begin together.
            let share = u32::try_from(chance >> 32).unwrap_or(u32::MAX);
            let first = job.every.mul_f64(f64::from(share) / f64::from(u32::MAX));
            Due { at: after(now, first), began: None, running: false }
        });
        let lately =
            due.began.is_some_and(|began| now.saturating_duration_since(began) < LOOK_EVERY);
        let trial = trial.is_some_and(|left| left.is_zero()) && !lately;
        !due.running && (trial || due.at <= now)
    }

    fn begin(&mut self, job: &Job, (now, chance): (Instant, u64)) {
        let at = after(now, jittered(job.every, chance));
        self.0.insert(Arc::clone(&job.name), Due { at, began: Some(now), running: true });
    }

    fn done(&mut self, name: &str) {
        if let Some(due) = self.0.get_mut(name) {
            due.running = false;
        }
    }
}

/// How long until a target that is off may have its trial; `None` if it is not off. The trial is kept
/// for the probe.
fn trial_in(target: &Target) -> Option<Duration> {
    match target.standing_for_probe(TRIAL_RESERVE, clock::tick()) {
        Standing::HalfOpen => Some(Duration::ZERO),
        Standing::Open { left } => Some(left),
        Standing::Closed | Standing::Cooling { .. } => None,
    }
}

/// A time, up to a tenth shorter or longer by chance.
fn jittered(time: Duration, chance: u64) -> Duration {
    let spread = JITTER_PERMILLE.saturating_mul(2).saturating_add(1);
    let offset = chance.checked_rem(spread).unwrap_or_default();
    let permille = 1_000_u64.saturating_sub(JITTER_PERMILLE).saturating_add(offset);
    time.saturating_mul(u32::try_from(permille).unwrap_or(1_000)) / 1_000
}

fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}

#[cfg(test)]
mod tests;
