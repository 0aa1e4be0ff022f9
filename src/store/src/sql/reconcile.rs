//! Whether the books are what they must be: the invariants of the ledger, as queries that find what breaks
//! them. Nothing is repaired here.

use tokenroute_domain::id::{CallId, TransactionId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;

use super::Database;
use super::findings::Finding;
use super::statement::sql;
use crate::Error;

/// Findings of one kind that one run tells.
const FINDINGS_MAX: u32 = 100;

/// One invariant. Its statement gives what breaks it, as `subject`, with up to two amounts that should be
/// equal, as `is` and `wanted`.
struct Check {
    kind: &'static str,
    says: &'static str,
    scope: Scope,
    statement: &'static str,
}

/// What a check reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// What stands now: little, and read whole each time.
    State,
    /// Transactions from `$2` on.
    Transactions,
    /// Calls from `$2` on.
    Calls,
    /// All there is, which takes long: only when everything is to be checked.
    Everything,
}

const CHECKS: &[Check] = &[
    Check {
        kind: "ledger_sum",
        says: "all balances together are not nothing",
        scope: Scope::State,
        statement: "SELECT 'ledger' AS subject, CAST(sum(balance) AS BIGINT) AS found,
                 CAST(0 AS BIGINT) AS wanted
             FROM ledger_accounts HAVING sum(balance) <> 0 LIMIT $1",
    },
    Check {
        kind: "balance_negative",
        says: "a balance is below nothing",
        scope: Scope::State,
        statement: "SELECT id AS subject, balance AS found, CAST(0 AS BIGINT) AS wanted
             FROM ledger_accounts WHERE balance < 0 AND id NOT LIKE 'house:%' LIMIT $1",
    },
    Check {
        kind: "pool_balance",
        says: "what a pool has free and lent is not its balance",
        scope: Scope::State,
        statement: "SELECT subject, found, wanted FROM (
                 SELECT pools.account AS subject,
                     CAST(pools.free + COALESCE((SELECT sum(amount) FROM pool_loans
                         WHERE pool_loans.account = pools.account), 0) AS BIGINT) AS found,
                     COALESCE((SELECT balance FROM ledger_accounts
                         WHERE id = 'customer:' || pools.account), 0) AS wanted
                 FROM pools) AS both_sides
             WHERE found <> wanted LIMIT $1",
    },
    Check {
        kind: "pool_missing",
        says: "a balance has no pool",
        scope: Scope::State,
        statement:
            "SELECT substr(id, 10) AS subject, CAST(0 AS BIGINT) AS found, balance AS wanted
             FROM ledger_accounts
             WHERE id LIKE 'customer:%' AND balance <> 0
                 AND NOT EXISTS (SELECT 1 FROM pools WHERE pools.account = substr(id, 10)) LIMIT $1",
    },
    Check {
        kind: "transaction_sum",
        says: "the entries of a transaction are not together nothing",
        scope: Scope::Transactions,
        statement: "SELECT transaction_id AS subject, CAST(sum(amount) AS BIGINT) AS found,
                 CAST(0 AS BIGINT) AS wanted
             FROM ledger_entries WHERE transaction_id >= $2
             GROUP BY transaction_id HAVING sum(amount) <> 0 LIMIT $1",
    },
    Check {
        kind: "transaction_empty",
        says: "a transaction has no entries",
        scope: Scope::Transactions,
        statement: "SELECT id AS subject, CAST(0 AS BIGINT) AS found, CAST(0 AS BIGINT) AS wanted
             FROM ledger_transactions WHERE id >= $2 AND NOT EXISTS (
                 SELECT 1 FROM ledger_entries WHERE transaction_id = id) LIMIT $1",
    },
    Check {
        kind: "charge_without_record",
        says: "a charge is not what its records say",
        scope: Scope::Transactions,
        statement: "SELECT subject, found, wanted FROM (
                 SELECT idempotency_key AS subject,
                     CAST(COALESCE((SELECT -sum(amount) FROM ledger_entries
                         WHERE transaction_id = ledger_transactions.id
                             AND account NOT LIKE 'house:%'), 0) AS BIGINT) AS found,
                     CAST(COALESCE((SELECT sum(charge) FROM records
                         WHERE sequence BETWEEN first_record AND last_record
                             AND records.account = ledger_transactions.subject), 0) AS BIGINT)
                         AS wanted
                 FROM ledger_transactions WHERE kind = 'charge' AND id >= $2) AS both_sides
             WHERE found <> wanted LIMIT $1",
    },
    Check {
        kind: "record_without_charge",
        says: "a record says that its call was charged, and no charge is over it",
        scope: Scope::Calls,
        // Charges of one account lie behind each other, so the first that ends no earlier is the only one.
        statement:
            "SELECT call AS subject, CAST(0 AS BIGINT) AS found, charge AS wanted FROM records
             WHERE call >= $2 AND charge <> 0 AND COALESCE((
                 SELECT first_record FROM ledger_transactions
                 WHERE subject = records.account AND last_record IS NOT NULL
                     AND last_record >= records.sequence
                 ORDER BY last_record LIMIT 1), records.sequence + 1) > records.sequence LIMIT $1",
    },
    Check {
        kind: "balance_entries",
        says: "a balance is not the sum of its entries",
        scope: Scope::Everything,
        statement: "SELECT subject, found, wanted FROM (
                 SELECT id AS subject, balance AS found,
                     CAST(COALESCE((SELECT sum(amount) FROM ledger_entries
                         WHERE account = ledger_accounts.id), 0) AS BIGINT) AS wanted
                 FROM ledger_accounts) AS both_sides
             WHERE found <> wanted LIMIT $1",
    },
];

/// What the checks find.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|check| check.kind)
}

impl Database {
    /// Checks the books and keeps what it finds. With `since`, of transactions and calls those from then on,
    /// and not what takes long; without, everything. Findings that stand no more are closed, and those that
    /// an operator has put up with are not told.
    pub async fn reconcile(
        &self,
        since: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Vec<Finding>, Error> {
        let mut all = Vec::new();
        for check in CHECKS {
            let first = match check.scope {
                Scope::Everything if since.is_some() => continue,
                Scope::State | Scope::Everything => None,
                Scope::Transactions => {
                    Some(TransactionId::new(since.unwrap_or_default(), 0).to_string())
                }
                Scope::Calls => Some(CallId::new(since.unwrap_or_default(), 0).to_string()),
            };
            let mut statement = sql(check.statement).bind(FINDINGS_MAX);
            let is_whole = since.is_none() || first.is_none();
            if let Some(first) = first {
                statement = statement.bind(first);
            }
            for row in statement.fetch_all(self.reading()).await? {
                let (found, wanted) = (row.money("found")?, row.money("wanted")?);
                let finding = Finding {
                    kind: check.kind.to_owned(),
                    subject: row.text("subject")?,
                    detail: format!("{}: {found} USD where {wanted} USD is wanted", check.says),
                    amount: NanoUsd(found.0.saturating_sub(wanted.0).saturating_abs()),
                };
                if self.note_finding(&finding, now).await? {
                    all.push(finding);
                }
            }
            if is_whole {
                self.close_findings(check.kind, now).await?;
            }
        }
        Ok(all)
    }
}
