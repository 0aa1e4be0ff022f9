//! The ledger: double entry, append-only. Every movement of money is one transaction whose entries sum to
//! nothing; each has a key of its own, so that repeating it changes nothing.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use tokenroute_domain::id::{AccountId, TransactionId};
use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd};
use tokenroute_domain::time::Timestamp;

use super::Database;
use super::audit::{Deed, Fact, note};
use super::statement::{Lists, Row, Transaction, parts, row_lists, sql};
use crate::Error;

/// The house's own accounts in the ledger.
pub(crate) const HOUSE_CASH: &str = "house:cash";
pub(crate) const HOUSE_REVENUE: &str = "house:revenue";
pub(crate) const HOUSE_LOSS: &str = "house:loss";
pub(crate) const HOUSE_UPSTREAM_COST: &str = "house:upstream_cost";
pub(crate) const HOUSE_PROVIDERS: &str = "house:providers";

/// Which of an account's two ledger accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pocket {
    /// What SQL itself lends: `customer:<account>`.
    Customer,
    /// What the hot store lends: `escrow:<account>`.
    Escrow,
}

/// Money that an operator, or a payment, moves in or out.
#[derive(Clone, Copy, Debug)]
pub struct Movement<'a> {
    /// Whose.
    pub account: AccountId,
    /// How much; nothing and less is refused as [`Moved::TooMuch`].
    pub amount: NanoUsd,
    /// What makes it this movement and no other.
    pub idempotency_key: &'a str,
    /// Who does it.
    pub actor: &'a str,
    /// Why.
    pub note: &'a str,
}

/// What became of a movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is done, for good.
    Done,
    /// It had been done before, with the same account and amount.
    Duplicate,
    /// Its key was used for something else.
    Conflict,
    /// The account could not hold as much, or has not as much that is free. No amount at all is also this.
    TooMuch,
    /// There is no such account.
    NoAccount,
}

/// What an account has in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// What SQL itself lends.
    pub customer: NanoUsd,
    /// What the hot store lends, and what it has charged but is not posted yet.
    pub escrow: NanoUsd,
}

impl Balance {
    /// Both together.
    pub fn total(self) -> NanoUsd {
        self.customer.plus(self.escrow)
    }
}

/// One entry, with what its transaction says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    /// Its transaction; later ones sort after earlier ones.
    pub transaction: String,
    /// Its place in the transaction.
    pub seq: u64,
    /// `grant`, `withdrawal`, `charge`, `escrow` or `release`.
    pub kind: String,
    /// What makes the transaction this one and no other: of a charge, its records.
    pub idempotency_key: String,
    /// Whom it is about: an account.
    pub subject: String,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub note: String,
    /// When it was posted.
    pub created: Timestamp,
    /// The ledger account that it moves: `customer:…`, `escrow:…` or `house:…`.
    pub account: String,
    /// By how much.
    pub amount: NanoUsd,
    /// What the ledger account had after it.
    pub balance_after: NanoUsd,
}

/// A transaction to be posted.
#[derive(Debug)]
pub(crate) struct Posting {
    pub(crate) kind: &'static str,
    pub(crate) idempotency_key: String,
    pub(crate) subject: AccountId,
    pub(crate) actor: String,
    pub(crate) note: String,
    /// Of a charge: the numbers of the first and the last record that it can be the sum of.
    pub(crate) records: Option<(i64, i64)>,
    /// They sum to nothing.
    pub(crate) entries: Vec<(String, NanoUsd)>,
}

impl Pocket {
    /// The name of the ledger account.
    pub(crate) fn of(self, account: AccountId) -> String {
        match self {
            Self::Customer => format!("customer:{account}"),
            Self::Escrow => format!("escrow:{account}"),
        }
    }
}

