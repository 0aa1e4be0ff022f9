//! Keys in Redis, where edges share them: a cache and a messenger, never the truth.
//!
//! Every wait has a budget. A command that fails or is late costs the connection, and until the next one
//! stands, look-ups skip Redis without waiting. Values are checked against the hash that was asked for, so
//! that no mix-up of replies can turn into somebody else's key.

mod ears;
mod value;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, TlsCertificates};
use tokenroute_domain::key::{ApiKey, KeyHash};
use tokenroute_domain::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::timeout;

pub(crate) use ears::Ears;
pub(crate) use value::{Fetched, read_hash};

/// How long Redis is left alone after a failure.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// How often idle connections are asked for a sign of life.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(1);
/// Where revocations are published, as hexadecimal hashes.
pub(crate) const REVOKED: &str = "tr:keys:revoked";

/// What connecting, with its first exchange, may take.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// What a background command may take.
pub(crate) const COMMAND_WAIT: Duration = Duration::from_millis(500);
/// Seconds that a cached key lives; the reader checks its age again.
const KEY_SECONDS: u64 = 30;
/// Seconds that the mark of a revoked key lives: much longer than any cached key.
const TOMBSTONE_SECONDS: u64 = 600;
/// The longest value that is read. Ours are about 250 bytes.
const VALUE_BYTES_MAX: i64 = 1024;
/// Commands that wait for the socket before callers wait.
const PIPELINE_MAX: usize = 1024;
/// Tombstones written in one exchange.
const TOMBSTONES_MAX: usize = 256;
/// Deletes a key that does not hold a value.
const DROP: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then redis.call('DEL', KEYS[1]) end";
/// Characters kept of the reason for a failure.
const REASON_CHARS_MAX: usize = 64;

/// The address is no Redis URL. The address itself is not repeated: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address of a Redis server: write redis://[user:password@]host[:port][/database], or rediss:// for TLS"
)]
pub struct BadAddress;

/// Why Redis did not answer. None of them says anything about a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisFailure {
    /// No connection stands; nothing was waited for.
    #[error("Redis is not connected")]
    Disconnected,
    /// The answer did not come within its budget.
    #[error("Redis did not answer in time")]
    Late,
    /// The connection broke, or the server refused the command: its error's first word, such as
    /// `NOAUTH`, or the kind of the failure. Neither holds an address, a password or a value.
    #[error("Redis refused a command or broke the connection ({0})")]
    Refused(String),
}

/// The keys in one Redis. Clones share its connection.
#[derive(Clone)]
pub struct RedisCache(Arc<Inner>);

struct Inner {
    client: Client,
    link: Mutex<Link>,
    broken: Notify,
}

/// The connection that stands, if any, and its number, so that only its own failures end it.
#[derive(Default)]
struct Link {
    number: u64,
    connection: Option<MultiplexedConnection>,
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache")
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl RedisCache {
    /// Takes an address such as `redis://127.0.0.1:6379/0`. Nothing is connected yet:
    /// [`Directory::watch`](crate::Directory::watch) does that and keeps it so.
    pub fn new(address: &str) -> Result<Self, BadAddress> {
        Self::trusting(address, None)
    }

    /// The same for `rediss://`, where the server has to show a certificate for its name, of one of these
    /// authorities: PEM, or `None` for those that the system trusts.
    pub fn trusting(address: &str, authorities: Option<Vec<u8>>) -> Result<Self, BadAddress> {
        let client = match authorities {
            None => Client::open(address),
            authorities @ Some(_) => {
                let trust = TlsCertificates { client_tls: None, root_cert: authorities };
                Client::build_with_tls(address, trust)
            }
        };
        let client = client.map_err(|_may_quote_a_password| BadAddress)?;
        Ok(Self(Arc::new(Inner { client, link: Mutex::default(), broken: Notify::new() })))
    }

    /// Whether a connection stands.
    pub fn is_connected(&self) -> bool {
        self.link().1.is_some()
    }

    /// Marks a key as revoked and tells every edge, within two seconds or not at all.
    /// The database must have been told before: it is the truth, and the net under this message.
    pub async fn announce_revocation(&self, hash: &KeyHash) -> Result<(), RedisFailure> {
        let (number, standing) = self.link();
        let connection = match standing {
            Some(connection) => connection,
            None => self.dial().await?,
        };
        let mut both = redis::pipe();
        tombstone(&mut both, hash);
        both.cmd("PUBLISH").arg(REVOKED).arg(value::hex(hash)).ignore();
        run(&both, connection, COMMAND_WAIT).await.inspect_err(|_failure| self.cut(number))
    }

    /// Drops what is cached for these hashes, within two seconds a batch or not at all, and no tombstone. An edge that
    /// begins now must not find what a key could do before the database was told of a change.
    pub async fn drop_cached(&self, hashes: &[KeyHash]) -> Result<(), RedisFailure> {
        for some in hashes.chunks(TOMBSTONES_MAX) {
            let mut all = redis::pipe();
            for hash in some {
                let drop = all.cmd("EVAL").arg(DROP).arg(1).arg(name(hash));
                drop.arg(value::tombstone(hash)).ignore();
            }
            run(&all, self.dial().await?, COMMAND_WAIT).await?;
        }
        Ok(())
    }

    /// What is cached for that hash, if Redis says so within `budget`.
    pub(crate) async fn fetch(
        &self,
        hash: &KeyHash,
        budget: Duration,
    ) -> Result<Fetched, RedisFailure> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(name(hash)).arg(0).arg(VALUE_BYTES_MAX);
        let bytes: Vec<u8> = self.ask(&command, budget).await?;
        Ok(value::read(&bytes, hash))
    }

