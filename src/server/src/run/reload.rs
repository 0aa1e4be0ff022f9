//! Puts a changed configuration to use: checked whole, swapped whole, or refused whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokenroute_proxy::metrics::Metrics;
use tokenroute_proxy::resolve::Resolver;
use tokenroute_proxy::snapshot::Snapshot;
use tokenroute_proxy::targets::Targets;
use tokenroute_store::{Database, StoredSettings};
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

use super::certificates::Certificates;
use super::money;
use crate::config::{self, Kept, Plan, Watch};

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(250);

/// Who reloads.
pub(crate) struct Reloader {
    /// The configuration file; none means the built-in defaults, which only a signal re-reads.
    pub(crate) path: Option<PathBuf>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) targets: Targets,
    pub(crate) metrics: Metrics,
    pub(crate) certificates: Option<Arc<Certificates>>,
    pub(crate) demo_port: u16,
    /// The limit on memory.
    pub(crate) memory_bytes: u64,
    /// What is in use.
    pub(crate) plan: Plan,
    /// Where versions of prices are written down.
    pub(crate) database: Database,
    /// What the database keeps of settings.
    pub(crate) kept: Kept,
    /// Tells when that has changed.
    pub(crate) changes: watch::Receiver<Arc<StoredSettings>>,
}

impl Reloader {
    /// Reloads what is at `path`, and what is kept, into these tables.
    pub(crate) fn new(
        (path, kept, changes): (Option<PathBuf>, Kept, watch::Receiver<Arc<StoredSettings>>),
        (plan, database): (Plan, Database),
        (snapshot, resolver, targets, metrics): (
            Arc<ArcSwap<Snapshot>>,
            Arc<Resolver>,
            Targets,
            Metrics,
        ),
        certificates: Option<Arc<Certificates>>,
        (demo_port, memory_bytes): (u16, u64),
    ) -> Self {
        Self {
            path,
            snapshot,
            resolver,
            targets,
            metrics,
            certificates,
            demo_port,
            memory_bytes,
            plan,
            database,
            kept,
            changes,
        }
    }

    /// Writes down what the prices in use say, for whoever reckons a charge again.
    pub(crate) fn note_prices(&self, runtime: &Handle) {
        let prices = self.plan.catalog.prices().to_vec();
        runtime.spawn(money::note_prices(self.database.clone(), prices));
    }

    /// Reloads on SIGHUP and when a file or a setting of the database has changed, for as long as the process
    /// lives.
    pub(crate) async fn run(mut self, mut hangup: Option<Signal>, mut watch: Option<Watch>) {
        loop {
            if wait(hangup.as_mut(), watch.as_mut(), &mut self.changes).await {
                self.reload();
            }
        }
    }

    fn reload(&mut self) {
        self.kept.settings = Arc::clone(&self.changes.borrow_and_update());
        let loaded = config::load_with(self.path.as_deref(), &config::environment, &self.kept);
        let mut plan = match loaded {
            Ok(plan) => plan,
            Err(problems) => {
                self.metrics.reload_failures.inc();
                for problem in problems {
                    tracing::error!(%problem, "the configuration was refused; the old one stays");
                }
                return;
            }
        };
        plan.fit(self.memory_bytes);
        for name in self.plan.needs_restart(&plan) {
            tracing::warn!(setting = name, "changed, but takes effect only at the next start");
        }
        if let Some(certificates) = &self.certificates {
            certificates.reload();
        }
        let generation = self.snapshot.load().generation().saturating_add(1);
        let settings = plan.settings(generation, self.demo_port);
        self.resolver.allow(&plan.egress);
        let tables = (&*self.resolver, &self.targets);
        self.snapshot.store(Arc::new(Snapshot::new(settings, tables, &self.metrics)));
        self.metrics.reloads.inc();
        self.plan = plan;
        self.note_prices(&Handle::current());
        let settings = self.kept.settings.version;
        tracing::info!(generation, settings, "the configuration was reloaded");
    }
}

/// Waits for a reason to reload; `false` if there was none yet.
async fn wait(
    hangup: Option<&mut Signal>,
    watch: Option<&mut Watch>,
    settings: &mut watch::Receiver<Arc<StoredSettings>>,
) -> bool {
    let hangup = async {
        match hangup {
            Some(hangup) => hangup.recv().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = hangup => {
            // What the signal is about need not be noticed once more.
            let _changed = watch.is_some_and(Watch::changed);
            true
        }
        // Who told of changes has ended with the process's other work.
        Ok(()) = settings.changed() => true,
        () = tokio::time::sleep(POLL) => watch.is_some_and(Watch::changed),
    }
}
