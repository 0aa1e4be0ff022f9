//! The event scanner against another reader of event streams, at every split, and within its bounds.

#![cfg(test)]

use bytes::Bytes;
use proptest::prelude::*;
use tokenroute_wire::sse::{Block, EVENT_BYTES_MAX, Piece, Scanner};

mod support;

use support::{Plain, read_plainly, split_at_chance};

/// What came out of a scanner: all bytes, the events, and how many bytes passed raw or quietly.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scanned {
    bytes: Vec<u8>,
    events: Vec<Plain>,
    raw_bytes: usize,
    quiet_bytes: usize,
    /// Pieces of any kind: no part of what does not depend on the split.
    longest_block: usize,
}

impl Scanned {
    fn add(&mut self, block: &Block) {
        self.longest_block = self.longest_block.max(block.pieces().count());
        self.bytes.extend_from_slice(&block.bytes);
        for piece in block.pieces() {
            let length = piece.range().len();
            assert!(length > 0);
            match piece {
                Piece::Event(event) => {
                    assert_eq!(event.bytes(), &block.bytes[event.range()]);
                    if let Some(data) = event.data() {
                        let name = event.name().map(<[u8]>::to_vec);
                        self.events.push(Plain { name, data: data.into_owned() });
                    }
                }
                Piece::Raw { .. } => self.raw_bytes += length,
                Piece::Quiet { .. } => self.quiet_bytes += length,
            }
        }
    }
}

#[expect(single_use_lifetimes, reason = "an unnamed one is not yet allowed here")]
fn scan<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Scanned {
    let mut scanner = Scanner::new();
    let mut seen = Scanned::default();
    for frame in frames {
        seen.add(&scanner.feed(Bytes::copy_from_slice(frame)));
    }
    if let Some(rest) = scanner.finish() {
        seen.add(&rest);
    }
    seen.longest_block = 0;
    seen
}

#[test]
fn one_frame_of_whole_events_is_passed_on_uncopied() {
    let frame = Bytes::from_static(b"data: a\n\ndata: b\n\n: c\n\n");
    let block = Scanner::new().feed(frame.clone());
    assert_eq!(block.bytes.as_ptr(), frame.as_ptr());
    assert_eq!(block.bytes.len(), frame.len());
    assert_eq!(block.pieces().count(), 3);
}

#[test]
fn an_event_is_ready_with_the_last_byte_of_its_blank_line() {
    for end in ["\n\n", "\r\n\r\n", "\r\r", "\n\r\n", "\r\n\n"] {
        let stream = format!("data: a{end}");
        let (last, before) = stream.as_bytes().split_last().unwrap();
        let mut scanner = Scanner::new();
        assert!(scanner.feed(Bytes::copy_from_slice(before)).is_empty(), "{end:?}");
        let block = scanner.feed(Bytes::copy_from_slice(&[*last]));
        assert_eq!(&block.bytes[..], stream.as_bytes(), "{end:?}");
        assert!(scanner.finish().is_none(), "{end:?}");
    }
}

#[test]
fn comments_are_pieces_of_their_own_and_do_not_wait() {
    let mut scanner = Scanner::new();
    let block = scanner.feed(Bytes::from_static(b": keep-alive\n\n: keep-alive\n\ndata: x"));
    assert_eq!(&block.bytes[..], b": keep-alive\n\n: keep-alive\n\n");
    assert!(matches!(block.pieces().collect::<Vec<_>>()[..], [Piece::Quiet { .. }]));
    let block = scanner.feed(Bytes::from_static(b"\n: inside\n\n"));
    let pieces: Vec<_> = block.pieces().collect();
    let [Piece::Event(event)] = &pieces[..] else { panic!("{pieces:?}") };
    assert_eq!(event.data().unwrap(), &b"x"[..]);
    assert_eq!(event.bytes(), b"data: x\n: inside\n\n");
}

#[test]
fn fields_are_read_as_the_standard_says() {
    let stream = "\u{feff}data:no space\n\ndata:  two\n\ndata\n\nevent: n\nevent:name\ndata: a\ndata:\r\
                  data: c\r\n\r\nid: 1\nretry: 2\n\ndatas: x\ndata : y\n\nevent: unfinished";
    let expect = |name: Option<&str>, data: &str| Plain {
        name: name.map(|name| name.as_bytes().to_vec()),
        data: data.as_bytes().to_vec(),
    };
    let expected = vec![
        expect(None, "no space"),
        expect(None, " two"),
        expect(None, ""),
        expect(Some("name"), "a\n\nc"),
    ];
    assert_eq!(scan([stream.as_bytes()]).events, expected);
    assert_eq!(read_plainly(stream.as_bytes()), expected);
    // A mark before a comment is no part of the event behind it.
    let marked = "\u{feff}: c\ndata: a\ndata: b\n\n";
    assert_eq!(scan([marked.as_bytes()]).events, [expect(None, "a\nb")]);
}

