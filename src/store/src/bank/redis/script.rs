//! The scripts that run in Redis, and the names of what they touch.

use redis::{Cmd, Pipeline, Value};
use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::pool::PurseId;

/// Shards that accounts are spread over: all keys of a shard have one hash tag.
pub(crate) const SHARDS: u8 = 16;

macro_rules! script {
    ($name:literal) => {
        concat!(include_str!("lua/common.lua"), "\n", include_str!(concat!("lua/", $name, ".lua")))
    };
}

/// What Redis does in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Exchange,
    Open,
    Purse,
    Credit,
    Withdraw,
    Sweep,
    Posted,
    Bury,
    Weigh,
}

/// Every script with its source.
const SOURCES: [(Script, &str); 9] = [
    (Script::Exchange, script!("exchange")),
    (Script::Open, script!("open")),
    (Script::Purse, script!("purse")),
    (Script::Credit, script!("credit")),
    (Script::Withdraw, script!("withdraw")),
    (Script::Sweep, script!("sweep")),
    (Script::Posted, script!("posted")),
    (Script::Bury, script!("bury")),
    (Script::Weigh, script!("weigh")),
];

/// What the server calls the scripts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests(Vec<String>);

impl Digests {
    /// Adds the commands that load every script.
    pub(crate) fn load(pipeline: &mut Pipeline) {
        for (_, source) in SOURCES {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(source);
        }
    }

    /// Takes the answers to these commands.
    pub(crate) fn loaded(answers: &[Value]) -> Option<Self> {
        let digests: Option<Vec<_>> =
            answers.iter().map(|one| Some(text(one)?.to_owned())).collect();
        digests.filter(|digests| digests.len() == SOURCES.len()).map(Self)
    }

    fn of(&self, script: Script) -> &str {
        let place = SOURCES.iter().position(|(one, _)| *one == script);
        place.and_then(|place| self.0.get(place)).map_or("", String::as_str)
    }
}

/// One run of a script.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    script: Script,
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl Run {
    pub(crate) const fn new(script: Script, keys: Vec<String>) -> Self {
        Self { script, keys, arguments: Vec::new() }
    }

    pub(crate) fn arg(mut self, argument: impl ToString) -> Self {
        self.arguments.push(argument.to_string());
        self
    }

    pub(crate) fn push(&mut self, argument: impl ToString) {
        self.arguments.push(argument.to_string());
    }

    pub(crate) fn command(&self, digests: &Digests) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(digests.of(self.script)).arg(self.keys.len());
        command.arg(&self.keys).arg(&self.arguments);
        command
    }
}

/// A group of accounts whose keys live together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shard(u8);

impl Shard {
    pub(crate) fn all() -> impl Iterator<Item = Self> + Clone {
        (0..SHARDS).map(Self)
    }

    /// One after the other, for ever.
    pub(crate) fn in_turn(turn: usize) -> Self {
        Self(u8::try_from(turn % usize::from(SHARDS)).unwrap_or_default())
    }

    pub(crate) fn of_account(account: AccountId) -> Self {
        Self::of(&account.to_string())
    }

    pub(crate) fn of_call(call: CallId) -> Self {
        Self::of(&call.to_string())
    }

    /// FNV-1a, which spreads the last characters of an identifier well.
    fn of(name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(u8::try_from((hash >> 32) % u64::from(SHARDS)).unwrap_or_default())
    }

    fn key(self, name: &str) -> String {
        format!("tr:{{{:02}}}:{name}", self.0)
    }

    /// The stream of what SQL does not know yet.
    pub(crate) fn events(self) -> String {
        self.key("events")
    }

    /// Events that could not be posted.
    pub(crate) fn dead(self) -> String {
        self.key("dead")
    }

    /// Which epoch this is, and whether it is still being told what was forgotten.
    pub(crate) fn epoch(self) -> String {
        self.key("epoch")
    }

    /// When each account has to be looked at by the sweep.
    pub(crate) fn due(self) -> String {
        self.key("due")
    }

    /// The accounts whose pools were opened in this epoch.
    pub(crate) fn opened(self) -> String {
        self.key("opened")
    }
}

/// Edges that have told everything in an epoch.
pub(crate) fn checked_in(epoch: u64) -> String {
    format!("tr:checked:{epoch}")
}

/// An account's pool.
pub(crate) fn pool(account: AccountId) -> String {
    Shard::of_account(account).key(&format!("pool:{account}"))
}

/// The calls that an account's pool has settled, with the time of their posting.
pub(crate) fn seen(account: AccountId) -> String {
    Shard::of_account(account).key(&format!("seen:{account}"))
}

/// The amounts of an account's withdrawals, by their names.
pub(crate) fn withdrawn(account: AccountId) -> String {
    Shard::of_account(account).key(&format!("withdrawn:{account}"))
}

/// What is counted under one ceiling.
pub(crate) fn purse(account: AccountId, id: PurseId) -> String {
    let PurseId { key, period, number } = id;
    Shard::of_account(account).key(&format!("purse:{account}:{key}:{}:{number}", period.as_str()))
}

/// The keys that `exchange` takes before those of purses; `sweep` takes the same.
pub(crate) fn account_keys(account: AccountId) -> Vec<String> {
    let shard = Shard::of_account(account);
    vec![pool(account), seen(account), shard.events(), shard.epoch(), shard.due()]
}

/// A text that Redis answered.
pub(crate) fn text(value: &Value) -> Option<&str> {
    if let Value::BulkString(bytes) = value {
        return std::str::from_utf8(bytes).ok();
    }
    if let Value::SimpleString(text) | Value::VerbatimString { text, .. } = value {
        return Some(text);
    }
    (*value == Value::Okay).then_some("OK")
}

/// A number that Redis answered.
pub(crate) fn number(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value { Some(*number) } else { text(value)?.parse().ok() }
}

/// An array that Redis answered; nothing is an empty one.
pub(crate) fn list(value: &Value) -> Option<&[Value]> {
    if let Value::Array(values) = value {
        return Some(values);
    }
    (*value == Value::Nil).then_some(&[])
}

/// An edge's identifier that Redis answered.
pub(crate) fn node(value: &Value) -> Option<NodeId> {
    NodeId::parse(text(value)?)
}
