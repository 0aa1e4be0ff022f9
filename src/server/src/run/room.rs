//! What the process has room for: found at its start, watched over as long as it serves.

use std::time::Duration;

use prometheus::{IntGaugeVec, Opts};
use tokenroute_proxy::door::{Bounds, Door};
use tokenroute_proxy::governor::Governor;
use tokenroute_proxy::metrics::Metrics;
use tokio::runtime::Handle;

use super::descriptors::Descriptors;
use super::memory::Memory;
use crate::config::Plan;

/// Memory and descriptors, and those who turn away what they do not suffice for.
pub(super) struct Room {
    pub(super) memory: Memory,
    pub(super) governor: Governor,
    pub(super) door: Door,
    /// Tasks that live, by runtime: what is started and never ends grows here first.
    tasks: IntGaugeVec,
}

/// Time between two counts of the tasks.
const COUNT: Duration = Duration::from_secs(1);

impl Room {
    /// Looks what there is, and keeps `plan` within it.
    pub(super) fn find(plan: &mut Plan, metrics: &Metrics) -> anyhow::Result<Self> {
        let memory = Memory::find(plan.sizes.memory_bytes_max);
        plan.fit(memory.limit);
        let found = Descriptors::find(plan.sizes.connections_max, plan.limits.calls_max);
        let governor = Governor::new(metrics.registry(), found.calls_max)?;
        let bounds = Bounds {
            connections_max: found.connections_max,
            per_source_max: plan.sizes.connections_per_source_max,
        };
        let door = Door::new(bounds, governor.clone(), metrics.registry())?;
        memory.tell(&governor);
        let named = Opts::new("tokenroute_tasks", "Tasks that live, by runtime.");
        let tasks = IntGaugeVec::new(named, &["runtime"])?;
        metrics.registry().register(Box::new(tasks.clone()))?;
        Ok(Self { memory, governor, door, tasks })
    }

    /// Watches the memory and the threads of `edge` from `background`.
    pub(super) fn watch(self, plan: &Plan, edge: &Handle, background: &Handle) {
        let Self { memory, governor, tasks, .. } = self;
        background
            .spawn(count(tasks, [("edge", edge.clone()), ("background", background.clone())]));
        if !plan.sizes.lag_max.is_zero() {
            edge.spawn(governor.clone().beat());
            background.spawn(governor.clone().watch(plan.sizes.lag_max));
        }
        background.spawn(memory.watch(governor));
    }
}

/// Counts the tasks of these runtimes, again and again.
async fn count(tasks: IntGaugeVec, runtimes: [(&'static str, Handle); 2]) {
    loop {
        for (name, runtime) in &runtimes {
            let alive = i64::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(i64::MAX);
            tasks.with_label_values(&[*name]).set(alive);
        }
        tokio::time::sleep(COUNT).await;
    }
}
