//! Compares SQL's escrow with what the pools hold.

use std::time::Duration;

use redis::Value;
use tokenroute_domain::id::AccountId;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;
use tokio::time::sleep;

use super::{Reign, Stop};
use crate::bank::books::Books;
use crate::bank::redis::opening::word;
use crate::bank::redis::script::{Run, Script, Shard, list, number, pool, text};
use crate::bank::redis::server::{Server, garbled};
use crate::redis_cache::COMMAND_WAIT;
use crate::sql::findings::ESCROW;
use crate::{Error, Finding, RedisCache};

/// Accounts that are read in one step of a walk through a shard.
const PAGE: usize = 200;
/// How often an account that does not balance is looked at again: events and moves are under way.
const LOOKS_MAX: u32 = 10;
/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What a pool holds.
#[derive(Clone, Copy, Debug)]
struct Weight {
    all: NanoUsd,
    sequence: u64,
}

impl Reign<'_> {
    pub(super) async fn audit(&self) -> Result<(), Stop> {
        let now = self.now();
        let found = all(&self.server, self.books, self.epoch).await?;
        keep(self.books, found, now).await?;
        Ok(())
    }
}

/// Checks of every pool that is open that what SQL has in escrow is what the pool has free, lent and not
/// posted yet, and notes what is not so. It returns what of that no operator has put up with. Any process
/// may do it at any time.
pub async fn audit(
    redis: &RedisCache,
    books: &dyn Books,
    now: Timestamp,
) -> Result<Vec<Finding>, Error> {
    let server = Server::open(redis).await?;
    let Some(life) = server.life(COMMAND_WAIT).await? else {
        return Err(Error::Unavailable("the hot store has no epoch".to_owned()));
    };
    let found = all(&server, books, life.epoch).await.map_err(|stop| match stop {
        Stop::Sql(failure) => failure,
        Stop::Redis(_) | Stop::Forgotten | Stop::Deposed => Error::Unavailable(stop.to_string()),
    })?;
    keep(books, found, now).await
}

/// Notes what was found when everything was looked at, and that nothing else is so any more. Returns what
/// is open.
async fn keep(
    books: &dyn Books,
    found: Vec<Finding>,
    now: Timestamp,
) -> Result<Vec<Finding>, Error> {
    let mut open = Vec::new();
    for one in found {
        if books.find(&one, now).await? {
            open.push(one);
        }
    }
    books.found_no_more(ESCROW, now).await?;
    Ok(open)
}

async fn all(server: &Server, books: &dyn Books, epoch: u64) -> Result<Vec<Finding>, Stop> {
    let mut found = Vec::new();
    for shard in Shard::all() {
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("SSCAN");
            scan.arg(shard.opened()).arg(&cursor).arg("COUNT").arg(PAGE);
            let answer: Value = server.ask(&scan, COMMAND_WAIT).await?;
            let Some([next, names]) = list(&answer) else { return Err(garbled().into()) };
            for name in list(names).unwrap_or_default() {
                if let Some(account) = text(name).and_then(AccountId::parse) {
                    found.extend(one(server, books, epoch, account).await?);
                }
            }
            cursor = text(next).unwrap_or("0").to_owned();
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(found)
}

/// Looks at one account until it balances.
async fn one(
    server: &Server,
    books: &dyn Books,
    epoch: u64,
    account: AccountId,
) -> Result<Option<Finding>, Stop> {
    let (mut detail, mut amount) = (String::new(), NanoUsd::ZERO);
    for look in 0..LOOKS_MAX {
        if look > 0 {
            sleep(LOOK_PAUSE).await;
        }
        let before = books.escrow(account).await?;
        let Some(weight) = weigh(server, epoch, account).await? else {
            "its pool was open and is gone".clone_into(&mut detail);
            amount = before.total;
            continue;
        };
        if before.total == weight.all && before.sequence == weight.sequence {
            return Ok(None);
        }
        amount = NanoUsd(before.total.0.saturating_sub(weight.all.0).saturating_abs());
        detail = format!(
            "escrow has {} USD by move {}, the pool {} USD by move {}",
            before.total, before.sequence, weight.all, weight.sequence
        );
    }
    Ok(Some(Finding { kind: ESCROW.to_owned(), subject: account.to_string(), detail, amount }))
}

async fn weigh(server: &Server, epoch: u64, account: AccountId) -> Result<Option<Weight>, Stop> {
    let keys = vec![pool(account), Shard::of_account(account).epoch()];
    let answer = server.run_one(Run::new(Script::Weigh, keys).arg(epoch), COMMAND_WAIT).await?;
    match (word(&answer), answer.get(1..).unwrap_or_default()) {
        (Some("OK"), [free, loans, unposted, sequence]) => {
            let parts = [free, loans, unposted].map(number);
            let all: Option<i64> = parts.into_iter().sum();
            let sequence = number(sequence).and_then(|one| u64::try_from(one).ok());
            let (all, sequence) = all.zip(sequence).ok_or_else(garbled)?;
            Ok(Some(Weight { all: NanoUsd(all), sequence }))
        }
        (Some("MISS"), _) => Ok(None),
        (Some("STALE"), _) => Err(Stop::Forgotten),
        _ => Err(garbled().into()),
    }
}
