//! Whether a key and its account may make a call now, decided in memory.
//!
//! Each edge has an [`Allowance`] of every key and account that calls. Where edges share limits, a task of
//! its own ([`Limiter::run`]) keeps them stocked; a call waits for it only if nothing is known of its key,
//! or if what the edge holds is used up and others may have left something.

mod header;
mod refill;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora_timeout::timeout;
use tokenroute_domain::key::ApiKey;
use tokenroute_domain::limit::allowance::{Allowance, Ask, Levels, Shortage, Told};
use tokenroute_domain::limit::slice::Mode;
use tokenroute_domain::limit::{Kind, Limits, Subject, Tiers};
use tokenroute_domain::time::Tick;
use tokio::sync::{Notify, watch};

use crate::bank::{Later, Unavailable};
use crate::clock;

pub(crate) use header::insert;

/// How long a call waits to learn whether it may go; then the edge decides alone.
const ANSWER_WAIT: Duration = Duration::from_millis(50);
/// Parts of the table of allowances, so that calls of different keys do not wait for each other.
const PARTS: usize = 16;
/// Allowances in one part. Only known keys have one, and it is forgotten a minute after its last call; in
/// place of one too many the longest unused is.
const SUBJECTS_MAX: usize = 8_192;
/// Bytes of a prompt that are taken for a token before it is counted.
const BYTES_PER_TOKEN: u64 = 4;

/// What edges that share limits need of the place where these are.
pub trait Shared: Send + Sync + fmt::Debug + 'static {
    /// Asks about several subjects at once, an answer each in the same order.
    fn exchange<'a>(&'a self, asks: &'a [Ask]) -> Later<'a, Result<Vec<Told>, Unavailable>>;

    /// Says that this edge is there, and asks how many are.
    fn count_edges(&self) -> Later<'_, Result<u32, Unavailable>>;
}

/// A call may not go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// What there is not enough of.
    pub which: Kind,
    /// After how long there may be.
    pub retry_after: Duration,
    /// How the limits stand.
    pub levels: Levels,
}

/// One key or account.
struct Payer {
    subject: Subject,
    state: Mutex<State>,
}

struct State {
    allowance: Allowance,
    /// Whether it is on the list of those to be asked about.
    queued: bool,
    /// Whether it is being asked about, and how many times that has ended.
    asking: bool,
    answers: u64,
    used: Tick,
}

impl State {
    fn new(mode: Mode, now: Tick) -> Self {
        let allowance = Allowance::new(mode, now);
        Self { allowance, queued: false, asking: false, answers: 0, used: now }
    }

    /// What was asked has been answered, or will not be.
    fn answered(&mut self) {
        self.asking = false;
        self.answers = self.answers.wrapping_add(1);
    }
}

/// An answer that a call waits for: to what is asked next about its payers.
#[derive(Clone, Copy, Default)]
struct Awaited {
    key: Option<u64>,
    account: Option<u64>,
}

impl Awaited {
    fn has_come(self, payers: &Payers) -> bool {
        let has = |payer: &Option<Arc<Payer>>, number: Option<u64>| match (payer, number) {
            (Some(payer), Some(number)) => payer.lock().answers >= number,
            (_, None) | (None, _) => true,
        };
        has(&payers.key, self.key) && has(&payers.account, self.account)
    }
}

impl Payer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Inner {
    parts: [Mutex<HashMap<Subject, Arc<Payer>>>; PARTS],
    /// Those to be asked about, each once.
    queue: Mutex<Vec<Arc<Payer>>>,
    /// Something is on the list.
    wake: Notify,
    /// A call waits for the answer.
    urgent: AtomicBool,
    /// Counts exchanges that have ended.
    rounds: watch::Sender<u64>,
    /// Whether each edge decides alone: nothing is shared, or the shared side is away.
    alone: AtomicBool,
    /// Edges that were there when that was last known.
    edges: AtomicU32,
}

/// Decides about limits. Clones share everything.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("alone", &self.is_alone()).finish_non_exhaustive()
    }
}

impl Default for Limiter {
    /// Alone, until [`Limiter::run`] says otherwise.
    fn default() -> Self {
        Self(Arc::new(Inner {
            parts: std::array::from_fn(|_| Mutex::default()),
            queue: Mutex::default(),
            wake: Notify::new(),
            urgent: AtomicBool::new(false),
            rounds: watch::Sender::new(0),
            alone: AtomicBool::new(true),
            edges: AtomicU32::new(1),
        }))
    }
}

/// Those that a call counts for: its key and its account, as far as they are limited.
#[derive(Clone, Default)]
struct Payers {
    key: Option<Arc<Payer>>,
    account: Option<Arc<Payer>>,
}

