//! A network that answers what a test has written down, and a clock that moves when somebody sleeps.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use crate::network::{Answer, Content, Method, Network, Request, Unreachable};
use crate::surroundings::Clock;

/// A request as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) bearer: Option<String>,
    pub(crate) content: String,
}

/// Answers in order; asked once more than there are answers, it fails the test.
#[derive(Default)]
pub(crate) struct Script {
    answers: RefCell<VecDeque<Result<Answer, Unreachable>>>,
    seen: RefCell<Vec<Seen>>,
}

impl Script {
    pub(crate) fn of(answers: Vec<Result<Answer, Unreachable>>) -> Self {
        Self { answers: RefCell::new(answers.into()), seen: RefCell::default() }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    pub(crate) fn is_at_its_end(&self) -> bool {
        self.answers.borrow().is_empty()
    }
}

impl Network for Script {
    fn send(&self, request: &Request<'_>) -> Result<Answer, Unreachable> {
        let content = match &request.content {
            Content::Nothing => String::new(),
            Content::Json(text) => text.clone(),
            Content::Form(fields) => {
                fields.iter().flat_map(|(name, value)| [name, "=", value, ";"]).collect()
            }
        };
        self.seen.borrow_mut().push(Seen {
            method: request.method,
            url: request.address.text().to_owned(),
            bearer: request.bearer.map(|secret| secret.reveal().to_owned()),
            content,
        });
        self.answers.borrow_mut().pop_front().expect("one request too many")
    }
}

pub(crate) fn json(status: u16, body: &serde_json::Value) -> Result<Answer, Unreachable> {
    said(status, "application/json", &body.to_string())
}

/// An answer; a result, as those that do not come are.
#[expect(clippy::unnecessary_wraps, reason = "a script is a list of results")]
pub(crate) fn said(status: u16, content_type: &str, body: &str) -> Result<Answer, Unreachable> {
    Ok(Answer { status, content_type: content_type.to_owned(), body: body.into() })
}

/// A clock that stands still between sleeps.
#[derive(Default)]
pub(crate) struct Still {
    elapsed: Cell<Duration>,
    slept: RefCell<Vec<u64>>,
}

impl Still {
    /// Each sleep, in seconds.
    pub(crate) fn slept(&self) -> Vec<u64> {
        self.slept.borrow().clone()
    }
}

impl Clock for Still {
    fn now_seconds(&self) -> i64 {
        1_800_000_000 + i64::try_from(self.elapsed.get().as_secs()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }

    fn sleep(&self, time: Duration) {
        self.elapsed.set(self.elapsed.get() + time);
        self.slept.borrow_mut().push(time.as_secs());
    }
}
