//! Money into accounts and out of them, each movement once. Operators at the server's terminal, administrators
//! and partners do it all here.

mod hot;

use tokenroute_api::accounts::{Credit, NewCredit};
use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd};
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{self as store, Database, Moved, Movement, Pocket, RedisCache};

use super::{Problem, accounts, text};
use crate::Parts;

/// Where money is, and what moving it takes.
#[derive(Clone, Copy, Debug)]
pub struct Till<'a> {
    /// The ledger.
    pub database: &'a Database,
    /// What lends the money where several edges share it.
    pub redis: Option<&'a RedisCache>,
    /// The wall clock.
    pub now: fn() -> Timestamp,
    /// Unpredictable bytes; fails if the operating system has none.
    pub chance: fn() -> Option<[u8; 32]>,
}

/// Which way money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into the account.
    In,
    /// Out of it.
    Out,
}

/// What became of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// What the ledger says.
    Moved(Moved),
    /// The hot store has given it up, and the ledger does not have it yet.
    Unposted,
    /// So much is free in the hot store.
    Short(NanoUsd),
    /// The hot store cannot be asked; nothing is done.
    Away,
}

impl Till<'_> {
    /// Moves it. If this fails it is not known whether it was done: it can be repeated, and counts once.
    pub async fn move_money(&self, way: Way, movement: &Movement<'_>) -> Result<Came, Problem> {
        let Self { database, redis, now, .. } = self;
        match (way, redis.filter(|_| database.is_shared())) {
            // In front of a hot store, whoever leads brings it there within a second.
            (Way::In, _) => Ok(Came::Moved(database.grant(movement, now()).await?)),
            (Way::Out, Some(redis)) => hot::withdraw(self, redis, movement).await,
            (Way::Out, None) => {
                Ok(Came::Moved(database.withdraw(movement, Pocket::Customer, now()).await?))
            }
        }
    }

    /// 128 bits of chance.
    fn chance(&self) -> Result<u128, Problem> {
        let drawn = (self.chance)().ok_or(Problem::Internal)?;
        let (half, _) = drawn.split_first_chunk::<16>().ok_or(Problem::Internal)?;
        Ok(u128::from_be_bytes(*half))
    }
}

/// What is to be moved, by the API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    /// Which way.
    pub(crate) way: Way,
    /// Who does it.
    pub(crate) actor: &'a str,
    /// What makes it this movement and no other.
    pub(crate) key: &'a str,
    /// How much, and why.
    pub(crate) said: &'a NewCredit,
}

/// Moves money of the account with that identifier.
pub(crate) async fn of_account(parts: &Parts, id: &str, wish: Wish<'_>) -> Result<Credit, Problem> {
    let amount = text::movable("amount_usd", &wish.said.amount_usd)?;
    let note = text::note(wish.said.note.as_deref())?;
    let account = accounts::find(parts, id).await?;
    // Nobody's movements are another's, whatever they call them.
    let key = format!("{} {}", wish.actor, wish.key);
    let movement =
        Movement { account: account.id, amount, idempotency_key: &key, actor: wish.actor, note };
    let till = Till {
        database: &parts.database,
        redis: parts.redis.as_ref(),
        now: parts.now,
        chance: parts.chance,
    };
    let posted = match till.move_money(wish.way, &movement).await? {
        Came::Moved(Moved::Done | Moved::Duplicate) => true,
        Came::Unposted => false,
        Came::Moved(Moved::Conflict) => {
            let message = "this Idempotency-Key was used for another movement".to_owned();
            return Err(Problem::Conflict { reason: "idempotency_conflict", message });
        }
        Came::Moved(Moved::TooMuch) => return Err(too_much(wish.way, &account)),
        Came::Moved(Moved::NoAccount) => return Err(Problem::NotFound("account")),
        Came::Short(free) => return Err(short(free)),
        Came::Away => return Err(Problem::Unavailable),
    };
    Ok(Credit {
        account_id: account.id.to_string(),
        amount_usd: amount.to_string(),
        balance_usd: parts.database.balance(account.id).await?.total().to_string(),
        posted,
    })
}

fn too_much(way: Way, account: &store::Account) -> Problem {
    let has = account.balance;
    let message = match way {
        Way::In => {
            format!("the account has {has} USD, and none can have more than {ACCOUNT_MAX} USD")
        }
        Way::Out => format!(
            "the account has {has} USD, and less than that is free: what is lent to edges comes back \
             within seconds"
        ),
    };
    Problem::Conflict { reason: "amount_too_much", message }
}

fn short(free: NanoUsd) -> Problem {
    let message = format!(
        "{free} USD is free; what else there is is lent to edges, which give back what they do not \
         use within seconds"
    );
    Problem::Conflict { reason: "amount_too_much", message }
}
