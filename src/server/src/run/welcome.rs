//! What a person reads at the start: where the gateway is, the first key, and a line to try.

use std::io::Write;

use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{Funding, RawKey};
use tokenroute_proxy::clock;
use tokenroute_store::{Database, NewKey};

use crate::config::Plan;
use crate::state::{self, State};

/// The account that the first key belongs to.
const ACCOUNT: &str = "default";

/// Makes the first key of a new state folder; `None` if there are keys already.
pub(crate) async fn first_key(
    database: &Database,
    state: &State,
) -> anyhow::Result<Option<RawKey>> {
    if database.any_key().await? {
        return Ok(None);
    }
    let now = clock::now();
    let mut chance = [0; 32];
    getrandom::fill(&mut chance)?;
    let raw = RawKey::new(chance);
    let account = match database.account_by_name(ACCOUNT).await? {
        Some(account) => account,
        None => {
            let account = AccountId::new(now, state::chance()?);
            database.create_account(account, ACCOUNT, Funding::Unmetered, now).await?;
            account
        }
    };
    let key = NewKey {
        id: KeyId::new(now, state::chance()?),
        account,
        name: "first",
        hash: state.pepper.hash(&raw),
        shown: raw.shown(),
        created: now,
        expires: None,
    };
    database.create_key(&key).await?;
    Ok(Some(raw))
}

/// Prints it. The key is shown here and never again.
pub(crate) fn print(plan: &Plan, key: Option<&RawKey>, out: &mut dyn Write) -> std::io::Result<()> {
    let scheme = if plan.listen.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", plan.listen.address);
    writeln!(out, "tokenrouted serves {base}/v1 (admin: http://{})", plan.admin)?;
    let Some(key) = key else {
        writeln!(out, "Keys: tokenrouted keys list, tokenrouted keys create --name NAME")?;
        return out.flush();
    };
    writeln!(out, "\nYour first API key, shown only this once:\n\n  {}\n", key.expose())?;
    if let Some(model) = plan.catalog.listed().first() {
        writeln!(
            out,
            "Try it:\n\n  curl {base}/v1/chat/completions -H 'Authorization: Bearer {}' \
             -H 'Content-Type: application/json' \
             -d '{{\"model\":\"{}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n",
            key.expose(),
            model.id,
        )?;
    }
    out.flush()
}
