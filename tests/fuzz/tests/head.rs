//! Fuzzes the reading of request heads and of chunks: what is let through is read in the same way by
//! parsers that are kinder, and its path is decided once.
//!
//! Each target runs for a few seconds; `BOLERO_RANDOM_TEST_TIME_MS` sets another time.

#![cfg(test)]

use std::path::Path;
use std::time::Duration;

use tokenroute_fuzz::chance::Chance;
use tokenroute_wire::head::{Chunks, Framing, read};

const TIME: Duration = Duration::from_secs(5);
/// More fields than any head here has.
const FIELDS_MAX: usize = 256;

const METHODS: [&str; 5] = ["GET", "POST", "post", "PRI", "G@T"];
const TARGETS: [&str; 14] = [
    "/v1/chat/completions",
    "/v1/models",
    "/v1/models/a/b",
    "/v1/models/a%2Fb",
    "/v1/../x",
    "//v1",
    "/v1/%2e%2e/x",
    "/v1;x",
    "*",
    "http://h/v1/models",
    "/v1/models?a=b",
    "/v1/mo dels",
    "/v1\\x",
    "/%00",
];
const ENDS: [&str; 8] = ["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\n ", "\r"];
const FIELDS: [&str; 14] = [
    "Host: h",
    "host:h:80",
    "Host: h/x",
    "Host : h",
    "Content-Length: 5",
    "content-length:5",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "transfer-encoding:\tchunked",
    "Transfer_Encoding: x",
    "X: y",
    "X: \u{0}",
];

/// A head that is nearly sound.
fn write(chance: &mut Chance) -> Vec<u8> {
    let version = chance.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2"]);
    let (method, target) = (chance.pick(&METHODS), chance.pick(&TARGETS));
    let mut head = format!("{method} {target} {version}{}", chance.pick(&ENDS));
    if !chance.once_in(4) {
        head.push_str("Host: gateway\r\n");
    }
    for _ in 0..chance.below(4) {
        head.push_str(chance.pick(&FIELDS));
        head.push_str(chance.pick(&ENDS));
    }
    head.push_str("\r\n");
    let mut head = head.into_bytes();
    if chance.once_in(4) {
        let place = chance.below(head.len());
        let byte = u8::try_from(chance.below(256)).unwrap();
        head.splice(place..place, [byte]);
    }
    head
}

/// What must hold of a head that is let through. Returns whether it is.
fn check(raw: &[u8]) -> bool {
    let Ok(head) = read(raw) else { return false };
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(end)) = request.parse(raw) else {
        // It has other bounds, but no other opinion.
        return request.headers.len() < FIELDS_MAX;
    };
    assert_eq!(end, raw.len(), "it ends where it ends");
    assert_eq!(request.method, Some(head.method));
    let all = |name: &str| {
        let named = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        request
            .headers
            .iter()
            .filter(named)
            .map(|field| field.value.trim_ascii())
            .collect::<Vec<_>>()
    };
    assert_eq!(all("host"), [head.host.as_bytes()], "it has one host");
    let framing = match head.framing {
        Framing::Empty => (vec![], vec![]),
        Framing::Length(length) => {
            let digits = all("content-length");
            assert_eq!(digits.len(), 1);
            let text = std::str::from_utf8(digits[0]).unwrap();
            assert_eq!(text.parse(), Ok(length));
            (digits, vec![])
        }
        Framing::Chunked => (vec![], vec![b"chunked".as_slice()]),
    };
    assert_eq!((all("content-length"), all("transfer-encoding")), framing, "it has one framing");
    check_path(request.path.unwrap(), head.target.path);
    true
}

/// Whoever reads the target comes to the same path, also who decodes it or tidies it up.
fn check_path(target: &str, path: &str) {
    let uri: http::Uri = target.parse().unwrap();
    assert_eq!(uri.path(), path, "the path is decided once");
    assert!(uri.authority().is_none() && uri.scheme().is_none());
    assert!(path.starts_with('/') && !path.contains("//"));
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\;#?".contains(&byte)));
    assert!(!path.split('/').any(|part| part == "." || part == ".."));
    let lower = path.to_ascii_lowercase();
    for encoded in ["%2e", "%5c", "%00", "%25", "%3b", "%0a", "%0d"] {
        assert!(!lower.contains(encoded), "{path}");
    }
}

