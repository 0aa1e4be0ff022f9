//! Fuzzes the reading of answers: the event scanner, the meter and the JSON reader, with raw bytes and
//! with recorded streams that chance has damaged.
//!
//! Each target runs for a few seconds; `BOLERO_RANDOM_TEST_TIME_MS` sets another time.

#![cfg(test)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokenroute_fuzz::chance::Chance;
use tokenroute_wire::envelope;
use tokenroute_wire::sse::{Block, EVENT_BYTES_MAX, Piece, Scanner};
use tokenroute_wire::value::{DEPTH_MAX, Reader};

#[path = "../../../src/wire/tests/support/mod.rs"]
mod support;

use support::{Plain, chat, read_plainly, relay_body, relay_events, split_at_chance};

const TIME: Duration = Duration::from_secs(5);

/// What a scanner makes of a stream: the bytes that come out, and the events in them.
fn scan(frames: &[&[u8]]) -> (Vec<u8>, Vec<Plain>) {
    let mut scanner = Scanner::new();
    let mut blocks: Vec<_> =
        frames.iter().map(|frame| scanner.feed(Bytes::copy_from_slice(frame))).collect();
    blocks.extend(scanner.finish());
    let mut events = Vec::new();
    for piece in blocks.iter().flat_map(Block::pieces) {
        if let Piece::Event(event) = piece
            && let Some(data) = event.data()
        {
            let name = event.name().map(<[u8]>::to_vec);
            events.push(Plain { name, data: data.into_owned() });
        }
    }
    (blocks.iter().flat_map(|block| block.bytes.to_vec()).collect(), events)
}

/// What must hold for any bytes, as a stream of events, as a body and as a JSON text.
fn check(bytes: &[u8], seed: u64) {
    let frames = split_at_chance(bytes, seed, 1 + usize::try_from(seed % 50).unwrap());
    let whole = scan(&[bytes]);
    assert_eq!(whole, scan(&frames));
    assert_eq!(whole.0, bytes);
    if bytes.len() <= EVENT_BYTES_MAX {
        assert_eq!(whole.1, read_plainly(bytes));
    }
    for strip_usage in [false, true] {
        let options = chat(strip_usage);
        let whole = relay_events([bytes], options.clone());
        assert_eq!(whole, relay_events(frames.iter().copied(), options.clone()));
        assert!(whole.out.len() <= bytes.len());
        if !strip_usage && bytes.len() <= EVENT_BYTES_MAX {
            assert_eq!(read_plainly(&whole.out), without_malformed(read_plainly(bytes)));
        }
        let options = || options.clone();
        assert_eq!(relay_body([bytes], options()), relay_body(frames.iter().copied(), options()));
    }
    check_json(bytes);
    for event in &whole.1 {
        check_json(&event.data);
    }
}

/// The events up to the end of the stream, without those that are not JSON.
fn without_malformed(mut events: Vec<Plain>) -> Vec<Plain> {
    let done = |event: &Plain| event.data.starts_with(b"[DONE]");
    let end = events.iter().position(done).map_or(events.len(), |done| done + 1);
    events.truncate(end);
    events.retain(|event| done(event) || is_json(&event.data));
    events
}

fn is_json(bytes: &[u8]) -> bool {
    let read = Reader::of_bytes(bytes).and_then(|mut reader| {
        reader.skip()?;
        reader.finish()
    });
    read.is_ok()
}

/// The reader takes what another one takes, but for what nests too deep.
fn check_json(bytes: &[u8]) {
    let ours = is_json(bytes);
    let theirs = std::str::from_utf8(bytes)
        .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let brackets = bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    let may_be_deep = brackets > usize::try_from(DEPTH_MAX).unwrap();
    assert!(ours == theirs || may_be_deep && !ours, "{}", String::from_utf8_lossy(bytes));
    assert!(envelope::read_error(bytes).is_none() || ours);
}

fn read_folder(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Tokens that mean something to one of the readers.
const TOKENS: [&[u8]; 18] = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"data: ",
    b"data:",
    b": c\n\n",
    b"event: e\n",
    b"[DONE]",
    b"\"usage\":null,",
    b",\"usage\":{}",
    b"\"",
    b"\\u00",
    b"{",
    b"}",
    b"[",
    b",",
    b"\xef\xbb\xbf",
];

/// A recorded stream with a few changes.
fn damage(stream: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut stream = stream.to_vec();
    for _ in 0..chance.below(6) {
        let at = chance.below(stream.len() + 1);
        let to = (at + chance.below(12)).min(stream.len());
        let token = TOKENS[chance.below(TOKENS.len())];
        match chance.below(4) {
            0 => drop(stream.drain(at..to)),
            1 => drop(stream.splice(at..to, token.iter().copied())),
            2 => drop(stream.splice(at..at, token.iter().copied())),
            _ => stream.truncate(stream.len() - stream.len().min(chance.below(40))),
        }
    }
    stream
}

#[test]
fn bytes() {
    bolero::check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        check(bytes, u64::try_from(bytes.len()).unwrap());
        check(&[b"data: ", bytes, b"\n\n"].concat(), 5);
    });
}

#[test]
fn streams() {
    let streams = [read_folder("../fixtures"), read_folder("corpus/sse")].concat();
    bolero::check!().with_test_time(TIME).with_type::<u64>().for_each(|seed| {
        let mut chance = Chance::new(*seed);
        let stream = damage(&streams[chance.below(streams.len())], &mut chance);
        check(&stream, chance.draw());
    });
}

#[test]
fn corpus() {
    let corpus = read_folder("corpus/sse");
    assert!(corpus.len() >= 16, "the corpus is gone");
    for stream in corpus {
        for seed in 0..200 {
            check(&stream, seed);
        }
    }
}
