//! An event of a shard's stream.

use std::sync::Arc;

use redis::Value;
use tokenroute_domain::id::{AccountId, NodeId};
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::Record;

use super::text;
use crate::bank::books::Withdrawal;
use crate::bank::redis::script::{list, text as words};
use crate::sql::findings::ABANDONED;
use crate::{Finding, PostedCall};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A call is over that money or a ceiling is in.
    Call(PostedCall),
    /// A call is over that has none.
    Record(Arc<Record>),
    /// Money was taken out of a pool for good.
    Withdrawal(Withdrawal),
    /// A loan lapsed that calls held.
    Lapsed(Finding),
    /// Nothing that can be read.
    Unreadable,
}

/// Something that SQL has to know, where it stands in its stream, and what undoes it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its place in the stream.
    pub(crate) id: String,
    /// The epoch that it happened in.
    pub(crate) epoch: String,
    /// Whose pool counts it as unposted.
    pub(crate) account: Option<AccountId>,
    /// How much of it.
    pub(crate) charge: NanoUsd,
    /// What the pool remembers it by.
    pub(crate) call: String,
    /// What happened.
    pub(crate) what: What,
}

impl Event {
    /// Reads one entry of a stream: its identifier, and names and values in turn. An entry that was
    /// deleted while somebody held it has none.
    pub(crate) fn read(entry: &Value) -> Option<Self> {
        let [id, pairs] = list(entry)? else { return None };
        let pairs = list(pairs)?;
        let mut fields = Fields(Vec::with_capacity(pairs.len() / 2));
        for pair in pairs.chunks_exact(2) {
            if let [name, value] = pair {
                fields.0.push((words(name)?, words(value).unwrap_or_default()));
            }
        }
        let plain = |name: &str| fields.find(name).unwrap_or_default();
        let what = what(&fields).unwrap_or(What::Unreadable);
        let account = AccountId::parse(plain("account"));
        let counted = !matches!(what, What::Lapsed(_));
        Some(Self {
            id: words(id)?.to_owned(),
            epoch: plain("epoch").to_owned(),
            account: account.filter(|_| counted),
            charge: NanoUsd(plain("charge").parse().unwrap_or_default()),
            call: plain("call").to_owned(),
            what,
        })
    }
}

/// Names and values of an event: fewer than it takes for a table to pay.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn find(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// The names and values of an event that only tells of a record.
pub(crate) fn of_record(record: &Record, epoch: u64) -> [(&'static str, String); 4] {
    [
        ("kind", "record".to_owned()),
        ("epoch", epoch.to_string()),
        ("call", record.call.to_string()),
        ("body", text::write(record, false, &[])),
    ]
}

/// The body of an event that tells of a withdrawal.
pub(crate) fn of_withdrawal(withdrawal: &Withdrawal) -> String {
    serde_json::json!([withdrawal.actor, withdrawal.note]).to_string()
}

fn what(fields: &Fields<'_>) -> Option<What> {
    let amount = |name: &str| Some(NanoUsd(fields.find(name)?.parse().ok()?));
    match fields.find("kind")? {
        "call" => {
            let (record, prepaid, purses) = text::read(fields.find("body")?)?;
            let funding = if prepaid { Funding::Prepaid } else { Funding::Unmetered };
            Some(What::Call(PostedCall {
                account: AccountId::parse(fields.find("account")?)?,
                funding,
                record: Arc::new(record),
                charge: amount("charge")?,
                excess: amount("excess")?,
                purses,
            }))
        }
        "record" => {
            let (record, _, _) = text::read(fields.find("body")?)?;
            Some(What::Record(Arc::new(record)))
        }
        "withdrawal" => {
            let (actor, note) = serde_json::from_str(fields.find("body")?).ok()?;
            Some(What::Withdrawal(Withdrawal {
                account: AccountId::parse(fields.find("account")?)?,
                id: fields.find("call")?.to_owned(),
                amount: amount("charge")?,
                actor,
                note,
            }))
        }
        "lapsed" => {
            let node = NodeId::parse(fields.find("node")?)?;
            let (lent, held) = (amount("amount")?, amount("in_use")?);
            let account = AccountId::parse(fields.find("account")?)?;
            Some(What::Lapsed(Finding {
                kind: ABANDONED.to_owned(),
                subject: format!("{account} {node}"),
                detail: format!("a loan of {lent} USD lapsed, calls held {held} USD of it"),
                amount: held,
            }))
        }
        _ => None,
    }
}