    /// Caches a key that the database confirmed at `confirmed`. It never replaces a tombstone.
    pub(crate) async fn fill(
        &self,
        hash: &KeyHash,
        key: &ApiKey,
        confirmed: Timestamp,
    ) -> Result<(), RedisFailure> {
        let Some(text) = value::write(hash, key, confirmed) else { return Ok(()) };
        let mut command = redis::cmd("SET");
        command.arg(name(hash)).arg(text).arg("NX").arg("EX").arg(KEY_SECONDS);
        self.ask::<redis::Value>(&command, COMMAND_WAIT).await.map(drop)
    }

    /// Marks keys as revoked, whatever is cached for them.
    pub(crate) async fn bury(&self, hashes: &[KeyHash]) -> Result<(), RedisFailure> {
        for some in hashes.chunks(TOMBSTONES_MAX) {
            let (number, connection) = self.link();
            let Some(connection) = connection else { return Err(RedisFailure::Disconnected) };
            let mut all = redis::pipe();
            for hash in some {
                tombstone(&mut all, hash);
            }
            run(&all, connection, COMMAND_WAIT).await.inspect_err(|_failure| self.cut(number))?;
        }
        Ok(())
    }

    /// Connects, and from then on look-ups use this connection.
    pub(crate) async fn connect(&self) -> Result<(), RedisFailure> {
        let connection = self.dial().await?;
        let mut link = self.0.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.number = link.number.wrapping_add(1);
        link.connection = Some(connection);
        Ok(())
    }

    /// Asks for a sign of life, so that a silent connection is noticed before a look-up pays for it.
    pub(crate) async fn ping(&self) -> Result<(), RedisFailure> {
        self.ask::<redis::Value>(&redis::cmd("PING"), COMMAND_WAIT).await.map(drop)
    }

    /// Returns when the connection that stands, or the last one, has been given up.
    pub(crate) async fn broken(&self) {
        self.0.broken.notified().await;
    }

    /// A connection of its own that hears what is published on a channel.
    pub(crate) async fn listen(&self, channel: &str) -> Result<Ears, RedisFailure> {
        Ears::open(&self.0.client, channel).await
    }

    /// A connection that nobody else uses.
    pub(crate) async fn dial(&self) -> Result<MultiplexedConnection, RedisFailure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WAIT))
            .set_response_timeout(Some(CONNECT_WAIT))
            .set_pipeline_buffer_size(PIPELINE_MAX);
        let dialling = self.0.client.get_multiplexed_async_connection_with_config(&config);
        in_time(dialling, CONNECT_WAIT).await
    }

    async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
        budget: Duration,
    ) -> Result<T, RedisFailure> {
        let (number, connection) = self.link();
        let Some(mut connection) = connection else { return Err(RedisFailure::Disconnected) };
        in_time(command.query_async(&mut connection), budget)
            .await
            .inspect_err(|_failure| self.cut(number))
    }

    fn link(&self) -> (u64, Option<MultiplexedConnection>) {
        let link = self.0.link.lock().unwrap_or_else(PoisonError::into_inner);
        (link.number, link.connection.clone())
    }

    /// Gives up connection `number`, if it still stands.
    fn cut(&self, number: u64) {
        let mut link = self.0.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.number == number && link.connection.take().is_some() {
            self.0.broken.notify_one();
        }
    }
}

async fn run(
    pipeline: &Pipeline,
    mut connection: MultiplexedConnection,
    budget: Duration,
) -> Result<(), RedisFailure> {
    in_time(pipeline.query_async::<()>(&mut connection), budget).await
}

pub(crate) async fn in_time<T>(
    exchange: impl Future<Output = redis::RedisResult<T>>,
    budget: Duration,
) -> Result<T, RedisFailure> {
    match timeout(budget, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(refusal(&error)),
        Err(_elapsed) => Err(RedisFailure::Late),
    }
}

/// The rest of an error may quote what was sent, so only its first word is kept.
pub(crate) fn refusal(error: &redis::RedisError) -> RedisFailure {
    let word = error.code().unwrap_or(error.category());
    RedisFailure::Refused(word.chars().take(REASON_CHARS_MAX).collect())
}

fn tombstone(pipeline: &mut Pipeline, hash: &KeyHash) {
    pipeline
        .cmd("SET")
        .arg(name(hash))
        .arg(value::tombstone(hash))
        .arg("EX")
        .arg(TOMBSTONE_SECONDS)
        .ignore();
}

fn name(hash: &KeyHash) -> String {
    format!("tr:key:{}", value::hex(hash))
}
