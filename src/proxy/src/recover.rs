//! Going on with an answer that broke off in the middle: the following target is given what the client
//! has, or says it all again and is suppressed as long as it repeats it.

use std::sync::Arc;
use std::time::Instant;

use pingora_core::protocols::http::ServerSession;
use tokenroute_domain::routing::{self, Failure, OnBreak, Why};
use tokenroute_wire::meter;
use tokenroute_wire::request::{Facts, Number};

use crate::account::Start;
use crate::call::Call;
use crate::dispatch::Attempts;
use crate::open::{Answer, Ask, Resumption};
use crate::reply::Fault;
use crate::request::Request;

impl Attempts<'_> {
    /// Finds a target that goes on with the answer; `None` if none can. `Err` if the call is over.
    pub(crate) async fn resume(
        &mut self,
        session: &mut ServerSession,
        call: &mut Call,
        failure: Failure,
    ) -> Result<Option<Box<Answer>>, Fault> {
        // Another target would diverge from what the client has in the same way.
        if self.context.route.policy.on_break == OnBreak::Error || failure == Failure::Diverged {
            return Ok(None);
        }
        let since = Instant::now();
        let Some(resume) = self.resumption(call, failure).await else { return Ok(None) };
        let Some(mut request) = call.request.take() else { return Ok(None) };
        let resumed = Box::pin(self.go_on(session, call, (&mut request, since), &resume)).await;
        call.request = Some(request);
        resumed
    }

    /// Asks one target after the other.
    async fn go_on(
        &mut self,
        session: &mut ServerSession,
        call: &mut Call,
        (request, since): (&mut Request, Instant),
        resume: &meter::Resume,
    ) -> Result<Option<Box<Answer>>, Fault> {
        loop {
            let place = {
                let walk = self.walk(call, request, (since.elapsed(), None));
                let look = |place| self.context.outlook(place);
                routing::continuation(self.context.route, &walk, &look)
            };
            let Some(place) = place else { return Ok(None) };
            let target = self.context.route.targets.get(place);
            let starts: &[Start] = if target.is_some_and(|target| target.prefill) {
                &[Start::Prefilled, Start::Afresh]
            } else {
                &[Start::Afresh]
            };
            for start in starts {
                let walk = self.walk(call, request, (since.elapsed(), None));
                if !routing::within_budget(self.context.route, &walk) {
                    break;
                }
                let Some(ticket) = self.context.admit(place) else { break };
                let resumption = Some(self.resumption_from(*start, request, resume));
                let ask = Ask { place, why: Why::Continue, pooled: true, resumption };
                match self.attempt(session, call, request, (ask, ticket)).await {
                    Ok(answer) => return Ok(Some(answer)),
                    // It does not take what the client has for its own beginning.
                    Err(fault) if fault.failure() == Some(Failure::Request) => {}
                    Err(Fault::Failed(_) | Fault::Rejected(..)) => break,
                    Err(other) => return Err(other),
                }
            }
            if !self.tried.iter().any(|tried| tried.place == place) {
                // Its trial was taken by another call; it must not be asked for ever.
                return Ok(None);
            }
        }
    }

    /// What the client has of the answer; `None` if nobody could go on with it.
    async fn resumption(&mut self, call: &mut Call, failure: Failure) -> Option<meter::Resume> {
        let place = self.place_of(call)?;
        let part = call.account.spoken.last()?;
        let fresh = match part.meter.resumable() {
            Some(delivered) => delivered.content,
            // A target that broke off before it had said anything new.
            None if part.start != Start::First && part.meter.text().is_empty() => "",
            None => return None,
        };
        self.delivered.push_str(fresh);
        let identity = call.account.spoken.first()?.meter.identity()?.clone();
        self.tried.push(routing::Tried { place, failure, retry_after: None });
        let events = call.account.spoken.iter().map(|part| part.meter.semantic_events()).sum();
        let counted = call.estimate().await;
        let delivered_tokens = counted.map_or(events, |counted| counted.output);
        let prompt_tokens = counted.map_or(0, |counted| counted.input);
        let delivered = Arc::from(self.delivered.as_str());
        let start = meter::Start::Afresh { delivered };
        Some(meter::Resume { identity, start, delivered_tokens, prompt_tokens })
    }

    /// Which of the route's targets spoke last.
    fn place_of(&self, call: &Call) -> Option<usize> {
        let attempt = call.attempts.get(call.account.spoken.last()?.attempt)?;
        let is_it = |target: &tokenroute_domain::catalog::Target| target.name == attempt.target;
        self.context.route.targets.iter().position(is_it)
    }

    fn resumption_from(
        &self,
        start: Start,
        request: &Request,
        resume: &meter::Resume,
    ) -> Resumption {
        if start != Start::Prefilled {
            let (resume, prefill) = (resume.clone(), String::new());
            return Resumption { start, prefill, resume, output_tokens_max: None };
        }
        // Some providers refuse a beginning that ends in white space.
        let prefill = self.delivered.trim_end().to_owned();
        let trimmed = self.delivered.get(prefill.len()..).unwrap_or_default().to_owned();
        let from = meter::Start::Prefilled { trimmed };
        let left = |max: u64| max.saturating_sub(resume.delivered_tokens).max(1);
        Resumption {
            start,
            prefill,
            resume: meter::Resume { start: from, ..resume.clone() },
            output_tokens_max: output_tokens_max(request.scanner.facts()).map(left),
        }
    }
}

/// The client's bound on output tokens, if it has set one.
fn output_tokens_max(facts: &Facts) -> Option<u64> {
    let bounds = [facts.max_completion_tokens, facts.max_tokens];
    bounds.into_iter().find_map(|bound| match bound {
        Some(Number::Integer(max)) => Some(max),
        Some(Number::Null | Number::Other) | None => None,
    })
}
