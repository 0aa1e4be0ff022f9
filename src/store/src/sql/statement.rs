//! Statements that run on either database: one text with `$1` places, values, and rows read by name.
//!
//! It is less than the library's own `Any` driver, which knows no connection options and copies every row
//! once more. Statements are constants, or put together of constants alone.

use std::borrow::Cow;

use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{Postgres, Row as _, SqlStr, Sqlite};
use tokenroute_domain::id::{AccountId, CallId, KeyId, NodeId, UserId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;

use crate::Error;

/// What a place of a statement is filled with.
#[derive(Debug)]
pub(crate) enum Value<'q> {
    Int(Option<i64>),
    Text(Option<Cow<'q, str>>),
    Bytes(&'q [u8]),
}

/// A statement and its values.
#[derive(Debug)]
pub(crate) struct Statement<'q> {
    text: SqlStr,
    /// The same for SQLite, where it has many places: named ones are looked up among all others there, for
    /// each value.
    nameless: Option<&'static str>,
    values: Vec<Value<'q>>,
}

/// Where a statement runs.
#[derive(Debug)]
pub(crate) enum On<'c> {
    SqlitePool(&'c SqlitePool),
    PostgresPool(&'c PgPool),
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// An open transaction: dropped, it changes nothing.
#[derive(Debug)]
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// A row that was read.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// A statement that is a constant.
pub(crate) fn sql<'q>(text: &'static str) -> Statement<'q> {
    Statement { text: SqlStr::from_static(text), nameless: None, values: Vec::new() }
}

/// How many values or rows of a list one statement takes. Few lengths, so that few are prepared.
const LISTED: [usize; 3] = [64, 8, 1];

/// One statement for each length of [`LISTED`], put together of constants alone.
pub(crate) type Lists = [Listed; LISTED.len()];

/// A statement that takes a list, with numbered places and with nameless ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    numbered: &'static str,
    nameless: &'static str,
}

/// Statements that take a list of values between two constants that have no places. To be made once.
pub(crate) fn lists(head: &'static str, tail: &'static str) -> Lists {
    LISTED.map(|length| listed(&|place| format!("{head}{}{tail}", places(1, length, place))))
}

/// Statements that take rows of `columns` values between two such constants. To be made once.
pub(crate) fn row_lists(head: &'static str, columns: usize, tail: &'static str) -> Lists {
    LISTED.map(|length| {
        let first = |row: usize| row.saturating_mul(columns).saturating_add(1);
        listed(&|place| {
            let row = |row| format!("({})", places(first(row), columns, place));
            let rows: Vec<_> = (0..length).map(row).collect();
            format!("{head}{}{tail}", rows.join(", "))
        })
    })
}

/// How a place with a number is written.
type Place<'a> = &'a dyn Fn(usize) -> String;

