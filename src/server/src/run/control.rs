//! The management plane behind its socket: what it is made of, and the calls' plane as it sees it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokenroute_api::settings::{TargetState, Targets};
use tokenroute_control::{Change, Edges, Identity, Later, Parts, Settings};
use tokenroute_domain::catalog::Catalog;
use tokenroute_domain::key::ApiKey;
use tokenroute_domain::limit::Limits;
use tokenroute_proxy::admin::{Told, standings};
use tokenroute_proxy::clock;
use tokenroute_proxy::snapshot::Snapshot;
use tokenroute_store::RedisCache;
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

use super::Role;
use super::rules::FileRules;
use super::sockets::Socket;
use super::stores::Stores;
use crate::config::Plan;
use crate::state::{self, State};

/// For requests that are under way when the process ends.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// The calls' plane: the table that is in use here, and the messenger to all edges.
#[derive(Debug)]
struct Here {
    snapshot: Arc<ArcSwap<Snapshot>>,
    redis: Option<RedisCache>,
    view: View,
}

impl Edges for Here {
    fn tell(&self, change: Change) -> Later<'_, ()> {
        Box::pin(async move {
            let Some(redis) = &self.redis else { return };
            let told = match change {
                Change::Revoked(hash) => redis.announce_revocation(&hash).await,
                Change::Changed(hash) => redis.drop_cached(&[hash]).await,
            };
            if let Err(failure) = told {
                tracing::warn!(%failure, "edges were not told of a key; they see it within a second");
            }
        })
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.snapshot.load().catalog()
    }

    fn targets(&self) -> Targets {
        let told = standings(&self.snapshot.load());
        let data = told.iter().map(|target| self.view.show(target)).collect();
        Targets { source: self.view.word().to_owned(), data }
    }

    fn limits(&self, key: &ApiKey) -> Limits {
        Limits::of_key(key, self.snapshot.load().tiers())
    }

    fn knows_tier(&self, name: &str) -> bool {
        self.snapshot.load().tiers().contains_key(name)
    }
}

/// How this process knows how targets stand.
#[derive(Clone, Copy, Debug)]
enum View {
    /// It asks them.
    Edge,
    /// Edges tell it.
    Hints,
    /// Nobody tells it.
    None,
}

impl View {
    const fn word(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Hints => "hints",
            Self::None => "none",
        }
    }

    fn show(self, told: &Told) -> TargetState {
        let state = match self {
            Self::Edge => told.state,
            Self::Hints if told.hinted => "off",
            Self::Hints => "closed",
            Self::None => "unknown",
        };
        let own = matches!(self, Self::Edge);
        TargetState {
            name: told.name.to_string(),
            provider: told.name.split('/').next().unwrap_or_default().to_owned(),
            state: state.to_owned(),
            left_ms: u64::try_from(told.left.as_millis()).unwrap_or(u64::MAX),
            attempts: own.then_some(told.attempts),
            failures: own.then_some(told.failures),
            last_failure: told.last_failure.map(str::to_owned),
        }
    }
}

/// What the management plane is made of.
pub(super) fn parts(
    plan: &Plan,
    (socket, role): (&Socket, Role),
    (state, stores): (&State, &Stores),
    (path, snapshot): (Option<&Path>, Arc<ArcSwap<Snapshot>>),
) -> anyhow::Result<Parts> {
    let redis = plan.state.redis().ok().flatten();
    let scheme = if plan.listen.tls.is_some() { "https" } else { "http" };
    let address = socket.listener.local_addr()?;
    let control = &plan.control;
    let settings = Settings {
        public_url: control.public_url.clone().unwrap_or_else(|| format!("http://{address}")),
        inference_base_url: control
            .inference_base_url
            .clone()
            .unwrap_or_else(|| format!("{scheme}://{}/v1", plan.listen.address)),
        oidc: control.oidc.clone(),
        admins: control.admins.clone(),
        internal_secrets: control.internal_secrets.clone(),
    };
    let view = match role {
        Role::All | Role::Edge => View::Edge,
        Role::Control if stores.hears_hints() => View::Hints,
        Role::Control => View::None,
    };
    let rules = FileRules::new(path, &state.vault);
    Ok(Parts {
        database: stores.database.clone(),
        redis: redis.clone(),
        pepper: state.pepper.clone(),
        vault: Arc::clone(&state.vault),
        identity: Identity::new(&settings),
        edges: Arc::new(Here { snapshot, redis, view }),
        rules: Arc::new(rules),
        settings: Arc::new(settings),
        now: clock::now,
        chance: state::chance_bytes,
    })
}

/// The management plane, serving on a thread of its own.
pub(super) struct Control(Runtime);

impl Control {
    /// Serves on `socket` until `stop`; requests that are under way then are answered.
    pub(super) fn start(
        parts: Parts,
        socket: &Socket,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()?;
        let listener = {
            let _runtime = runtime.enter();
            tokio::net::TcpListener::from_std(socket.listener.try_clone()?)?
        };
        runtime.spawn(async move {
            let stopped = async move {
                // Who no longer holds the other end has stopped too.
                let _gone = stop.wait_for(|stop| *stop).await;
            };
            tokenroute_control::serve(listener, parts, stopped).await;
        });
        Ok(Self(runtime))
    }

    /// Drops whatever is left.
    pub(super) fn end(self) {
        self.0.shutdown_timeout(RUNTIME_END);
    }
}
