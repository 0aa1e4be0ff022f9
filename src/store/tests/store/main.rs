//! What outlives the process, tried against a real database file and a real Redis server.
//!
//! Redis is the machine's `redis-server`, started by the tests on free ports, and PostgreSQL its `postgres`;
//! without them they fail.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

/// Runs tests that take a fresh database on each kind of database, in modules of their names.
macro_rules! on_every_database {
    ($($test:ident,)*) => {
        on_every_database! { @sqlite $($test,)* }
        on_every_database! { @postgres $($test,)* }
    };
    (@$database:ident $($test:ident,)*) => {
        mod $database {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(&crate::$database::fresh().await).await;
            })*
        }
    };
}

mod audit;
mod bank_redis;
mod bank_sql;
mod conformance;
mod control;
mod directory;
mod fake_redis;
mod hints;
mod issuer;
mod journal;
mod journal_kill;
mod journal_space;
mod limits;
mod money;
mod outages;
mod postgres;
mod postgres_server;
mod redis_server;
mod settings;
mod sqlite;
mod support;
mod two_edges;
mod users;
