//! An edge's part of a rate that several edges share: what it has taken of the shared bucket ahead of need,
//! which it spends without asking anybody.
//!
//! Far from the limit half a second of the recent demand is taken ahead, near it only what is needed within
//! the next few milliseconds; what is not used goes back. So the shared bucket is never emptied by edges
//! that have no use for it, and all edges together are off by no more than they hold.

use std::time::Duration;

use super::gcra::{Gcra, Rate};
use crate::time::Tick;

/// Of how much time the recent demand is taken ahead, far from the limit.
pub const AHEAD: Duration = Duration::from_millis(500);
/// How often one edge asks for more near the limit.
pub const POLL: Duration = Duration::from_millis(25);
/// How long what is held ahead may lie unused before it goes back.
const LIFE: Duration = Duration::from_secs(1);
/// How long one call's worth may, so that a slow caller does not wait for each call.
const LAST_LIFE: Duration = Duration::from_secs(30);
/// How long it is believed that there is nothing: what others give back is found after that.
const BELIEVED: Duration = Duration::from_millis(500);
/// Calls of up to this part of a limit are fetched ahead for callers that were refused.
const SMALL_PART: u64 = 20;

/// What an edge asks of the shared bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The rate.
    pub rate: Rate,
    /// What was spent beyond what was taken; negative: what goes back.
    pub correction: i64,
    /// What is needed now.
    pub need: u64,
    /// With less than this nothing can be done: then nothing is taken.
    pub least: u64,
    /// What is taken beside that, if there is plenty.
    pub ahead: u64,
}

/// What the shared bucket answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What the edge has been given.
    pub granted: u64,
    /// How much of the bucket is taken, in thousandths of units.
    pub taken_milli: u64,
}

/// Who decides about a limit on this edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nobody yet: the shared bucket has not been heard of.
    Cold,
    /// The shared bucket, of which the edge holds a part.
    Shared,
    /// The edge itself, by its share among so many edges.
    Alone(u32),
}

/// Why a call cannot go on what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// After how long it might.
    pub wait: Duration,
    /// Whether asking the shared bucket now may help.
    pub ask: bool,
}

/// How much was asked for of late.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    since: Tick,
    asked: u64,
    per_second: u64,
    /// What the last call took.
    call: u64,
}

impl Demand {
    fn note(&mut self, units: u64) {
        self.asked = self.asked.saturating_add(units);
        self.call = units;
    }

    /// Units a second: what is now if it is more, else what was, fading.
    fn per_second(&mut self, now: Tick) -> u64 {
        let time = now.since(self.since).max(AHEAD);
        let micros = u128::from(self.asked).saturating_mul(1_000_000);
        let fresh = micros.checked_div(time.as_micros()).unwrap_or_default();
        let fresh = u64::try_from(fresh).unwrap_or(u64::MAX);
        if now.since(self.since) >= AHEAD {
            self.per_second = fresh.max(self.per_second / 2);
            (self.since, self.asked) = (now, 0);
        }
        self.per_second.max(fresh)
    }
}

/// What is on its way to the shared bucket and not answered.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    need: u64,
    debt: u64,
    alone: u64,
}

/// One rate on one edge.
#[derive(Clone, Debug)]
pub struct Slice {
    rate: Rate,
    /// Taken from the shared bucket and not spent.
    stock: u64,
    /// Spent and not told to the shared bucket.
    debt: u64,
    /// The shared bucket as it was last told of, and when that was.
    shared: Gcra,
    told: Tick,
    /// When it last gave less than was needed.
    short: Option<Tick>,
    /// The edge's own bucket while it is alone, and what was spent of it since.
    alone: Gcra,
    alone_spent: u64,
    /// What calls wait for, and the least that any of them does.
    waiting: u64,
    least: u64,
    demand: Demand,
    used: Tick,
    sent: Sent,
}

impl Slice {
    /// A rate of which nothing is known yet.
    pub fn new(rate: Rate, now: Tick) -> Self {
        Self {
            rate,
            stock: 0,
            debt: 0,
            shared: Gcra::default(),
            told: now,
            short: None,
            alone: Gcra::default(),
            alone_spent: 0,
            waiting: 0,
            least: 0,
            demand: Demand { since: now, ..Demand::default() },
            used: now,
            sent: Sent::default(),
        }
    }

