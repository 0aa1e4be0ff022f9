//! What the tests share: a fresh database, keys and records made from small numbers, and bounded waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokenroute_domain::id::{AccountId, CallId, KeyId};
use tokenroute_domain::key::{Funding, KeyHash, Pepper, RawKey, Terms};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{Attempt, Endpoint, Outcome, Record};
use tokenroute_domain::routing::Why;
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};
use tokenroute_store::{
    Database, Directory, DirectoryOptions, Event, NewKey, RedisCache, Unavailable,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// When the tests play.
pub(crate) const T0: Timestamp = Timestamp(1_800_000_000_000_000);

/// How long something that happens at once may take on a busy machine before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// `T0` and so many seconds.
pub(crate) fn after(seconds: u64) -> Timestamp {
    T0.plus(Duration::from_secs(seconds))
}

/// An empty database, whichever it is.
pub(crate) trait Fresh {
    fn database(&self) -> &Database;

    /// Another process over the same database.
    async fn second(&self) -> Database;

    /// What another program does to it.
    async fn tamper(&self, statements: &'static str) -> Result<(), sqlx::Error>;
}

/// An empty SQLite database in a folder of its own.
pub(crate) struct FreshFile {
    pub(crate) database: Database,
    pub(crate) folder: TempDir,
}

impl FreshFile {
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("state.db")
    }

    /// A database with the account `acme`.
    pub(crate) async fn with_account() -> Self {
        let fresh = crate::sqlite::fresh().await;
        let made = fresh
            .database
            .acting("tester")
            .create_account(account(), "acme", Funding::Unmetered, T0)
            .await
            .unwrap();
        assert!(made);
        fresh
    }

    /// Statements of another program, over a connection of its own.
    pub(crate) async fn other_program(&self) -> sqlx::SqliteConnection {
        use sqlx::ConnectOptions;
        sqlx::sqlite::SqliteConnectOptions::new().filename(self.path()).connect().await.unwrap()
    }
}

impl Fresh for FreshFile {
    fn database(&self) -> &Database {
        &self.database
    }

    async fn second(&self) -> Database {
        Database::open(&self.path()).await.unwrap()
    }

    async fn tamper(&self, statements: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statements).execute(&mut self.other_program().await).await.map(|_| ())
    }
}

pub(crate) fn account() -> AccountId {
    AccountId::new(T0, 1)
}

pub(crate) fn key_id(number: u8) -> KeyId {
    KeyId::new(T0, u128::from(number))
}

pub(crate) fn hash(number: u8) -> KeyHash {
    Pepper::new(&[9; 32]).hash(&RawKey::new([number; 32]))
}

/// The hash of key `number` as Redis names it.
pub(crate) fn hex(number: u8) -> String {
    let hash = hash(number).0;
    let (high, low) = hash.split_at(16);
    let word = |half: &[u8]| u128::from_be_bytes(half.try_into().unwrap());
    format!("{:032x}{:032x}", word(high), word(low))
}

pub(crate) fn new_key(number: u8) -> NewKey<'static> {
    NewKey {
        id: key_id(number),
        account: account(),
        name: "laptop",
        hash: hash(number),
        shown: "sk-tr-abcd",
        created: T0,
        expires: None,
        terms: Terms::default(),
    }
}

pub(crate) async fn create_keys(database: &Database, numbers: std::ops::Range<u8>) {
    for number in numbers {
        assert!(database.acting("tester").create_key(&new_key(number)).await.unwrap());
    }
}

pub(crate) fn record(number: u128) -> Record {
    Record {
        call: CallId::new(T0, number),
        started: T0,
        endpoint: Endpoint::ChatCompletions,
        key: Some(key_id(1)),
        account: Some(account()),
        model: Some(Arc::from("gpt-x")),
        target: Some(Arc::from("demo/echo")),
        attempts: vec![Attempt {
            target: Arc::from("demo/\"echo\""),
            why: Why::Fallback,
            result: "ok",
            status: Some(200),
            micros: 1234,
            output_tokens: 5,
            cost: NanoUsd(77),
            house_cost: NanoUsd(8),
        }],
        status: 200,
        outcome: Outcome::Answered,
        error: None,
        streamed: true,
        usage: Usage { input: 3, output: 5, output_image: 10, ..Usage::default() },
        usage_source: UsageSource::Provider,
        cost: NanoUsd(77),
        charge: NanoUsd::ZERO,
        price_version: None,
        house_cost: NanoUsd(8),
        latency_micros: 5678,
        first_token_micros: Some(910),
    }
}

/// The rules of real edges, but waits that a machine busy with other tests cannot exceed.
pub(crate) fn patient(poll: Duration) -> DirectoryOptions {
    DirectoryOptions {
        poll,
        redis: PATIENCE,
        sql: PATIENCE,
        confirmation: PATIENCE,
        ..DirectoryOptions::default()
    }
}

/// A directory that is being watched over, as an edge has one.
pub(crate) struct Edge {
    pub(crate) directory: Directory,
    stop: watch::Sender<bool>,
    watching: JoinHandle<()>,
}

impl Edge {
    pub(crate) fn start(database: Database, redis: Option<RedisCache>, poll: Duration) -> Self {
        Self::with(database, redis, patient(poll))
    }

    fn with(database: Database, redis: Option<RedisCache>, options: DirectoryOptions) -> Self {
        let directory = Directory::new(database, redis, options);
        let (stop, stopping) = watch::channel(false);
        let watched = directory.clone();
        let watching = tokio::spawn(async move { watched.watch(|| T0, stopping).await });
        Self { directory, stop, watching }
    }

    /// An edge whose connection to Redis stands, and which has caught up with the database.
    pub(crate) async fn connected(database: Database, address: &str, poll: Duration) -> Self {
        Self::ready(database, address, patient(poll)).await
    }

    /// The same, with the patience of real ones.
    pub(crate) async fn hasty(database: Database, address: &str) -> Self {
        Self::ready(database, address, DirectoryOptions::default()).await
    }

    async fn ready(database: Database, address: &str, options: DirectoryOptions) -> Self {
        let edge = Self::with(database, Some(RedisCache::new(address).unwrap()), options);
        eventually("Redis is connected", async || edge.directory.redis_connected() == Some(true))
            .await;
        edge.caught_up().await;
        edge
    }

    pub(crate) async fn key(&self, number: u8) -> Result<Option<KeyId>, Unavailable> {
        self.key_at(number, T0).await
    }

    pub(crate) async fn key_at(
        &self,
        number: u8,
        now: Timestamp,
    ) -> Result<Option<KeyId>, Unavailable> {
        Ok(self.directory.find(&hash(number), now).await?.map(|key| key.id))
    }

    /// Waits until the first poll is done, which leaves nothing remembered that came before it in doubt.
    pub(crate) async fn caught_up(&self) {
        eventually("the edge has caught up", async || self.count(Event::Polled) > 0).await;
    }

    pub(crate) fn count(&self, event: Event) -> u64 {
        self.directory.counts().of(event)
    }

    /// Stops watching, and proves that it ends.
    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.watching).await.unwrap().unwrap();
    }
}

/// Asks again and again, in a bounded time, until the answer is yes.
pub(crate) async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !ask().await {
        assert!(start.elapsed() < PATIENCE, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
