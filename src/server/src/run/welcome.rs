//! What a person reads at the start: where the gateway is, the first key, and a line to try.

use std::io::Write;

use tokenroute_domain::key::{RawKey, Terms};
use tokenroute_proxy::clock;
use tokenroute_store::Database;

use crate::commands::keys::{self, Wish};
use crate::config::Plan;
use crate::state::State;

/// What the demo provider's model is called.
const DEMO_MODEL: &str = "demo/echo";

/// Makes the first key of a new state folder; `None` if there are keys already.
pub(crate) async fn first_key(
    database: &Database,
    state: &State,
) -> anyhow::Result<Option<RawKey>> {
    if database.any_key().await? {
        return Ok(None);
    }
    let terms = Terms::default();
    let wish = Wish { name: "first", account: keys::ACCOUNT, expires: None, terms };
    let (_, raw) =
        keys::issue(database.acting("gateway"), &state.pepper, wish, clock::now()).await?;
    Ok(Some(raw))
}

/// Prints the link of the first administrator, who is not there yet. It is shown here and never again.
pub(super) fn print_link(link: &str, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "\nSet up the first administrator. The link works once, for 30 minutes:\n\n  {link}\n"
    )?;
    out.flush()
}

/// Prints it. The key is shown here and never again.
pub(crate) fn print(plan: &Plan, key: Option<&RawKey>, out: &mut dyn Write) -> std::io::Result<()> {
    let scheme = if plan.listen.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", plan.listen.address);
    let state = plan.state.dir.display();
    writeln!(out, "tokenrouted serves {base}/v1 (admin: http://{}, state: {state})", plan.admin)?;
    let Some(key) = key else {
        writeln!(out, "Keys: tokenrouted keys list, tokenrouted keys create --name NAME")?;
        writeln!(out, "(with the same --config, TOKENROUTE_CONFIG or TOKENROUTE_STATE_DIR)")?;
        return out.flush();
    };
    writeln!(out, "\nYour first API key, shown only this once:\n\n  {}\n", key.expose())?;
    // The demo provider answers whatever else is set up wrongly.
    let listed = plan.catalog.listed();
    let demo = listed.iter().find(|model| &*model.id == DEMO_MODEL);
    if let Some(model) = demo.or_else(|| listed.first()) {
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
