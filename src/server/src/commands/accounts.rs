//! `tokenrouted accounts`: makes, lists and shows who pays.

use clap::Subcommand;
use serde_json::{Value, json};
use tokenroute_domain::id::AccountId;
use tokenroute_domain::key::Funding;
use tokenroute_domain::limit::Limits;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Account, Database};

use super::terms::{LimitOptions, word};
use super::{End, Terminal, cell, clock, is_name, not_a_name};

/// Accounts read from the database at once.
const PAGE: u32 = 500;

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// Make an account.
    Create {
        /// What its owner calls it.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Calls are paid from its credit, which is nothing at first. So it is without --unmetered.
        #[arg(long, conflicts_with = "unmetered")]
        prepaid: bool,
        /// Calls are recorded with their cost, and nobody pays.
        #[arg(long)]
        unmetered: bool,
        /// The tier of the configuration that says what its limits leave open.
        #[arg(long, value_name = "NAME")]
        tier: Option<String>,
        #[command(flatten)]
        limits: LimitOptions,
    },
    /// List all accounts, the oldest first.
    List {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one account.
    Show {
        /// Its name.
        name: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub(crate) async fn manage(
    database: &Database,
    command: &AccountsCommand,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    match command {
        AccountsCommand::Create { name, prepaid: _, unmetered, tier, limits } => {
            let funding = if *unmetered { Funding::Unmetered } else { Funding::Prepaid };
            let terms = (tier.as_deref(), limits.limits());
            create(database, (name, funding), terms, (now, terminal)).await
        }
        AccountsCommand::List { json } => list(database, *json, terminal).await,
        AccountsCommand::Show { name, json } => show(database, (name, *json), terminal).await,
    }
}

/// The account of that name; tells if there is none.
pub(crate) async fn find(
    database: &Database,
    name: &str,
    terminal: &mut Terminal<'_>,
) -> Result<Account, End> {
    match database.account(name).await {
        Ok(Some(account)) => Ok(account),
        Ok(None) => {
            terminal.tell(format_args!(
                "there is no account \"{}\": `accounts list` shows all",
                cell(name)
            ));
            Err(End::Mistaken)
        }
        Err(error) => Err(terminal.unable(&error)),
    }
}

async fn create(
    database: &Database,
    (name, funding): (&str, Funding),
    (tier, limits): (Option<&str>, Limits),
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    if !is_name(name) {
        return terminal.refuse(not_a_name("name"));
    }
    if let Some(Err(problem)) = tier.map(|tier| word("tier", tier)) {
        return terminal.refuse(problem);
    }
    let id = match crate::state::chance() {
        Ok(chance) => AccountId::new(now, chance),
        Err(error) => return terminal.unable(&format_args!("{error:#}")),
    };
    match database.create_account(id, name, funding, now).await {
        Ok(true) => {}
        Ok(false) => {
            return terminal.refuse(format_args!("there is an account \"{name}\" already"));
        }
        Err(error) => return terminal.unable(&error),
    }
    if (tier.is_some() || limits != Limits::default())
        && let Err(error) = database.set_account_terms(id, tier, limits).await
    {
        return terminal.unable(&format_args!("account {id} is made, without its limits: {error}"));
    }
    terminal.say(format_args!("{id} \"{name}\" is made, {}", funding.as_str()))
}

async fn list(database: &Database, json: bool, terminal: &mut Terminal<'_>) -> End {
    let heads = ["ID", "FUNDING", "BALANCE", "KEYS", "CREATED", "TIER", "NAME"];
    if !json && terminal.say(row(&heads.map(str::to_owned))) != End::Done {
        return End::Unable;
    }
    let mut last = None;
    loop {
        let accounts = match database.accounts(last, PAGE).await {
            Ok(accounts) => accounts,
            Err(error) => return terminal.unable(&error),
        };
        let Some(end) = accounts.last() else { return End::Done };
        last = Some(end.id);
        for account in &accounts {
            let line = if json { as_json(account).to_string() } else { row(&as_row(account)) };
            if terminal.say(line) != End::Done {
                return End::Unable;
            }
        }
    }
}

async fn show(database: &Database, (name, json): (&str, bool), terminal: &mut Terminal<'_>) -> End {
    let account = match find(database, name, terminal).await {
        Ok(account) => account,
        Err(end) => return end,
    };
    if json {
        return terminal.say(as_json(&account));
    }
    let limits = account.limits;
    let lines = [
        ("id", account.id.to_string()),
        ("name", cell(&account.name)),
        ("funding", account.funding.as_str().to_owned()),
        ("balance", balance(&account)),
        ("keys", account.keys.to_string()),
        ("created", clock::seconds(account.created)),
        ("tier", account.tier.as_deref().map_or_else(|| "-".to_owned(), cell)),
        ("requests/s", limit(limits.requests_per_second)),
        ("requests/min", limit(limits.requests_per_minute)),
        ("tokens/min", limit(limits.tokens_per_minute)),
        ("concurrency", limit(limits.concurrency)),
    ];
    let lines = lines.map(|(what, value)| format!("{what:<13} {value}"));
    terminal.say(lines.join("\n"))
}

fn limit(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// What is posted of its credit; of an account that does not pay by credit, nothing.
fn balance(account: &Account) -> String {
    match account.funding {
        Funding::Prepaid => account.balance.to_string(),
        Funding::Unmetered => "-".to_owned(),
    }
}

fn row([id, funding, balance, keys, created, tier, name]: &[String; 7]) -> String {
    let line = format!(
        "{id:<30}  {funding:<9}  {balance:>14}  {keys:>5}  {created:<20}  {tier:<12}  {name}"
    );
    line.trim_end().to_owned()
}

fn as_row(account: &Account) -> [String; 7] {
    [
        account.id.to_string(),
        account.funding.as_str().to_owned(),
        balance(account),
        account.keys.to_string(),
        clock::seconds(account.created),
        account.tier.as_deref().map_or_else(|| "-".to_owned(), cell),
        cell(&account.name),
    ]
}

fn as_json(account: &Account) -> Value {
    let limits = account.limits;
    json!({
        "id": account.id.to_string(),
        "name": account.name,
        "funding": account.funding.as_str(),
        "balance": account.balance.to_string(),
        "keys": account.keys,
        "created": clock::micros(account.created),
        "tier": account.tier.as_deref(),
        "limits": {
            "requests_per_second": limits.requests_per_second,
            "requests_per_minute": limits.requests_per_minute,
            "tokens_per_minute": limits.tokens_per_minute,
            "concurrency": limits.concurrency,
        },
    })
}
