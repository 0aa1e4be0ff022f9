//! What a call can come to, and the money that is put aside for it before anything goes upstream.
//!
//! **Invariant:** a call with money in it goes upstream only with a hold that no answer within its caps
//! can exceed, or with one under a key's ceiling that the answer is ended at.

use tokenroute_domain::admission::Refusal;
use tokenroute_domain::bound::{self, Ask, Caps};
use tokenroute_domain::catalog::{Route, Target};
use tokenroute_domain::key::ApiKey;
use tokenroute_domain::money::{NanoUsd, ServiceTier};
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::time::Timestamp;
use tokenroute_wire::request::{Flag, Number};

use crate::books::{Books, Claim, Denied};
use crate::call::Call;
use crate::reply::{Fault, Unaffordable};
use crate::request::Request;
use crate::snapshot::{Limits, Snapshot};

/// How often a hold is tried: as it is asked for, with the prompt counted, clamped, and once more if the
/// balance has shrunk meanwhile.
const TRIES_MAX: usize = 5;
/// Bytes of a request in a token, cautiously: what a call that its process did not live to settle is
/// charged for its prompt must not exceed what a provider would count.
const BYTES_PER_TOKEN: u64 = 5;

/// Output tokens of a text completion that names no cap, as OpenAI documents it: what is told to providers
/// that would go on, too.
const COMPLETION_TOKENS: u64 = 16;

/// How a call's output is bounded at each target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) ask: Ask,
    pub(crate) caps: Caps,
}

impl Bounds {
    /// The most output tokens of one choice at a target; `None` where there is no output.
    pub(crate) fn output_tokens_max(&self, target: &Target) -> Option<u64> {
        self.ask.generates.then(|| self.caps.cap(&self.ask, target).tokens)
    }
}

/// How the body of a call is read. One with money in it is read whole before anything goes upstream: only the
/// end of a body proves what `n` and the caps are, and with them what has to be held.
pub(crate) fn limits(key: &ApiKey, snapshot: &Snapshot) -> Limits {
    let limits = snapshot.limits;
    let metered = key.is_metered();
    let stream_after_bytes =
        if metered { limits.body_bytes_max } else { limits.stream_after_bytes };
    Limits { stream_after_bytes, ..limits }
}

/// Puts money aside for a call that has some in it, and writes down that it goes upstream.
pub(crate) async fn hold(
    call: &mut Call,
    books: &Books,
    (route, snapshot): (&Route, &Snapshot),
    request: &Request,
) -> Result<Option<Bounds>, Fault> {
    let Some(key) = call.key.clone().filter(|key| key.is_metered()) else { return Ok(None) };
    if request.scanner.facts().service_tier == Some(ServiceTier::Other) {
        // Nobody has said what it costs.
        return Err(Fault::Refused(Refusal::InvalidValue));
    }
    let mut quote = Quote::new(call, (route, snapshot), request);
    for _ in 0..TRIES_MAX {
        let claim = Claim::new(&key, quote.amount(), call.started);
        let (left, ceiling) = match books.hold(&key, &claim).await {
            Ok(hold) => {
                let prompt_tokens = quote.prompt_tokens;
                call.fund(hold, (quote.limit.is_some(), prompt_tokens))
                    .map_err(|_| unavailable())?;
                return Ok(Some(quote.bounds));
            }
            Err(Denied::Unavailable) => return Err(unavailable()),
            Err(Denied::Money(left)) => (left, false),
            Err(Denied::Ceiling(left)) => (left, true),
        };
        quote.lower((left, ceiling), call, request).await?;
    }
    Err(unavailable())
}

fn unavailable() -> Fault {
    Fault::Refused(Refusal::FundsUnavailable)
}

/// What a call can come to.
struct Quote<'a> {
    route: &'a Route,
    now: Timestamp,
    bounds: Bounds,
    /// The least output that a call is clamped to.
    output_tokens_min: u64,
    /// Whether the answer is a stream, which can be ended anywhere.
    streamed: bool,
    /// Whether the prompt has been counted.
    counted: bool,
    /// Input tokens, cautiously.
    prompt_tokens: u64,
    /// Less than the call can come to: the answer is ended there.
    limit: Option<NanoUsd>,
}

