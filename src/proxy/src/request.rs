//! The body of a request: read frame by frame, scanned as it arrives, kept by reference.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, ErrorType};
use pingora_timeout::timeout;
use tokenroute_domain::admission::Refusal;
use tokenroute_wire::request::{Facts, Flag, Frames, Malformed, Name, Number, Options, Scanner};

use crate::reply::Fault;
use crate::snapshot::Limits;

/// Largest number of choices that a request may ask for (OpenAI's own bound).
const CHOICES_MAX: u64 = 128;
/// Largest cap on output tokens that is taken for one.
const TOKENS_MAX: u64 = 1 << 32;

/// Waits until the client leaves. One that is still sending, or has begun to send its next request,
/// has not left.
pub(crate) async fn client_leaves(session: &mut ServerSession) {
    if session.is_body_done() {
        match session.read_body_or_idle(true).await {
            // Bytes beyond the request: what they begin is lost, so the connection is not reused.
            Err(error) if *error.etype() == ErrorType::ConnectError => session.set_keepalive(None),
            Ok(_) | Err(_) => return,
        }
    }
    std::future::pending::<()>().await;
}

/// A body on its way.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) scanner: Scanner,
    pub(crate) frames: Frames,
    /// Whether the client has sent all of it.
    pub(crate) ended: bool,
    limits: Limits,
    since: Instant,
    share: Share,
}

/// Bytes of all bodies that are held now, so that together they have a bound.
#[derive(Debug, Default)]
pub(crate) struct Buffered(AtomicU64);

/// One body's share of them; given back when dropped.
#[derive(Debug)]
struct Share {
    all: Arc<Buffered>,
    bytes: u64,
}

