//! Request records as their owners look for them: the latest first, by what is known of a call.

use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::time::Timestamp;

use super::Database;
use super::records::{StoredRecord, stored};
use super::statement::sql;
use crate::Error;

/// Which records. What is not said does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordFilter<'a> {
    /// Who pays.
    pub account: Option<AccountId>,
    /// With which key.
    pub key: Option<KeyId>,
    /// The model's name in the route table.
    pub model: Option<&'a str>,
    /// The least and the greatest status.
    pub status: Option<(u16, u16)>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

/// What is looked for; `$1` to `$8` are the same in all.
macro_rules! search {
    ($account:literal) => {
        concat!(
            "SELECT * FROM records WHERE ",
            $account,
            " AND sequence < $2 AND (key_id = $3 OR $3 = '') AND (model = $4 OR $4 = '')
                 AND status >= $5 AND status <= $6 AND started >= $7 AND started < $8
             ORDER BY sequence DESC LIMIT $9"
        )
    };
}

impl Database {
    /// At most `limit` records that `filter` lets through, the latest first, from the one before `before` on.
    pub async fn find_records(
        &self,
        filter: &RecordFilter<'_>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<StoredRecord>, Error> {
        let (least, greatest) = filter.status.unwrap_or((0, u16::MAX));
        // One text each, so that the index by account is used where there is one.
        let statement = match filter.account {
            Some(account) => sql(search!("account = $1")).bind(account),
            None => sql(search!("$1 = ''")).bind(""),
        };
        let rows = statement
            .bind(before.unwrap_or(i64::MAX))
            .bind(filter.key.map(|id| id.to_string()).unwrap_or_default())
            .bind(filter.model.unwrap_or_default())
            .bind(u32::from(least))
            .bind(u32::from(greatest))
            .bind(filter.from.unwrap_or_default())
            .bind(filter.to.unwrap_or(Timestamp(u64::MAX)))
            .bind(limit)
            .fetch_all(self.reading())
            .await?;
        rows.iter().map(stored).collect()
    }
}
