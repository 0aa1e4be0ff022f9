//! Taking credit out where Redis lends it: its pool gives it up first, and the ledger follows.

use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::id::NodeId;
use tokenroute_store::{
    BankOptions, Error, Moved, Movement, RedisBank, RedisCache, Withdrawal, Withdrawn,
};
use tokio::sync::watch;

use super::{Came, Till};
use crate::app::Problem;

/// How often it is looked whether Redis, and then the ledger, is so far.
const LOOK: Duration = Duration::from_millis(50);
/// Looks until Redis counts as away: two seconds.
const CONNECT_LOOKS_MAX: u32 = 40;
/// Looks until nobody waits any longer for the ledger: five seconds.
const POSTED_LOOKS_MAX: u32 = 100;

/// Takes it out of the pool, and waits a moment for the ledger.
pub(super) async fn withdraw(
    till: &Till<'_>,
    redis: &RedisCache,
    movement: &Movement<'_>,
) -> Result<Came, Problem> {
    let database = till.database;
    if let Some(known) = database.known_withdrawal(movement).await? {
        return Ok(Came::Moved(known));
    }
    let node = NodeId::new((till.now)(), till.chance()?);
    let books = Arc::new(database.clone());
    let bank = RedisBank::new(redis.clone(), books, node, till.now, BankOptions::default());
    let (stop, stopped) = watch::channel(false);
    let watched = bank.clone();
    let watching = tokio::spawn(async move { watched.watch(stopped).await });
    let came = ask(&bank, movement).await;
    stop.send_replace(true);
    watching.await.map_err(|_defect| Problem::Internal)?;
    // It counted as an edge that lives, whose word a recovery would wait for.
    database.forget_node(node).await?;
    let came = came?;
    if came == Came::Moved(Moved::Done) {
        for _look in 0..POSTED_LOOKS_MAX {
            if database.known_withdrawal(movement).await?.is_some() {
                return Ok(came);
            }
            tokio::time::sleep(LOOK).await;
        }
        return Ok(Came::Unposted);
    }
    Ok(came)
}

async fn ask(bank: &RedisBank, movement: &Movement<'_>) -> Result<Came, Error> {
    let mut looks = 0..CONNECT_LOOKS_MAX;
    while !bank.is_connected() {
        if looks.next().is_none() {
            return Ok(Came::Away);
        }
        tokio::time::sleep(LOOK).await;
    }
    let withdrawal = Withdrawal {
        account: movement.account,
        id: movement.idempotency_key.to_owned(),
        amount: movement.amount,
        actor: movement.actor.to_owned(),
        note: movement.note.to_owned(),
    };
    Ok(match bank.withdraw(&withdrawal).await? {
        Withdrawn::Done => Came::Moved(Moved::Done),
        Withdrawn::Conflict => Came::Moved(Moved::Conflict),
        Withdrawn::Short(free) => Came::Short(free),
    })
}
