//! The device flow (RFC 8628): a person confirms a code in a browser, on whichever machine, while this waits.
//! Network, clock and words are arguments: no test of it sleeps.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokenroute_api::auth::Discovery;

use crate::address::Address;
use crate::credentials::Tokens;
use crate::failure::Failure;
use crate::network::{Answer, Content, Method, Network, Request};
use crate::secret::{Secret, presentable};
use crate::surroundings::Clock;

/// Between two questions, if the issuer does not say (RFC 8628, 3.2).
const INTERVAL_DEFAULT: u64 = 5;
/// Longest time between two questions, in seconds.
const INTERVAL_MAX: u64 = 60;
/// Added when the issuer says `slow_down` (RFC 8628, 3.5), in seconds.
const SLOWER: u64 = 5;
/// Longest wait for a person, in seconds, whatever the issuer allows.
const WAIT_MAX: u64 = 1800;
/// Questions in a row that may go unanswered: a network that changes is no end of a login.
const MISSES_MAX: u32 = 3;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What a person is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    /// The page.
    pub(crate) verification_uri: String,
    /// The page with the code in it.
    pub(crate) verification_uri_complete: Option<String>,
    /// What to enter there.
    pub(crate) user_code: String,
    /// For how many seconds the code is good.
    pub(crate) expires_in: u64,
}

/// RFC 8628, 3.2.
#[derive(Deserialize)]
struct Device {
    #[serde(rename = "device_code")]
    code: Secret,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// Gets tokens from whom `discovery` names, with a person's consent.
pub(crate) fn login(
    discovery: &Discovery,
    network: &dyn Network,
    clock: &dyn Clock,
    tell: &mut dyn FnMut(&Prompt),
) -> Result<Tokens, Failure> {
    let endpoint = endpoint(&discovery.device_authorization_endpoint)?;
    let mut fields = vec![("client_id", discovery.client_id.clone())];
    fields.push(("scope", discovery.scopes.clone()));
    fields.push(("resource", discovery.resource.clone()));
    let answer = post(network, &endpoint, fields)
        .map_err(|unreachable| Failure::network(endpoint.host(), &unreachable))?;
    if answer.status != 200 {
        return Err(refused(&answer));
    }
    let unreadable =
        || Failure::login("unreadable_answer", "the issuer's device code is unreadable");
    let device: Device = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
    let prompt = prompt(&device).ok_or_else(unreadable)?;
    tell(&prompt);
    poll(discovery, &device, network, clock)
}

/// Only pages are shown, and nothing that moves a cursor.
fn prompt(device: &Device) -> Option<Prompt> {
    let page = |url: &String| Address::parse(url).is_ok();
    Some(&device.verification_uri).filter(|url| page(url)).map(|url| Prompt {
        verification_uri: url.clone(),
        verification_uri_complete: device.verification_uri_complete.clone().filter(page),
        user_code: presentable(&device.user_code),
        expires_in: device.expires_in.min(WAIT_MAX),
    })
}

/// Asks until the person has decided or the code is no longer good.
fn poll(
    discovery: &Discovery,
    device: &Device,
    network: &dyn Network,
    clock: &dyn Clock,
) -> Result<Tokens, Failure> {
    let endpoint = endpoint(&discovery.token_endpoint)?;
    let end = clock.elapsed() + Duration::from_secs(device.expires_in.min(WAIT_MAX));
    let mut interval = device.interval.unwrap_or(INTERVAL_DEFAULT).clamp(1, INTERVAL_MAX);
    let mut misses = 0;
    loop {
        let pause = Duration::from_secs(interval);
        if clock.elapsed() + pause >= end {
            clock.sleep(end.saturating_sub(clock.elapsed()));
            return Err(Failure::login(
                "expired_token",
                "nobody confirmed the code in time: log in again",
            ));
        }
        clock.sleep(pause);
        let fields = vec![
            ("grant_type", GRANT.to_owned()),
            ("device_code", device.code.reveal().to_owned()),
            ("client_id", discovery.client_id.clone()),
            ("resource", discovery.resource.clone()),
        ];
        let failure = match post(network, &endpoint, fields) {
            Ok(answer) => match said(&answer) {
                Said::Yes(tokens) => return Ok(*tokens),
                Said::NotYet => {
                    misses = 0;
                    continue;
                }
                Said::Slower => {
                    misses = 0;
                    interval = (interval + SLOWER).min(INTERVAL_MAX);
                    continue;
                }
                Said::No(failure) => return Err(failure),
                Said::Nothing => Failure::answered(&answer),
            },
            Err(unreachable) => Failure::network(endpoint.host(), &unreachable),
        };
        misses += 1;
        if misses >= MISSES_MAX {
            return Err(failure);
        }
        // As RFC 8628 asks: less often while it does not answer.
        interval = (interval * 2).min(INTERVAL_MAX);
    }
}

/// What a token endpoint says.
enum Said {
    Yes(Box<Tokens>),
    NotYet,
    Slower,
    No(Failure),
    /// It failed, and may not the next time.
    Nothing,
}

fn said(answer: &Answer) -> Said {
    if answer.status == 200 {
        let unreadable = Failure::login("unreadable_answer", "the issuer's token is unreadable");
        return Tokens::parse(&answer.body).map_or(Said::No(unreadable), |it| Said::Yes(it.into()));
    }
    if answer.status >= 500 {
        return Said::Nothing;
    }
    match word(answer).as_str() {
        "authorization_pending" => Said::NotYet,
        "slow_down" => Said::Slower,
        _ if answer.status == 429 => Said::Slower,
        "access_denied" => Said::No(Failure::login("access_denied", "the login was declined")),
        "expired_token" => {
            Said::No(Failure::login("expired_token", "the code has expired: log in again"))
        }
        _ => Said::No(refused(answer)),
    }
}

/// The `error` of an OAuth answer, or nothing.
pub(crate) fn word(answer: &Answer) -> String {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    presentable(said.get("error").and_then(Value::as_str).unwrap_or_default())
}

fn refused(answer: &Answer) -> Failure {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let why = said.get("error_description").and_then(Value::as_str).map(presentable);
    let word = word(answer);
    let reason = if word.is_empty() { "device_flow" } else { &word };
    let why = why.unwrap_or_else(|| format!("status {} {word}", answer.status));
    let mut failure =
        Failure::login(reason, format!("the issuer did not do it: {}", why.trim_end()));
    failure.status = Some(answer.status);
    failure
}

/// An address of the issuer's.
pub(crate) fn endpoint(text: &str) -> Result<Address, Failure> {
    Address::parse(text).map_err(|why| {
        let message = format!("the gateway names an issuer's address that is not good: {why}");
        Failure::login("bad_endpoint", message)
    })
}

/// Sends a form to an issuer.
pub(crate) fn post(
    network: &dyn Network,
    address: &Address,
    fields: Vec<(&'static str, String)>,
) -> Result<Answer, crate::network::Unreachable> {
    let content = Content::Form(fields);
    network.send(&Request { method: Method::Post, address, bearer: None, content })
}

#[cfg(test)]
mod tests;
