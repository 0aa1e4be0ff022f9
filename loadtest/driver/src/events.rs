//! Counts the SSE events in a body and reads the stamps in them. It judges no event.

/// Longest event that is waited for, bytes.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// An event stream under way.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pending: Vec<u8>,
    is_done: bool,
}

impl Events {
    /// Takes more of the body; calls `each` with the stamp of every whole event but `[DONE]`.
    pub(crate) fn add(&mut self, data: &[u8], mut each: impl FnMut(Option<u64>)) {
        self.pending.extend_from_slice(data);
        let mut start = 0_usize;
        while let Some(rest) = self.pending.get(start..)
            && let Some(at) = memchr::memmem::find(rest, b"\n\n")
        {
            let event = rest.get(..at).unwrap_or_default();
            if event.starts_with(b"data: [DONE]") {
                self.is_done = true;
            } else {
                each(stamp(event));
            }
            start = start.saturating_add(at).saturating_add(2);
        }
        self.pending.drain(..start);
        if self.pending.len() > EVENT_BYTES_MAX {
            self.pending.clear();
        }
    }

    /// Whether `[DONE]` came.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }
}

/// The number after `"t":`, which stands near the end.
fn stamp(event: &[u8]) -> Option<u64> {
    let at = memchr::memmem::rfind(event, b"\"t\":")?;
    let digits = event.get(at.checked_add(4)?..)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_they_are_split() {
        let body = b"data: {\"x\":1}\n\ndata: {\"x\":1,\"t\":42}\n\ndata: [DONE]\n\n";
        for split in 0..body.len() {
            let mut events = Events::default();
            let mut stamps = vec![];
            events.add(&body[..split], |stamp| stamps.push(stamp));
            events.add(&body[split..], |stamp| stamps.push(stamp));
            assert_eq!(stamps, [None, Some(42)]);
            assert!(events.is_done());
        }
    }
}