#[test]
fn an_event_at_the_bound_is_whole_and_one_over_it_passes_raw() {
    for (length, whole) in [(EVENT_BYTES_MAX, true), (EVENT_BYTES_MAX + 1, false)] {
        let stream = format!("data: {}\n\ndata: next\n\n", "x".repeat(length - 8));
        let one = scan([stream.as_bytes()]);
        assert_eq!(one.events.len(), if whole { 2 } else { 1 }, "{length}");
        assert_eq!(one.raw_bytes, if whole { 0 } else { length });
        for frame_bytes in [1, 1000, EVENT_BYTES_MAX - 1, EVENT_BYTES_MAX] {
            assert_eq!(scan(stream.as_bytes().chunks(frame_bytes)), one, "{length} {frame_bytes}");
        }
    }
}

#[test]
fn an_endless_line_is_not_kept() {
    let frame = Bytes::from(vec![b'x'; 64 * 1024]);
    let mut scanner = Scanner::new();
    let mut passed = 0;
    for sent in 1..=1600 {
        let block = scanner.feed(frame.clone());
        passed += block.bytes.len();
        assert!(sent * frame.len() - passed <= EVENT_BYTES_MAX);
        assert!(block.pieces().all(|piece| matches!(piece, Piece::Raw { .. })));
    }
    assert_eq!(passed, 1600 * frame.len());
    let block = scanner.feed(Bytes::from_static(b"\n\ndata: after\n\n"));
    assert!(matches!(block.pieces().last(), Some(Piece::Event(event))
        if event.data().unwrap() == &b"after"[..]));
}

#[test]
fn a_million_empty_lines_make_few_pieces() {
    for line in [": \n", "\n", ":\r\n", "data:\n", "data: {\"id\"\r"] {
        let stream = line.repeat(1_000_000);
        let mut scanner = Scanner::new();
        let mut seen = Scanned::default();
        for frame in stream.as_bytes().chunks(16 * 1024) {
            seen.add(&scanner.feed(Bytes::copy_from_slice(frame)));
        }
        assert!(seen.longest_block <= 1, "{line:?}: {}", seen.longest_block);
        assert!(stream.len() - seen.bytes.len() <= EVENT_BYTES_MAX);
        assert_eq!(seen.events.len(), 0);
    }
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(&b"data: "[..]),
        2 => Just(&b"data:"[..]),
        1 => Just(&b"data"[..]),
        2 => Just(&b"event: n"[..]),
        1 => Just(&b": c"[..]),
        2 => Just(&b"{\"a\":1}"[..]),
        1 => Just("é\u{1f600}".as_bytes()),
        1 => Just(&b"\xef\xbb\xbf"[..]),
        1 => Just(&b" "[..]),
        1 => Just(&b":"[..]),
        1 => Just(&b"id: 7"[..]),
        5 => Just(&b"\n"[..]),
        4 => Just(&b"\r\n"[..]),
        4 => Just(&b"\r"[..]),
        2 => Just(&b"\n\n"[..]),
        1 => Just(&b"x"[..]),
    ];
    let mark = prop::sample::select(vec![&b""[..], b"\xef\xbb\xbf"]);
    (mark, prop::collection::vec(part, 0..60))
        .prop_map(|(mark, parts)| [mark, &parts.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_stream_is_read_as_another_reader_reads_it(stream in stream(), seed: u64) {
        let whole = scan([&stream[..]]);
        prop_assert_eq!(&whole.bytes, &stream);
        prop_assert_eq!(&whole.events, &read_plainly(&stream));
        prop_assert_eq!(&scan(stream.chunks(1)), &whole);
        prop_assert_eq!(&scan(split_at_chance(&stream, seed, 9)), &whole);
    }

    #[test]
    fn any_stream_is_the_same_at_any_two_pieces(stream in stream()) {
        let whole = scan([&stream[..]]);
        for at in 0..=stream.len() {
            let (a, b) = stream.split_at(at);
            prop_assert_eq!(&scan([a, b]), &whole, "{}", at);
        }
    }
}
