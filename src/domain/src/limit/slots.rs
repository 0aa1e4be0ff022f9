//! An edge's part of a number of calls at the same time that several edges share. What it holds is a lease:
//! the slots of an edge that is gone come back.

use std::time::Duration;

use super::slice::{Mode, Short};
use crate::time::Tick;

/// How long slots are held without word of their edge.
pub const LEASE: Duration = Duration::from_secs(5);
/// How often that word is given.
const RENEW: Duration = Duration::from_millis(1_500);
/// How long slots may lie unused before they go back.
const LIFE: Duration = Duration::from_secs(1);
/// When somebody who found no slot may try again: nobody knows when a call ends.
const RETRY: Duration = Duration::from_secs(1);
/// How soon an edge that was given less than it needed asks again.
const POLL: Duration = Duration::from_millis(25);

/// What an edge asks for: all that it wants to hold from now on, so that repeating is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Slots for all edges.
    pub limit: u32,
    /// Calls that run.
    pub in_use: u32,
    /// Calls that run or wait for a slot.
    pub need: u32,
    /// Slots beside those, if there are plenty.
    pub ahead: u32,
}

/// What it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What the edge holds now.
    pub held: u32,
    /// What nobody holds.
    pub left: u32,
}

/// The slots of one limit on one edge.
#[derive(Clone, Debug)]
pub struct Slots {
    limit: u32,
    held: u32,
    in_use: u32,
    waiting: u32,
    /// What nobody held when this was last told of.
    left: u32,
    told: Tick,
    short: Option<Tick>,
    used: Tick,
    sent_need: u32,
}

impl Slots {
    /// Nothing is held, and nothing known.
    pub const fn new(limit: u32, now: Tick) -> Self {
        Self {
            limit,
            held: 0,
            in_use: 0,
            waiting: 0,
            left: 0,
            told: now,
            short: None,
            used: now,
            sent_need: 0,
        }
    }

    /// Changes the limit; calls that run go on.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// How many may run at the same time on all edges.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Calls that run here.
    pub const fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Whether one more call may run; `None` if it may.
    pub fn short(&self, mode: Mode, now: Tick) -> Option<Short> {
        match mode {
            Mode::Cold => Some(Short { wait: RETRY, ask: true }),
            Mode::Alone(edges) => {
                let share = self.limit.checked_div(edges).unwrap_or(self.limit);
                let share = share.max(1).min(self.limit);
                (self.in_use >= share).then_some(Short { wait: RETRY, ask: false })
            }
            Mode::Shared => {
                let pausing = self.short.is_some_and(|at| now.since(at) < POLL);
                (self.in_use >= self.held.min(self.limit))
                    .then_some(Short { wait: RETRY, ask: !pausing && self.in_use < self.limit })
            }
        }
    }

    /// A call begins; its caller has seen that it may.
    pub fn take(&mut self, now: Tick) {
        self.in_use = self.in_use.saturating_add(1);
        self.used = now;
    }

    /// A call has ended. Says whether others wait for what it leaves.
    pub fn release(&mut self, mode: Mode) -> bool {
        self.in_use = self.in_use.saturating_sub(1);
        mode == Mode::Shared && self.left == 0 && self.held > self.in_use
    }

    /// Takes note that a call waits for a slot.
    pub fn await_slot(&mut self, now: Tick) {
        self.waiting = self.waiting.saturating_add(1);
        self.used = now;
    }

    fn ahead(&self, now: Tick) -> u32 {
        if now.since(self.used) < LIFE { self.in_use.div_ceil(4).max(1) } else { 0 }
    }

    /// Whether more should be asked for ahead of need.
    pub fn is_low(&self, mode: Mode) -> bool {
        mode == Mode::Shared && self.left > 0 && self.held <= self.in_use
    }

    /// Whether there is something to tell although nobody calls.
    pub fn is_due(&self, mode: Mode, now: Tick) -> bool {
        let wanted = self.in_use.saturating_add(self.ahead(now));
        match mode {
            Mode::Alone(_) => self.in_use > 0,
            Mode::Cold | Mode::Shared => {
                let renew = self.held > 0 && now.since(self.told) >= RENEW;
                renew
                    || self.held > wanted.saturating_mul(2)
                    || (self.held > self.in_use && now.since(self.used) >= LIFE)
            }
        }
    }

    /// Whether nothing would be forgotten if this were.
    pub fn is_idle(&self, mode: Mode) -> bool {
        self.in_use == 0 && (self.held == 0 || mode != Mode::Shared)
    }

    /// What is to be asked for. What is not wanted any more is not used any more.
    pub fn ask(&mut self, now: Tick) -> Ask {
        let need = self.in_use.saturating_add(std::mem::take(&mut self.waiting));
        let ahead = self.ahead(now);
        self.held = self.held.min(need.saturating_add(ahead)).max(self.in_use);
        self.sent_need = need;
        Ask { limit: self.limit, in_use: self.in_use, need, ahead }
    }

    /// Takes what was given.
    pub fn told(&mut self, told: Told, now: Tick) {
        // Calls that began on what was held before keep their slots.
        (self.held, self.left, self.told) = (told.held.max(self.in_use), told.left, now);
        self.short = (told.held < self.sent_need).then_some(now);
    }

    /// The question was not answered.
    pub fn unanswered(&mut self) {
        self.waiting = 0;
    }

    /// From here on the edge decides alone.
    pub fn go_alone(&mut self) {
        (self.held, self.left) = (0, 0);
        self.unanswered();
    }
}