impl<'a> Quote<'a> {
    fn new(call: &Call, (route, snapshot): (&'a Route, &Snapshot), request: &Request) -> Self {
        let bytes = request.frames.end();
        let ask = ask(call.endpoint, request, bytes);
        let caps = Caps { default: snapshot.money().output_tokens_default, clamp: None };
        let prompt_tokens =
            if ask.images > 0 || ask.files > 0 { 0 } else { (bytes / BYTES_PER_TOKEN).max(1) };
        Self {
            route,
            now: call.started,
            bounds: Bounds { ask, caps },
            output_tokens_min: snapshot.money().output_tokens_min,
            streamed: request.scanner.facts().stream == Some(Flag::True),
            counted: false,
            prompt_tokens,
            limit: None,
        }
    }

    /// What to hold.
    fn amount(&self) -> NanoUsd {
        let Bounds { ask, caps } = &self.bounds;
        let worst = bound::hold(self.route, ask, caps, self.now);
        self.limit.map_or(worst, |limit| worst.min(limit))
    }

    /// Makes do with `left`: counts the prompt, then clamps the output, then ends a stream at its key's
    /// ceiling. `Err` if the call cannot be paid for.
    async fn lower(
        &mut self,
        (left, ceiling): (NanoUsd, bool),
        call: &Call,
        request: &Request,
    ) -> Result<(), Fault> {
        if !self.counted {
            self.counted = true;
            let before = self.amount();
            if let Some(tokens) = call.count_prompt(request).await {
                let text = bound::text_by_count(tokens);
                let ask = &mut self.bounds.ask;
                ask.text_tokens = ask.text_tokens.min(text);
                if self.prompt_tokens > 0 {
                    self.prompt_tokens = tokens.max(1);
                }
                if self.amount() < before {
                    return Ok(());
                }
            }
        }
        let Bounds { ask, caps } = &self.bounds;
        let tokens = bound::affordable(self.route, ask, self.now, (caps.default, left));
        if tokens == Some(u64::MAX) {
            // It is enough, as it turns out.
            return Ok(());
        }
        let short = Fault::Unaffordable(Box::new(Unaffordable { ceiling, tokens }));
        let Some(tokens) = tokens.filter(|_| self.bounds.ask.generates) else { return Err(short) };
        let cap =
            self.route.targets.iter().filter_map(|one| self.bounds.output_tokens_max(one)).max();
        if tokens < self.output_tokens_min.min(cap.unwrap_or(u64::MAX)) {
            return Err(short);
        }
        if self.bounds.ask.output_cap.is_none() {
            self.bounds.caps.clamp = Some(tokens);
            Ok(())
        } else if ceiling && self.streamed {
            self.limit = Some(left);
            Ok(())
        } else {
            Err(short)
        }
    }
}

/// What a request says about how much it can come to.
fn ask(endpoint: Endpoint, request: &Request, bytes: u64) -> Ask {
    let facts = request.scanner.facts();
    let count = |number: Option<Number>| match number {
        Some(Number::Integer(count)) => Some(count),
        Some(Number::Null | Number::Other) | None => None,
    };
    let choices = count(facts.n).unwrap_or(1).max(count(facts.best_of).unwrap_or(1));
    let caps = [count(facts.max_completion_tokens), count(facts.max_tokens)];
    let generates = match endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => true,
        Endpoint::Embeddings | Endpoint::Models | Endpoint::Unknown => false,
    };
    Ask {
        text_tokens: bound::text_by_bytes(bytes),
        images: facts.images,
        files: facts.files,
        // Where both are given, a provider may mind either.
        output_cap: caps.into_iter().flatten().max(),
        output_usual: (endpoint == Endpoint::Completions).then_some(COMPLETION_TOKENS),
        choices: choices.max(1),
        prompts: facts.prompts.max(1),
        generates,
        tier: facts.service_tier,
    }
}
