//! What the journal's frames say, as JSON. Members that a newer program adds are passed over, and those that
//! an older one did not write have a default: a successor reads what its predecessor left.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use tokenroute_domain::id::{AccountId, CallId, KeyId};
use tokenroute_domain::journal::{Due, Ended, Intent, Mark};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;

use super::frame::{self, Frame};
use super::write;
use crate::record_text::read::{
    Id, StoredPurse, StoredRecord, StoredUsage, endpoint, read_purses, read_usage,
};

/// Calls that one frame forgets; more go into further ones.
const FORGOTTEN_MAX: usize = 4_096;

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A call is about to go upstream.
    Intent(Intent),
    /// A call has come so far.
    Mark(Mark),
    /// A call is over.
    Ended(Arc<Ended>),
    /// These calls are settled for good.
    Forgotten(Vec<CallId>),
    /// Nothing: it was tried whether the disk takes it.
    Pad,
}

const INTENT: u8 = b'I';
const MARK: u8 = b'M';
const ENDED: u8 = b'E';
const FORGOTTEN: u8 = b'F';
const PAD: u8 = b'P';

impl Entry {
    /// Reads a whole frame; `None` if it is none of ours, or of a newer program.
    pub(super) fn read(frame: &Frame<'_>) -> Option<Self> {
        let body = frame.body;
        match frame.kind {
            INTENT => json::<StoredIntent<'_>>(body).map(|intent| Self::Intent(intent.into())),
            MARK => json::<StoredMark<'_>>(body).map(|mark| Self::Mark(mark.into())),
            ENDED => json::<StoredEnded<'_>>(body).map(|ended| Self::Ended(Arc::new(ended.into()))),
            FORGOTTEN => {
                let calls = json::<Vec<Id<CallId>>>(body)?;
                Some(Self::Forgotten(calls.into_iter().map(|id| id.0).collect()))
            }
            PAD => Some(Self::Pad),
            _ => None,
        }
    }
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// Why an entry was not put into a frame: it is too long. Nothing that a call can leave is.
pub(super) type Unwritten = frame::TooLong;

/// Adds a call's intent.
pub(super) fn intent(intent: &Intent, out: &mut Vec<u8>) -> Result<(), Unwritten> {
    frame::write(INTENT, out, |out| write::intent(intent, out))
}

/// Adds how far a call has come.
pub(super) fn mark(mark: &Mark, out: &mut Vec<u8>) -> Result<(), Unwritten> {
    frame::write(MARK, out, |out| write::mark(mark, out))
}

/// Adds a call that is over.
pub(super) fn ended(ended: &Ended, out: &mut Vec<u8>) -> Result<(), Unwritten> {
    frame::write(ENDED, out, |out| write::ended(ended, out))
}

/// Adds calls that are settled for good.
pub(super) fn forgotten(calls: &[CallId], out: &mut Vec<u8>) -> Result<(), Unwritten> {
    for some in calls.chunks(FORGOTTEN_MAX) {
        frame::write(FORGOTTEN, out, |out| write::calls(some, out))?;
    }
    Ok(())
}

/// Adds so many bytes of nothing.
pub(super) fn pad(bytes: usize, out: &mut Vec<u8>) -> Result<(), Unwritten> {
    frame::write(PAD, out, |out| out.resize(out.len().saturating_add(bytes), 0))
}

/// See [`Intent`].
#[derive(Deserialize)]
struct StoredIntent<'a> {
    call: Id<CallId>,
    started: u64,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    key: Id<KeyId>,
    account: Id<AccountId>,
    prepaid: bool,
    #[serde(borrow)]
    model: Cow<'a, str>,
    hold: i64,
    #[serde(default, borrow)]
    purses: Vec<StoredPurse<'a>>,
}

impl From<StoredIntent<'_>> for Intent {
    fn from(stored: StoredIntent<'_>) -> Self {
        Self {
            call: stored.call.0,
            started: Timestamp(stored.started),
            endpoint: endpoint(&stored.endpoint),
            key: stored.key.0,
            account: stored.account.0,
            prepaid: stored.prepaid,
            model: Arc::from(stored.model),
            hold: NanoUsd(stored.hold),
            purses: read_purses(stored.purses),
        }
    }
}

/// See [`Mark`].
#[derive(Deserialize)]
struct StoredMark<'a> {
    call: Id<CallId>,
    usage: StoredUsage,
    cost: i64,
    #[serde(borrow)]
    target: Cow<'a, str>,
    streamed: bool,
    reported: bool,
}

impl From<StoredMark<'_>> for Mark {
    fn from(stored: StoredMark<'_>) -> Self {
        Self {
            call: stored.call.0,
            usage: read_usage(stored.usage),
            cost: NanoUsd(stored.cost),
            target: Arc::from(stored.target),
            streamed: stored.streamed,
            reported: stored.reported,
        }
    }
}

/// See [`Ended`].
#[derive(Deserialize)]
struct StoredEnded<'a> {
    #[serde(borrow)]
    record: StoredRecord<'a>,
    #[serde(default, borrow)]
    due: Option<StoredDue<'a>>,
}

/// See [`Due`].
#[derive(Deserialize)]
struct StoredDue<'a> {
    charge: i64,
    #[serde(default, borrow)]
    purses: Vec<StoredPurse<'a>>,
}

impl From<StoredEnded<'_>> for Ended {
    fn from(stored: StoredEnded<'_>) -> Self {
        let due = |due: StoredDue<'_>| Due {
            charge: NanoUsd(due.charge),
            purses: read_purses(due.purses),
        };
        Self { record: Arc::new(stored.record.into()), due: stored.due.map(due) }
    }
}
