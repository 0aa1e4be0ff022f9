//! Why a database did not do what it was asked.

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

/// What the caller can do about a database that failed. "Not found" is no error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database is locked, full, overloaded or away: the same request may succeed later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database holds what it cannot hold, or is none of ours: repeating does not help.
    #[error("the database cannot be trusted: {0}")]
    Corrupt(String),
}

impl Error {
    /// A value that this program never writes was read from `place`.
    pub(crate) fn unreadable(place: &'static str) -> Self {
        Self::Corrupt(format!("unreadable value in {place}"))
    }
}

/// Primary result codes of SQLite that tell of the moment or the machine, not of the data:
/// BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL.
const SQLITE_PASSING: [i64; 9] = [5, 6, 7, 8, 9, 10, 13, 14, 15];

/// Classes and codes of PostgreSQL that do: connections (08), transactions rolled back because of others
/// (40), limits of the machine (53), objects in use (55), operators (57), the system (58), and a server that
/// only reads because another one writes (25006).
const POSTGRES_PASSING: [&str; 7] = ["08", "40", "53", "55", "57", "58", "25006"];

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_passing(&error) {
            Self::Unavailable(error.to_string())
        } else {
            Self::Corrupt(error.to_string())
        }
    }
}

/// Whether the failure is of the moment. A kind that is not listed is taken for lasting.
fn is_passing(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Database(database) = error {
        if let Some(postgres) = database.try_downcast_ref::<PgDatabaseError>() {
            return POSTGRES_PASSING.iter().any(|code| postgres.code().starts_with(code));
        }
        let code = database.code().and_then(|code| code.parse::<i64>().ok());
        return code.is_some_and(|code| SQLITE_PASSING.contains(&(code & 0xff)));
    }
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    )
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        if let MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) = error {
            return inner.into();
        }
        Self::Corrupt(error.to_string())
    }
}
