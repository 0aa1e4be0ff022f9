//! Response framing: heads, chunks, and bodies that end with the connection.

use crate::gzip::Gzip;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A response body under way.
#[derive(Debug)]
pub(crate) struct Frame {
    framing: Framing,
    gzip: Option<Gzip>,
}

impl Frame {
    pub(crate) fn new(framing: Framing, gzip: bool) -> Self {
        Self { framing, gzip: gzip.then(Gzip::default) }
    }

    /// The bytes on the wire of another part of the body.
    pub(crate) fn part(&mut self, data: &[u8], out: &mut Vec<u8>) {
        match &mut self.gzip {
            Some(gzip) => {
                let packed = gzip.add(data);
                self.put(&packed, out);
            }
            None => self.put(data, out),
        }
    }

    /// The bytes on the wire of the body's end.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(mut gzip) = self.gzip.take() {
            let tail = gzip.finish();
            self.put(&tail, out);
        }
        match self.framing {
            Framing::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
            Framing::Length(_) | Framing::UntilClose => {}
        }
    }

    fn put(&self, data: &[u8], out: &mut Vec<u8>) {
        match self.framing {
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => put_chunk(data, out),
            Framing::Length(_) | Framing::UntilClose => out.extend_from_slice(data),
        }
    }
}

/// Adds `data` as one HTTP chunk.
pub(crate) fn put_chunk(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The name of a status code.
fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

/// A response head. `more` is further whole header lines, each with its line end.
pub(crate) fn head(code: u16, content_type: &str, framing: Framing, more: &str) -> Vec<u8> {
    let name = reason(code);
    let length = match framing {
        Framing::Length(bytes) => format!("content-length: {bytes}\r\n"),
        Framing::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
        Framing::UntilClose => "connection: close\r\n".to_owned(),
    };
    format!("HTTP/1.1 {code} {name}\r\ncontent-type: {content_type}\r\n{length}{more}\r\n")
        .into_bytes()
}
