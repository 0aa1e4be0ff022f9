//! Talks to the bank behind the books: takes calls that are over, tells the bank in batches, keeps loans
//! ahead of need, and lets the journal forget what is posted. One for an edge, on a thread of its own.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokenroute_domain::id::CallId;
use tokenroute_domain::journal::Ended;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::Record;
use tokenroute_domain::time::Tick;
use tokio::runtime;
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Books;
use super::book::{Book, Sending};
use crate::bank::{Banked, Unavailable};
use crate::clock;

/// Calls taken from the outbox, or told of in one write, at a time.
const BATCH_MAX: usize = 512;
/// Accounts in one round of exchanges.
const ACCOUNTS_MAX: usize = 256;
/// Calls that are over and not known to be posted. Beyond it no more are taken from the outbox, so that
/// new calls are refused rather than lost.
const BACKLOG_MAX: usize = 100_000;
/// How often what is due is looked for.
const ROUND: Duration = Duration::from_millis(20);
/// How often an account in use talks to the bank.
const STEADY: Duration = Duration::from_secs(1);
/// The same as a part of the lease, where that is less: a loan is then almost new whenever the bank goes.
const STEADY_PART: u32 = 60;
/// How often progress is written down.
const MARKS: Duration = Duration::from_millis(250);
/// How often the bank is asked what is posted.
const POSTED: Duration = Duration::from_secs(2);
/// How often calls that wait for a recall are tried again.
const RECALLED: Duration = Duration::from_millis(10);
/// The pause after the bank could not be asked.
const AWAY: Duration = Duration::from_millis(200);
/// How long the rest is still tried after the outbox was closed.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How a teller keeps its times; those of the product, or shorter ones for tests.
#[derive(Clone, Copy, Debug)]
pub struct TellerOptions {
    /// How often an account in use talks to the bank.
    pub steady: Duration,
    /// How long the rest is still tried after the outbox was closed.
    pub drain: Duration,
}

