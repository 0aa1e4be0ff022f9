//! One SQL database: how it is opened, migrated and shared. What is kept in it is in the submodules.

pub(crate) mod keys;
pub(crate) mod records;

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{SqlStr, Sqlite, Transaction};
use tokenroute_domain::time::Timestamp;

use crate::Error;

/// Connections that read at the same time: one for each look-up of the directory, and some for the
/// polls and listings that must not wait behind them.
const READERS_MAX: u32 = 20;
/// Connections that write: the record writer's and everybody else's. SQLite lets them take turns.
const WRITERS_MAX: u32 = 2;
/// How long a statement waits for another connection's lock.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// How long a request waits for a connection of the pool.
const CONNECTION_WAIT: Duration = Duration::from_secs(3);
/// How often opening is tried while another process creates or migrates the same file.
const OPEN_TRIES: u32 = 20;
/// The pause between two tries to open.
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// Every migration: version, what it brings, and its statements. Released ones are never changed.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "keys and records", include_str!("../migrations/sqlite/0001_keys_and_records.sql")),
    (2, "house cost", include_str!("../migrations/sqlite/0002_house_cost.sql")),
];

/// One database, with its schema up to date. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Database {
    readers: SqlitePool,
    writers: SqlitePool,
}

impl Database {
    /// Opens the SQLite file at `path`, creates it (mode 0600) if it is missing, and migrates it.
    /// Several processes may open one file at the same time. A newer program's schema is refused.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        create_private(path)
            .map_err(|error| Error::Unavailable(format!("cannot open the file: {error}")))?;
        let mut tries = OPEN_TRIES;
        loop {
            tries = tries.saturating_sub(1);
            match Self::connect(path).await {
                Err(Error::Unavailable(_)) if tries > 0 => tokio::time::sleep(OPEN_PAUSE).await,
                result => return result,
            }
        }
    }

    async fn connect(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_WAIT)
            .foreign_keys(true);
        let writers = pool(WRITERS_MAX).connect_with(options.clone()).await?;
        let mut migration = writers.begin_with("BEGIN IMMEDIATE").await?;
        migrations().run_direct(None, &mut *migration, false).await?;
        migration.commit().await?;
        let readers = pool(READERS_MAX).connect_with(options).await?;
        Ok(Self { readers, writers })
    }

    /// Closes every connection once it is idle; later requests are answered with `Unavailable`.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }

    /// A transaction that may write: it takes the lock at once, so that it cannot fail half-way
    /// because another one wrote after it had read.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        Ok(self.writers.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn migrations() -> Migrator {
    let all = MIGRATIONS.iter().map(|(version, brings, statements)| {
        Migration::new(
            *version,
            Cow::Borrowed(*brings),
            MigrationType::Simple,
            SqlStr::from_static(statements),
            false,
        )
    });
    Migrator::with_migrations(all.collect())
}

fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(CONNECTION_WAIT)
        .test_before_acquire(false)
        .max_lifetime(None)
}

/// Makes sure that the file exists and is its owner's alone; SQLite gives its companions the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// An unsigned number as a column holds it; what does not fit, which no real one does, becomes the largest.
fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A column that never holds a negative number.
fn unsigned(value: i64, place: &'static str) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_negative| Error::unreadable(place))
}

/// A column that holds a time.
fn timestamp(value: i64, place: &'static str) -> Result<Timestamp, Error> {
    unsigned(value, place).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_connection_is_durable_patient_and_minds_references() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("state.db")).await.unwrap();
        for pool in [&database.readers, &database.writers] {
            let mut connection = pool.acquire().await.unwrap();
            for (statement, wanted) in [
                ("PRAGMA synchronous", 2),
                ("PRAGMA busy_timeout", 2_000),
                ("PRAGMA foreign_keys", 1),
            ] {
                let value: i64 =
                    sqlx::query_scalar(statement).fetch_one(&mut *connection).await.unwrap();
                assert_eq!(value, wanted, "{statement}");
            }
        }
    }
}
