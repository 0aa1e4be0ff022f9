//! One SQL database, SQLite or PostgreSQL: how it is opened, migrated and shared. What is kept in it is in
//! the submodules.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod escrow;
pub(crate) mod findings;
pub(crate) mod grants;
pub(crate) mod idempotency;
pub(crate) mod issuer;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod posting;
pub(crate) mod reconcile;
pub(crate) mod records;
pub(crate) mod search;
pub(crate) mod settings;
pub(crate) mod statement;
pub(crate) mod usage;
pub(crate) mod users;
pub(crate) mod version;

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlStr};

use self::statement::{On, Transaction};
use self::version::version_of;
use crate::Error;

/// Connections that read at the same time: one for each look-up of the directory, and some for the
/// polls and listings that must not wait behind them.
const READERS_MAX: u32 = 20;
/// Connections that write: the teller's and everybody else's. SQLite lets them take turns.
const WRITERS_MAX: u32 = 2;
/// Connections of one process to PostgreSQL, which lets writers of different accounts go on at the same
/// time. It is opened as far as it is used.
const POSTGRES_MAX: u32 = 20;
/// How long a statement waits for another connection's lock.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// How long a request waits for a connection of the pool.
const CONNECTION_WAIT: Duration = Duration::from_secs(3);
/// How often opening is tried while another process creates or migrates the same file.
const OPEN_TRIES: u32 = 20;
/// The pause between two tries to open.
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// Every migration: version, what it brings, and its statements. Released ones are never changed.
type Migrations = [(i64, &'static str, &'static str)];
const SQLITE: &Migrations = &[
    (1, "keys and records", include_str!("../migrations/sqlite/0001_keys_and_records.sql")),
    (2, "house cost", include_str!("../migrations/sqlite/0002_house_cost.sql")),
    (3, "money", include_str!("../migrations/sqlite/0003_money.sql")),
    (4, "closed findings", include_str!("../migrations/sqlite/0004_closed_findings.sql")),
    (5, "control", include_str!("../migrations/sqlite/0005_control.sql")),
];
const POSTGRES: &Migrations = &[
    (
        3,
        "keys, records and money",
        include_str!("../migrations/postgres/0003_keys_records_and_money.sql"),
    ),
    (4, "closed findings", include_str!("../migrations/postgres/0004_closed_findings.sql")),
    (5, "control", include_str!("../migrations/postgres/0005_control.sql")),
];

/// One database, with its schema up to date. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Database(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Sqlite { readers: SqlitePool, writers: SqlitePool },
    Postgres(PgPool),
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
            match Self::open_file(path).await {
                Err(Error::Unavailable(_)) if tries > 0 => tokio::time::sleep(OPEN_PAUSE).await,
                result => return result,
            }
        }
    }

    async fn open_file(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_WAIT)
            .foreign_keys(true);
        let writers = pool(WRITERS_MAX).connect_with(options.clone()).await?;
        let mut migration = writers.begin_with("BEGIN IMMEDIATE").await?;
        migrator(SQLITE).run_direct(None, &mut *migration, false).await?;
        migration.commit().await?;
        let readers = pool(READERS_MAX).connect_with(options).await?;
        Ok(Self(Kind::Sqlite { readers, writers }))
    }

    /// Connects to the PostgreSQL database at `url` (`postgres://…`) and migrates it if its schema is
    /// older. Any number of processes may do so at the same time. A newer program's schema is refused. With
    /// `ca_file`, PEM, the server has to show a certificate of theirs that is for its name.
    pub async fn connect(url: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let options = postgres_options(url, ca_file)?.application_name("tokenroute");
        let version = version_of(&options).await?;
        if version.present != Some(version.wanted) {
            migrate_shared(&options).await?;
        }
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_MAX)
            .acquire_timeout(CONNECTION_WAIT)
            .connect_with(options.options([("lock_timeout", BUSY_WAIT.as_millis().to_string())]))
            .await?;
        Ok(Self(Kind::Postgres(pool)))
    }

    /// Brings the schema up to date, which opening and connecting do as well, and says its version.
    pub async fn migrate(&self) -> Result<i64, Error> {
        let all = match &self.0 {
            Kind::Sqlite { writers, .. } => {
                let mut migration = writers.begin_with("BEGIN IMMEDIATE").await?;
                migrator(SQLITE).run_direct(None, &mut *migration, false).await?;
                migration.commit().await?;
                SQLITE
            }
            Kind::Postgres(pool) => {
                migrate_shared(&pool.connect_options()).await?;
                POSTGRES
            }
        };
        Ok(all.last().map_or(0, |(version, ..)| *version))
    }

    /// Closes every connection once it is idle; later requests are answered with `Unavailable`.
    pub async fn close(&self) {
        match &self.0 {
            Kind::Sqlite { readers, writers } => {
                readers.close().await;
                writers.close().await;
            }
            Kind::Postgres(pool) => pool.close().await,
        }
    }

    /// Whether several machines can share it.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, Kind::Postgres(_))
    }

    /// A transaction that may write. SQLite takes its one lock at once, so that it cannot fail half-way
    /// because another one wrote after it had read; PostgreSQL locks row by row, and whoever locks several
    /// does it in this order: pools by account, counters, purses, ledger accounts by name, and last of all the
    /// number of the audit log.
    pub(crate) async fn begin(&self) -> Result<Transaction, Error> {
        Ok(match &self.0 {
            Kind::Sqlite { writers, .. } => {
                Transaction::Sqlite(writers.begin_with("BEGIN IMMEDIATE").await?)
            }
            Kind::Postgres(pool) => Transaction::Postgres(pool.begin().await?),
        })
    }

    /// Where statements run that only read.
    pub(crate) fn reading(&self) -> On<'_> {
        match &self.0 {
            Kind::Sqlite { readers, .. } => On::SqlitePool(readers),
            Kind::Postgres(pool) => On::PostgresPool(pool),
        }
    }

    /// Where single statements run that write.
    pub(crate) fn writing(&self) -> On<'_> {
        match &self.0 {
            Kind::Sqlite { writers, .. } => On::SqlitePool(writers),
            Kind::Postgres(pool) => On::PostgresPool(pool),
        }
    }
}

/// How the PostgreSQL database at `url` is connected to.
fn postgres_options(url: &str, ca_file: Option<&Path>) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url).map_err(unreadable_address)?;
    Ok(match ca_file {
        Some(file) => options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(file),
        None => options,
    })
}

/// The library's words could repeat the address, and with it the password.
fn unreadable_address(_: sqlx::Error) -> Error {
    Error::Corrupt("its address cannot be read".to_owned())
}

/// Migrates over a connection of its own, which waits while another process does so.
async fn migrate_shared(options: &PgConnectOptions) -> Result<(), Error> {
    // However long the other one takes: the pool's connections are less patient.
    let options = options.clone().options([("lock_timeout", "0")]);
    let mut connection = options.connect().await?;
    migrator(POSTGRES).run_direct(None, &mut connection, false).await?;
    connection.close().await?;
    Ok(())
}

fn migrator(migrations: &'static Migrations) -> Migrator {
    let all = migrations.iter().map(|(version, brings, statements)| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_connection_is_durable_patient_and_minds_references() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("state.db")).await.unwrap();
        let Kind::Sqlite { readers, writers } = &database.0 else { unreachable!() };
        for pool in [readers, writers] {
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
