//! What an HTTP/2 connection asks for beside its requests: h2 answers PING, SETTINGS, PRIORITY, resets and
//! the like for ever. Each is cheap, but who sends nothing else is no client. It reads the headers of
//! frames (RFC 9113, 4.1) in both directions and changes nothing; whether they are right is h2's to say.

use std::io::IoSlice;

use tokio::sync::watch;

/// What is in store at first and at most: far more than any client ever needs in advance.
const STORE_MAX: u32 = 10_000;
/// Bytes of the preface before a client's first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// A body's frame with fewer bytes costs more to read than it brings.
const CRUMB_BYTES: usize = 64;
/// So many bytes of an answer earn as much as a `WINDOW_UPDATE` costs.
const SHARE_BYTES: usize = 256;
/// What a request earns, and a part of its answer beside a share for its bytes.
const REQUEST: u32 = 8;
const ANSWER: u32 = 4;
/// What a reset costs, whoever sends it: a request that is reset at once earns less than that.
const RESET: u32 = 16;
/// What new settings cost: each stream may have to be looked at.
const SETTINGS: u32 = 16;
/// The farewell: `ENHANCE_YOUR_CALM` (RFC 9113, 6.8 and 7).
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const CONTINUATION: u8 = 9;
    const ACK: u8 = 1;
    const BYTES: usize = 9;

    fn read(bytes: [u8; Self::BYTES]) -> Self {
        let [long, longer, longest, kind, flags, stream @ ..] = bytes;
        let length = u32::from_be_bytes([0, long, longer, longest]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // The first bit is reserved, and ignored.
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        Self { length, kind, flags, stream }
    }
}

/// Finds the headers of frames in one direction of a connection.
#[derive(Debug, Default)]
struct Scanner {
    /// Bytes that are no header: the rest of a payload.
    skip: usize,
    head: [u8; Head::BYTES],
    /// Bytes of the header so far.
    have: usize,
}

impl Scanner {
    fn feed(&mut self, mut bytes: &[u8], mut note: impl FnMut(Head)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip = self.skip.saturating_sub(skipped);
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else { return };
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *first;
            }
            self.have = self.have.saturating_add(1);
            bytes = rest;
            if self.have == Head::BYTES {
                let head = Head::read(self.head);
                (self.have, self.skip) = (0, head.length);
                note(head);
            }
        }
    }

    /// Whether a frame has just ended.
    const fn is_between(&self) -> bool {
        self.have == 0 && self.skip == 0
    }
}

/// Looks after one connection: how much it asks for, and when it has asked for all that it may.
#[derive(Debug)]
pub(crate) struct Watch {
    floods: Floods,
    requests_max: u32,
    /// Tells whoever serves the connection to take leave of the client.
    leave: watch::Sender<bool>,
}

impl Watch {
    /// Tells `leave` when there have been `requests_max` requests.
    pub(crate) fn new(requests_max: u32, leave: watch::Sender<bool>) -> Self {
        Self { floods: Floods::default(), requests_max, leave }
    }

    /// Takes note of what the client has sent, from its preface on. `Err`: it is not served any more.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> Result<(), Spent> {
        self.floods.received(bytes)?;
        if self.floods.account.requests >= self.requests_max {
            self.leave.send_if_modified(|leave| !std::mem::replace(leave, true));
        }
        Ok(())
    }

    /// Takes note of the first `count` of these bytes, which were sent to the client.
    pub(crate) fn sent(&mut self, parts: &[IoSlice<'_>], mut count: usize) {
        for part in parts {
            let length = part.len().min(count);
            self.floods.sent(part.get(..length).unwrap_or_default());
            count = count.saturating_sub(length);
        }
    }

    /// A frame that tells the client why, if one can be put after what was sent.
    pub(crate) fn farewell(&self) -> Option<[u8; GOAWAY.len()]> {
        self.floods.farewell()
    }
}

/// What a connection has asked for, and what for.
#[derive(Debug)]
struct Floods {
    received: Scanner,
    sent: Scanner,
    account: Account,
}

#[derive(Debug)]
struct Account {
    store: u32,
    spent: bool,
    /// The last stream that the client has opened.
    stream: u32,
    requests: u32,
}

