//! What an event of the hot store carries of a call, on its way into SQL.

use serde::Deserialize;
use tokenroute_domain::pool::PurseId;
use tokenroute_domain::record::Record;

use crate::record_text::read::{StoredPurse, StoredRecord, read_purses};
use crate::record_text::write;

/// Most of what a body has, so that its buffer seldom grows.
const BODY_BYTES: usize = 768;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    record: StoredRecord<'a>,
    #[serde(default)]
    prepaid: bool,
    #[serde(default, borrow)]
    purses: Vec<StoredPurse<'a>>,
}

/// The text of an event's body.
pub(crate) fn write(record: &Record, prepaid: bool, purses: &[PurseId]) -> String {
    let mut out = Vec::with_capacity(BODY_BYTES);
    write::plain(&mut out, "{\"record\":");
    write::record(&mut out, record);
    write::plain(&mut out, ",\"prepaid\":");
    write::flag(&mut out, prepaid);
    write::purses(&mut out, purses);
    out.push(b'}');
    // All of it is texts, and what stands between them is ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// Reads what [`write()`] wrote: the record, whether money is in it, and the ceilings.
pub(crate) fn read(text: &str) -> Option<(Record, bool, Vec<PurseId>)> {
    let body: Body<'_> = serde_json::from_str(text).ok()?;
    Some((body.record.into(), body.prepaid, read_purses(body.purses)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokenroute_domain::id::{AccountId, CallId, KeyId};
    use tokenroute_domain::money::NanoUsd;
    use tokenroute_domain::pool::Period;
    use tokenroute_domain::record::{Attempt, Endpoint, Outcome};
    use tokenroute_domain::routing::Why;
    use tokenroute_domain::time::Timestamp;
    use tokenroute_domain::usage::UsageSource;

    use super::*;
    use crate::record_text::read::read_usage;

    fn full() -> Record {
        let now = Timestamp(1_800_000_000_000_000);
        Record {
            call: CallId::new(now, 1),
            started: now,
            endpoint: Endpoint::Embeddings,
            key: Some(KeyId::new(now, 2)),
            account: Some(AccountId::new(now, 3)),
            model: Some(Arc::from("gpt-\"x\"")),
            target: Some(Arc::from("demo/echo")),
            attempts: vec![Attempt {
                target: Arc::from("demo/echo"),
                why: Why::Hedge,
                result: "timeout",
                status: Some(504),
                micros: 4,
                output_tokens: 5,
                cost: NanoUsd(6),
                house_cost: NanoUsd(7),
            }],
            status: 200,
            outcome: Outcome::Cut,
            error: Some("edge_lost"),
            streamed: true,
            usage: read_usage([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            usage_source: UsageSource::Estimated,
            cost: NanoUsd(i64::MAX),
            charge: NanoUsd(12),
            price_version: Some(Arc::from("v1")),
            house_cost: NanoUsd(13),
            latency_micros: 14,
            first_token_micros: Some(15),
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let full = full();
        let key = KeyId::new(Timestamp(1_000), 4);
        let purses = vec![PurseId { key, period: Period::Week, number: 7 }];
        let text = write(&full, true, &purses);
        assert_eq!(read(&text), Some((full.clone(), true, purses)));
        let bare = Record {
            key: None,
            account: None,
            model: None,
            target: None,
            attempts: Vec::new(),
            error: None,
            price_version: None,
            first_token_micros: None,
            ..full
        };
        assert_eq!(read(&write(&bare, false, &[])), Some((bare, false, Vec::new())));
    }

    #[test]
    fn what_is_cut_is_not_read() {
        let text = write(&full(), true, &[]);
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert_eq!(read(text.get(..end).unwrap()), None);
        }
        // A newer program's way to end: what it was charged is due all the same.
        let (record, _, _) = read(&text.replace("\"cut\"", "\"torn\"")).unwrap();
        assert_eq!((record.outcome, record.charge), (Outcome::Failed, NanoUsd(12)));
    }
}
