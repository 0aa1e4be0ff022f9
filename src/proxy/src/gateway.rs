//! The gateway on Pingora. [`Gateway::serve`] tells the story of a call; `frame` leads to it, and
//! Pingora gives it sessions, HTTP/2 and TLS.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use pingora_core::Result;
use pingora_core::protocols::http::ServerSession;
use tokenroute_domain::admission::{self, Refusal};
use tokenroute_domain::key::{ApiKey, Pepper};
use tokenroute_domain::load::Shed;
use tokenroute_domain::record::Outcome;

use crate::accept::{self, Asked};
use crate::books::Books;
use crate::call::{Call, Ledger};
use crate::clock;
use crate::dispatch::{Attempts, Terms};
use crate::estimate::Estimator;
use crate::funds;
use crate::governor::Governor;
use crate::keys::Keys;
use crate::lifecycle::Lifecycle;
use crate::limits::Limiter;
use crate::listing;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::patience::Waits;
use crate::relay;
use crate::reply::{self, Fault};
use crate::request::Buffered;
use crate::snapshot::Snapshot;
use crate::targets::Targets;
use crate::upstream::Connector;

/// The data plane: one for all calls of a process.
#[derive(Debug)]
pub struct Gateway {
    keys: Arc<dyn Keys>,
    /// Tried in order: the newest first, older ones for keys made before it.
    peppers: Vec<Pepper>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    targets: Targets,
    connector: Arc<Connector>,
    ledger: Arc<Ledger>,
    buffered: Arc<Buffered>,
    limiter: Limiter,
    governor: Governor,
}

/// What a gateway is made of.
#[derive(Debug)]
pub struct Parts {
    /// The directory of API keys.
    pub keys: Arc<dyn Keys>,
    /// What keys are hashed under, newest first.
    pub peppers: Vec<Pepper>,
    /// The table in use; whoever reloads stores another one in it.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// How each target stands.
    pub targets: Targets,
    /// Where records go.
    pub outbox: Outbox,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether calls are taken.
    pub lifecycle: Lifecycle,
    /// Where calls with money in them get their holds.
    pub books: Books,
    /// Who decides about limits.
    pub limiter: Limiter,
    /// Who turns calls away when there are too many.
    pub governor: Governor,
}

impl Gateway {
    /// Builds the gateway; fails only if the counting thread cannot be started.
    pub fn new(parts: Parts) -> std::io::Result<Self> {
        let Parts { keys, peppers, snapshot, targets, outbox, metrics, .. } = parts;
        let Parts { lifecycle, books, limiter, governor, .. } = parts;
        let estimator = Estimator::start(outbox.free())?;
        let ledger = Arc::new(Ledger { outbox, metrics, estimator, lifecycle, books });
        let (connector, buffered) = (Arc::new(Connector::new()), Arc::default());
        Ok(Self {
            keys,
            peppers,
            snapshot,
            targets,
            connector,
            ledger,
            buffered,
            limiter,
            governor,
        })
    }

    /// A model call, top to bottom. Whatever way it is left, dropping `call` leaves its record.
    async fn serve(&self, session: &mut ServerSession, call: &mut Call) -> Result<(), Fault> {
        let snapshot = self.snapshot.load_full();
        let mut ending = self.ledger.lifecycle.ending();

        let asked = accept::endpoint(session, &snapshot.limits).map_err(Fault::Refused)?;
        call.endpoint = asked.endpoint();
        self.governor.look(call.endpoint).map_err(Fault::Shed)?;
        let headers = &session.req_header().headers;
        let key = accept::key(headers, &*self.keys, &self.peppers, call.started)
            .await
            .map_err(Fault::Refused)?;
        if self.ledger.lifecycle.is_closed() {
            return Err(Fault::Refused(Refusal::ShuttingDown));
        }
        let calls_max = snapshot.limits.calls_max;
        call.enter(&self.governor, &key, calls_max).map_err(Fault::Shed)?;
        if !call.identify(Arc::clone(&key)) {
            return Err(Fault::Refused(Refusal::Overloaded));
        }
        let Asked::Answer(_) = asked else {
            return models(session, (call, &key), &snapshot, &asked).await;
        };

        let mut request =
            accept::request(session, funds::limits(&key, &snapshot), &self.buffered).await?;
        let model = request.model().map_err(Fault::Refused)?;
        let now = call.started;
        let admission =
            admission::decide(&key, &snapshot.catalog, model, now).map_err(Fault::Refused)?;
        let (tick, bytes) = (clock::tick(), request.frames.end());
        let leave = self.limiter.admit(&key, &snapshot.tiers, tick, bytes).await;
        call.limit(leave).map_err(Fault::Refused)?;
        let route = &admission.route;
        call.admitted(Arc::clone(route), snapshot.route_metrics(route).cloned());
        let bounds = funds::hold(call, &self.ledger.books, (route, &snapshot), &request).await?;

        let tables = (&*snapshot, &self.targets);
        let terms = Terms { route, now, bounds };
        let mut attempts = Attempts::new(&self.connector, tables, terms, &mut ending);
        // On the heap for its own time only: a stream that is relayed for minutes does not hold its room.
        let answer = Box::pin(attempts.run(session, call, &mut request)).await?;
        call.request = Some(request);
        relay::run(session, call, answer, attempts).await
    }