impl Database {
    /// Credits an account, once for each key.
    pub async fn grant(&self, movement: &Movement<'_>, now: Timestamp) -> Result<Moved, Error> {
        let mut transaction = self.begin().await?;
        let free = lock_pool(&mut transaction, movement.account).await?;
        if let Some(known) = movement.known(&mut transaction, "grant").await? {
            return Ok(known);
        }
        let balance = balance(&mut transaction, movement.account).await?;
        let total = balance.total().checked_add(movement.amount);
        if movement.amount <= NanoUsd::ZERO || total.is_none_or(|total| total > ACCOUNT_MAX) {
            return Ok(Moved::TooMuch);
        }
        set_free(&mut transaction, movement.account, free.plus(movement.amount)).await?;
        let entries = vec![
            (Pocket::Customer.of(movement.account), movement.amount),
            (HOUSE_CASH.to_owned(), negative(movement.amount)),
        ];
        post(&mut transaction, &[movement.posting("grant", entries)], now).await?;
        note(&mut transaction, &movement.deed("credit.add"), now).await?;
        transaction.commit().await?;
        Ok(Moved::Done)
    }

    /// Takes money out of an account, once for each key: of [`Pocket::Customer`] what is neither lent nor
    /// charged, of [`Pocket::Escrow`] what the hot store has been made to give up before.
    pub async fn withdraw(
        &self,
        movement: &Movement<'_>,
        from: Pocket,
        now: Timestamp,
    ) -> Result<Moved, Error> {
        let mut transaction = self.begin().await?;
        let free = lock_pool(&mut transaction, movement.account).await?;
        if let Some(known) = movement.known(&mut transaction, "withdrawal").await? {
            return Ok(known);
        }
        let most = match from {
            Pocket::Customer => free,
            Pocket::Escrow => balance(&mut transaction, movement.account).await?.escrow,
        };
        if movement.amount <= NanoUsd::ZERO || movement.amount > most {
            return Ok(Moved::TooMuch);
        }
        if from == Pocket::Customer {
            set_free(&mut transaction, movement.account, free.minus(movement.amount)).await?;
        }
        let entries = vec![
            (from.of(movement.account), negative(movement.amount)),
            (HOUSE_CASH.to_owned(), movement.amount),
        ];
        post(&mut transaction, &[movement.posting("withdrawal", entries)], now).await?;
        note(&mut transaction, &movement.deed("credit.withdraw"), now).await?;
        transaction.commit().await?;
        Ok(Moved::Done)
    }

    /// Whether a withdrawal cannot be made: because it was made before, its key is taken, or it is of nobody.
    /// The hot store is asked for money only if this is `None`.
    pub async fn known_withdrawal(&self, movement: &Movement<'_>) -> Result<Option<Moved>, Error> {
        movement.known(&mut self.begin().await?, "withdrawal").await
    }

    /// What an account has; nothing if it never had any.
    pub async fn balance(&self, account: AccountId) -> Result<Balance, Error> {
        let rows = sql("SELECT id, balance FROM ledger_accounts WHERE id IN ($1, $2)")
            .bind(Pocket::Customer.of(account))
            .bind(Pocket::Escrow.of(account))
            .fetch_all(self.reading())
            .await?;
        read_balance(&rows)
    }

