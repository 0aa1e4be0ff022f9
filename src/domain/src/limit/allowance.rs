//! All that one edge knows of the limits of one key or account: a call goes on all of them, or on none.

use std::time::Duration;

use super::gcra::Rate;
use super::slice::{self, Mode, Slice};
use super::slots::{self, Slots};
use super::{Kind, Limits, Subject};
use crate::time::Tick;

/// After so long without a call all is forgotten that can be asked for again.
const FORGET: Duration = Duration::from_mins(1);

/// What an edge asks about one key or account in one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whom it is about.
    pub subject: Subject,
    /// The rates, in the order of [`Kind::RATES`].
    pub rates: [Option<slice::Ask>; 3],
    /// Calls at the same time.
    pub slots: Option<slots::Ask>,
}

/// What it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The rates, in the order of [`Kind::RATES`].
    pub rates: [slice::Told; 3],
    /// Calls at the same time.
    pub slots: slots::Told,
}

/// Why a call cannot go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What there is not enough of.
    pub kind: Kind,
    /// After how long there may be.
    pub wait: Duration,
    /// Whether asking may help at once. It is so only if it may for everything that is short.
    pub ask: bool,
}

impl Shortage {
    /// The worse of two: who knows that there is nothing counts more than who might ask.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        if (!other.ask, other.wait) > (!self.ask, self.wait) { other } else { self }
    }
}

/// How a limit stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The limit.
    pub limit: u64,
    /// What is left of it.
    pub remaining: u64,
    /// How long until all of it is.
    pub reset: Duration,
}

impl Level {
    /// The one that will be felt first.
    #[must_use]
    pub fn or_tighter(self, other: Self) -> Self {
        if (other.remaining, other.limit) < (self.remaining, self.limit) { other } else { self }
    }
}

/// How limits stand, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Calls.
    pub requests: Option<Level>,
    /// Tokens.
    pub tokens: Option<Level>,
}

impl Levels {
    /// Of each the one that will be felt first.
    #[must_use]
    pub fn or_tighter(self, other: Self) -> Self {
        let tighter = |one: Option<Level>, other: Option<Level>| match (one, other) {
            (Some(one), Some(other)) => Some(one.or_tighter(other)),
            (one, other) => one.or(other),
        };
        Self {
            requests: tighter(self.requests, other.requests),
            tokens: tighter(self.tokens, other.tokens),
        }
    }
}

/// What one edge knows of the limits of one key or account.
#[derive(Clone, Debug)]
pub struct Allowance {
    limits: Limits,
    mode: Mode,
    rates: [Option<Slice>; 3],
    slots: Option<Slots>,
    used: Tick,
}

/// What a call takes of each rate.
const fn units(kind: Kind, tokens: u64) -> u64 {
    match kind {
        Kind::RequestsPerSecond | Kind::RequestsPerMinute | Kind::Concurrency => 1,
        Kind::TokensPerMinute => tokens,
    }
}

impl Allowance {
    /// Nothing is known yet.
    pub fn new(mode: Mode, now: Tick) -> Self {
        let rates = [None, None, None];
        Self { limits: Limits::NONE, mode, rates, slots: None, used: now }
    }

    /// Takes the limits as they are now; what was spent counts under the new ones.
    pub fn set_limits(&mut self, limits: Limits, now: Tick) {
        self.used = now;
        if limits == self.limits {
            return;
        }
        self.limits = limits;
        let wanted = [
            limits.requests_per_second.map(|limit| Rate::per_second(limit.into())),
            limits.requests_per_minute.map(|limit| Rate::per_minute(limit.into())),
            limits.tokens_per_minute.map(Rate::per_minute),
        ];
        let mut added = false;
        for (slice, rate) in self.rates.iter_mut().zip(wanted) {
            match (slice.as_mut(), rate) {
                (Some(slice), Some(rate)) => slice.set_rate(rate),
                (None, Some(rate)) => {
                    *slice = Some(Slice::new(rate, now));
                    added = true;
                }
                (_, None) => *slice = None,
            }
        }
        match (self.slots.as_mut(), limits.concurrency) {
            (Some(slots), Some(limit)) => slots.set_limit(limit),
            (None, Some(limit)) => {
                self.slots = Some(Slots::new(limit, now));
                added = true;
            }
            (_, None) => self.slots = None,
        }
        if added && self.mode == Mode::Shared {
            // The first word about a new limit is waited for.
            self.mode = Mode::Cold;
        }
    }

    /// Who decides.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Takes note of what a call wants, once a call.
    pub fn note(&mut self, tokens: u64, now: Tick) {
        for (slice, kind) in self.rates.iter_mut().zip(Kind::RATES) {
            if let Some(slice) = slice {
                slice.note(units(kind, tokens), now);
            }
        }
    }

    /// Why a call cannot go on what is held; `None` if it can.
    pub fn shortage(&self, tokens: u64, now: Tick) -> Option<Shortage> {
        let rates = self.rates.iter().zip(Kind::RATES).filter_map(|(slice, kind)| {
            let short = slice.as_ref()?.short(units(kind, tokens), self.mode, now)?;
            Some(Shortage { kind, wait: short.wait, ask: short.ask })
        });
        let slots = self.slots.as_ref().and_then(|slots| slots.short(self.mode, now));
        let kind = Kind::Concurrency;
        let slots = slots.map(|short| Shortage { kind, wait: short.wait, ask: short.ask });
        rates.chain(slots).reduce(Shortage::or_worse)
    }

