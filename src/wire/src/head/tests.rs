//! Heads that read in one way, and heads that do not.

use super::*;

fn head(lines: &[&str]) -> Vec<u8> {
    let mut head = lines.join("\r\n").into_bytes();
    head.extend_from_slice(b"\r\n\r\n");
    head
}

fn framing(fields: &[&str]) -> Result<Framing, Flaw> {
    let lines = [&["POST /v1/embeddings HTTP/1.1", "Host: a"], fields].concat();
    read(&head(&lines)).map(|head| head.framing)
}

fn target(target: &str) -> Result<String, Flaw> {
    read_target(target.as_bytes()).map(|target| target.path.to_owned())
}

#[test]
fn a_head_is_read() {
    let raw = head(&["POST /v1/models?limit=1 HTTP/1.1", "hOsT: a.b:80", "content-length:\t12 "]);
    let head = read(&raw).unwrap();
    assert_eq!((head.method, head.target.path, head.host), ("POST", "/v1/models", "a.b:80"));
    assert_eq!(head.framing, Framing::Length(12));
    assert_eq!(read(&[b"\r\n", raw.as_slice()].concat()), Ok(head), "one empty line before it");
    assert_eq!(read(&[b"\r\n\r\n", raw.as_slice()].concat()), Err(Flaw::Line));
}

#[test]
fn a_body_has_one_length_or_one_coding() {
    assert_eq!(framing(&[]), Ok(Framing::Empty));
    assert_eq!(framing(&["Content-Length: 0"]), Ok(Framing::Length(0)));
    assert_eq!(framing(&["Transfer-Encoding: chunked"]), Ok(Framing::Chunked));
    for fields in [
        &["Content-Length: 3", "Transfer-Encoding: chunked"][..],
        &["Content-Length: 3", "Content-Length: 3"],
        &["Content-Length: 3, 3"],
        &["Content-Length: +3"],
        &["Content-Length: 0x3"],
        &["Content-Length: 3 3"],
        &["Content-Length:"],
        &["Content-Length: 1234567890123456789"],
        &["Transfer-Encoding: gzip, chunked"],
        &["Transfer-Encoding: x", "Transfer-Encoding: chunked"],
        &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        &["Transfer-Encoding: Chunked"],
        &["Transfer-Encoding: \"chunked\""],
        &["Transfer-Encoding:"],
    ] {
        assert_eq!(framing(fields), Err(Flaw::Framing), "{fields:?}");
    }
    let old = head(&["POST / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked"]);
    assert_eq!(read(&old), Err(Flaw::Framing));
}

#[test]
fn lines_end_and_begin_as_they_should() {
    for raw in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx: \x0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx: y\rz\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        " / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nmore",
        "",
    ] {
        assert_eq!(read(raw.as_bytes()), Err(Flaw::Line), "{raw:?}");
    }
}

#[test]
fn there_is_one_host() {
    for fields in [&[][..], &["Host:"], &["Host: a", "Host: a"], &["Host: a/b"], &["Host: a, b"]] {
        let lines = [&["GET / HTTP/1.1"], fields].concat();
        assert_eq!(read(&head(&lines)), Err(Flaw::Host), "{fields:?}");
    }
    for host in ["a", "a.b:443", "[::1]:8080", "A-b_c"] {
        assert_eq!(read_host(host.as_bytes()), Ok(host));
    }
    for host in ["a/?x=", "a#", "a@b", "a b", "a\\b", "ä", "a%2f", "a,b"] {
        assert_eq!(read_host(host.as_bytes()), Err(Flaw::Host), "{host}");
    }
}

#[test]
fn a_path_reads_in_one_way() {
    for sound in ["/", "/v1", "/v1/", "/v1/models/a:b@c", "/v1/models/a%2Fb", "/.well-known/x"] {
        assert_eq!(target(sound), Ok(sound.to_owned()));
    }
    assert_eq!(target("/v1/models?a=b;c//d&e[f]=%2F"), Ok("/v1/models".to_owned()));
    for odd in [
        "",
        "*",
        "v1/models",
        "?x",
        "http://a/v1/models",
        "a:80",
        "//v1",
        "/v1//models",
        "/v1/../x",
        "/v1/./x",
        "/v1/..",
        "/.",
        "/v1/%2e%2e/x",
        "/v1/%2E/x",
        "/v1/..;/x",
        "/v1;x",
        "/v1\\x",
        "/v1/%5cx",
        "/v1/%00",
        "/v1/%0a",
        "/v1/%20",
        "/v1/%7f",
        "/v1/%",
        "/v1/%2",
        "/v1/%zz",
        "/v1/%252e",
        "/v1/%3b",
        "/v1/a b",
        "/v1/\u{e4}",
        "/v1#x",
        "/v1?a b",
        "/v1?a#b",
        "/v1?%20",
        "/v1?\u{e4}",
        "/v1?%",
    ] {
        assert_eq!(target(odd), Err(Flaw::Target), "{odd}");
    }
}

#[test]
fn names_are_decoded_and_looked_at_again() {
    let decode =
        |path: &str| read_target(path.as_bytes()).unwrap().decode_after("/m/").map(Result::ok);
    assert_eq!(decode("/x/a"), None);
    assert_eq!(decode("/m/a/b:c"), Some(Some("a/b:c".to_owned())));
    assert_eq!(decode("/m/%61%2fb%3Ac"), Some(Some("a/b:c".to_owned())));
    for odd in ["/m/", "/m/%ff"] {
        assert_eq!(decode(odd), Some(None), "{odd}");
    }
    for odd in ["/m/a%2F", "/m/a%2f..%2fb", "/m/..%2fb", "/m/%2fa", "/m/a%2F%2Fb", "/%2fa"] {
        assert_eq!(read_target(odd.as_bytes()), Err(Flaw::Target), "{odd}");
    }
    assert!(read_target(b"/m/a%2fb").unwrap().slash_encoded);
    assert!(!read_target(b"/m/a%62?%2f").unwrap().slash_encoded);
}
