//! HTTP/2: one exchange as a stream of a shared connection.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Uri, Version};
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::routing::Failure;

use super::WRITE_MAX;
use super::links::Seat;
use crate::snapshot::Provider;

/// Fields that belong to a connection of HTTP/1.1 and must not be sent (RFC 9113, 8.2.2).
const HOP_BY_HOP: [HeaderName; 4] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// A request that was sent, or is being sent, and its answer. Dropped before both have ended, it resets
/// its stream and leaves the connection alone.
pub(super) struct Exchange {
    answer: Answer,
    body: SendStream<Bytes>,
    written: bool,
    /// A failure that was found behind a part that has been handed out.
    failed: bool,
    reused: bool,
    /// Dropped last: another exchange may take it when the stream is gone.
    _seat: Seat,
}

/// How far the answer has come.
enum Answer {
    Awaited(ResponseFuture),
    Coming(RecvStream),
    Ended,
}

impl Exchange {
    /// Sends a whole request.
    pub(super) async fn send(
        seat: Seat,
        (provider, endpoint): (&Provider, Endpoint),
        mut pieces: Vec<Bytes>,
    ) -> Result<Self, Failure> {
        pieces.retain(|piece| !piece.is_empty());
        let length = pieces.iter().map(Bytes::len).sum::<usize>();
        let length = u64::try_from(length).ok().filter(|length| *length > 0);
        let mut exchange = Self::open(seat, (provider, endpoint), (length, pieces.is_empty()))?;
        let Some(last) = pieces.pop() else { return Ok(exchange) };
        let write = async {
            for piece in pieces {
                push(&mut exchange.body, piece, false).await?;
            }
            push(&mut exchange.body, last, true).await
        };
        let written = timeout(WRITE_MAX, write).await;
        exchange.written = matches!(written, Ok(Some(())));
        Ok(exchange)
    }

    /// Sends the head of a request whose body follows.
    pub(super) fn begin(
        seat: Seat,
        (provider, endpoint): (&Provider, Endpoint),
        length: Option<u64>,
    ) -> Result<Self, Failure> {
        Self::open(seat, (provider, endpoint), (length, false))
    }

    fn open(
        mut seat: Seat,
        (provider, endpoint): (&Provider, Endpoint),
        (length, whole): (Option<u64>, bool),
    ) -> Result<Self, Failure> {
        let head = provider.head(endpoint).ok_or(Failure::Protocol)?;
        let mut request = parse(head, provider.tls).ok_or(Failure::Protocol)?;
        if let Some(length) = length {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let reused = seat.reused;
        let opened = seat.sender.send_request(request, whole);
        let (answer, body) = opened.map_err(|error| failure(&error, reused))?;
        let answer = Answer::Awaited(answer);
        Ok(Self { answer, body, written: true, failed: false, reused, _seat: seat })
    }

    pub(super) async fn write(&mut self, part: &Bytes) {
        if self.written && !part.is_empty() {
            let pushed = timeout(WRITE_MAX, push(&mut self.body, part.clone(), false)).await;
            self.written = matches!(pushed, Ok(Some(())));
        }
    }

    pub(super) fn finish(&mut self) {
        if self.written {
            self.written = self.body.send_data(Bytes::new(), true).is_ok();
        }
    }

    pub(super) const fn is_writable(&self) -> bool {
        self.written
    }

    pub(super) async fn head(&mut self) -> Result<ResponseHeader, Failure> {
        let Answer::Awaited(awaited) = &mut self.answer else { return Err(Failure::Protocol) };
        let (head, body) = match awaited.await {
            Ok(response) => response.into_parts(),
            Err(error) => {
                (self.answer, self.failed) = (Answer::Ended, true);
                return Err(failure(&error, self.reused));
            }
        };
        self.answer = Answer::Coming(body);
        self.note_end();
        Ok(ResponseHeader::from(head))
    }

    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.failed {
            return Err(Failure::Cut);
        }
        let Answer::Coming(body) = &mut self.answer else { return Ok(None) };
        match poll_fn(|context| body.poll_data(context)).await {
            Some(Ok(part)) => {
                // Only now may the provider send as much again.
                let released = body.flow_control().release_capacity(part.len());
                self.failed = released.is_err();
                self.note_end();
                Ok(Some(part))
            }
            Some(Err(_)) => {
                self.failed = true;
                Err(Failure::Cut)
            }
            None => {
                self.answer = Answer::Ended;
                Ok(None)
            }
        }
    }

    /// Takes note of an end that came with the part before. A stream that was reset has none.
    fn note_end(&mut self) {
        if matches!(&self.answer, Answer::Coming(body) if body.is_end_stream()) {
            self.answer = Answer::Ended;
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        matches!(self.answer, Answer::Ended) && !self.failed
    }
}

/// Sends bytes as far as the provider takes them. `None`: it takes no more.
async fn push(body: &mut SendStream<Bytes>, mut bytes: Bytes, last: bool) -> Option<()> {
    while !bytes.is_empty() {
        body.reserve_capacity(bytes.len());
        while body.capacity() == 0 {
            poll_fn(|context| body.poll_capacity(context)).await?.ok()?;
        }
        let part = bytes.split_to(body.capacity().min(bytes.len()));
        body.send_data(part, last && bytes.is_empty()).ok()?;
    }
    Some(())
}

/// A request, from the bytes that are written in HTTP/1.1.
fn parse(head: &[u8], tls: bool) -> Option<Request<()>> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let mut line = lines.next()?.split(' ');
    let (method, path) = (line.next()?, line.next()?);
    let mut request = Request::builder().method(method).version(Version::HTTP_2).body(()).ok()?;
    let mut uri = Uri::builder().scheme(if tls { "https" } else { "http" }).path_and_query(path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        if name == header::HOST {
            uri = uri.authority(value);
        } else if !HOP_BY_HOP.contains(&name) {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(name == header::AUTHORIZATION);
            request.headers_mut().append(name, value);
        }
    }
    *request.uri_mut() = uri.build().ok()?;
    Some(request)
}

/// What an error before the head means. What the provider has refused, or was closing the connection
/// to, it has not begun to work on (RFC 9113, 8.7): that is as harmless as a stale connection.
fn failure(error: &h2::Error, reused: bool) -> Failure {
    let declined = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let closing = error.is_go_away();
    if error.is_remote() && (declined || closing) || error.is_io() && reused {
        Failure::Stale
    } else if error.is_remote() || error.is_io() {
        Failure::Reset
    } else {
        Failure::Protocol
    }
}
