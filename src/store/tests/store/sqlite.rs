//! What is particular to a SQLite file: its mode, its settings, and several programs over one file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqlStr};
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::NanoUsd;
use tokenroute_store::{Database, Error};

use crate::support::{FreshFile, T0, account, create_keys, hash, record};

/// An empty database.
pub(crate) async fn fresh() -> FreshFile {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("state.db")).await.unwrap();
    FreshFile { database, folder }
}

#[tokio::test]
async fn every_file_is_its_owners_alone() {
    let fresh = FreshFile::with_account().await;
    let mut files = 0;
    for entry in fs::read_dir(fresh.folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
        files += 1;
    }
    assert!(files >= 2, "the file and its log");
}

#[tokio::test]
async fn a_file_that_others_could_read_is_closed_to_them() {
    let fresh = fresh().await;
    fresh.database.close().await;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let database = Database::open(&fresh.path()).await.unwrap();
    assert_eq!(fs::metadata(fresh.path()).unwrap().permissions().mode() & 0o777, 0o600);
    database.close().await;
}

#[tokio::test]
async fn what_was_written_outlives_the_process_that_wrote_it() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    fresh.database.close().await;
    assert!(matches!(fresh.database.find_key(&hash(1)).await, Err(Error::Unavailable(_))));
    let database = Database::open(&fresh.path()).await.unwrap();
    assert!(database.find_key(&hash(1)).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_open_a_new_file_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move { Database::open(&path).await })
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
    }
    assert_eq!(created, 1);
}

#[tokio::test]
async fn other_programs_find_a_write_ahead_log() {
    let fresh = fresh().await;
    let mut other = fresh.other_program().await;
    let mode: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut other).await.unwrap();
    assert_eq!(mode, "wal");
    other.close().await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let text = "certainly no database ".repeat(300);
    fs::write(&path, &text).unwrap();
    assert!(matches!(Database::open(&path).await, Err(Error::Corrupt(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let nowhere = folder.path().join("missing").join("state.db");
    assert!(matches!(Database::open(&nowhere).await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn a_newer_programs_schema_is_refused() {
    let fresh = fresh().await;
    fresh.database.close().await;
    let mut other = fresh.other_program().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&mut other)
    .await
    .unwrap();
    other.close().await.unwrap();
    assert!(matches!(Database::open(&fresh.path()).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_brought_up_with_its_records() {
    const FIRST: &str = include_str!("../../migrations/sqlite/0001_keys_and_records.sql");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut old = options.connect().await.unwrap();
    let (statements, simple) = (SqlStr::from_static(FIRST), MigrationType::Simple);
    let first = Migration::new(1, "keys and records".into(), simple, statements, false);
    Migrator::with_migrations(vec![first]).run_direct(None, &mut old, false).await.unwrap();
    sqlx::query(
        "INSERT INTO records (call, sequence, started, endpoint, attempts, status, outcome, streamed,
             input, input_cache_read, input_cache_write, input_cache_write_long, input_audio, input_image,
             output, output_reasoning, output_audio, output_image, usage_source, cost_nano_usd, latency_micros)
         VALUES ('call_1', 1, 5, 'embeddings', $1, 200, 'answered', 0,
             1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'provider', 9, 7)",
    )
    .bind(r#"[{"target":"a/b","result":"ok","status":200,"micros":3}]"#)
    .execute(&mut old)
    .await
    .unwrap();
    sqlx::query("UPDATE counters SET value = 1 WHERE name = 'record_sequence'")
        .execute(&mut old)
        .await
        .unwrap();
    old.close().await.unwrap();

    let database = Database::open(&path).await.unwrap();
    let stored = database.records_after(0, 10).await.unwrap().remove(0);
    assert_eq!((stored.call.as_str(), stored.house_cost), ("call_1", NanoUsd::ZERO));
    let attempt = &stored.attempts[0];
    assert_eq!((attempt.target.as_str(), attempt.why.as_str()), ("a/b", ""));
    assert_eq!((attempt.output_tokens, attempt.cost, attempt.house_cost), Default::default());
    database.insert_records(&[record(1)]).await.unwrap();
    assert_eq!(database.records_after(1, 10).await.unwrap()[0].house_cost, record(1).house_cost);
}

#[tokio::test]
async fn an_unreadable_row_is_an_error_and_never_an_unknown_key() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let mut other = fresh.other_program().await;
    sqlx::query("UPDATE api_keys SET expires = -5").execute(&mut other).await.unwrap();
    assert!(matches!(fresh.database.find_key(&hash(1)).await, Err(Error::Corrupt(_))));
    sqlx::query("UPDATE api_keys SET expires = NULL, id = 'nonsense'")
        .execute(&mut other)
        .await
        .unwrap();
    assert!(matches!(fresh.database.find_key(&hash(1)).await, Err(Error::Corrupt(_))));
}

#[tokio::test]
async fn a_lock_that_stays_is_waited_for_in_vain_and_then_told() {
    let fresh = FreshFile::with_account().await;
    let mut other = fresh.other_program().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let made = fresh.database.acting("tester").create_key(&crate::support::new_key(1)).await;
    assert!(matches!(made, Err(Error::Unavailable(_))));
    assert!(fresh.database.find_key(&hash(1)).await.unwrap().is_none(), "readers do not wait");
    sqlx::query("COMMIT").execute(&mut other).await.unwrap();
    create_keys(&fresh.database, 1..2).await;
}
