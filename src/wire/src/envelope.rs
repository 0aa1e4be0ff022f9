//! The documents that the edge itself writes, in OpenAI's form: errors, and lists of models. It also
//! reads a provider's error. It knows no status codes; the caller decides what to say.

use bytes::Bytes;

use crate::value::{Kind, Malformed, Reader};

mod complaint;
mod models;
#[cfg(test)]
mod tests;

pub use complaint::{Complaint, complaint};
pub use models::{Model, model, models};

/// Longest error body of a provider that is read, in bytes. Of a longer one nothing is known.
pub const ERROR_BYTES_MAX: usize = 64 * 1024;

/// An error, as a client reads it.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// What happened, for people.
    pub message: &'a str,
    /// OpenAI's word for the class of error, such as `authentication_error`.
    pub kind: &'a str,
    /// The HTTP status, also where none can be sent any more.
    pub code: u16,
    /// The parameter that is to blame.
    pub param: Option<&'a str>,
    /// The stable word for programs.
    pub reason: &'a str,
    /// The call's id, where there is one.
    pub request_id: Option<&'a str>,
    /// The cap on output tokens with which a call could be paid for, where one was too dear.
    pub can_afford_tokens: Option<u64>,
}

impl Envelope<'_> {
    /// The error as the body of an answer.
    pub fn body(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.push(b'{');
        self.push_error(&mut out);
        out.push(b'}');
        out.into()
    }

    /// The error as the last event of a stream whose answer has begun. An event that is still open
    /// must be closed by a blank line before.
    pub fn event(&self) -> Bytes {
        let mut out = Vec::with_capacity(320);
        out.extend_from_slice(b"data: {");
        self.push_error(&mut out);
        out.extend_from_slice(
            b",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
        );
        out.into()
    }

    fn push_error(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"error\":{\"message\":");
        push_json_string(out, self.message);
        out.extend_from_slice(b",\"type\":");
        push_json_string(out, self.kind);
        out.extend_from_slice(b",\"code\":");
        out.extend_from_slice(self.code.to_string().as_bytes());
        out.extend_from_slice(b",\"param\":");
        match self.param {
            Some(param) => push_json_string(out, param),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"metadata\":{\"reason\":");
        push_json_string(out, self.reason);
        if let Some(id) = self.request_id {
            out.extend_from_slice(b",\"request_id\":");
            push_json_string(out, id);
        }
        if let Some(tokens) = self.can_afford_tokens {
            out.extend_from_slice(b",\"can_afford_tokens\":");
            out.extend_from_slice(tokens.to_string().as_bytes());
        }
        out.extend_from_slice(b"}}");
    }
}

/// Writes a text as a JSON string, quotes and all.
pub fn push_json_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    while let Some((plain, [byte, after @ ..])) =
        rest.iter().position(special).and_then(|at| rest.split_at_checked(at))
    {
        out.extend_from_slice(plain);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// What a provider's error body says. Each text as it is written there, strings with their quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProviderError<'a> {
    /// For people.
    pub message: Option<&'a str>,
    /// The class of error.
    pub kind: Option<&'a str>,
    /// The provider's own code: a string, a number or null.
    pub code: Option<&'a str>,
}

/// Reads a provider's error body. `None` unless it is a JSON object with an `error` member, an object
/// or a string, of at most [`ERROR_BYTES_MAX`] bytes.
pub fn read_error(body: &[u8]) -> Option<ProviderError<'_>> {
    if body.len() > ERROR_BYTES_MAX {
        return None;
    }
    let text = simdutf8::basic::from_utf8(body).ok()?;
    read_error_text(text).ok().flatten()
}

fn read_error_text(text: &str) -> Result<Option<ProviderError<'_>>, Malformed> {
    let mut found = None;
    let mut reader = Reader::new(text);
    reader.object(|reader, key| {
        if key.text.decode() == "error" {
            found = match reader.kind()? {
                Kind::Object => Some(read_error_object(text, reader)?),
                Kind::Text => {
                    let message = text.get(reader.skip()?);
                    Some(ProviderError { message, ..ProviderError::default() })
                }
                Kind::Array | Kind::Number | Kind::Bool | Kind::Null => None,
            };
        }
        Ok(())
    })?;
    reader.finish()?;
    Ok(found)
}

fn read_error_object<'a>(
    text: &'a str,
    reader: &mut Reader<'a>,
) -> Result<ProviderError<'a>, Malformed> {
    let mut error = ProviderError::default();
    reader.object(|reader, key| {
        let slot = match &*key.text.decode() {
            "message" => &mut error.message,
            "type" => &mut error.kind,
            "code" => &mut error.code,
            _ => return Ok(()),
        };
        *slot = text.get(reader.skip()?);
        Ok(())
    })?;
    Ok(error)
}
