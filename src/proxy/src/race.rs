//! Two targets for one answer, where the first is late: the first to speak wins, the other is left.

use std::time::{Duration, Instant};

use tokenroute_domain::record::Endpoint;
use tokenroute_domain::routing::{self, Walk, Why};
use tokenroute_wire::meter::{self, Meter};

use crate::account::{Part, Start};
use crate::call::Call;
use crate::clock;
use crate::open::{Answer, Ask, Context, open};
use crate::reply::Fault;
use crate::request::Request;
use crate::targets::Ticket;

/// How the try at one target went.
pub(crate) struct Opened {
    pub(crate) place: usize,
    pub(crate) why: Why,
    pub(crate) took: Duration,
    pub(crate) end: End,
}

/// What came of it.
pub(crate) enum End {
    /// It has begun to answer.
    Spoke(Box<Answer>),
    /// It did not do.
    Missed(Fault),
    /// Another one was faster. What it did is the house's cost.
    Lost(Box<Part>),
}

impl From<Result<Box<Answer>, Fault>> for End {
    fn from(result: Result<Box<Answer>, Fault>) -> Self {
        match result {
            Ok(answer) => Self::Spoke(answer),
            Err(fault) => Self::Missed(fault),
        }
    }
}

/// After what time a second target is to be asked; `None`: never.
pub(crate) fn lateness(
    context: Context<'_>,
    call: &Call,
    ask: &Ask,
    request: &Request,
) -> Option<Duration> {
    let hedge = context.route.policy.hedge?;
    // Only a first attempt at an answer, and only where others are in the way of nobody.
    if ask.resumption.is_some() || !call.attempts.is_empty() || context.route.targets.len() < 2 {
        return None;
    }
    context.snapshot.hedges(context.route)?.call(hedge.share_permille);
    let state = context.snapshot.standing(context.route.targets.get(ask.place)?)?;
    let learned = state.late_after(request.frames.end(), hedge.quantile_permille)?;
    Some(learned.max(hedge.wait_min))
}

/// Opens the target that is asked, and a second one if it has not spoken after `late`.
pub(crate) async fn run(
    context: Context<'_>,
    (endpoint, request): (Endpoint, &Request),
    (ask, ticket): (Ask, Ticket),
    late: Duration,
) -> Vec<Opened> {
    let since = Instant::now();
    let (place, why) = (ask.place, ask.why);
    let first = open(context, (endpoint, request), (ask, ticket));
    tokio::pin!(first);
    tokio::select! {
        biased;
        result = &mut first => {
            return vec![Opened { place, why, took: since.elapsed(), end: result.into() }];
        }
        () = tokio::time::sleep(late) => {}
    }
    let Some((second_place, ticket)) = second(context, place) else {
        let end = first.await.into();
        return vec![Opened { place, why, took: since.elapsed(), end }];
    };
    let began = Instant::now();
    let ask = Ask { place: second_place, why: Why::Hedge, pooled: true, resumption: None };
    let second = open(context, (endpoint, request), (ask, ticket));
    tokio::pin!(second);
    let lost =
        |place: usize| End::Lost(Box::new(nothing_said(context, (endpoint, request), place)));
    let (ends, firsts) = tokio::select! {
        biased;
        result = &mut first => match result {
            Ok(answer) => ((End::Spoke(answer), lost(second_place)), since.elapsed()),
            Err(fault) => {
                let took = since.elapsed();
                ((End::Missed(fault), second.await.into()), took)
            }
        },
        result = &mut second => match result {
            Ok(answer) => ((lost(place), End::Spoke(answer)), since.elapsed()),
            Err(fault) => ((first.await.into(), End::Missed(fault)), since.elapsed()),
        },
    };
    let seconds = began.elapsed();
    vec![
        Opened { place, why, took: firsts, end: ends.0 },
        Opened { place: second_place, why: Why::Hedge, took: seconds, end: ends.1 },
    ]
}

/// A second target, if there is one that is well and the share of hedged calls has room.
fn second(context: Context<'_>, first: usize) -> Option<(usize, Ticket)> {
    let look = |place| context.outlook(place);
    let walk = Walk {
        tried: &[],
        replayable: true,
        elapsed: Duration::ZERO,
        waited: Duration::ZERO,
        may_retry: false,
        key: None,
        chance: clock::chance_bits(),
    };
    let place = routing::hedge(context.route, &walk, first, &look)?;
    let taken = context.snapshot.hedges(context.route)?.take();
    let ticket = if taken { context.admit(place) } else { None };
    ticket.map(|ticket| (place, ticket))
}

/// What is to be accounted for a target that was sent the prompt and was left before it spoke.
fn nothing_said(
    context: Context<'_>,
    (endpoint, request): (Endpoint, &Request),
    place: usize,
) -> Part {
    let options = meter::Options {
        endpoint,
        strip_usage: false,
        client_usage: false,
        reasoning: meter::Reasoning::default(),
        text_bytes_max: 0,
        resume: None,
    };
    let target = context.route.targets.get(place);
    Part {
        attempt: 0,
        price: target.and_then(|target| target.prices.at(context.now)).cloned(),
        asked_tier: request.scanner.facts().service_tier,
        meter: Meter::new(options),
        start: Start::First,
        delivered_tokens: 0,
        prompt_tokens: 0,
    }
}
