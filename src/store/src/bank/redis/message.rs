//! An exchange as the script takes it, and its answer.

use std::time::Duration;

use redis::Value;
use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd};
use tokenroute_domain::pool::{
    ASKED_LAST, Charged, Exchange, Granted, Others, PurseId, Reply, Settlement, Want,
};
use tokenroute_domain::time::Timestamp;

use super::script::{Run, Script, account_keys, list, number, purse, text};
use crate::posting::text as body;

/// Settlements that one run of the script takes.
pub(crate) const SETTLEMENTS_MAX: usize = 250;

/// What the script answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Another epoch has begun, or the memory is gone.
    Stale,
    /// The account's pool is not open.
    Miss,
    /// These purses are not open.
    Purse(Vec<PurseId>),
    /// It is done: when by the server's clock, and whether memory is being recovered.
    Done { reply: Reply, now: Timestamp, recovering: bool },
}

/// An exchange that is being had: as few runs of the script as hold it.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    exchange: &'a Exchange,
    settlements: Vec<&'a Settlement>,
    purses: Vec<PurseId>,
}

impl<'a> Message<'a> {
    /// The exchange without the settlements that `is_known`.
    pub(crate) fn new(exchange: &'a Exchange, is_known: impl Fn(CallId) -> bool) -> Self {
        let settlements: Vec<_> =
            exchange.settlements.iter().filter(|one| !is_known(one.record.call)).collect();
        let mut purses: Vec<_> = exchange.purses.iter().map(|wanted| wanted.purse).collect();
        purses.extend(settlements.iter().flat_map(|one| one.purses.iter().copied()));
        purses.sort_unstable();
        purses.dedup();
        Self { exchange, settlements, purses }
    }

    /// Whose pool.
    pub(crate) const fn account(&self) -> AccountId {
        self.exchange.account
    }

    /// Which run of an edge.
    pub(crate) const fn node(&self) -> NodeId {
        self.exchange.node
    }

    /// The runs that do it. All but the last ask for so much more as will be charged after them, so that
    /// nothing goes back that the next one needs.
    pub(crate) fn runs(&self, epoch: u64, lease_micros: u128) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut chunks = self.settlements.chunks(SETTLEMENTS_MAX);
        let mut next = chunks.next();
        loop {
            let now = next.unwrap_or_default();
            next = chunks.next();
            let told = runs.len().saturating_mul(SETTLEMENTS_MAX).saturating_add(now.len());
            let later = self.settlements.get(told..).unwrap_or_default();
            runs.push(self.run(now, later, epoch, lease_micros));
            if next.is_none() {
                return runs;
            }
        }
    }

    fn run(
        &self,
        now: &[&Settlement],
        later: &[&Settlement],
        epoch: u64,
        lease_micros: u128,
    ) -> Run {
        let exchange = self.exchange;
        let account = exchange.account;
        let mut keys = account_keys(account);
        keys.extend(self.purses.iter().map(|id| purse(account, *id)));
        let prepaid = exchange.funding == Funding::Prepaid;
        let mut run = Run::new(Script::Exchange, keys)
            .arg(epoch)
            .arg(account)
            .arg(exchange.node)
            .arg(exchange.funding.as_str())
            .arg(lease_micros)
            .arg(exchange.asked.0.min(ASKED_LAST.0));
        want(&mut run, exchange.want, later, |_| true);
        run.push(now.len());
        for one in now {
            run.push(one.record.call);
            run.push(bounded(one.charge));
            run.push(bounded(one.record.cost));
            run.push(body::write(&one.record, prepaid, &one.purses));
            run.push(one.purses.len());
            for id in &one.purses {
                run.push(self.place(*id));
            }
        }
        run.push(exchange.purses.len());
        for wanted in &exchange.purses {
            run.push(self.place(wanted.purse));
            run.push(bounded(wanted.limit));
            want(&mut run, wanted.want, later, |one| one.purses.contains(&wanted.purse));
        }
        run
    }

    /// Where a purse stands among the keys, from 1.
    fn place(&self, id: PurseId) -> usize {
        self.purses.binary_search(&id).map_or(0, |place| place.saturating_add(1))
    }

    /// Reads the answers to [`Self::runs`] together; `None` if they are none of the script's.
    pub(crate) fn answer(&self, answers: &[Vec<Value>]) -> Option<Answer> {
        let mut all = Reply::default();
        let mut last = None;
        for answer in answers {
            match self.one_answer(answer)? {
                Answer::Done { mut reply, now, recovering } => {
                    all.charged.append(&mut reply.charged);
                    (all.granted, all.purses) = (reply.granted, reply.purses);
                    last = Some((now, recovering));
                }
                other @ (Answer::Stale | Answer::Miss | Answer::Purse(_)) => return Some(other),
            }
        }
        last.map(|(now, recovering)| Answer::Done { reply: all, now, recovering })
    }

    fn one_answer(&self, answer: &[Value]) -> Option<Answer> {
        match (text(answer.first()?)?, answer.get(1..)?) {
            ("STALE", _) => Some(Answer::Stale),
            ("MISS", _) => Some(Answer::Miss),
            ("PURSE", [places]) => {
                let id = |place: &Value| {
                    let place = usize::try_from(number(place)?).ok()?.checked_sub(1)?;
                    self.purses.get(place).copied()
                };
                list(places)?.iter().map(id).collect::<Option<_>>().map(Answer::Purse)
            }
            ("OK", [now, recovering, granted_all, purses, charged_all]) => {
                let now = Timestamp(u64::try_from(number(now)?).ok()?);
                let purses = list(purses)?.iter().map(granted).collect::<Option<Vec<_>>>()?;
                if purses.len() != self.exchange.purses.len() {
                    return None;
                }
                let charged = list(charged_all)?.chunks(3).map(charged).collect::<Option<_>>()?;
                let reply = Reply { granted: granted(granted_all)?, purses, charged };
                Some(Answer::Done { reply, now, recovering: number(recovering)? == 1 })
            }
            _ => None,
        }
    }
}

/// Writes a want, with what will be charged later on top.
fn want(run: &mut Run, want: Want, later: &[&Settlement], counts: impl Fn(&Settlement) -> bool) {
    let more = later.iter().filter(|one| counts(one)).map(|one| one.charge.at_least_zero());
    let more = more.fold(NanoUsd::ZERO, NanoUsd::plus);
    run.push(bounded(want.target.plus(more)));
    run.push(bounded(want.in_use.plus(more)));
    run.push(bounded(want.waiting));
}

/// An amount that the script's numbers hold exactly. No account holds more, so nothing is changed by it.
fn bounded(amount: NanoUsd) -> i64 {
    amount.0.clamp(-ACCOUNT_MAX.0, ACCOUNT_MAX.0)
}

fn granted(value: &Value) -> Option<Granted> {
    let [loan, free, lent, spare, silent] = list(value)? else { return None };
    let amount = |value| number(value).map(NanoUsd);
    let silent = Duration::from_micros(u64::try_from(number(silent)?).ok()?);
    let others = Others { lent: amount(lent)?, spare: amount(spare)?, silent };
    Some(Granted { loan: amount(loan)?, free: amount(free)?, others })
}

fn charged(values: &[Value]) -> Option<Charged> {
    let [call, charge, excess] = values else { return None };
    Some(Charged {
        call: CallId::parse(text(call)?)?,
        charge: NanoUsd(number(charge)?),
        excess: NanoUsd(number(excess)?),
    })
}