impl Share {
    /// Takes `bytes` in all for this body; `false` if there is no room.
    fn resize(&mut self, bytes: u64, max: u64) -> bool {
        let (more, less) = (bytes.saturating_sub(self.bytes), self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
        self.all.0.fetch_sub(less, Ordering::AcqRel);
        self.all.0.fetch_add(more, Ordering::AcqRel).saturating_add(more) <= max || more == 0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Request {
    pub(crate) fn new(limits: Limits, all: &Arc<Buffered>) -> Self {
        Self {
            scanner: Scanner::new(),
            frames: Frames::new(),
            ended: false,
            limits,
            since: Instant::now(),
            share: Share { all: Arc::clone(all), bytes: 0 },
        }
    }

    /// Reads until the call can be decided on: to the end of a body up to `stream_after_bytes`,
    /// else until its model is known.
    pub(crate) async fn read_head(&mut self, session: &mut ServerSession) -> Result<(), Fault> {
        while !self.ended && !self.is_decidable() {
            self.read_more(session).await?;
        }
        Ok(())
    }

    fn is_decidable(&self) -> bool {
        self.frames.end() > self.limits.stream_after_bytes && self.scanner.facts().model.is_some()
    }

    /// Reads and scans one more frame.
    pub(crate) async fn read_more(&mut self, session: &mut ServerSession) -> Result<(), Fault> {
        let frame = self.next_frame(session).await?;
        let verdict = match &frame {
            Some(frame) => self.scanner.feed(frame),
            None => self.scanner.finish(),
        };
        verdict.map_err(|malformed| Fault::Refused(refusal(malformed)))?;
        check_values(self.scanner.facts()).map_err(Fault::Refused)?;
        match frame {
            Some(frame) => self.frames.push(frame),
            None => self.ended = true,
        }
        if self.frames.end() > self.limits.body_bytes_max {
            return Err(Fault::Refused(Refusal::BodyTooLarge));
        }
        self.hold()
    }

    async fn next_frame(&self, session: &mut ServerSession) -> Result<Option<Bytes>, Fault> {
        let wait = patience(&self.limits, self.frames.end(), self.since.elapsed());
        if wait.is_zero() {
            return Err(Fault::Refused(Refusal::BodyTimeout));
        }
        match timeout(wait, session.read_request_body()).await {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(error)) if *error.etype() == ErrorType::ReadTimedout => {
                Err(Fault::Refused(Refusal::BodyTimeout))
            }
            Ok(Err(error)) if is_misframed(&error) => {
                session.set_keepalive(None);
                Err(Fault::Refused(Refusal::BadRequest))
            }
            Ok(Err(_)) => Err(Fault::ClientGone),
            Err(_) => Err(Fault::Refused(Refusal::BodyTimeout)),
        }
    }

    /// The name of the model that is asked for.
    pub(crate) fn model(&self) -> Result<&str, Refusal> {
        match self.scanner.facts().model.as_ref().map(|model| &model.name) {
            Some(Name::Text(name)) => Ok(name),
            // Half a surrogate pair is in no table.
            Some(Name::Unpaired) => Err(Refusal::ModelNotFound),
            Some(Name::NotText) => Err(Refusal::InvalidValue),
            None => Err(Refusal::ModelMissing),
        }
    }

    /// Accounts for the frames that are held.
    fn hold(&mut self) -> Result<(), Fault> {
        if self.share.resize(self.frames.len_bytes(), self.limits.buffered_bytes_max) {
            Ok(())
        } else {
            Err(Fault::Refused(Refusal::Overloaded))
        }
    }

    /// Whether it can be sent again from its first byte.
    pub(crate) fn is_replayable(&self) -> bool {
        self.frames.whole() && self.frames.end() <= self.limits.replay_bytes_max
    }

    /// Gives up sending the body again once it is longer than what is kept for that.
    pub(crate) fn forget_sent(&mut self, sent: u64) {
        if self.frames.end() > self.limits.replay_bytes_max {
            self.frames.release_before(sent);
        }
    }
}

/// Whether a body that could not be read is no body, rather than cut off.
fn is_misframed(error: &Error) -> bool {
    let broken = error.root_cause().downcast_ref::<std::io::Error>();
    broken.is_some_and(|broken| broken.kind() == std::io::ErrorKind::InvalidData)
        || matches!(
            error.etype(),
            ErrorType::InvalidHTTPHeader | ErrorType::Custom("InvalidChunk" | "InvalidTrailerEnd")
        )
}

/// How long the next part of a body may take, so many bytes of which have come in so long.
fn patience(limits: &Limits, bytes: u64, elapsed: Duration) -> Duration {
    let earned = bytes.checked_div(limits.body_bytes_per_second_min);
    let earned = earned.map_or(Duration::MAX, Duration::from_secs);
    let end = limits.body_grace.saturating_add(earned).min(limits.body_total);
    end.saturating_sub(elapsed).min(limits.body_idle)
}

/// Refuses values that providers would read in different ways.
fn check_values(facts: &Facts) -> Result<(), Refusal> {
    let counts = [(facts.n, CHOICES_MAX), (facts.best_of, CHOICES_MAX)];
    let caps = [(facts.max_tokens, TOKENS_MAX), (facts.max_completion_tokens, TOKENS_MAX)];
    let sound = counts.into_iter().chain(caps).all(|(number, max)| match number {
        None | Some(Number::Null) => true,
        Some(Number::Integer(value)) => value <= max,
        Some(Number::Other) => false,
    });
    let flag = |flag: Flag| flag != Flag::Other;
    let options = match facts.stream_options.map(|member| member.options) {
        None | Some(Options::Null | Options::Object { include_usage: None, .. }) => true,
        Some(Options::Object { include_usage: Some((value, _)), .. }) => flag(value),
        Some(Options::Other) => false,
    };
    if sound && options && facts.stream.is_none_or(flag) {
        Ok(())
    } else {
        Err(Refusal::InvalidValue)
    }
}

fn refusal(malformed: Malformed) -> Refusal {
    match malformed {
        Malformed::DuplicateKey => Refusal::DuplicateKey,
        Malformed::Syntax
        | Malformed::Incomplete
        | Malformed::Utf8
        | Malformed::Depth
        | Malformed::NumberTooLong => Refusal::InvalidJson,
        Malformed::MemberTooLong => Refusal::InvalidValue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_as_soon_as_they_are_known() {
        let judge = |body: &str| {
            let mut scanner = Scanner::new();
            scanner.feed(body.as_bytes()).unwrap();
            check_values(scanner.facts())
        };
        for sound in [
            r#"{"n":128,"#,
            r#"{"n":null,"max_tokens":4294967296,"#,
            r#"{"stream":null,"stream_options":{"include_usage":false},"#,
        ] {
            assert_eq!(judge(sound), Ok(()), "{sound}");
        }
        for unsound in [
            r#"{"n":129,"#,
            r#"{"best_of":1.5,"#,
            r#"{"max_tokens":-1,"#,
            r#"{"max_completion_tokens":"7","#,
            r#"{"stream":1,"#,
            r#"{"stream_options":[],"#,
            r#"{"stream_options":{"include_usage":0},"#,
        ] {
            assert_eq!(judge(unsound), Err(Refusal::InvalidValue), "{unsound}");
        }
    }

    #[test]
    fn slow_bodies_have_the_time_that_they_earn() {
        let limits = Limits {
            body_idle: Duration::from_secs(30),
            body_total: Duration::from_mins(5),
            body_grace: Duration::from_secs(10),
            body_bytes_per_second_min: 1_024,
            ..crate::accept::tests::limits()
        };
        let after =
            |bytes, seconds| patience(&limits, bytes, Duration::from_secs(seconds)).as_secs();
        assert_eq!((after(0, 0), after(0, 9), after(1_023, 10)), (10, 1, 0));
        assert_eq!((after(10_240, 15), after(10_240, 20)), (5, 0));
        assert_eq!((after(1 << 30, 100), after(1 << 30, 290), after(1 << 30, 300)), (30, 10, 0));
        let free = Limits { body_bytes_per_second_min: 0, ..limits };
        assert_eq!(patience(&free, 0, Duration::from_mins(1)).as_secs(), 30);
    }

    #[test]
    fn a_share_is_given_back() {
        let all = Arc::new(Buffered::default());
        let mut one = Share { all: Arc::clone(&all), bytes: 0 };
        let mut two = Share { all: Arc::clone(&all), bytes: 0 };
        assert!(one.resize(60, 100));
        assert!(!two.resize(60, 100));
        drop(one);
        assert!(two.resize(70, 100));
        assert!(two.resize(10, 0), "to hold less is always possible");
        drop(two);
        assert_eq!(all.0.load(Ordering::Acquire), 0);
    }
}
