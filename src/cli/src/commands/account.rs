//! Who we are and what there is: `login`, `logout`, `whoami`, `balance`, `topup`, `usage`.

use serde::Serialize;
use tokenroute_api::balance::Balance;
use tokenroute_api::me::Me;
use tokenroute_api::topup::{NewTopup, Topup};
use tokenroute_api::usage::Usage;

use crate::address::Address;
use crate::credentials::Session;
use crate::failure::Failure;
use crate::login::{self, Prompt};
use crate::output::{Output, aligned, fields, or_none, usd};
use crate::session::World;

/// What `login` and `logout` say to programs.
#[derive(Serialize)]
struct Login<'a> {
    status: &'a str,
    api_url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
}

/// `login`: `tell` shows the code while we wait.
pub(crate) fn login(world: &World<'_>, tell: &mut dyn FnMut(&Prompt)) -> Result<Output, Failure> {
    let discovery = world.discovery()?;
    let tokens = login::login(&discovery, world.network, world.clock, tell)?;
    let session = Session::new(&discovery, tokens, world.clock.now_seconds());
    let _lock = world.credentials.lock(world.clock)?;
    world.credentials.keep_session(world.api_url(), Some(session))?;
    let issuer = Some(discovery.issuer.as_str());
    let login = Login { status: "logged_in", api_url: world.api_url(), issuer };
    Output::new("OK logged in", &login)
}

/// `logout`
pub(crate) fn logout(world: &World<'_>) -> Result<Output, Failure> {
    let was_logged_in = world.credentials.session(world.api_url())?.is_some();
    if was_logged_in {
        let _lock = world.credentials.lock(world.clock)?;
        world.credentials.keep_session(world.api_url(), None)?;
    }
    let said = if was_logged_in { "OK logged out" } else { "OK nobody was logged in" };
    let login = Login { status: "logged_out", api_url: world.api_url(), issuer: None };
    Output::new(said, &login)
}

/// `whoami`
pub(crate) fn whoami(world: &World<'_>) -> Result<Output, Failure> {
    let me: Me = world.get(&world.manager()?, "/api/v1/me")?;
    let said = fields(&[
        ("ID", me.id.clone()),
        ("Name", me.display_name.clone()),
        ("E-mail", or_none(me.email.as_ref())),
        ("Balance", usd(&me.balance_usd)),
        ("Status", me.status.clone()),
        ("Role", me.role.clone()),
    ]);
    Output::new(said, &me)
}

/// `balance`
pub(crate) fn balance(world: &World<'_>) -> Result<Output, Failure> {
    let balance: Balance = world.get(&world.reader()?, "/api/v1/balance")?;
    let said = format!("{} {}", usd(&balance.balance_usd), balance.currency);
    Output::new(aligned(&[vec![said]]), &balance)
}

/// `topup`: a page for a person. `open` shows it, and is asked only where a person is.
pub(crate) fn topup(
    world: &World<'_>,
    amount: &str,
    open: Option<&dyn Fn(&str) -> bool>,
) -> Result<Output, Failure> {
    let wanted = NewTopup { amount_usd: amount.to_owned() };
    let topup: Topup = world.post(&world.manager()?, "/api/v1/topup", &wanted)?;
    // What is opened or clicked is a page, and one that nobody on the way can change.
    Address::parse(&topup.checkout_url)
        .map_err(|why| Failure::unreadable(&format!("the page to pay at ({why})")))?;
    let is_opened = open.is_some_and(|open| open(&topup.checkout_url));
    let pay = format!("Pay {} here:", usd(&topup.amount_usd));
    let minutes = topup.expires_at.saturating_sub(world.clock.now_seconds()).max(0) / 60;
    let last = if is_opened {
        format!("Opened in your browser; good for {minutes} minutes.")
    } else {
        format!("Hand it to a person; good for {minutes} minutes.")
    };
    let rows = [vec![pay], vec![topup.checkout_url.clone()], vec![last]];
    Output::new(aligned(&rows), &topup)
}

/// `usage`
pub(crate) fn usage(world: &World<'_>, days: u32) -> Result<Output, Failure> {
    let usage: Usage = world.get(&world.reader()?, &format!("/api/v1/usage?days={days}"))?;
    let mut said = fields(&[
        ("Days", usage.range_days.to_string()),
        ("Requests", usage.total_requests.to_string()),
        ("Tokens in", usage.total_tokens_in.to_string()),
        ("Tokens out", usage.total_tokens_out.to_string()),
        ("Cost", usd(&usage.total_cost_usd)),
    ]);
    if !usage.keys.is_empty() {
        let head = ["KEY", "REQUESTS", "TOKENS IN", "TOKENS OUT", "COST"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(usage.keys.iter().map(|key| {
            vec![
                key.key_id.clone(),
                key.requests.to_string(),
                key.tokens_in.to_string(),
                key.tokens_out.to_string(),
                usd(&key.cost_usd),
            ]
        }));
        said = format!("{said}\n\n{}", aligned(&rows));
    }
    Output::new(said, &usage)
}