    /// Changes the rate and keeps what has been spent.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// The rate.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes note that a call wants `units`.
    pub fn note(&mut self, units: u64, now: Tick) {
        self.demand.note(units);
        self.used = now;
    }

    /// Whether a call of `units` can go on what is held; `None` if it can.
    pub fn short(&self, units: u64, mode: Mode, now: Tick) -> Option<Short> {
        match mode {
            Mode::Cold => Some(Short { wait: POLL, ask: true }),
            Mode::Alone(edges) => {
                let wait = self.alone.wait(self.rate.split(edges), units, now);
                (!wait.is_zero()).then_some(Short { wait, ask: false })
            }
            Mode::Shared => {
                let missing = self.rate.required(units).saturating_sub(self.stock);
                if missing == 0 {
                    return None;
                }
                let wait = self.shared.wait(self.rate, missing.saturating_add(self.debt), now);
                let pause =
                    self.short.map_or(Duration::ZERO, |at| POLL.saturating_sub(now.since(at)));
                let doubted = wait.is_zero() || now.since(self.told) >= BELIEVED;
                let ask = doubted && pause.is_zero();
                Some(Short { wait: wait.max(pause).max(Duration::from_millis(1)), ask })
            }
        }
    }

    /// Takes note that a call waits for the shared bucket's answer.
    pub fn await_units(&mut self, units: u64) {
        let required = self.rate.required(units);
        self.least = if self.waiting == 0 { required } else { self.least.min(required) };
        self.waiting = self.waiting.saturating_add(required);
    }

    /// Takes note that a call was refused: those that come next find something, if there is any.
    pub fn refused(&mut self, units: u64, now: Tick) {
        let required = self.rate.required(units);
        let small = required == 1 || required.saturating_mul(SMALL_PART) <= self.rate.limit();
        if small && self.waiting == 0 {
            let soon = u128::from(self.demand.per_second(now)).saturating_mul(POLL.as_micros());
            let soon = u64::try_from(soon.div_ceil(1_000_000)).unwrap_or(u64::MAX);
            (self.waiting, self.least) = (soon.max(required), required);
        }
    }

    /// Takes `units`, whether or not they are there: what a call has used beyond what it was admitted with
    /// is owed.
    pub fn spend(&mut self, units: u64, mode: Mode, now: Tick) {
        if let Mode::Alone(edges) = mode {
            self.alone.force(self.rate.split(edges), units, now);
            self.alone_spent = self.alone_spent.saturating_add(units);
            return;
        }
        self.debt = self.debt.saturating_add(units.saturating_sub(self.stock));
        self.stock = self.stock.saturating_sub(units);
    }

    /// Puts back what was taken for a call that has not used it.
    pub fn give_back(&mut self, units: u64, mode: Mode, now: Tick) {
        if let Mode::Alone(edges) = mode {
            self.alone.give_back(self.rate.split(edges), units, now);
            self.alone_spent = self.alone_spent.saturating_sub(units);
            return;
        }
        // What is on its way as a debt cannot be taken back there.
        let open = self.debt.saturating_sub(self.sent.debt).min(units);
        self.debt = self.debt.saturating_sub(open);
        self.stock = self.stock.saturating_add(units.saturating_sub(open));
    }

    /// How much is to be held ahead.
    fn target(&mut self, now: Tick) -> u64 {
        let per_second = u128::from(self.demand.per_second(now));
        let ahead = per_second.saturating_mul(AHEAD.as_micros()).div_ceil(1_000_000);
        let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
        let idle = now.since(self.used);
        let far = self.shared.available(self.rate, now) >= self.rate.limit() / 2;
        match () {
            () if idle < LIFE => ahead.max(self.rate.required(self.demand.call)),
            () if idle < LAST_LIFE && far => self.rate.required(self.demand.call),
            () => 0,
        }
    }

    /// What lies unused.
    fn surplus(&mut self, now: Tick) -> u64 {
        let target = self.target(now);
        // Twice, because demand comes and goes; nothing, when there is no demand.
        let kept = if now.since(self.used) < LIFE { target.saturating_mul(2) } else { target };
        self.stock.saturating_sub(kept)
    }

    /// Whether the shared bucket should be asked now for what will be needed.
    pub fn is_low(&mut self, mode: Mode, now: Tick) -> bool {
        match mode {
            Mode::Alone(_) | Mode::Cold => false,
            Mode::Shared => self.stock.saturating_mul(4) < self.target(now) && self.is_used(now),
        }
    }

