//! Which version of the schema a database has, seen without changing anything.

use std::path::Path;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::statement::{On, Row, sql};
use super::{Database, Migrations, POSTGRES, SQLITE, postgres_options};
use crate::Error;

/// The version that a database has, and the one that this program brings it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// What it has; `None`: there is no database yet, or nothing of ours in it.
    pub present: Option<i64>,
    /// What this program works with.
    pub wanted: i64,
}

const IS_KEPT_IN_SQLITE: &str =
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";
const IS_KEPT_IN_POSTGRES: &str = "SELECT to_regclass('_sqlx_migrations')::TEXT AS name";
const LAST: &str = "SELECT max(version) AS version FROM _sqlx_migrations WHERE success";

impl Database {
    /// The version of the SQLite file at `path`.
    pub async fn version_of_file(path: &Path) -> Result<SchemaVersion, Error> {
        let wanted = last(SQLITE);
        if !path.exists() {
            return Ok(SchemaVersion { present: None, wanted });
        }
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(super::BUSY_WAIT);
        let mut connection = options.connect().await?;
        let kept =
            sql(IS_KEPT_IN_SQLITE).fetch_optional(On::Sqlite(&mut connection)).await?.is_some();
        let row =
            if kept { Some(sql(LAST).fetch_one(On::Sqlite(&mut connection)).await?) } else { None };
        connection.close().await?;
        Ok(SchemaVersion { present: version(row.as_ref())?, wanted })
    }

    /// The version of the PostgreSQL database at `url`.
    pub async fn version_at(url: &str, ca_file: Option<&Path>) -> Result<SchemaVersion, Error> {
        version_of(&postgres_options(url, ca_file)?).await
    }
}

/// The version of the PostgreSQL database that these options lead to.
pub(super) async fn version_of(options: &PgConnectOptions) -> Result<SchemaVersion, Error> {
    let mut connection = options.connect().await?;
    let name = sql(IS_KEPT_IN_POSTGRES).fetch_one(On::Postgres(&mut connection)).await?;
    let row = match name.text_if_any("name")? {
        Some(_) => Some(sql(LAST).fetch_one(On::Postgres(&mut connection)).await?),
        None => None,
    };
    connection.close().await?;
    Ok(SchemaVersion { present: version(row.as_ref())?, wanted: last(POSTGRES) })
}

fn version(row: Option<&Row>) -> Result<Option<i64>, Error> {
    row.map_or(Ok(None), |row| row.int_if_any("version"))
}

fn last(migrations: &Migrations) -> i64 {
    migrations.last().map_or(0, |(version, ..)| *version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_version_is_seen_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let seen = || async { Database::version_of_file(&path).await.unwrap().present };
        assert_eq!(seen().await, None);
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        assert_eq!(seen().await, None, "an empty file is an empty database");

        let database = Database::open(&path).await.unwrap();
        assert_eq!(seen().await, Some(last(SQLITE)));
        sql("DELETE FROM _sqlx_migrations WHERE version > 2")
            .execute(database.writing())
            .await
            .unwrap();
        assert_eq!(seen().await, Some(2), "while others have it open");
        sql("UPDATE _sqlx_migrations SET version = 1000 WHERE version = 2")
            .execute(database.writing())
            .await
            .unwrap();
        assert_eq!(seen().await, Some(1_000), "a newer program's is told as it is");
        database.close().await;
    }
}
