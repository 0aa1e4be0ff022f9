//! Fuzzes the reader of the journal, with raw bytes and with journals of which a part was changed: torn,
//! damaged, put together anew, and changed with a checksum that fits.
//!
//! Each target runs for a few seconds; `BOLERO_RANDOM_TEST_TIME_MS` sets another time.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail as tests do"
)]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokenroute_domain::id::{AccountId, CallId, KeyId, NodeId};
use tokenroute_domain::journal::{Due, Ended, Intent, Mark};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Period, PurseId};
use tokenroute_domain::record::{Attempt, Endpoint, Outcome, Record};
use tokenroute_domain::routing::Why;
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};
use tokenroute_fuzz::chance::Chance;
use tokenroute_store::{Journal, JournalOptions, Replay};

const TIME: Duration = Duration::from_secs(5);
const T0: Timestamp = Timestamp(1_800_000_000_000_000);
/// Of a frame, what stands before its kind: length and checksum.
const HEAD_BYTES: usize = 8;

fn record(number: u64) -> Record {
    Record {
        call: CallId::new(T0, u128::from(number)),
        started: T0,
        endpoint: Endpoint::ChatCompletions,
        key: Some(KeyId::new(T0, 1)),
        account: Some(AccountId::new(T0, 1)),
        model: Some(Arc::from("gpt-\"x\"")),
        target: Some(Arc::from("demo/echo")),
        attempts: vec![Attempt {
            target: Arc::from("demo/echo"),
            why: Why::Chosen,
            result: "ok",
            status: Some(200),
            micros: 1,
            output_tokens: 2,
            cost: NanoUsd(3),
            house_cost: NanoUsd(0),
        }],
        status: 200,
        outcome: Outcome::Answered,
        error: None,
        streamed: true,
        usage: Usage::default(),
        usage_source: UsageSource::Provider,
        cost: NanoUsd(3),
        charge: NanoUsd(3),
        price_version: None,
        house_cost: NanoUsd(0),
        latency_micros: 4,
        first_token_micros: None,
    }
}

/// The frames of a real journal, each with its head; the padding that it begins with is left out.
static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let node = NodeId::new(T0, 1);
    let journal = Journal::open(folder.path(), node, JournalOptions::default()).unwrap();
    let purse = PurseId { key: KeyId::new(T0, 1), period: Period::Day, number: 7 };
    for number in 1..=4_u64 {
        let record = record(number);
        let intent = Intent {
            call: record.call,
            started: T0,
            endpoint: record.endpoint,
            key: KeyId::new(T0, 1),
            account: AccountId::new(T0, 1),
            prepaid: true,
            model: Arc::from("gpt-x"),
            hold: NanoUsd(5),
            purses: vec![purse],
        };
        journal.intend(&intent).unwrap();
        let (call, usage, cost) = (record.call, record.usage, record.cost);
        let (target, streamed, reported) = (Arc::from("demo/echo"), true, false);
        journal.mark(&[Mark { call, usage, cost, target, streamed, reported }]);
        if number > 1 {
            let due = Some(Due { charge: NanoUsd(3), purses: vec![purse] });
            journal.ended(&[Arc::new(Ended { record: Arc::new(record), due })]).unwrap();
        }
        if number > 3 {
            journal.forget(&[call]);
        }
    }
    let bytes = std::fs::read(folder.path().join(format!("{node}.1"))).unwrap();
    let mut frames = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap();
        let (frame, after) = rest.split_at(HEAD_BYTES + length);
        frames.push(frame.to_vec());
        rest = after;
    }
    assert!(frames.len() > 12, "{} frames", frames.len());
    frames.split_off(1)
});

/// A frame with a checksum that fits.
fn frame(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    let check = crc32fast::hash(&[&length, content].concat()).to_le_bytes();
    [&length, &check, content].concat()
}