impl Payers {
    fn each(&self) -> impl Iterator<Item = &Arc<Payer>> {
        self.key.iter().chain(&self.account)
    }
}

/// Leave to make a call. Dropping it frees its place among those at the same time.
#[must_use = "a call that has no permit is not counted"]
pub struct Permit {
    limiter: Option<Limiter>,
    payers: Payers,
    /// Tokens that were taken for it.
    tokens: u64,
    levels: Levels,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Permit {
    /// For a key without limits.
    const fn free() -> Self {
        let payers = Payers { key: None, account: None };
        let levels = Levels { requests: None, tokens: None };
        Self { limiter: None, payers, tokens: 0, levels }
    }

    /// How the limits stood when it was given.
    pub const fn levels(&self) -> Levels {
        self.levels
    }

    /// Puts right what was taken: the call has used so many tokens of input and output.
    pub fn settle(mut self, tokens_total: u64) {
        let Some(limiter) = &self.limiter else { return };
        let now = clock::tick();
        for account in self.payers.each() {
            let mut state = account.lock();
            if state.allowance.settle(self.tokens, tokens_total, now) {
                limiter.enqueue(account, &mut state);
            }
        }
        self.tokens = tokens_total;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(limiter) = &self.limiter else { return };
        for account in self.payers.each() {
            let mut state = account.lock();
            if state.allowance.release() {
                limiter.enqueue(account, &mut state);
            }
        }
    }
}

/// What came of looking once.
enum Look {
    Taken(Levels),
    Short(Shortage, Levels),
}

impl Limiter {
    /// Whether `key` and its account may make a call with a prompt of so many bytes. A key without limits
    /// costs two look-ups at most; others wait only for what this edge does not hold.
    pub async fn admit(
        &self,
        key: &ApiKey,
        tiers: &Tiers,
        now: Tick,
        prompt_bytes: u64,
    ) -> Result<Permit, Limited> {
        let limits = (Limits::of_key(key, tiers), Limits::of_account(key, tiers));
        if limits.0.is_none() && limits.1.is_none() {
            return Ok(Permit::free());
        }
        let tokens = prompt_bytes.div_ceil(BYTES_PER_TOKEN).max(1);
        let payers = self.payers(key, limits, now);
        for (account, limits) in payers.each().zip(of_payers(&payers, limits)) {
            self.meet(account, limits, tokens, now);
        }
        match self.look(&payers, tokens, now) {
            Look::Taken(levels) => Ok(self.permit(payers, tokens, levels)),
            Look::Short(shortage, _) if shortage.ask => self.wait(payers, tokens, now).await,
            Look::Short(shortage, levels) => {
                self.refuse(&payers, tokens, now);
                Err(limited(shortage, levels))
            }
        }
    }

    fn permit(&self, payers: Payers, tokens: u64, levels: Levels) -> Permit {
        Permit { limiter: Some(self.clone()), payers, tokens, levels }
    }

    fn payers(&self, key: &ApiKey, limits: (Limits, Limits), now: Tick) -> Payers {
        let find = |subject, limits: Limits| (!limits.is_none()).then(|| self.find(subject, now));
        Payers {
            key: find(Subject::Key(key.id, key.account), limits.0),
            account: find(Subject::Account(key.account), limits.1),
        }
    }

    /// The allowance of a subject, a new one if there is none.
    fn find(&self, subject: Subject, now: Tick) -> Arc<Payer> {
        let mut part = self.part(subject);
        if let Some(account) = part.get(&subject) {
            return Arc::clone(account);
        }
        if part.len() >= SUBJECTS_MAX {
            let oldest = part.values().min_by_key(|account| account.lock().used);
            if let Some(oldest) = oldest.map(|account| account.subject) {
                part.remove(&oldest);
            }
        }
        let mode = if self.is_alone() { Mode::Alone(self.edges()) } else { Mode::Cold };
        let state = State::new(mode, now);
        let account = Arc::new(Payer { subject, state: Mutex::new(state) });
        part.insert(subject, Arc::clone(&account));
        account
    }

    fn part(&self, subject: Subject) -> MutexGuard<'_, HashMap<Subject, Arc<Payer>>> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        let place = usize::try_from(hasher.finish()).unwrap_or_default() % PARTS;
        let [first, ..] = &self.0.parts;
        let part = self.0.parts.get(place).unwrap_or(first);
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a call, and of who decides about it.
    fn meet(&self, payer: &Arc<Payer>, limits: Limits, tokens: u64, now: Tick) {
        let mut state = payer.lock();
        state.used = now;
        state.allowance.set_limits(limits, now);
        state.allowance.note(tokens, now);
        match (self.is_alone(), state.allowance.mode()) {
            (true, Mode::Cold | Mode::Shared) => state.allowance.go_alone(self.edges(), now),
            // The shared side is back: it takes over with its first answer.
            (false, Mode::Alone(_)) => self.enqueue(payer, &mut state),
            (true, Mode::Alone(_)) | (false, Mode::Cold | Mode::Shared) => {}
        }
    }