fn listed(text: &dyn Fn(Place<'_>) -> String) -> Listed {
    let numbered = leak(text(&|number| format!("${number}")));
    Listed { numbered, nameless: leak(text(&|_| "?".to_owned())) }
}

/// So many places, numbered from `first` on.
fn places(first: usize, count: usize, place: Place<'_>) -> String {
    let places: Vec<_> = (first..first.saturating_add(count)).map(place).collect();
    places.join(", ")
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Cuts a list into parts, each with the statement that takes as many.
pub(crate) fn parts<'a, 'q, T>(
    all: &'a [T],
    texts: &Lists,
) -> impl Iterator<Item = (&'a [T], Statement<'q>)> {
    let mut left = all;
    std::iter::from_fn(move || {
        let mut lengths = texts.iter().zip(LISTED);
        let (text, length) = lengths.find(|(_, length)| *length <= left.len())?;
        let (now, later) = left.split_at(length);
        left = later;
        let statement = sql(text.numbered);
        Some((now, Statement { nameless: Some(text.nameless), ..statement }))
    })
}

impl Transaction {
    /// Whether it speaks to PostgreSQL.
    pub(crate) const fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Where its statements run.
    pub(crate) fn on(&mut self) -> On<'_> {
        match self {
            Self::Sqlite(transaction) => On::Sqlite(transaction),
            Self::Postgres(transaction) => On::Postgres(transaction),
        }
    }

    /// Makes everything in it durable. After an error it is not known whether it is.
    pub(crate) async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await?,
            Self::Postgres(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}

impl<'q> Statement<'q> {
    /// Fills the next place.
    pub(crate) fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; the number of rows that it changed.
    pub(crate) async fn execute(self, on: On<'_>) -> Result<u64, Error> {
        Ok(match on {
            On::SqlitePool(pool) => self.sqlite().execute(pool).await?.rows_affected(),
            On::Sqlite(one) => self.sqlite().execute(one).await?.rows_affected(),
            On::PostgresPool(pool) => self.postgres().execute(pool).await?.rows_affected(),
            On::Postgres(one) => self.postgres().execute(one).await?.rows_affected(),
        })
    }

    /// Its rows.
    pub(crate) async fn fetch_all(self, on: On<'_>) -> Result<Vec<Row>, Error> {
        Ok(match on {
            On::SqlitePool(pool) => sqlite_rows(self.sqlite().fetch_all(pool).await?),
            On::Sqlite(one) => sqlite_rows(self.sqlite().fetch_all(one).await?),
            On::PostgresPool(pool) => postgres_rows(self.postgres().fetch_all(pool).await?),
            On::Postgres(one) => postgres_rows(self.postgres().fetch_all(one).await?),
        })
    }

    /// Its first row, if it has any.
    pub(crate) async fn fetch_optional(self, on: On<'_>) -> Result<Option<Row>, Error> {
        Ok(match on {
            On::SqlitePool(pool) => self.sqlite().fetch_optional(pool).await?.map(Row::Sqlite),
            On::Sqlite(one) => self.sqlite().fetch_optional(one).await?.map(Row::Sqlite),
            On::PostgresPool(pool) => {
                self.postgres().fetch_optional(pool).await?.map(Row::Postgres)
            }
            On::Postgres(one) => self.postgres().fetch_optional(one).await?.map(Row::Postgres),
        })
    }

    /// Its one row.
    pub(crate) async fn fetch_one(self, on: On<'_>) -> Result<Row, Error> {
        self.fetch_optional(on).await?.ok_or(Error::unreadable("a row that must be there"))
    }

    fn sqlite(self) -> Query<'q, Sqlite, <Sqlite as sqlx::Database>::Arguments> {
        let mut query = sqlx::query(self.nameless.map_or(self.text, SqlStr::from_static));
        for value in self.values {
            query = match value {
                Value::Int(number) => query.bind(number),
                Value::Text(text) => query.bind(text.map(Cow::into_owned)),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }

    fn postgres(self) -> Query<'q, Postgres, <Postgres as sqlx::Database>::Arguments> {
        let mut query = sqlx::query(self.text);
        for value in self.values {
            query = match value {
                Value::Int(number) => query.bind(number),
                Value::Text(text) => query.bind(text.map(Cow::into_owned)),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }
}

fn sqlite_rows(rows: Vec<SqliteRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Sqlite).collect()
}

fn postgres_rows(rows: Vec<PgRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Postgres).collect()
}

impl Row {
    pub(crate) fn int(&self, name: &'static str) -> Result<i64, Error> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(name)?,
            Self::Postgres(row) => row.try_get(name)?,
        })
    }

    pub(crate) fn int_if_any(&self, name: &'static str) -> Result<Option<i64>, Error> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(name)?,
            Self::Postgres(row) => row.try_get(name)?,
        })
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<String, Error> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(name)?,
            Self::Postgres(row) => row.try_get(name)?,
        })
    }

    pub(crate) fn text_if_any(&self, name: &'static str) -> Result<Option<String>, Error> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(name)?,
            Self::Postgres(row) => row.try_get(name)?,
        })
    }

    pub(crate) fn bytes(&self, name: &'static str) -> Result<&[u8], Error> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(name)?,
            Self::Postgres(row) => row.try_get(name)?,
        })
    }

    /// A number that is never negative.
    pub(crate) fn count(&self, name: &'static str) -> Result<u64, Error> {
        unsigned(self.int(name)?, name)
    }

    /// An amount of money.
    pub(crate) fn money(&self, name: &'static str) -> Result<NanoUsd, Error> {
        self.int(name).map(NanoUsd)
    }

    /// A time.
    pub(crate) fn time(&self, name: &'static str) -> Result<Timestamp, Error> {
        self.count(name).map(Timestamp)
    }

    /// A time, where there is one.
    pub(crate) fn time_if_any(&self, name: &'static str) -> Result<Option<Timestamp>, Error> {
        let value = self.int_if_any(name)?;
        value.map(|value| unsigned(value, name).map(Timestamp)).transpose()
    }

    /// A text that `parse` understands.
    pub(crate) fn word<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Error> {
        parse(&self.text(name)?).ok_or(Error::unreadable(name))
    }
}

/// An unsigned number as a column holds it; what does not fit, which no real one does, becomes the largest.
pub(crate) fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A column that never holds a negative number.
pub(crate) fn unsigned(value: i64, place: &'static str) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_negative| Error::unreadable(place))
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        Self::Int(Some(column(value)))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<Option<u64>> for Value<'_> {
    fn from(value: Option<u64>) -> Self {
        Self::Int(value.map(column))
    }
}

impl From<Option<u32>> for Value<'_> {
    fn from(value: Option<u32>) -> Self {
        Self::Int(value.map(i64::from))
    }
}

impl From<NanoUsd> for Value<'_> {
    fn from(value: NanoUsd) -> Self {
        Self::Int(Some(value.0))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Int(Some(column(value.micros())))
    }
}

impl From<Option<Timestamp>> for Value<'_> {
    fn from(value: Option<Timestamp>) -> Self {
        Self::Int(value.map(|time| column(time.micros())))
    }
}

impl<'q> From<&'q str> for Value<'q> {
    fn from(value: &'q str) -> Self {
        Self::Text(Some(Cow::Borrowed(value)))
    }
}

impl<'q> From<Option<&'q str>> for Value<'q> {
    fn from(value: Option<&'q str>) -> Self {
        Self::Text(value.map(Cow::Borrowed))
    }
}

impl From<String> for Value<'_> {
    fn from(value: String) -> Self {
        Self::Text(Some(Cow::Owned(value)))
    }
}

impl<'q> From<&'q String> for Value<'q> {
    fn from(value: &'q String) -> Self {
        Self::Text(Some(Cow::Borrowed(value)))
    }
}

impl From<Option<String>> for Value<'_> {
    fn from(value: Option<String>) -> Self {
        Self::Text(value.map(Cow::Owned))
    }
}

impl<'q> From<&'q [u8]> for Value<'q> {
    fn from(value: &'q [u8]) -> Self {
        Self::Bytes(value)
    }
}

macro_rules! ids {
    ($($id:ty),*) => {
        $(impl From<$id> for Value<'_> {
            fn from(value: $id) -> Self {
                Self::Text(Some(Cow::Owned(value.text())))
            }
        })*
    };
}

ids!(AccountId, CallId, KeyId, NodeId, UserId);
