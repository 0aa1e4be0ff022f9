//! What a hot store in front of SQL needs of it: money moved into escrow before the store may lend it, the
//! store's epochs, which edges live, and who of many processes leads.

use sqlx::postgres::PgConnection;
use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;

use super::ledger::{
    Moved, Movement, Pocket, Posting, balance, lock_pool, negative, post, set_free,
};
use super::posting::{PostedCall, post_calls};
use super::statement::{On, Row, Transaction, sql};
use super::{Database, Kind};
use crate::Error;

/// The advisory lock of the process that posts, sweeps, opens epochs and reconciles.
const LEADER_LOCK: i64 = 0x746f_6b65_6e72_7465;
/// The advisory lock that those who post share, and that who declares an epoch takes alone.
const EPOCH_LOCK: i64 = 0x746f_6b65_6e72_6570;
/// Edges that were not heard of for so long are forgotten, in microseconds: a day.
const FORGET_NODES_MICROS: u64 = 86_400_000_000;

/// What the hot store may lend of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Escrow {
    /// All of it, with what the store has charged and is not posted yet.
    pub total: NanoUsd,
    /// The number of the last move into it; 0 if there was none.
    pub sequence: u64,
}

/// Money that SQL has moved into escrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscrowMove {
    /// Whose.
    pub account: AccountId,
    /// Its number; an account's are 1, 2, 3 and so on without a gap.
    pub sequence: u64,
    /// How much.
    pub amount: NanoUsd,
}

/// One life of the hot store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotEpoch {
    /// Its number; later ones are greater.
    pub epoch: u64,
    /// What the store called itself.
    pub run_id: String,
    /// When it was declared.
    pub started: Timestamp,
}

/// The right of one process to do what only one may do.
#[derive(Debug)]
pub struct Leadership(Option<PgConnection>);