    /// Whether there is something to tell the shared bucket although nobody calls.
    pub fn is_due(&mut self, mode: Mode, now: Tick) -> bool {
        match mode {
            Mode::Alone(_) => self.alone_spent > 0,
            Mode::Cold | Mode::Shared => self.debt > 0 || self.surplus(now) > 0,
        }
    }

    fn is_used(&self, now: Tick) -> bool {
        now.since(self.used) < LIFE
    }

    /// Whether nothing would be forgotten if this were.
    pub fn is_idle(&self, mode: Mode, now: Tick) -> bool {
        let held = self.stock > 0 || self.debt > 0;
        match mode {
            Mode::Alone(edges) => self.alone.taken(self.rate.split(edges), now) == 0,
            Mode::Cold | Mode::Shared => !held,
        }
    }

    /// What is to be asked of the shared bucket. What goes back is not spent any more, whether or not the
    /// answer arrives.
    pub fn ask(&mut self, mode: Mode, now: Tick) -> Ask {
        let back = self.surplus(now);
        self.stock = self.stock.saturating_sub(back);
        let need = self.waiting.saturating_sub(self.stock);
        let least = self.least.saturating_sub(self.stock).min(need);
        let held = self.stock.saturating_add(need);
        let ahead = self.target(now).saturating_sub(held);
        let alone = match mode {
            Mode::Alone(edges) => {
                self.alone_spent.min(self.alone.taken(self.rate.split(edges), now))
            }
            Mode::Cold | Mode::Shared => 0,
        };
        self.sent = Sent { need, debt: self.debt, alone: self.alone_spent };
        (self.waiting, self.least) = (0, 0);
        let spent = self.debt.saturating_add(alone);
        let signed = |units: u64| i64::try_from(units).unwrap_or(i64::MAX);
        let correction = signed(spent).saturating_sub(signed(back));
        Ask { rate: self.rate, correction, need, least, ahead }
    }

    /// Takes what the shared bucket has given.
    pub fn told(&mut self, told: Told, now: Tick) {
        let sent = std::mem::take(&mut self.sent);
        // What was spent alone while the question was on its way is told next time.
        let since = self.alone_spent.saturating_sub(sent.alone);
        self.debt = self.debt.saturating_sub(sent.debt).saturating_add(since);
        self.alone_spent = 0;
        self.stock = self.stock.saturating_add(told.granted);
        self.shared = Gcra::with_taken(self.rate, told.taken_milli, now);
        self.told = now;
        self.short = (told.granted < sent.need).then_some(now);
    }

    /// The question was not answered: what was told may have to be told again.
    pub fn unanswered(&mut self) {
        self.sent = Sent::default();
        (self.waiting, self.least) = (0, 0);
    }

    /// From here on the edge decides alone, one of `edges`. It begins with what it holds and its share of
    /// what the shared bucket had left when it was last heard of, if ever.
    pub fn go_alone(&mut self, from: Mode, edges: u32, now: Tick) {
        let share = self.rate.split(edges);
        match from {
            Mode::Alone(_) => return,
            Mode::Cold => {}
            Mode::Shared => {
                let left = self.shared.available(self.rate, now);
                let left = left.checked_div(u64::from(edges)).unwrap_or(left);
                let known = left.saturating_add(self.stock);
                self.alone = Gcra::with_available(share, known, now);
            }
        }
        self.alone.force(share, self.debt, now);
        self.alone_spent = std::mem::take(&mut self.debt);
        self.stock = 0;
        // A late answer may still come: what was told as a debt is then known there.
        self.sent.alone = std::mem::take(&mut self.sent.debt);
        (self.waiting, self.least) = (0, 0);
    }

    /// What all edges have left together as far as this one knows, and how long until nothing is taken.
    pub fn left(&self, mode: Mode, now: Tick) -> (u64, Duration) {
        match mode {
            Mode::Alone(edges) => {
                let share = self.rate.split(edges);
                (self.alone.available(share, now), self.alone.reset(share, now))
            }
            Mode::Cold | Mode::Shared => {
                let mut all = self.shared;
                all.give_back(self.rate, self.stock, now);
                all.force(self.rate, self.debt, now);
                (all.available(self.rate, now), all.reset(self.rate, now))
            }
        }
    }
}
