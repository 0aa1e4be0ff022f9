//! What the process has room for: found at its start, watched over as long as it serves.

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
}

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
        Ok(Self { memory, governor, door })
    }

    /// Watches the memory and the threads of `edge` from `background`.
    pub(super) fn watch(self, plan: &Plan, edge: &Handle, background: &Handle) {
        let Self { memory, governor, .. } = self;
        if !plan.sizes.lag_max.is_zero() {
            edge.spawn(governor.clone().beat());
            background.spawn(governor.clone().watch(plan.sizes.lag_max));
        }
        background.spawn(memory.watch(governor));
    }
}
