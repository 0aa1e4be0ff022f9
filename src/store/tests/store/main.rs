//! What outlives the process, tried against a real database file and a real Redis server.
//!
//! Redis is the machine's `redis-server`, started by the tests on free ports; without it they fail.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

mod conformance;
mod directory;
mod fake_redis;
mod hints;
mod journal;
mod journal_kill;
mod journal_space;
mod outages;
mod redis_server;
mod sqlite;
mod support;
mod two_edges;
mod writer;
