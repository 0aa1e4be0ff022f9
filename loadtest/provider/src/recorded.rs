//! Recorded answers: the streams of a folder, to be sent again event for event, and the text in them.

use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use serde_json::Value;

/// Most recordings read from a folder, and the longest, bytes.
const RECORDINGS_MAX: usize = 1_000;
const RECORDING_BYTES_MAX: usize = 1024 * 1024;

/// A recorded stream.
#[derive(Debug)]
pub(crate) struct Recording {
    /// Its events as they were, each with its blank line; comments between blank lines are events too.
    pub(crate) events: Vec<Vec<u8>>,
    /// What its content deltas say, in order. Halves of a surrogate pair in two deltas are in one piece.
    pub(crate) pieces: Vec<String>,
}

impl Recording {
    fn new(stream: &[u8]) -> Self {
        let events = split_events(stream);
        let contents = events.iter().filter_map(|event| content(&payload(event)));
        Self { pieces: join_halves(contents), events }
    }

    /// Whether an event of a recording says something.
    pub(crate) fn speaks(event: &[u8]) -> bool {
        content(&payload(event)).is_some_and(|text| !text.is_empty())
    }
}

/// Every `NAME.sse` of a folder.
pub(crate) fn read_folder(folder: &Path) -> io::Result<HashMap<String, Recording>> {
    let mut recordings = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let (Some(name), Some("sse")) = (name, path.extension().and_then(|kind| kind.to_str()))
        else {
            continue;
        };
        let stream = fs::read(&path)?;
        if recordings.len() >= RECORDINGS_MAX || stream.len() > RECORDING_BYTES_MAX {
            let message = format!("{}: too long, or one too many", path.display());
            return Err(io::Error::other(message));
        }
        recordings.insert(name.to_owned(), Recording::new(&stream));
    }
    Ok(recordings)
}

/// Cuts a stream after each run of blank lines, whatever ends its lines.
fn split_events(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut events = vec![];
    let mut event = vec![];
    let mut was_blank = false;
    for line in lines(stream) {
        let blank = line.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        if was_blank && !blank {
            events.push(std::mem::take(&mut event));
        }
        event.extend_from_slice(line);
        was_blank = blank;
    }
    if !event.is_empty() {
        events.push(event);
    }
    events
}

/// The lines of a stream with their ends: LF, CR LF or CR.
fn lines(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = memchr::memchr2(b'\r', b'\n', rest).map_or(rest.len(), |at| {
            let pair = rest.get(at..).is_some_and(|tail| tail.starts_with(b"\r\n"));
            at.saturating_add(if pair { 2 } else { 1 })
        });
        let (line, tail) = rest.split_at(end);
        rest = tail;
        (!line.is_empty()).then_some(line)
    })
}

/// The data of an event.
fn payload(event: &[u8]) -> String {
    let data = lines(event).filter_map(|line| {
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        let text = line.strip_prefix(b"data:")?;
        let text = text.strip_prefix(b" ").unwrap_or(text);
        Some(String::from_utf8_lossy(text).trim_end_matches(['\r', '\n']).to_owned())
    });
    data.collect::<Vec<_>>().join("\n")
}

/// What the first `content` in a chunk says, still with its escapes: half a pair is no text.
fn content(payload: &str) -> Option<String> {
    let (_, rest) = payload.split_once("\"content\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let mut escaped = false;
    let end = rest.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })?;
    rest.get(..end).map(str::to_owned)
}

/// Decodes contents, each with those before it that are no text alone.
fn join_halves(contents: impl Iterator<Item = String>) -> Vec<String> {
    let mut pieces = vec![];
    let mut pending = String::new();
    for content in contents {
        pending.push_str(&content);
        if let Ok(Value::String(text)) = serde_json::from_str(&format!("\"{pending}\"")) {
            pending.clear();
            if !text.is_empty() {
                pieces.push(text);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_after_blank_lines_of_any_kind_and_nothing_is_lost() {
        let stream = b": a\r\n\r\n\r\ndata: b\rid: 1\r\rdata: c\n\ndata: d";
        let events = split_events(stream);
        assert_eq!(events.concat(), stream);
        let events = events.iter().map(|event| str::from_utf8(event).unwrap());
        assert_eq!(
            events.collect::<Vec<_>>(),
            [": a\r\n\r\n\r\n", "data: b\rid: 1\r\r", "data: c\n\n", "data: d"]
        );
    }

    #[test]
    fn pieces_are_decoded_and_halves_are_joined() {
        let stream = concat!(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\" : \"a\\\"\\\\\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":null}}]}\n\n",
            "data: {\"choices\":\ndata: [{\"delta\":{\"content\":\" \\ud83d\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"\\ude42 b\"}}]}\n\n",
            "data: [DONE]\n\n",
        );
        let recording = Recording::new(stream.as_bytes());
        assert_eq!(recording.pieces, ["a\"\\", " 🙂 b"]);
        assert_eq!(recording.events.len(), 6);
        let speaks = recording.events.iter().map(|event| Recording::speaks(event));
        assert_eq!(speaks.collect::<Vec<_>>(), [false, true, false, true, true, false]);
    }
}
