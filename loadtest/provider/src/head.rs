//! The head of a request: where it ends, and the few fields that decide how to go on.

use bytes::Bytes;

/// Longest head that is read, bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 128 * 1024;
/// Most header fields in a head.
const FIELDS_MAX: usize = 256;

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes; none when nothing was said.
    Known(usize),
    /// Chunked, to its end.
    Chunked,
}

/// A request's head.
#[derive(Debug)]
pub(crate) struct Head {
    /// All of it as it arrived.
    bytes: Bytes,
    pub(crate) method: String,
    /// Path and query as they arrived.
    pub(crate) target: String,
    pub(crate) length: Length,
    pub(crate) keeps_alive: bool,
    pub(crate) expects_continue: bool,
    /// What follows `Authorization: Bearer `.
    pub(crate) credential: Option<String>,
}

/// The bytes are no request head that this server understands.
#[derive(Debug)]
pub(crate) struct Malformed;

impl Head {
    /// The length of the head at the start of `inbox`, once all of it is there.
    pub(crate) fn find_end(inbox: &[u8]) -> Option<usize> {
        memchr::memmem::find(inbox, b"\r\n\r\n").map(|at| at.saturating_add(4))
    }

    /// Reads a whole head.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
        }
        let mut length = None;
        let mut chunked = false;
        let mut keeps_alive = request.version == Some(1);
        let mut expects_continue = false;
        let mut credential = None;
        for field in request.headers.iter() {
            let value = str::from_utf8(field.value).unwrap_or("").trim();
            if field.name.eq_ignore_ascii_case("content-length") {
                let said = value.parse::<usize>().map_err(malformed)?;
                if length.replace(said).is_some() {
                    return Err(Malformed);
                }
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                if !value.eq_ignore_ascii_case("chunked") || chunked {
                    return Err(Malformed);
                }
                chunked = true;
            } else if field.name.eq_ignore_ascii_case("connection") {
                if value.eq_ignore_ascii_case("close") {
                    keeps_alive = false;
                } else if value.eq_ignore_ascii_case("keep-alive") {
                    keeps_alive = true;
                }
            } else if field.name.eq_ignore_ascii_case("expect") {
                expects_continue = value.eq_ignore_ascii_case("100-continue");
            } else if field.name.eq_ignore_ascii_case("authorization") {
                credential = value.strip_prefix("Bearer ").map(str::to_owned);
            }
        }
        let length = match (length, chunked) {
            (Some(_), true) => return Err(Malformed),
            (None, true) => Length::Chunked,
            (Some(count), false) => Length::Known(count),
            (None, false) => Length::Known(0),
        };
        let method = request.method.unwrap_or_default().to_owned();
        let target = request.path.unwrap_or_default().to_owned();
        Ok(Self { bytes, method, target, length, keeps_alive, expects_continue, credential })
    }

    /// Every header field in order, as it arrived (bytes that are not UTF-8 are replaced).
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        if request.parse(&self.bytes).is_err() {
            return vec![];
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        request.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect()
    }

    /// The path without its query, and the script that the path's first segment names, if it does.
    pub(crate) fn path(&self) -> (&str, Option<&str>) {
        let path = self.target.split('?').next().unwrap_or_default();
        match path.find("/v1/") {
            Some(at) if at > 0 => {
                let (script, rest) = path.split_at(at);
                (rest, Some(script.trim_start_matches('/')))
            }
            Some(_) | None => (path, None),
        }
    }
}

fn malformed(_: std::num::ParseIntError) -> Malformed {
    Malformed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &'static str) -> Result<Head, Malformed> {
        Head::parse(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_head_tells_its_framing_and_its_script() {
        let head =
            parse("POST /silence/v1/embeddings?x=1 HTTP/1.1\r\nContent-Length: 7\r\n\r\n").unwrap();
        assert_eq!(head.path(), ("/v1/embeddings", Some("silence")));
        assert_eq!(head.length, Length::Known(7));
        assert!(head.keeps_alive);
        let head = parse("POST /v1/models HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!(head.path(), ("/v1/models", None));
        assert_eq!(head.length, Length::Chunked);
        assert!(!head.keeps_alive);
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ] {
            assert!(parse(head).is_err(), "{head}");
        }
    }
}