impl Default for Floods {
    fn default() -> Self {
        let received = Scanner { skip: PREFACE_BYTES, ..Scanner::default() };
        let account = Account { store: STORE_MAX, spent: false, stream: 0, requests: 0 };
        Self { received, sent: Scanner::default(), account }
    }
}

impl Floods {
    fn received(&mut self, bytes: &[u8]) -> Result<(), Spent> {
        let account = &mut self.account;
        self.received.feed(bytes, |head| account.received(head));
        if account.spent { Err(Spent) } else { Ok(()) }
    }

    fn sent(&mut self, bytes: &[u8]) {
        let account = &mut self.account;
        self.sent.feed(bytes, |head| account.sent(head));
    }

    fn farewell(&self) -> Option<[u8; GOAWAY.len()]> {
        let mut frame = GOAWAY;
        let last = frame.get_mut(Head::BYTES..Head::BYTES.saturating_add(4))?;
        last.copy_from_slice(&self.account.stream.to_be_bytes());
        self.sent.is_between().then_some(frame)
    }
}

/// A connection has asked for too much beside its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent;

impl Account {
    fn received(&mut self, head: Head) {
        match head.kind {
            Head::HEADERS => {
                // Trailers are no request.
                if head.stream > self.stream {
                    self.stream = head.stream;
                    self.requests = self.requests.saturating_add(1);
                    self.earn(REQUEST);
                }
            }
            Head::DATA if head.length >= CRUMB_BYTES => {}
            Head::RST_STREAM => self.spend(RESET),
            Head::SETTINGS if head.flags & Head::ACK == 0 => self.spend(SETTINGS),
            // It belongs to a request, and h2 counts it.
            Head::CONTINUATION => {}
            _ => self.spend(1),
        }
    }

    fn sent(&mut self, head: Head) {
        match head.kind {
            Head::DATA => {
                let share = u32::try_from(head.length / SHARE_BYTES).unwrap_or(u32::MAX);
                self.earn(ANSWER.saturating_add(share));
            }
            Head::HEADERS => self.earn(ANSWER),
            Head::RST_STREAM => self.spend(RESET),
            // What is sent in answer to the client's own is paid for by that.
            _ => {}
        }
    }

    fn earn(&mut self, more: u32) {
        self.store = self.store.saturating_add(more).min(STORE_MAX);
    }

