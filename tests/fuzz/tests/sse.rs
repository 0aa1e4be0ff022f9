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
use tokenroute_wire::meter::{Options, Resume, Start};
use tokenroute_wire::sse::{Block, EVENT_BYTES_MAX, Piece, Scanner};
use tokenroute_wire::value::{DEPTH_MAX, Reader};

#[path = "../../../src/wire/tests/support/mod.rs"]
mod support;

use support::{Plain, chat, read_plainly, relay_body, relay_events, split_at_chance};

const TIME: Duration = Duration::from_secs(5);

/// A byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

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
        // A mark that had an event before it, which did not go, is one of the stream's now.
        let marked = whole.out.starts_with(MARK) && !bytes.starts_with(&whole.out);
        if !strip_usage && !marked && bytes.len() <= EVENT_BYTES_MAX {
            let events = without_malformed(read_plainly(bytes));
            assert_eq!(read_plainly(&whole.out), events, "{}", bytes.escape_ascii());
        }
        let options = || options.clone();
        assert_eq!(relay_body([bytes], options()), relay_body(frames.iter().copied(), options()));
    }
    check_json(bytes);
    for event in &whole.1 {
        check_json(&event.data);
    }
}

/// What must hold for any bytes as the rest of an answer that was cut anywhere.
fn check_resumed(first: &[u8], bytes: &[u8], seed: u64) {
    let chance = &mut Chance::new(seed);
    let cut = chance.below(first.len() + 1);
    let first = relay_events([&first[..cut]], chat(false)).facts;
    let (Some(delivered), Some(identity)) = (first.delivered, first.identity) else { return };
    let trimmed = delivered.strip_prefix(delivered.trim_end()).unwrap();
    let afresh = chance.once_in(2);
    let start = if afresh {
        Start::Afresh { delivered: delivered.as_str().into() }
    } else {
        Start::Prefilled { trimmed: trimmed.to_owned() }
    };
    let resume =
        Resume { identity, start, delivered_tokens: chance.draw(), prompt_tokens: chance.draw() };
    let options = Options { resume: Some(Box::new(resume)), ..chat(chance.once_in(2)) };
    let whole = relay_events([bytes], options.clone());
    let frames = split_at_chance(bytes, seed, 60);
    assert_eq!(whole, relay_events(frames, options));
    // Each member of a chunk can grow, but no more than a few do.
    let events = read_plainly(bytes).len();
    assert!(whole.out.len() <= 2 * bytes.len() + 4096 * events);
    let relayed = relay_events([b": the first answer\n\n", &whole.out[..]], chat(false));
    assert_eq!(relayed.facts.malformed, 0, "{}", whole.out.escape_ascii());
    if let Some(content) = &whole.facts.delivered
        && !content.is_empty()
    {
        assert_eq!(relayed.facts.delivered.as_ref(), Some(content));
    }
    // What the target says where it is asked for nothing but an answer.
    let Some(said) = relay_events([bytes], chat(false)).facts.delivered else { return };
    if !afresh {
        let content = whole.facts.delivered.unwrap();
        assert!(!whole.diverged);
        assert!(trimmed.starts_with(said.strip_suffix(&content).unwrap()));
    } else if let Some(rest) = said.strip_prefix(delivered.as_str()) {
        assert!(!whole.diverged);
        assert_eq!(whole.facts.delivered.as_deref(), Some(rest));
    } else {
        assert!(whole.diverged || delivered.starts_with(&said));
        assert_eq!(whole.facts.text, "");
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
        let event = [b"data: ", bytes, b"\n\n"].concat();
        let seed = u64::try_from(bytes.len()).unwrap();
        check(bytes, seed);
        check(&event, 5);
        check_resumed(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n ", &event, seed);
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
fn rests_of_answers() {
    let streams = read_folder("../fixtures");
    bolero::check!().with_test_time(TIME).with_type::<u64>().for_each(|seed| {
        let mut chance = Chance::new(*seed);
        let first = &streams[chance.below(streams.len())];
        // Mostly the same answer again, so that there is something to go on from.
        let next = if chance.once_in(4) { chance.below(streams.len()) } else { usize::MAX };
        let next = damage(streams.get(next).unwrap_or(first), &mut chance);
        check_resumed(first, &next, chance.draw());
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
