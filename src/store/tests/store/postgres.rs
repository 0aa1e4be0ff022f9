//! What is particular to PostgreSQL: many processes over one database, at any moment.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use tokenroute_domain::key::Funding;
use tokenroute_store::{Database, Error};

use crate::postgres_server;
use crate::support::{Fresh, T0, account, eventually};

/// An empty database.
pub(crate) struct FreshPostgres {
    pub(crate) database: Database,
    name: String,
}

impl FreshPostgres {
    pub(crate) fn url(&self) -> String {
        postgres_server::url(&self.name)
    }

    /// Statements of another program.
    pub(crate) async fn other_program(&self) -> PgConnection {
        postgres_server::connection(&self.name).await
    }
}

impl Fresh for FreshPostgres {
    fn database(&self) -> &Database {
        &self.database
    }

    async fn second(&self) -> Database {
        Database::connect(&self.url(), None).await.unwrap()
    }

    async fn tamper(&self, statements: &'static str) -> Result<(), sqlx::Error> {
        self.other_program().await.execute(statements).await.map(|_| ())
    }
}

pub(crate) async fn fresh() -> FreshPostgres {
    let name = postgres_server::create().await;
    let database = Database::connect(&postgres_server::url(&name), None).await.unwrap();
    FreshPostgres { database, name }
}

#[tokio::test]
async fn the_version_is_seen_and_nothing_is_made() {
    let url = postgres_server::url(&postgres_server::create().await);
    for _ in 0..2 {
        assert_eq!(Database::version_at(&url, None).await.unwrap().present, None);
    }
    Database::connect(&url, None).await.unwrap().close().await;
    let version = Database::version_at(&url, None).await.unwrap();
    assert_eq!(version.present, Some(version.wanted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_connect_to_a_new_database_at_the_same_time() {
    let url = postgres_server::url(&postgres_server::create().await);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { Database::connect(&url, None).await })
        })
        .collect();
    let mut created = 0;
    for task in tasks {
        let database = task.await.unwrap().unwrap();
        let made = database
            .acting("tester")
            .create_account(account(), "acme", Funding::Unmetered, T0)
            .await;
        created += usize::from(made.unwrap());
        database.close().await;
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn a_newer_programs_schema_is_refused() {
    let fresh = fresh().await;
    let mut other = fresh.other_program().await;
    other
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'from the future', TRUE, '\\x00', 0)",
        )
        .await
        .unwrap();
    assert!(matches!(Database::connect(&fresh.url(), None).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn an_address_that_cannot_be_read_is_never_repeated() {
    let secret = "postgres://user:hunter2@[nowhere/db";
    let error = Database::connect(secret, None).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let away = "postgres://user:hunter2@127.0.0.1:1/db";
    let error = Database::connect(away, None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn one_process_leads_until_its_connection_ends() {
    let fresh = fresh().await;
    let second = Database::connect(&fresh.url(), None).await.unwrap();
    let mut lead = fresh.database.lead().await.unwrap().expect("nobody leads yet");
    assert!(lead.holds().await);
    assert!(second.lead().await.unwrap().is_none());
    drop(lead);
    eventually("the lead is free again", async || second.lead().await.unwrap().is_some()).await;

    let mut lead = fresh.database.lead().await.unwrap();
    eventually("the lead is taken again", async || {
        if lead.is_none() {
            lead = fresh.database.lead().await.unwrap();
        }
        lead.is_some()
    })
    .await;
    let mut other = fresh.other_program().await;
    other
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks
             WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database
                 WHERE datname = current_database())",
        )
        .await
        .unwrap();
    other.close().await.unwrap();
    let mut lead = lead.unwrap();
    assert!(!lead.holds().await, "whoever lost the connection has lost the lead");
}

#[tokio::test]
async fn a_lock_that_stays_is_waited_for_in_vain_and_then_told() {
    let fresh = fresh().await;
    fresh
        .database
        .acting("tester")
        .create_account(account(), "acme", Funding::Unmetered, T0)
        .await
        .unwrap();
    let mut other = fresh.other_program().await;
    other.execute("BEGIN; UPDATE counters SET value = value").await.unwrap();
    let made = fresh.database.acting("tester").create_key(&crate::support::new_key(1)).await;
    assert!(matches!(made, Err(Error::Unavailable(_))), "{made:?}");
    other.execute("COMMIT").await.unwrap();
    assert!(fresh.database.acting("tester").create_key(&crate::support::new_key(1)).await.unwrap());
}