    fn spend(&mut self, less: u32) {
        self.spent |= self.store < less;
        self.store = self.store.saturating_sub(less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(payload).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(bytes.len() + payload, 0xee);
        bytes
    }

    fn greeted() -> Floods {
        let mut floods = Floods::default();
        floods.received(PREFACE).unwrap();
        floods
    }

    /// How many of these frames are taken before it is too much; all of 30,000 is `None`.
    fn taken(frames: &dyn Fn(u32) -> (Vec<u8>, Vec<u8>)) -> Option<u32> {
        let mut floods = greeted();
        (0..30_000).find(|number| {
            let (received, sent) = frames(*number);
            let taken = floods.received(&received);
            floods.sent(&sent);
            taken.is_err()
        })
    }

    #[test]
    fn what_is_asked_for_beside_requests_has_an_end() {
        for (kind, flags, count) in [
            (6, 0, 10_000),
            (2, 0, 10_000),
            (8, 0, 10_000),
            (0xbb, 0, 10_000),
            (4, 0, 625),
            (3, 0, 625),
        ] {
            assert_eq!(taken(&|_| (frame(kind, flags, 0, 8), vec![])), Some(count), "{kind}");
        }
        // Bodies in crumbs.
        assert_eq!(taken(&|_| (frame(0, 0, 1, 63), vec![])), Some(10_000));
        // The answers to pings earn nothing.
        assert_eq!(taken(&|_| (frame(6, 0, 0, 8), frame(6, 1, 0, 8))), Some(10_000));
    }

    #[test]
    fn requests_that_are_reset_at_once_have_an_end() {
        let stream = |number: u32| number * 2 + 1;
        let both =
            |number| [frame(1, 5, stream(number), 50), frame(3, 0, stream(number), 4)].concat();
        assert_eq!(taken(&|number| (both(number), vec![])), Some(1_249));
        // So have those that the client makes us reset.
        let opened = |number| frame(1, 4, stream(number), 50);
        let reset = |number| frame(3, 0, stream(number), 4);
        assert_eq!(taken(&|number| (opened(number), reset(number))), Some(1_250));
        // A stream is opened once.
        assert_eq!(
            taken(&|_| ([frame(1, 5, 1, 50), frame(3, 0, 1, 4)].concat(), vec![])),
            Some(625)
        );
    }

    #[test]
    fn clients_are_served_for_ever() {
        let stream = |number: u32| number * 2 + 1;
        let ask =
            |number| [frame(1, 4, stream(number), 50), frame(0, 1, stream(number), 20)].concat();
        let answer =
            |number| [frame(1, 4, stream(number), 90), frame(0, 1, stream(number), 300)].concat();
        assert_eq!(taken(&|number| (ask(number), answer(number))), None);
        // Refused and reset because the body is not wanted.
        let refused = |number| [answer(number), frame(3, 0, stream(number), 4)].concat();
        assert_eq!(taken(&|number| (ask(number), refused(number))), None);
        // One stream that is read event by event, each acknowledged twice.
        let acknowledged = [frame(8, 0, 0, 4), frame(8, 0, 1, 4)].concat();
        assert_eq!(taken(&|_| (acknowledged.clone(), frame(0, 0, 1, 40))), None);
        // One that is read in small parts of large frames.
        assert_eq!(taken(&|_| (frame(8, 0, 1, 4).repeat(64), frame(0, 0, 1, 16_384))), None);
        // A long body, in large frames or in small ones.
        assert_eq!(taken(&|_| (frame(0, 0, 1, 16_384), frame(8, 0, 1, 4))), None);
        assert_eq!(taken(&|_| (frame(0, 0, 1, 64), vec![])), None);
    }

    #[test]
    fn frames_are_found_in_any_pieces() {
        let all = [
            PREFACE,
            &frame(4, 0, 0, 12),
            &frame(1, 4, 7, 70),
            &frame(0, 1, 7, 0),
            &frame(6, 0, 0, 8),
        ]
        .concat();
        let whole = {
            let mut floods = Floods::default();
            floods.received(&all).unwrap();
            (floods.account.store, floods.account.requests, floods.account.stream)
        };
        assert_eq!(whole, (10_000 - 10, 1, 7));
        for size in 1..all.len() {
            let mut floods = Floods::default();
            for part in all.chunks(size) {
                floods.received(part).unwrap();
            }
            assert_eq!(
                (floods.account.store, floods.account.requests, floods.account.stream),
                whole,
                "{size}"
            );
        }
    }

    #[test]
    fn a_client_that_has_asked_often_is_told_once() {
        let leave = watch::Sender::new(false);
        let mut told = leave.subscribe();
        let mut one = Watch::new(2, leave);
        one.received(PREFACE).unwrap();
        for (stream, due) in [(1, false), (1, false), (3, true), (5, false)] {
            one.received(&frame(1, 5, stream, 3)).unwrap();
            assert_eq!(told.has_changed().unwrap(), due, "{stream}");
            assert_eq!(*told.borrow_and_update(), stream >= 3);
        }
        // Only what was taken counts as sent.
        let (head, rest) = (frame(0, 0, 1, 0), frame(3, 0, 1, 4));
        one.floods.account.store = 0;
        one.sent(&[IoSlice::new(&head), IoSlice::new(&rest)], head.len());
        assert_eq!((one.floods.account.store, one.floods.account.spent), (ANSWER, false));
    }

    #[test]
    fn a_farewell_comes_between_frames() {
        let mut floods = greeted();
        floods.received(&frame(1, 5, 0x8000_0009, 0)).unwrap();
        let frame = frame(0, 0, 9, 10);
        for (index, byte) in frame.iter().enumerate() {
            assert_eq!(floods.farewell().is_some(), index == 0);
            floods.sent(&[*byte]);
        }
        let farewell = floods.farewell().unwrap();
        assert_eq!(farewell[..9], [0, 0, 8, 7, 0, 0, 0, 0, 0]);
        assert_eq!(farewell[9..], [0, 0, 0, 9, 0, 0, 0, 11]);
    }
}
