//! Checks the bounds on requests, connections and queues.

use std::time::Duration;

use tokenroute_proxy::snapshot::Limits;

use super::check::{Bounds, Checker, bounds};
use super::file;
use super::plan::Sizes;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// Bounds on requests.
pub(super) fn limits(checker: &mut Checker<'_>, typed: &file::Limits) -> Limits {
    let mut count = |name, typed, bounds| checker.count(&at(name), typed, bounds);
    let body_bytes_max = count("body_bytes_max", typed.body_bytes_max, bounds(32 * MIB, 1, GIB));
    let stream_after_bytes =
        count("stream_after_bytes", typed.stream_after_bytes, bounds(MIB, 0, GIB));
    let replay_bytes_max =
        count("replay_bytes_max", typed.replay_bytes_max, bounds(8 * MIB, 0, GIB));
    let buffered_bytes_max =
        count("buffered_bytes_max", typed.buffered_bytes_max, bounds(512 * MIB, MIB, 1024 * GIB));
    let body_bytes_per_second_min =
        count("body_bytes_per_second_min", typed.body_bytes_per_second_min, bounds(KIB, 0, GIB));
    if stream_after_bytes > body_bytes_max {
        checker.problem(at("stream_after_bytes"), "must not exceed limits.body_bytes_max");
    }
    if body_bytes_max > buffered_bytes_max {
        checker.problem(at("buffered_bytes_max"), "must not be below limits.body_bytes_max");
    }

    let mut size = |name, typed, bounds| checker.size(&at(name), typed, bounds);
    let head_bytes_max = size("head_bytes_max", typed.head_bytes_max, bounds(64 * KIB, KIB, MIB));
    let fields_max = size("fields_max", typed.fields_max, bounds(100, 10, 256));
    let target_bytes_max =
        size("target_bytes_max", typed.target_bytes_max, bounds(8 * KIB, 256, 64 * KIB));
    let calls_max = size("calls_max", typed.calls_max, many(10_000));

    let mut time = |name, typed, bounds| checker.seconds(&at(name), typed, bounds);
    Limits {
        body_bytes_max,
        stream_after_bytes,
        replay_bytes_max,
        first_byte: time("first_byte_seconds", typed.first_byte_seconds, seconds(30)),
        head_total: time("head_total_seconds", typed.head_total_seconds, seconds(10)),
        body_idle: time("body_idle_seconds", typed.body_idle_seconds, seconds(30)),
        body_total: time("body_total_seconds", typed.body_total_seconds, seconds(300)),
        body_grace: time("body_grace_seconds", typed.body_grace_seconds, seconds(10)),
        body_bytes_per_second_min,
        write_stall: time("write_stall_seconds", typed.write_stall_seconds, seconds(60)),
        buffered_bytes_max,
        calls_max,
        head_bytes_max,
        fields_max,
        target_bytes_max,
        keepalive: time("keepalive_seconds", typed.keepalive_seconds, seconds(60)),
    }
}

/// Bounds that queues and listeners are made with.
pub(super) fn sizes(checker: &mut Checker<'_>, typed: &file::Limits) -> Sizes {
    let requests = &at("requests_per_connection_max");
    let requests = checker.count(requests, typed.requests_per_connection_max, many(1_000));
    let mut size = |name, typed, bounds| checker.size(&at(name), typed, bounds);
    let records_max = size("records_max", typed.records_max, many(65_536));
    let connections_max = size("connections_max", typed.connections_max, many(10_000));
    let sources = bounds(0, 0, 1_000_000);
    let per_source = typed.connections_per_source_max;
    let connections_per_source_max = size("connections_per_source_max", per_source, sources);
    // Less than this not even an idle edge does with.
    let memory = bounds(0, 32 * MIB, 1024 * GIB);
    let memory = checker.count(&at("memory_bytes_max"), typed.memory_bytes_max, memory);
    let lag = bounds(Duration::from_millis(20), Duration::ZERO, Duration::from_secs(10));
    Sizes {
        records_max,
        connections_max,
        connections_per_source_max,
        memory_bytes_max: typed.memory_bytes_max.map(|_| memory),
        buffered_bytes_typed: typed.buffered_bytes_max.is_some(),
        lag_max: checker.seconds(&at("lag_seconds_max"), typed.lag_seconds_max, lag),
        requests_per_connection_max: u32::try_from(requests).unwrap_or(u32::MAX),
    }
}

fn at(name: &str) -> String {
    format!("limits.{name}")
}

/// From one to a million.
fn many(default: u64) -> Bounds<u64> {
    bounds(default, 1, 1_000_000)
}

/// Some seconds, and at most an hour.
fn seconds(default: u64) -> Bounds<Duration> {
    bounds(Duration::from_secs(default), Duration::from_millis(10), Duration::from_hours(1))
}