/// What must hold of a chunked body, however it is split. Returns whether it is sound and has ended.
fn check_chunks(body: &[u8], seed: u64) -> bool {
    let mut whole = Chunks::default();
    let verdict = whole.feed(body);
    let mut chance = Chance::new(seed);
    let (mut split, mut rest, mut same) = (Chunks::default(), body, Ok(()));
    while !rest.is_empty() && same.is_ok() {
        let (part, after) = rest.split_at(chance.below(rest.len()).max(1).min(rest.len()));
        same = split.feed(part);
        rest = after;
    }
    assert_eq!(verdict, same);
    assert_eq!(verdict.is_ok() && whole.is_done(), same.is_ok() && split.is_done());
    if verdict.is_err() || !whole.is_done() {
        return false;
    }
    // A kinder parser finds the same chunks.
    let mut rest = body;
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) else {
            panic!("no size where there is one");
        };
        rest = &rest[start..];
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).unwrap();
        assert_eq!(&rest[size..size + 2], b"\r\n");
        rest = &rest[size + 2..];
    }
    true
}

/// Chunks that are nearly sound.
fn write_chunks(chance: &mut Chance) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..chance.below(4) {
        let data = vec![b"a\r\n0;"[chance.below(5)]; chance.below(40)];
        let shift = usize::from(chance.once_in(12));
        let size = data.len() + shift;
        let extension = chance.pick(&["", "", "", ";a", ";a=\"b\"", " ", ";a\rb"]);
        let end = chance.pick(&ENDS[..6]);
        if size > 0 {
            body.extend(format!("{size:x}{extension}{end}").into_bytes());
            body.extend(data);
            body.extend(chance.pick(&ENDS[..6]).as_bytes());
        }
    }
    body.extend(
        chance
            .pick(&["0\r\n\r\n", "0\r\n\r\n", "0\r\nx: y\r\n\r\n", "00;x\r\n\r\n", "0\n\n", ""])
            .bytes(),
    );
    body
}

#[test]
fn bytes() {
    bolero::check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        check(bytes);
        check(&[b"GET /", bytes, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        check(&[b"GET / HTTP/1.1\r\nHost: h\r\n", bytes, b"\r\n\r\n"].concat());
        check_chunks(bytes, 1);
        check_chunks(&[b"3", bytes, b"\r\nabc\r\n0\r\n\r\n"].concat(), 2);
    });
}

#[test]
fn heads() {
    bolero::check!().with_test_time(TIME).with_type::<u64>().for_each(|seed| {
        check(&write(&mut Chance::new(*seed)));
    });
}

#[test]
fn chunks() {
    bolero::check!().with_test_time(TIME).with_type::<u64>().for_each(|seed| {
        let mut chance = Chance::new(*seed);
        let body = write_chunks(&mut chance);
        check_chunks(&body, chance.draw());
    });
}

/// What is made up is not all refused, so that something is checked.
#[test]
fn some_are_sound() {
    let heads = (0..2_000).filter(|seed| check(&write(&mut Chance::new(*seed)))).count();
    let chunks = |seed: &u64| check_chunks(&write_chunks(&mut Chance::new(*seed)), *seed);
    let bodies = (0..2_000).filter(chunks).count();
    assert!(heads > 50 && bodies > 200, "{heads} {bodies}");
}

#[test]
fn corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/head");
    let (mut sound, mut others) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let raw = std::fs::read(&path).unwrap();
        let passed = check(&raw);
        let is_sound = path.file_name().unwrap().to_str().unwrap().starts_with("sound-");
        assert_eq!(passed, is_sound, "{}", path.display());
        if passed { sound += 1 } else { others += 1 }
    }
    assert!(sound >= 10 && others >= 40, "the corpus is gone");
}