impl Database {
    /// Moves all that is free of an account into escrow, where the hot store may lend it, and says what is
    /// there then. What it says is durable.
    pub async fn move_to_escrow(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Result<Escrow, Error> {
        let mut transaction = self.begin().await?;
        let free = lock_pool(&mut transaction, account).await?;
        let last =
            sql("SELECT COALESCE(max(sequence), 0) AS last FROM escrow_moves WHERE account = $1")
                .bind(account)
                .fetch_one(transaction.on())
                .await?
                .count("last")?;
        if free == NanoUsd::ZERO {
            let total = balance(&mut transaction, account).await?.escrow;
            transaction.commit().await?;
            return Ok(Escrow { total, sequence: last });
        }
        let sequence = last.saturating_add(1);
        set_free(&mut transaction, account, NanoUsd::ZERO).await?;
        sql("INSERT INTO escrow_moves (account, sequence, amount, applied) VALUES ($1, $2, $3, 0)")
            .bind(account)
            .bind(sequence)
            .bind(free)
            .execute(transaction.on())
            .await?;
        let posting = Posting {
            kind: "escrow",
            idempotency_key: format!("escrow:{account}:{sequence}"),
            subject: account,
            actor: "gateway".to_owned(),
            note: String::new(),
            records: None,
            entries: vec![
                (Pocket::Customer.of(account), negative(free)),
                (Pocket::Escrow.of(account), free),
            ],
        };
        post(&mut transaction, &[posting], now).await?;
        let total = balance(&mut transaction, account).await?.escrow;
        transaction.commit().await?;
        Ok(Escrow { total, sequence })
    }

    /// Moves money that the hot store has given up back out of escrow, once for each key: SQL lends it from
    /// here on.
    pub async fn release(&self, movement: &Movement<'_>, now: Timestamp) -> Result<Moved, Error> {
        let mut transaction = self.begin().await?;
        let free = lock_pool(&mut transaction, movement.account).await?;
        if let Some(known) = movement.known(&mut transaction, "release").await? {
            return Ok(known);
        }
        let escrow = balance(&mut transaction, movement.account).await?.escrow;
        if movement.amount <= NanoUsd::ZERO || movement.amount > escrow {
            return Ok(Moved::TooMuch);
        }
        set_free(&mut transaction, movement.account, free.plus(movement.amount)).await?;
        let entries = vec![
            (Pocket::Escrow.of(movement.account), negative(movement.amount)),
            (Pocket::Customer.of(movement.account), movement.amount),
        ];
        post(&mut transaction, &[movement.posting("release", entries)], now).await?;
        transaction.commit().await?;
        Ok(Moved::Done)
    }

    /// At most `limit` moves that the hot store may not have yet, each account's in their order.
    pub async fn unapplied_moves(&self, limit: u32) -> Result<Vec<EscrowMove>, Error> {
        let rows = sql("SELECT account, sequence, amount FROM escrow_moves WHERE applied = 0
             ORDER BY account, sequence LIMIT $1")
        .bind(limit)
        .fetch_all(self.reading())
        .await?;
        let one = |row: &Row| {
            Ok(EscrowMove {
                account: row.word("account", AccountId::parse)?,
                sequence: row.count("sequence")?,
                amount: row.money("amount")?,
            })
        };
        rows.iter().map(one).collect()
    }

    /// The hot store has every move of the account up to `sequence`.
    pub async fn mark_applied(&self, account: AccountId, sequence: u64) -> Result<(), Error> {
        sql("UPDATE escrow_moves SET applied = 1
             WHERE account = $1 AND sequence <= $2 AND applied = 0")
        .bind(account)
        .bind(sequence)
        .execute(self.writing())
        .await?;
        Ok(())
    }

    /// Accounts that have something in escrow: at most `limit`, from the one after `after` on.
    pub async fn escrows(
        &self,
        after: Option<AccountId>,
        limit: u32,
    ) -> Result<Vec<(AccountId, NanoUsd)>, Error> {
        let rows = sql("SELECT substr(id, 8) AS account, balance FROM ledger_accounts
             WHERE id > 'escrow:' || $1 AND id < 'escrow;' ORDER BY id LIMIT $2")
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(limit)
        .fetch_all(self.reading())
        .await?;
        let one = |row: &Row| Ok((row.word("account", AccountId::parse)?, row.money("balance")?));
        rows.iter().map(one).collect()
    }

    /// An edge lives.
    pub async fn beat(&self, node: NodeId, now: Timestamp) -> Result<(), Error> {
        sql("INSERT INTO nodes (node, beat) VALUES ($1, $2)
             ON CONFLICT (node) DO UPDATE SET beat = excluded.beat")
        .bind(node)
        .bind(now)
        .execute(self.writing())
        .await?;
        sql("DELETE FROM nodes WHERE beat < $1")
            .bind(now.micros().saturating_sub(FORGET_NODES_MICROS))
            .execute(self.writing())
            .await?;
        Ok(())
    }

    /// The edges that were heard of at `since` or later.
    pub async fn live_nodes(&self, since: Timestamp) -> Result<Vec<NodeId>, Error> {
        let rows = sql("SELECT node FROM nodes WHERE beat >= $1 ORDER BY node")
            .bind(since)
            .fetch_all(self.reading())
            .await?;
        rows.iter().map(|row| row.word("node", NodeId::parse)).collect()
    }

    /// An edge has gone for good.
    pub async fn forget_node(&self, node: NodeId) -> Result<(), Error> {
        sql("DELETE FROM nodes WHERE node = $1").bind(node).execute(self.writing()).await?;
        Ok(())
    }

    /// The present life of the hot store, if any was declared.
    pub async fn hot_epoch(&self) -> Result<Option<HotEpoch>, Error> {
        let row = sql("SELECT epoch, run_id, started FROM hot_epochs ORDER BY epoch DESC LIMIT 1")
            .fetch_optional(self.reading())
            .await?;
        let one = |row: Row| {
            Ok(HotEpoch {
                epoch: row.count("epoch")?,
                run_id: row.text("run_id")?,
                started: row.time("started")?,
            })
        };
        row.map(one).transpose()
    }

    /// Declares the life of the hot store after `last` (0: the first); `None` if somebody else has.
    pub async fn declare_epoch(
        &self,
        last: u64,
        run_id: &str,
        now: Timestamp,
    ) -> Result<Option<HotEpoch>, Error> {
        let epoch = last.saturating_add(1);
        let mut transaction = self.begin().await?;
        if let Transaction::Postgres(_) = &transaction {
            // Waits for whoever is posting in the epoch before.
            let lock = sql("SELECT pg_advisory_xact_lock($1)").bind(EPOCH_LOCK);
            lock.execute(transaction.on()).await?;
        }
        let done = sql("INSERT INTO hot_epochs (epoch, run_id, started)
             SELECT $1, $2, $3 FROM counters
             WHERE name = 'key_epoch' AND NOT EXISTS (SELECT 1 FROM hot_epochs WHERE epoch >= $1)
             ON CONFLICT (epoch) DO NOTHING")
        .bind(epoch)
        .bind(run_id)
        .bind(now)
        .execute(transaction.on())
        .await?;
        transaction.commit().await?;
        Ok((done == 1).then(|| HotEpoch { epoch, run_id: run_id.to_owned(), started: now }))
    }

    /// [`Database::post`], unless another epoch than `epoch` (0: none) has been declared: then it is
    /// `Unavailable`, since what is posted was settled by a pool that is void.
    pub(crate) async fn post_in_epoch(
        &self,
        epoch: u64,
        calls: &[PostedCall],
        now: Timestamp,
    ) -> Result<Vec<CallId>, Error> {
        let mut transaction = self.begin().await?;
        if let Transaction::Postgres(_) = &transaction {
            let lock = sql("SELECT pg_advisory_xact_lock_shared($1)").bind(EPOCH_LOCK);
            lock.execute(transaction.on()).await?;
        }
        let declared = sql("SELECT COALESCE(max(epoch), 0) AS last FROM hot_epochs")
            .fetch_one(transaction.on())
            .await?
            .count("last")?;
        if declared != epoch {
            return Err(Error::Unavailable("another epoch was declared".to_owned()));
        }
        let new = post_calls(&mut transaction, calls, Pocket::Escrow, now).await?;
        transaction.commit().await?;
        Ok(new.into_iter().collect())
    }

    /// At most `limit` accounts that have money outside escrow which nobody was lent.
    pub(crate) async fn outside_escrow(&self, limit: u32) -> Result<Vec<AccountId>, Error> {
        let rows = sql("SELECT account FROM pools WHERE free > 0 ORDER BY account LIMIT $1")
            .bind(limit)
            .fetch_all(self.reading())
            .await?;
        rows.iter().map(|row| row.word("account", AccountId::parse)).collect()
    }

    /// What the hot store may lend of an account, as it stands.
    pub(crate) async fn escrow(&self, account: AccountId) -> Result<Escrow, Error> {
        let row =
            sql("SELECT COALESCE((SELECT balance FROM ledger_accounts WHERE id = $1), 0) AS total,
             (SELECT COALESCE(max(sequence), 0) FROM escrow_moves WHERE account = $2) AS last")
            .bind(Pocket::Escrow.of(account))
            .bind(account)
            .fetch_one(self.reading())
            .await?;
        Ok(Escrow { total: row.money("total")?, sequence: row.count("last")? })
    }

    /// Takes the lead among the processes of a shared database; `None` while another one has it. A SQLite
    /// file has one process that serves, which leads.
    pub async fn lead(&self) -> Result<Option<Leadership>, Error> {
        let Kind::Postgres(pool) = &self.0 else { return Ok(Some(Leadership(None))) };
        // A connection of its own: dropped, it closes, and the server frees the lock.
        let mut connection = pool.acquire().await?.detach();
        let row = sql("SELECT pg_try_advisory_lock($1)::INT::BIGINT AS taken")
            .bind(LEADER_LOCK)
            .fetch_one(On::Postgres(&mut connection))
            .await?;
        Ok((row.int("taken")? == 1).then(|| Leadership(Some(connection))))
    }
}

impl Leadership {
    /// Whether it still holds; once it does not, it is lost. To be asked before every step, with a bound on
    /// the wait: who does not hear from the database does not lead.
    pub async fn holds(&mut self) -> bool {
        match &mut self.0 {
            None => true,
            Some(connection) => sql("SELECT 1").execute(On::Postgres(connection)).await.is_ok(),
        }
    }
}