    /// Takes what a call needs of all that pay for it, or of none.
    fn look(&self, payers: &Payers, tokens: u64, now: Tick) -> Look {
        // Always the key before the account, so that no two calls wait for each other.
        let mut key = payers.key.as_ref().map(|account| (account, account.lock()));
        let mut account = payers.account.as_ref().map(|account| (account, account.lock()));
        let both = || key.iter().chain(&account);
        let levels = both().map(|(_, state)| state.allowance.levels(now));
        let levels = levels.reduce(Levels::or_tighter).unwrap_or_default();
        let shortage = both().filter_map(|(_, state)| state.allowance.shortage(tokens, now));
        if let Some(shortage) = shortage.reduce(Shortage::or_worse) {
            return Look::Short(shortage, levels);
        }
        for (account, state) in key.iter_mut().chain(&mut account) {
            if state.allowance.take(tokens, now) {
                self.enqueue(account, state);
            }
        }
        let both = key.iter().chain(&account);
        let levels = both.map(|(_, state)| state.allowance.levels(now)).reduce(Levels::or_tighter);
        Look::Taken(levels.unwrap_or_default())
    }

    /// Waits for the answer about what is short, for a time. After that, the edge decides alone.
    async fn wait(&self, payers: Payers, tokens: u64, start: Tick) -> Result<Permit, Limited> {
        loop {
            let told = self.hear(&payers, tokens, start).await;
            let now = clock::tick();
            if !told || self.is_alone() {
                self.decide_alone(&payers, now);
            }
            match self.look(&payers, tokens, now) {
                Look::Taken(levels) => return Ok(self.permit(payers, tokens, levels)),
                // Somebody else was faster.
                Look::Short(shortage, _) if told && shortage.ask => {}
                Look::Short(shortage, levels) => {
                    self.refuse(&payers, tokens, now);
                    return Err(limited(shortage, levels));
                }
            }
        }
    }

    /// Asks about what is short; `false` if the answer has not come in time.
    async fn hear(&self, payers: &Payers, tokens: u64, start: Tick) -> bool {
        let mut rounds = self.0.rounds.subscribe();
        let awaited = self.ask(payers, tokens, clock::tick());
        while !awaited.has_come(payers) && !self.is_alone() {
            let left = ANSWER_WAIT.saturating_sub(clock::tick().since(start));
            if !matches!(timeout(left, rounds.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    /// Has everything asked about that a call waits for.
    fn ask(&self, payers: &Payers, tokens: u64, now: Tick) -> Awaited {
        let one = |payer: &Arc<Payer>| {
            let mut state = payer.lock();
            state.allowance.shortage(tokens, now)?;
            state.allowance.await_answer(tokens, now);
            self.enqueue(payer, &mut state);
            Some(state.answers.saturating_add(1).saturating_add(u64::from(state.asking)))
        };
        let key = payers.key.as_ref().and_then(one);
        let awaited = Awaited { key, account: payers.account.as_ref().and_then(one) };
        self.0.urgent.store(true, Ordering::Release);
        self.0.wake.notify_one();
        awaited
    }

    fn decide_alone(&self, payers: &Payers, now: Tick) {
        for account in payers.each() {
            account.lock().allowance.go_alone(self.edges(), now);
        }
    }

    fn refuse(&self, payers: &Payers, tokens: u64, now: Tick) {
        for account in payers.each() {
            let mut state = account.lock();
            if state.allowance.refused(tokens, now) {
                self.enqueue(account, &mut state);
            }
        }
    }

    /// Puts an account on the list of those to be asked about soon.
    fn enqueue(&self, payer: &Arc<Payer>, state: &mut State) {
        if self.is_alone() || std::mem::replace(&mut state.queued, true) {
            return;
        }
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(payer));
        self.0.wake.notify_one();
    }

    fn is_alone(&self) -> bool {
        self.0.alone.load(Ordering::Acquire)
    }

    fn edges(&self) -> u32 {
        self.0.edges.load(Ordering::Relaxed).max(1)
    }
}

/// The limits of those that pay, in their order.
fn of_payers(payers: &Payers, limits: (Limits, Limits)) -> impl Iterator<Item = Limits> + use<> {
    let key = payers.key.is_some().then_some(limits.0);
    key.into_iter().chain(payers.account.is_some().then_some(limits.1))
}

fn limited(shortage: Shortage, levels: Levels) -> Limited {
    Limited { which: shortage.kind, retry_after: shortage.wait, levels }
}

#[cfg(test)]
mod tests;