    /// Takes what a call needs; its caller has seen that it is there. Says whether more should be asked for.
    pub fn take(&mut self, tokens: u64, now: Tick) -> bool {
        let mut low = false;
        for (slice, kind) in self.rates.iter_mut().zip(Kind::RATES) {
            if let Some(slice) = slice {
                slice.spend(units(kind, tokens), self.mode, now);
                low |= slice.is_low(self.mode, now);
            }
        }
        if let Some(slots) = &mut self.slots {
            slots.take(now);
            low |= slots.is_low(self.mode);
        }
        low
    }

    /// Takes note that a call waits for an answer about whatever is short.
    pub fn await_answer(&mut self, tokens: u64, now: Tick) {
        let mode = self.mode;
        for (slice, kind) in self.rates.iter_mut().zip(Kind::RATES) {
            let units = units(kind, tokens);
            if let Some(slice) = slice.as_mut().filter(|it| it.short(units, mode, now).is_some()) {
                slice.await_units(units);
            }
        }
        if let Some(slots) = self.slots.as_mut().filter(|it| it.short(mode, now).is_some()) {
            slots.await_slot(now);
        }
    }

    /// Takes note that a call was refused. Says whether to ask for those that come next.
    pub fn refused(&mut self, tokens: u64, now: Tick) -> bool {
        if self.mode != Mode::Shared {
            return false;
        }
        for (slice, kind) in self.rates.iter_mut().zip(Kind::RATES) {
            let units = units(kind, tokens);
            let mode = self.mode;
            if let Some(slice) = slice.as_mut().filter(|it| it.short(units, mode, now).is_some()) {
                slice.refused(units, now);
            }
        }
        true
    }

    /// A call has ended: its slot is free. Says whether that should be told at once.
    pub fn release(&mut self) -> bool {
        let mode = self.mode;
        self.slots.as_mut().is_some_and(|slots| slots.release(mode))
    }

    /// Puts right what was `taken` of the tokens for a call that used `used`. Says whether that should be
    /// told.
    pub fn settle(&mut self, taken: u64, used: u64, now: Tick) -> bool {
        let (mode, [.., tokens]) = (self.mode, &mut self.rates);
        let Some(slice) = tokens else { return false };
        if used >= taken {
            slice.spend(used.saturating_sub(taken), mode, now);
        } else {
            slice.give_back(taken.saturating_sub(used), mode, now);
        }
        mode == Mode::Shared && slice.is_due(mode, now)
    }

    /// Whether there is something to tell or to ask although nobody calls.
    pub fn is_due(&mut self, now: Tick) -> bool {
        let mode = self.mode;
        let rates = self.rates.iter_mut().flatten().any(|slice| slice.is_due(mode, now));
        rates || self.slots.as_ref().is_some_and(|slots| slots.is_due(mode, now))
    }

    /// Whether all can be forgotten.
    pub fn is_idle(&self, now: Tick) -> bool {
        let mode = self.mode;
        now.since(self.used) >= FORGET
            && self.rates.iter().flatten().all(|slice| slice.is_idle(mode, now))
            && self.slots.as_ref().is_none_or(|slots| slots.is_idle(mode))
    }

    /// What is to be asked.
    pub fn ask(&mut self, subject: Subject, now: Tick) -> Ask {
        let mode = self.mode;
        let [second, minute, tokens] = &mut self.rates;
        let ask = |slice: &mut Option<Slice>| slice.as_mut().map(|slice| slice.ask(mode, now));
        let rates = [ask(second), ask(minute), ask(tokens)];
        Ask { subject, rates, slots: self.slots.as_mut().map(|slots| slots.ask(now)) }
    }

    /// Takes the answer to `ask`. From here on the shared buckets decide.
    pub fn told(&mut self, ask: &Ask, told: &Told, now: Tick) {
        let mut all = true;
        for ((slice, asked), told) in self.rates.iter_mut().zip(&ask.rates).zip(told.rates) {
            match (slice, asked) {
                (Some(slice), Some(_)) => slice.told(told, now),
                (Some(_), None) => all = false,
                (None, _) => {}
            }
        }
        match (&mut self.slots, ask.slots) {
            (Some(slots), Some(_)) => slots.told(told.slots, now),
            (Some(_), None) => all = false,
            (None, _) => {}
        }
        // A limit that came up while the question was on its way has no answer yet.
        self.mode = if all { Mode::Shared } else { Mode::Cold };
    }

    /// From here on the edge decides alone, as one of `edges`.
    pub fn go_alone(&mut self, edges: u32, now: Tick) {
        let mode = self.mode;
        for slice in self.rates.iter_mut().flatten() {
            slice.go_alone(mode, edges, now);
        }
        if let Some(slots) = &mut self.slots {
            slots.go_alone();
        }
        self.mode = Mode::Alone(edges);
    }

    /// A question was not answered: from here on the edge decides alone, as one of `edges`.
    pub fn unanswered(&mut self, edges: u32, now: Tick) {
        self.go_alone(edges, now);
        self.rates.iter_mut().flatten().for_each(Slice::unanswered);
    }

    /// How the limits stand.
    pub fn levels(&self, now: Tick) -> Levels {
        let level = |slice: &Option<Slice>| {
            let slice = slice.as_ref()?;
            let (remaining, reset) = slice.left(self.mode, now);
            Some(Level { limit: slice.rate().limit(), remaining, reset })
        };
        let [second, minute, tokens] = &self.rates;
        let requests = |slice| Levels { requests: level(slice), tokens: None };
        let both = requests(second).or_tighter(requests(minute));
        Levels { tokens: level(tokens), ..both }
    }
}