    /// Serves a call and answers for whatever went wrong. `Err` ends the connection.
    pub(crate) async fn answer(&self, session: &mut ServerSession) -> Result<()> {
        let mut call = Call::new(&self.ledger);
        prepare(session, &self.snapshot.load(), self.ledger.lifecycle.is_ready());
        let served = AssertUnwindSafe(self.serve(session, &mut call)).catch_unwind().await;
        let mut fault = match served {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(fault)) => fault,
            Err(_) => {
                self.ledger.metrics.panics.inc();
                Fault::Panicked
            }
        };
        if let Fault::Shed(why) = fault {
            return self.turn_away(session, (call, why)).await;
        }
        if !call.reserve_unknown() {
            fault = Fault::Refused(Refusal::Overloaded);
        }
        reply::fault(session, &mut call, fault).await
    }

    /// Answers a request that was not read, if there is somebody to be told why, and closes its connection.
    pub(crate) async fn unreadable(&self, session: &mut ServerSession, why: Option<Refusal>) {
        if let Some(refusal) = why {
            let mut call = Call::new(&self.ledger);
            // Without room for a record it is counted, and no worse off for it.
            let _kept = call.reserve_unknown();
            session.set_write_timeout(Some(self.snapshot.load().limits.write_stall));
            // Whether the client reads it is its own affair.
            let _written = reply::unreadable(session, &mut call, refusal).await;
        }
        session.shutdown().await;
    }

    /// Counts an HTTP/2 connection that was given up for its floods.
    pub(crate) fn note_flood(&self) {
        self.ledger.metrics.floods.inc();
    }

    /// How long a connection may take before it has said what it wants.
    pub(crate) fn waits(&self) -> Waits {
        let limits = &self.snapshot.load().limits;
        Waits {
            first: limits.first_byte,
            head: limits.head_total,
            head_bytes_max: limits.head_bytes_max.saturating_add(limits.target_bytes_max),
        }
    }

    pub(crate) fn lifecycle(&self) -> &Lifecycle {
        &self.ledger.lifecycle
    }

    /// Tells the client to come back later. That leaves a count and no record: it must cost next to nothing.
    async fn turn_away(
        &self,
        session: &mut ServerSession,
        (mut call, why): (Call, Shed),
    ) -> Result<()> {
        self.governor.count(why);
        call.turn_away();
        reply::turn_away(session, &mut call).await?;
        // It does not count as a call while its connection rests.
        drop(call);
        self.governor.rest().await;
        Ok(())
    }
}

/// Bounds the connection's patience before anything is read from it or written to it.
fn prepare(session: &mut ServerSession, snapshot: &Snapshot, ready: bool) {
    if !ready {
        session.set_keepalive(None);
    } else if session.get_keepalive().is_some() {
        // Without this Pingora keeps a connection for ever after its first request.
        session.set_keepalive(Some(snapshot.limits.keepalive.as_secs().max(1)));
    }
    session.set_read_timeout(Some(snapshot.limits.body_idle));
    session.set_write_timeout(Some(snapshot.limits.write_stall));
}

/// `GET /v1/models` and `GET /v1/models/{id}`.
async fn models(
    session: &mut ServerSession,
    (call, key): (&mut Call, &ApiKey),
    snapshot: &Snapshot,
    asked: &Asked,
) -> Result<(), Fault> {
    let body = match asked {
        Asked::Model(name) => listing::model(key, &snapshot.catalog, (name, call.started)),
        Asked::Models | Asked::Answer(_) => {
            Ok(snapshot.listing.models(key, &snapshot.catalog, call.started))
        }
    };
    let body = body.map_err(Fault::Refused)?;
    let answer = reply::Answer { status: 200, body, retry_after: None };
    reply::answer(session, call, answer).await.map_err(|_| Fault::ClientGone)?;
    call.end(Outcome::Answered, None);
    Ok(())
}