impl Default for TellerOptions {
    fn default() -> Self {
        Self { steady: STEADY, drain: DRAIN_MAX }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Teller {
    books: Books,
    ended: Receiver<Ended>,
    options: TellerOptions,
    /// Records without money, to be written.
    plain: VecDeque<Arc<Ended>>,
    /// What the bank has taken and SQL may not have yet, in order.
    told: VecDeque<Arc<Ended>>,
    /// How many calls are with the books of accounts.
    pending: usize,
    away_since: Option<Tick>,
    /// Which life of the store answered last; 0 before.
    epoch: u64,
    lost: usize,
}

impl Teller {
    /// Starts the thread. It ends once the outbox is closed and everything is told, or `drain` later, with
    /// the number of calls that could not be told: those are in the journal.
    pub fn spawn(
        books: Books,
        ended: Receiver<Ended>,
        options: TellerOptions,
    ) -> std::io::Result<JoinHandle<usize>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (plain, told) = (VecDeque::new(), VecDeque::new());
        let teller = Self {
            books,
            ended,
            options,
            plain,
            told,
            pending: 0,
            away_since: None,
            epoch: 0,
            lost: 0,
        };
        thread::Builder::new()
            .name("teller".to_owned())
            .spawn(move || runtime.block_on(teller.run()))
    }

    async fn run(mut self) -> usize {
        let marks = tokio::spawn(mark(self.books.clone()));
        let recalls = tokio::spawn(heed(self.books.clone()));
        let mut posted = clock::tick();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.collect(&mut batch).await {
            self.take(&mut batch);
            self.work(&mut posted).await;
        }
        self.drain(&mut posted).await;
        marks.abort();
        recalls.abort();
        self.lost
    }

    /// Waits until there is something to do and takes what has ended; `false` once the outbox is closed.
    async fn collect(&mut self, batch: &mut Vec<Ended>) -> bool {
        let room = self.backlog() < BACKLOG_MAX;
        let books = self.books.clone();
        let busy = self.backlog() > 0 || books.0.is_used();
        tokio::select! {
            taken = self.ended.recv_many(batch, BATCH_MAX), if room => if taken == 0 { return false },
            () = books.0.wake.notified() => return true,
            () = sleep(ROUND), if busy => return true,
        }
        // Not listening meanwhile: to be woken for each call would cost more than to write it.
        tokio::select! {
            () = books.0.wake.notified() => {}
            () = sleep(if batch.len() < BATCH_MAX { ROUND } else { Duration::ZERO }) => {}
        }
        while batch.len() < BATCH_MAX {
            let Ok(ended) = self.ended.try_recv() else { break };
            batch.push(ended);
        }
        true
    }

    /// One round: accounts, records, and what is posted.
    async fn work(&mut self, posted: &mut Tick) {
        if self.away_since.is_some_and(|since| clock::tick().since(since) < AWAY) {
            return;
        }
        let again = self.exchange().await;
        self.write().await;
        let now = clock::tick();
        if now.since(*posted) >= POSTED {
            *posted = now;
            self.confirm().await;
        }
        let counts = &self.books.0.counts;
        counts.backlog.store(u64::try_from(self.backlog()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if again {
            sleep(RECALLED).await;
            self.books.0.wake.notify_one();
        }
    }

    fn backlog(&self) -> usize {
        self.pending.saturating_add(self.plain.len()).saturating_add(self.told.len())
    }

    /// Takes calls that are over: into the journal, then to the account or among the records.
    fn take(&mut self, batch: &mut Vec<Ended>) {
        if batch.is_empty() {
            return;
        }
        let inner = &self.books.0;
        let all: Vec<Arc<Ended>> = batch.drain(..).map(Arc::new).collect();
        let at_once = inner.bank.posts_at_once();
        let kept: Vec<_> =
            all.iter().filter(|one| one.due.is_some() || !at_once).cloned().collect();
        // Unwritable: a mark of what it had come to is mostly there, and the bank is told in a moment.
        let _written = inner.journal.ended(&kept);
        for ended in all {
            let owner = ended.due.as_ref().and(ended.record.account);
            if owner.is_some() {
                inner.calls.end(ended.record.call);
            }
            let book = owner.and_then(|account| inner.known(account));
            match book {
                Some(book) => {
                    self.pending = self.pending.saturating_add(1);
                    book.push(ended);
                }
                None => self.plain.push_back(ended),
            }
        }
    }

    /// Talks to the bank about every account that is due. Whether calls still wait.
    async fn exchange(&mut self) -> bool {
        let inner = Arc::clone(&self.books.0);
        let now = clock::tick();
        let lease = inner.bank.lease();
        let times = (now, lease, self.options.steady.min(lease / STEADY_PART));
        let mut due: Vec<(Arc<Book>, Sending)> = Vec::new();
        for book in inner.all() {
            if book.close_if_idle(now) {
                inner.remove(&book);
            } else if due.len() < ACCOUNTS_MAX
                && let Some(sending) = book.exchange(inner.node, times)
            {
                due.push((book, sending));
            }
        }
        if due.is_empty() {
            return false;
        }
        let (books, sending): (Vec<_>, Vec<_>) = due.into_iter().unzip();
        let all: Vec<_> = sending.iter().map(|one| one.exchange.clone()).collect();
        let answers = inner.bank.exchange(&all).await;
        let mut again = false;
        let mut answers = answers.into_iter();
        for (book, sending) in books.iter().zip(sending) {
            // A bank that leaves one out has not done it.
            if let Ok(banked) = answers.next().unwrap_or(Err(Unavailable)) {
                again |= self.answered(book, sending, &banked);
            } else {
                book.unanswered(sending);
                self.is_away(true);
                count(&inner.counts.exchanges_failed, 1);
            }
        }
        if !self.books.is_served() {
            for book in &books {
                book.turn_away();
            }
        }
        again
    }

    fn answered(&mut self, book: &Arc<Book>, sending: Sending, banked: &Banked) -> bool {
        let inner = Arc::clone(&self.books.0);
        self.is_away(false);
        count(&inner.counts.exchanges, 1);
        for charged in &banked.reply.charged {
            count(&inner.counts.charged, u64::try_from(charged.charge.0).unwrap_or(0));
            count(&inner.counts.excess, u64::try_from(charged.excess.0).unwrap_or(0));
        }
        if banked.epoch != self.epoch && self.epoch != 0 {
            self.tell_again();
        }
        self.epoch = banked.epoch;
        let times = (clock::tick(), inner.bank.lease());
        let outcome = book.replied(sending, banked, times);
        self.pending = self.pending.saturating_sub(outcome.told.len());
        self.has_told(outcome.told);
        if outcome.recall {
            count(&inner.counts.recalls, 1);
            inner.bank.recall(book.account());
        }
        outcome.waiting
    }

    /// The bank has these now.
    fn has_told(&mut self, told: Vec<Arc<Ended>>) {
        count(&self.books.0.counts.told, u64::try_from(told.len()).unwrap_or(0));
        if self.books.0.bank.posts_at_once() {
            let calls: Vec<CallId> = told.iter().map(|ended| ended.record.call).collect();
            self.books.0.journal.forget(&calls);
        } else {
            self.told.extend(told);
        }
    }

    /// The store has lost its memory: what it was told and SQL may not have is told again.
    fn tell_again(&mut self) {
        let inner = Arc::clone(&self.books.0);
        for ended in std::mem::take(&mut self.told) {
            let owner = ended.due.as_ref().and(ended.record.account);
            let known = owner.and_then(|account| inner.known(account));
            let charged = ended.record.charge > NanoUsd::ZERO;
            let book = known.or_else(|| owner.filter(|_| charged).map(|one| inner.prepaid(one)));
            match book {
                Some(book) => {
                    self.pending = self.pending.saturating_add(1);
                    book.push_again(ended);
                }
                None => self.plain.push_back(ended),
            }
        }
    }

    /// Writes records without money, and settlements of accounts that have no book any more.
    async fn write(&mut self) {
        while !self.plain.is_empty() {
            let count = self.plain.len().min(BATCH_MAX);
            let batch: Vec<Arc<Ended>> = self.plain.iter().take(count).cloned().collect();
            let records: Vec<Arc<Record>> =
                batch.iter().map(|ended| Arc::clone(&ended.record)).collect();
            if self.books.0.bank.write(&records).await.is_err() {
                self.is_away(true);
                return;
            }
            self.plain.drain(..count);
            self.has_told(batch);
        }
    }

    /// Asks what is posted, and lets the journal forget it.
    async fn confirm(&mut self) {
        let calls: Vec<CallId> =
            self.told.iter().take(BATCH_MAX * 4).map(|ended| ended.record.call).collect();
        if calls.is_empty() {
            return;
        }
        let Ok(posted) = self.books.0.bank.posted(&calls).await else { return };
        self.books.0.journal.forget(&posted);
        let posted: HashSet<CallId> = posted.into_iter().collect();
        self.told.retain(|ended| !posted.contains(&ended.record.call));
        // What is not posted yet goes behind the rest, so that one that is stuck holds up nobody.
        let stuck = calls.len().saturating_sub(posted.len()).min(self.told.len());
        self.told.rotate_left(stuck);
    }

    fn is_away(&mut self, away: bool) {
        self.books.0.away.store(away, Ordering::Release);
        self.away_since = away.then(clock::tick);
    }

    /// Tells what is left, gives back the loans, and sees it posted.
    async fn drain(&mut self, posted: &mut Tick) {
        let within = self.options.drain;
        let rest = async {
            loop {
                self.books.0.all().iter().for_each(|book| book.retire());
                self.work(posted).await;
                let settled = self.books.0.all().iter().all(|book| book.is_settled());
                if settled && self.plain.is_empty() && self.told.is_empty() {
                    return;
                }
                if self.told.is_empty() || !settled {
                    sleep(ROUND).await;
                } else {
                    sleep(ROUND * 5).await;
                    self.confirm().await;
                }
            }
        };
        if timeout(within, rest).await.is_err() {
            self.lost = self.backlog();
            tracing::error!(calls = self.lost, "calls are left in the journal for the next start");
        }
    }
}

fn count(counter: &std::sync::atomic::AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Writes down how far calls have come.
async fn mark(books: Books) {
    let mut round = interval(MARKS);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let marks = books.0.calls.unwritten();
        if !marks.is_empty() {
            books.0.journal.mark(&marks);
        }
    }
}

/// Gives back at once what other edges are short of.
async fn heed(books: Books) {
    loop {
        let account = books.0.bank.recalled().await;
        if let Some(book) = books.0.known(account) {
            book.recall();
            books.0.wake.notify_one();
        }
    }
}