    /// At most `limit` entries, the latest first, from the one after `after` on: those of one account, or
    /// all, the house's among them.
    pub async fn ledger(
        &self,
        account: Option<AccountId>,
        after: Option<&LedgerLine>,
        limit: u32,
    ) -> Result<Vec<LedgerLine>, Error> {
        // The greatest identifier there can be comes after all of them.
        let (id, seq) = after.map_or(("txn_~", 0), |line| (line.transaction.as_str(), line.seq));
        let statement = match account {
            Some(account) => sql("SELECT * FROM ledger_entries JOIN ledger_transactions
                     ON ledger_transactions.id = ledger_entries.transaction_id
                 WHERE account IN ($4, $5) AND account NOT LIKE 'house:%'
                     AND (transaction_id < $1 OR (transaction_id = $1 AND seq > $2))
                 ORDER BY transaction_id DESC, seq LIMIT $3")
            .bind(id)
            .bind(seq)
            .bind(limit)
            .bind(Pocket::Customer.of(account))
            .bind(Pocket::Escrow.of(account)),
            None => sql("SELECT * FROM ledger_entries JOIN ledger_transactions
                     ON ledger_transactions.id = ledger_entries.transaction_id
                 WHERE transaction_id < $1 OR (transaction_id = $1 AND seq > $2)
                 ORDER BY transaction_id DESC, seq LIMIT $3")
            .bind(id)
            .bind(seq)
            .bind(limit),
        };
        statement.fetch_all(self.reading()).await?.iter().map(line).collect()
    }
}

impl Movement<'_> {
    pub(super) fn posting(&self, kind: &'static str, entries: Vec<(String, NanoUsd)>) -> Posting {
        Posting {
            kind,
            idempotency_key: operator_key(self.idempotency_key),
            subject: self.account,
            actor: self.actor.to_owned(),
            note: self.note.to_owned(),
            records: None,
            entries,
        }
    }

    /// What is written down of it beside the ledger, which has the rest.
    fn deed(&self, action: &'static str) -> Deed<'_> {
        let facts = vec![("amount_usd", Fact::Money(self.amount))];
        Deed { actor: self.actor, action, subject: self.account.to_string(), facts }
    }

    /// Whether a movement cannot be made: because it was made before, its key is taken, or it is of nobody.
    pub(super) async fn known(
        &self,
        transaction: &mut Transaction,
        kind: &'static str,
    ) -> Result<Option<Moved>, Error> {
        let found = sql("SELECT kind, subject, abs(amount) AS amount FROM ledger_transactions
                 JOIN ledger_entries ON transaction_id = id AND seq = 0
             WHERE idempotency_key = $1")
        .bind(operator_key(self.idempotency_key))
        .fetch_optional(transaction.on())
        .await?;
        if let Some(row) = found {
            let same = row.text("kind")? == kind
                && row.text("subject")? == self.account.to_string()
                && row.money("amount")? == self.amount;
            return Ok(Some(if same { Moved::Duplicate } else { Moved::Conflict }));
        }
        let account = sql("SELECT id FROM accounts WHERE id = $1")
            .bind(self.account)
            .fetch_optional(transaction.on())
            .await?;
        Ok(account.is_none().then_some(Moved::NoAccount))
    }
}

/// An operator's key as the ledger keeps it: apart from calls and escrow moves, whatever they type.
fn operator_key(key: &str) -> String {
    format!("credit:{key}")
}

/// The amount with its other sign.
pub(crate) fn negative(amount: NanoUsd) -> NanoUsd {
    NanoUsd::ZERO.minus(amount)
}

/// Locks an account's pool, opens it if need be, and says what is free in it.
pub(crate) async fn lock_pool(
    transaction: &mut Transaction,
    account: AccountId,
) -> Result<NanoUsd, Error> {
    sql("INSERT INTO pools (account, free) VALUES ($1, 0)
         ON CONFLICT (account) DO UPDATE SET free = pools.free RETURNING free")
    .bind(account)
    .fetch_one(transaction.on())
    .await?
    .money("free")
}

/// Writes down what is free in a pool that is locked.
pub(crate) async fn set_free(
    transaction: &mut Transaction,
    account: AccountId,
    free: NanoUsd,
) -> Result<(), Error> {
    sql("UPDATE pools SET free = $2 WHERE account = $1")
        .bind(account)
        .bind(free)
        .execute(transaction.on())
        .await?;
    Ok(())
}

/// What an account has, as its locked pool's transaction sees it.
pub(crate) async fn balance(
    transaction: &mut Transaction,
    account: AccountId,
) -> Result<Balance, Error> {
    let rows = sql("SELECT id, balance FROM ledger_accounts WHERE id IN ($1, $2)")
        .bind(Pocket::Customer.of(account))
        .bind(Pocket::Escrow.of(account))
        .fetch_all(transaction.on())
        .await?;
    read_balance(&rows)
}

fn read_balance(rows: &[Row]) -> Result<Balance, Error> {
    let mut balance = Balance::default();
    for row in rows {
        let amount = row.money("balance")?;
        if row.text("id")?.starts_with("escrow:") {
            balance.escrow = amount;
        } else {
            balance.customer = amount;
        }
    }
    Ok(balance)
}

/// Posts transactions: balances in the order of their names, then what explains them. A key that another
/// process has just used makes all of it `Unavailable`: tried again, it is seen.
pub(crate) async fn post(
    transaction: &mut Transaction,
    postings: &[Posting],
    now: Timestamp,
) -> Result<(), Error> {
    let mut sums: BTreeMap<&str, NanoUsd> = BTreeMap::new();
    for (account, amount) in postings.iter().flat_map(|posting| &posting.entries) {
        let sum = sums.entry(account).or_default();
        *sum = sum.plus(*amount);
    }
    // From here on: what each account had before.
    for (account, sum) in &mut sums {
        *sum = move_balance(transaction, account, *sum).await?.minus(*sum);
    }
    let ids: Vec<_> = postings.iter().map(|posting| id(posting, now).to_string()).collect();
    let named: Vec<_> = ids.iter().zip(postings).collect();
    for (part, mut statement) in parts(&named, &TRANSACTIONS) {
        for (id, posting) in part {
            statement = statement
                .bind(*id)
                .bind(posting.kind)
                .bind(&posting.idempotency_key)
                .bind(posting.subject)
                .bind(&posting.actor)
                .bind(&posting.note)
                .bind(now)
                .bind(posting.records.map(|(first, _)| first))
                .bind(posting.records.map(|(_, last)| last));
        }
        let written = statement.execute(transaction.on()).await?;
        if usize::try_from(written) != Ok(part.len()) {
            return Err(Error::Unavailable("another process posts the same".to_owned()));
        }
    }
    let mut entries = Vec::new();
    for (id, posting) in &named {
        for (seq, (account, amount)) in (0_u32..).zip(&posting.entries) {
            let balance = sums.entry(account).or_default();
            *balance = balance.plus(*amount);
            entries.push((*id, seq, account, *amount, *balance));
        }
    }
    for (part, mut statement) in parts(&entries, &ENTRIES) {
        for (id, seq, account, amount, after) in part {
            statement = statement.bind(*id).bind(*seq).bind(*account).bind(*amount).bind(*after);
        }
        statement.execute(transaction.on()).await?;
    }
    Ok(())
}

static TRANSACTIONS: LazyLock<Lists> = LazyLock::new(|| {
    row_lists(
        "INSERT INTO ledger_transactions
             (id, kind, idempotency_key, subject, actor, note, created, first_record, last_record)
         VALUES ",
        9,
        " ON CONFLICT (idempotency_key) DO NOTHING",
    )
});

static ENTRIES: LazyLock<Lists> = LazyLock::new(|| {
    row_lists(
        "INSERT INTO ledger_entries (transaction_id, seq, account, amount, balance_after) VALUES ",
        5,
        "",
    )
});

/// Moves one balance, opens it if need be, and says what it is then.
async fn move_balance(
    transaction: &mut Transaction,
    account: &str,
    amount: NanoUsd,
) -> Result<NanoUsd, Error> {
    const MOVE: &str =
        "UPDATE ledger_accounts SET balance = balance + $2 WHERE id = $1 RETURNING balance";
    let moved = sql(MOVE).bind(account).bind(amount).fetch_optional(transaction.on()).await?;
    if let Some(row) = moved {
        return row.money("balance");
    }
    sql("INSERT INTO ledger_accounts (id, balance) VALUES ($1, 0) ON CONFLICT (id) DO NOTHING")
        .bind(account)
        .execute(transaction.on())
        .await?;
    sql(MOVE).bind(account).bind(amount).fetch_one(transaction.on()).await?.money("balance")
}

/// A transaction's identifier: its time, and a mix of its key, which is its own.
fn id(posting: &Posting, now: Timestamp) -> TransactionId {
    let mix = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, posting.kind, &posting.idempotency_key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    TransactionId::new(now, (mix(0) << 64) | mix(1))
}

fn line(row: &Row) -> Result<LedgerLine, Error> {
    Ok(LedgerLine {
        transaction: row.text("transaction_id")?,
        seq: row.count("seq")?,
        kind: row.text("kind")?,
        idempotency_key: row.text("idempotency_key")?,
        subject: row.text("subject")?,
        actor: row.text("actor")?,
        note: row.text("note")?,
        created: row.time("created")?,
        account: row.text("account")?,
        amount: row.money("amount")?,
        balance_after: row.money("balance_after")?,
    })
}