/// What is read of some bytes: how many were dropped, how many frames said nothing, and how calls ended.
fn read(bytes: &[u8]) -> (usize, u64, Vec<Arc<Ended>>) {
    let mut replay = Replay::default();
    replay.read(bytes, u64::try_from(bytes.len()).unwrap()).unwrap();
    let dropped = usize::try_from(replay.dropped_bytes()).unwrap();
    (dropped, replay.unreadable(), replay.into_ended())
}

/// What must hold for any bytes.
fn check(bytes: &[u8]) -> Vec<Arc<Ended>> {
    let (dropped, unreadable, calls) = read(bytes);
    assert!(dropped <= bytes.len());
    // What is dropped is behind all that is not, and changes nothing.
    let whole = bytes.split_at(bytes.len() - dropped).0;
    assert_eq!(read(whole), (0, unreadable, calls.clone()));
    // In the order of their identifiers, each call once; charged never more than it cost, if it has no end.
    assert!(calls.is_sorted_by_key(|one| one.record.call));
    for one in &calls {
        if one.record.error == Some("edge_lost") && one.record.latency_micros == 0 {
            let due = one.due.as_ref().map_or(NanoUsd::ZERO, |due| due.charge);
            assert!(due >= NanoUsd::ZERO && due <= one.record.cost, "{one:?}");
        }
    }
    calls
}

#[test]
fn bytes() {
    bolero::check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        check(bytes);
        // As what frames say, so that it is not the checksum that refuses them.
        let sound = [&FRAMES.concat(), &frame(bytes)[..], &FRAMES.concat()].concat();
        check(&sound);
    });
}

#[test]
fn journals() {
    bolero::check!().with_test_time(TIME).with_type::<u64>().for_each(|seed| {
        let mut chance = Chance::new(*seed);
        let mut bytes = Vec::new();
        for _ in 0..chance.below(12) {
            let mut one = FRAMES[chance.below(FRAMES.len())].clone();
            let sound = chance.once_in(2);
            if chance.once_in(2) {
                change(&mut one, &mut chance, if sound { HEAD_BYTES } else { 0 });
            }
            bytes.extend(if sound { frame(one.split_at(HEAD_BYTES).1) } else { one });
        }
        bytes.truncate(bytes.len() - chance.below(20).min(bytes.len()));
        check(&bytes);
    });
}

/// Whatever order its frames are in, and however often they come, a call that has an end has that end.
#[test]
fn orders() {
    bolero::check!().with_test_time(TIME).with_type::<u64>().for_each(|seed| {
        let mut chance = Chance::new(*seed);
        let mut bytes = Vec::new();
        let mut ends = std::collections::BTreeSet::new();
        for _ in 0..chance.below(30) {
            let one = &FRAMES[chance.below(FRAMES.len())];
            match one[HEAD_BYTES] {
                b'F' => continue,
                b'E' => ends.extend(read(one).2.into_iter().map(|one| one.record.call)),
                _ => {}
            }
            bytes.extend_from_slice(one);
        }
        for one in check(&bytes) {
            let answered = one.record.outcome == Outcome::Answered;
            assert_eq!(answered, ends.remove(&one.record.call));
        }
        assert!(ends.is_empty());
    });
}

/// Changes a few bytes from `start` on.
fn change(bytes: &mut Vec<u8>, chance: &mut Chance, start: usize) {
    const PIECES: [&[u8]; 8] =
        [b"null", b"-1", b"\"", b"{}", b"[]", b"18446744073709551616", b"\\u0000", b"\xff"];
    for _ in 0..=chance.below(3) {
        let at = start + chance.below(bytes.len() - start);
        match chance.below(4) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => drop(bytes.splice(at..at, PIECES[chance.below(PIECES.len())].iter().copied())),
            2 => drop(bytes.splice(at..=at, [])),
            _ => {
                let end = (at + chance.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, copy));
            }
        }
        // A frame has a kind at least.
        if bytes.len() <= start {
            bytes.push(b'I');
        }
    }
}
