//! Answers that break HTTP: resets, half heads and odd framings, byte for byte.

use crate::connection::Next;
use crate::frame::{self, Framing, put_chunk};
use crate::play::Exchange;
use crate::script::Fault;
use crate::wire::Gone;

/// Plays `fault` with `text` as the JSON body where one is sent; `None` when the answer proper still follows.
pub(crate) async fn play(
    exchange: &mut Exchange<'_>,
    fault: Fault,
    text: &str,
) -> Result<Option<Next>, Gone> {
    let whole = || {
        let mut out = frame::head(200, "application/json", Framing::Length(text.len()), "");
        out.extend_from_slice(text.as_bytes());
        out
    };
    let (bytes, next) = match fault {
        Fault::Silence => {
            exchange.note(|seen| seen.end = "silent");
            let gone = exchange.wire.hang().await;
            exchange.end("client_closed");
            return Err(gone);
        }
        Fault::Informational => {
            let hints =
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
            exchange.wire.send(hints).await?;
            return Ok(None);
        }
        Fault::ResetBeforeHead | Fault::ResetOnReuse => (vec![], Next::Reset),
        Fault::FinBeforeHead => (vec![], Next::Close),
        Fault::HalfHead => (b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec(), Next::Reset),
        Fault::NotHttp => (b"220 box ESMTP ready\r\n\r\n".to_vec(), Next::Close),
        Fault::BadChunk => {
            let mut out = frame::head(200, "text/event-stream", Framing::Chunked, "");
            put_chunk(b": first\n\n", &mut out);
            out.extend_from_slice(b"zz\r\n: second\n\n\r\n");
            (out, Next::Close)
        }
        Fault::LengthAndChunked => {
            let length = format!("content-length: {}\r\n", text.len());
            let mut out = frame::head(200, "application/json", Framing::Chunked, &length);
            put_chunk(text.as_bytes(), &mut out);
            out.extend_from_slice(b"0\r\n\r\n");
            (out, Next::Close)
        }
        Fault::TwoLengths => {
            let length = format!("content-length: {}\r\n", text.len().saturating_add(5));
            let framing = Framing::Length(text.len());
            let mut out = frame::head(200, "application/json", framing, &length);
            out.extend_from_slice(text.as_bytes());
            (out, Next::Close)
        }
        Fault::TwoAnswers => {
            let mut out = whole();
            out.extend_from_slice(&whole());
            (out, Next::KeepAlive)
        }
        Fault::ShortBody => {
            let framing = Framing::Length(text.len().saturating_add(100));
            let mut out = frame::head(200, "application/json", framing, "");
            out.extend_from_slice(text.as_bytes());
            (out, Next::Close)
        }
    };
    let end = match next {
        Next::Reset => "reset",
        Next::Close => "cut",
        Next::KeepAlive => "finished",
    };
    exchange.end_with(&bytes, end).await?;
    Ok(Some(next))
}
