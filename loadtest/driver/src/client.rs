//! A client connection: sends prepared requests and reads the answers, with little more work than that takes.

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const READ_BYTES: usize = 32 * 1024;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 100;

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// No connection.
    Connect,
    /// The connection broke.
    Broken,
    /// The answer is no HTTP, or its framing is wrong.
    Framing,
    /// The answer's status is neither 200 nor 503.
    Status,
    /// An event stream ended without `[DONE]`.
    NotDone,
}

/// How the end of an answer's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked(Chunk),
    UntilClose,
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(usize),
    DataEnd,
    LastEnd,
    Over,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchanged {
    /// The connection can be used again.
    pub(crate) keeps: bool,
    /// It was turned away with 503.
    pub(crate) shed: bool,
}

/// A connection and what was read from it too much.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    inbox: BytesMut,
}

impl Connection {
    /// Connects to `address`, from another than the usual one if there is a `source`.
    pub(crate) async fn open(address: SocketAddr, source: Option<IpAddr>) -> Result<Self, Failure> {
        let stream = connect(address, source).await.map_err(|_error| Failure::Connect)?;
        stream.set_nodelay(true).map_err(|_error| Failure::Connect)?;
        Ok(Self { stream, inbox: BytesMut::with_capacity(READ_BYTES) })
    }

    /// Sends `request` and reads the answer to its end; `part` gets the body piece by piece.
    /// The body of an answer that turns it away is not given out.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        mut part: impl FnMut(&[u8]),
    ) -> Result<Exchanged, Failure> {
        self.stream.write_all(request).await.map_err(|_error| Failure::Broken)?;
        let (shed, mut body, keeps) = self.read_head().await?;
        let mut part = |data: &[u8]| {
            if !shed {
                part(data);
            }
        };
        loop {
            match self.take_body(&mut body, &mut part)? {
                true => return Ok(Exchanged { keeps: keeps && body != Body::UntilClose, shed }),
                false if self.fill().await? == 0 => {
                    let ended = body == Body::UntilClose;
                    let exchanged = Exchanged { keeps: false, shed };
                    return if ended { Ok(exchanged) } else { Err(Failure::Broken) };
                }
                false => {}
            }
        }
    }

    async fn fill(&mut self) -> Result<usize, Failure> {
        if self.inbox.capacity().saturating_sub(self.inbox.len()) < READ_BYTES / 4 {
            self.inbox.reserve(READ_BYTES);
        }
        self.stream.read_buf(&mut self.inbox).await.map_err(|_error| Failure::Broken)
    }

    /// Whether it is turned away, how its body ends, and whether the connection stays.
    async fn read_head(&mut self) -> Result<(bool, Body, bool), Failure> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
            let mut response = httparse::Response::new(&mut fields);
            match response.parse(&self.inbox).map_err(|_error| Failure::Framing)? {
                httparse::Status::Complete(bytes) => {
                    let shed = match response.code {
                        Some(200) => false,
                        Some(503) => true,
                        Some(_) | None => return Err(Failure::Status),
                    };
                    let (body, keeps) = read_fields(&response)?;
                    self.inbox.advance(bytes);
                    return Ok((shed, body, keeps));
                }
                httparse::Status::Partial if self.inbox.len() > HEAD_BYTES_MAX => {
                    return Err(Failure::Framing);
                }
                httparse::Status::Partial => {}
            }
            if self.fill().await? == 0 {
                return Err(Failure::Broken);
            }
        }
    }

    /// Takes what has arrived of the body; true at its end.
    fn take_body(
        &mut self,
        body: &mut Body,
        part: &mut impl FnMut(&[u8]),
    ) -> Result<bool, Failure> {
        loop {
            *body = match *body {
                Body::Length(0) | Body::Chunked(Chunk::Over) => return Ok(true),
                Body::UntilClose | Body::Length(_) | Body::Chunked(Chunk::Data(_))
                    if self.inbox.is_empty() =>
                {
                    return Ok(false);
                }
                Body::UntilClose => {
                    self.take_data(usize::MAX, part);
                    Body::UntilClose
                }
                Body::Length(left) => Body::Length(self.take_data(left, part)),
                Body::Chunked(Chunk::Data(left)) => match self.take_data(left, part) {
                    0 => Body::Chunked(Chunk::DataEnd),
                    left => Body::Chunked(Chunk::Data(left)),
                },
                Body::Chunked(Chunk::Size) => match self.take_size()? {
                    None => return Ok(false),
                    Some(0) => Body::Chunked(Chunk::LastEnd),
                    Some(size) => Body::Chunked(Chunk::Data(size)),
                },
                Body::Chunked(Chunk::DataEnd) if self.take_line_end()? => {
                    Body::Chunked(Chunk::Size)
                }
                Body::Chunked(Chunk::LastEnd) if self.take_line_end()? => {
                    Body::Chunked(Chunk::Over)
                }
                Body::Chunked(Chunk::DataEnd | Chunk::LastEnd) => return Ok(false),
            };
        }
    }

    /// Gives out what has arrived of `left` bytes; returns how many are still missing.
    fn take_data(&mut self, left: usize, part: &mut impl FnMut(&[u8])) -> usize {
        let count = left.min(self.inbox.len());
        part(self.inbox.get(..count).unwrap_or_default());
        self.inbox.advance(count);
        left.saturating_sub(count)
    }

    fn take_line_end(&mut self) -> Result<bool, Failure> {
        if self.inbox.len() < 2 {
            return Ok(false);
        }
        if !self.inbox.starts_with(b"\r\n") {
            return Err(Failure::Framing);
        }
        self.inbox.advance(2);
        Ok(true)
    }

    fn take_size(&mut self) -> Result<Option<usize>, Failure> {
        let Some(at) = memchr::memmem::find(&self.inbox, b"\r\n") else {
            return if self.inbox.len() > 64 { Err(Failure::Framing) } else { Ok(None) };
        };
        let text = str::from_utf8(self.inbox.get(..at).unwrap_or_default()).unwrap_or_default();
        let size = usize::from_str_radix(text, 16).map_err(|_error| Failure::Framing)?;
        self.inbox.advance(at.saturating_add(2));
        Ok(Some(size))
    }
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(address).await
}

fn read_fields(response: &httparse::Response<'_, '_>) -> Result<(Body, bool), Failure> {
    let mut body = Body::UntilClose;
    let mut keeps = true;
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = str::from_utf8(field.value).unwrap_or_default();
            body = Body::Length(text.trim().parse().map_err(|_error| Failure::Framing)?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::Chunked(Chunk::Size);
        } else if field.name.eq_ignore_ascii_case("connection") {
            keeps = !field.value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok((body, keeps))
}
