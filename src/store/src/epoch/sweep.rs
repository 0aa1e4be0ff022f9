//! Takes back loans whose edges were not heard of in time.

use redis::Value;
use tokenroute_domain::id::AccountId;

use super::{Reign, Stop};
use crate::bank::redis::opening::word;
use crate::bank::redis::script::{Run, Script, Shard, account_keys, list, number, text};
use crate::bank::redis::server::garbled;
use crate::posting::SEEN_KEPT;
use crate::redis_cache::COMMAND_WAIT;

/// Accounts of a shard that are swept in one round trip.
const ACCOUNTS_MAX: usize = 100;
/// Rounds of one sweep; what is left comes with the next.
const ROUNDS_MAX: usize = 20;

impl Reign<'_> {
    /// Sweeps the accounts of which a loan has lapsed, by Redis's own clock. A loan that calls held becomes
    /// an event, and with that a finding.
    pub(super) async fn sweep(&self) -> Result<(), Stop> {
        for _round in 0..ROUNDS_MAX {
            let accounts = self.due().await?;
            if accounts.is_empty() {
                break;
            }
            let run = |account: &AccountId| {
                let run = Run::new(Script::Sweep, account_keys(*account)).arg(self.epoch);
                run.arg(account).arg(SEEN_KEPT.as_micros())
            };
            let runs: Vec<_> = accounts.iter().map(run).collect();
            for answer in self.server.run(&runs, COMMAND_WAIT).await? {
                match word(&answer?) {
                    Some("OK") => {}
                    Some("STALE") => return Err(Stop::Forgotten),
                    _ => return Err(garbled().into()),
                }
            }
        }
        Ok(())
    }

    async fn due(&self) -> Result<Vec<AccountId>, Stop> {
        let time: Value = self.server.ask(&redis::cmd("TIME"), COMMAND_WAIT).await?;
        let [seconds, micros] = list(&time).unwrap_or_default() else {
            return Err(garbled().into());
        };
        let whole = number(seconds).and_then(|seconds| seconds.checked_mul(1_000_000));
        let now = whole.zip(number(micros)).and_then(|(whole, micros)| whole.checked_add(micros));
        let now = now.ok_or_else(garbled)?;
        let mut pipeline = redis::pipe();
        for shard in Shard::all() {
            let range = pipeline.cmd("ZRANGEBYSCORE").arg(shard.due()).arg("-inf").arg(now);
            range.arg("LIMIT").arg(0).arg(ACCOUNTS_MAX);
        }
        let answers: Vec<Value> = self.server.pipe(&pipeline, COMMAND_WAIT).await?;
        let names = answers.iter().filter_map(list).flatten();
        Ok(names.filter_map(|name| AccountId::parse(text(name)?)).collect())
    }
}
