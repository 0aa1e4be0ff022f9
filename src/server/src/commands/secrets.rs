//! `tokenrouted setup-link` and `internal-secret`: what lets somebody in to the management plane, drawn anew
//! and shown once.

use std::fmt::Write as _;

use tokenroute_control::{digest, random_secret, setup_link};
use tokenroute_domain::time::Timestamp;
use tokenroute_store::Database;

use super::terms::{is_name, name_rule};
use super::{End, Terminal, actor};
use crate::config::ControlPlan;
use crate::state::chance_bytes;

/// Prints a link with which whoever opens it first makes itself an administrator.
pub(super) async fn link(
    plan: &ControlPlan,
    database: &Database,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    if plan.oidc.is_some() {
        return terminal.refuse(
            "users are those of the issuer in [control.oidc]: name administrators in control.admins",
        );
    }
    let Some(public_url) = plan.found_at() else {
        return terminal.refuse("control.public_url is needed where control.address has port 0");
    };
    match setup_link(database.acting(&actor()), &public_url, now, chance_bytes).await {
        Ok(link) => {
            terminal.tell("It makes one administrator. It works once, for 30 minutes:");
            terminal.say(link)
        }
        Err(error) => terminal.unable(&error),
    }
}

/// Prints a partner's secret, and the line that makes it known. It is kept nowhere.
pub(super) fn internal(name: &str, terminal: &mut Terminal<'_>) -> End {
    if !is_name(name) {
        return terminal.refuse(format_args!("--name: {}", name_rule()));
    }
    let Ok(secret) = random_secret(chance_bytes) else {
        return terminal.unable(&"the operating system gives no random bytes");
    };
    let mut hash = String::new();
    for byte in digest(&secret) {
        let _always_fits = write!(hash, "{byte:02x}");
    }
    let name = toml::Value::from(name);
    terminal
        .tell("Give the secret to the partner, for its X-Internal-Secret. It is shown this once:");
    if terminal.say(&secret) != End::Done {
        return End::Unable;
    }
    terminal.tell("and this line to the configuration of whoever serves [control]:");
    terminal.say(format_args!("[control.internal_secrets]\n{name} = \"sha256:{hash}\""))
}
