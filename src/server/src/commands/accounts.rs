//! `tokenrouted accounts`: makes accounts and shows what they have.

use serde_json::{Value, json};
use tokenroute_domain::id::AccountId;
use tokenroute_domain::key::Funding;
use tokenroute_domain::limit::Limits;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Account, AccountTerms, Database};

use super::keys::drop_cached;
use super::line::{AccountsCommand, NewAccount};
use super::terms::{
    AccountClearing, AccountFlags, is_name, limits_as_json, limits_in_words, name_rule,
};
use super::{End, Stores, Terminal, actor, cell, clock};

/// Accounts read from the database at once.
const PAGE: u32 = 500;

/// Does what is asked with accounts.
pub(super) async fn manage(
    stores: &Stores,
    command: &AccountsCommand,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let (database, known) = (&stores.database, stores.names.as_ref());
    let named = match command {
        AccountsCommand::Create(wish) => Some(&wish.terms),
        AccountsCommand::Set { terms, .. } => Some(terms),
        AccountsCommand::List { .. } | AccountsCommand::Show { .. } => None,
    };
    if let Some(problem) = named.and_then(|terms| terms.misnamed(known)) {
        return terminal.refuse(problem);
    }
    let done = match command {
        AccountsCommand::Create(wish) => create(database, wish, (now, &mut *terminal)).await,
        AccountsCommand::Set { name, clear, terms } => {
            set(stores, name, (clear, terms), (now, &mut *terminal)).await
        }
        AccountsCommand::List { json } => list(database, *json, terminal).await,
        AccountsCommand::Show { name, json } => show(database, name, (*json, terminal)).await,
    };
    done.unwrap_or_else(|error| terminal.unable(&format_args!("{error:#}")))
}

/// The account of that name. If there is none, that has been told.
pub(super) async fn find(
    database: &Database,
    name: &str,
    terminal: &mut Terminal<'_>,
) -> Result<Option<Account>, tokenroute_store::Error> {
    let found = database.account(name).await?;
    if found.is_none() {
        terminal.tell(format_args!(
            "there is no account \"{}\": see `accounts list`, or make it with `accounts create`",
            cell(name)
        ));
    }
    Ok(found)
}

async fn create(
    database: &Database,
    wish: &NewAccount,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> anyhow::Result<End> {
    if !is_name(&wish.name) {
        terminal.tell(format_args!("--name: {}", name_rule()));
        return Ok(End::Mistaken);
    }
    // Who says nothing gets the account that can give nothing away.
    let funding = if wish.unmetered { Funding::Unmetered } else { Funding::Prepaid };
    let id = AccountId::new(now, crate::state::chance()?);
    let actor = actor();
    let acting = database.acting(&actor);
    if !acting.create_account(id, &wish.name, funding, now).await? {
        terminal.tell(format_args!(
            "there is an account \"{}\" already: see `accounts show`",
            wish.name
        ));
        return Ok(End::Mistaken);
    }
    if !wish.terms.is_empty() {
        acting.change_account(id, |own| wish.terms.apply(own), now).await?;
    }
    let next = match funding {
        Funding::Prepaid => "; add what it may spend with `credit add`",
        Funding::Unmetered => "",
    };
    terminal.tell(format_args!("account \"{}\" is made, {}{next}", wish.name, funding.as_str()));
    Ok(terminal.say(id))
}

async fn set(
    stores: &Stores,
    name: &str,
    (clear, named): (&[AccountClearing], &AccountFlags),
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> anyhow::Result<End> {
    if clear.is_empty() && named.is_empty() {
        return Ok(terminal.refuse("name what is to be changed: see `accounts set --help`"));
    }
    let Stores { database, redis, .. } = stores;
    let Some(account) = find(database, name, terminal).await? else { return Ok(End::Mistaken) };
    let apply = |own: &mut AccountTerms| {
        if clear.contains(&AccountClearing::Tier) {
            own.tier = None;
        }
        if clear.contains(&AccountClearing::Policy) {
            own.policy = None;
        }
        if clear.contains(&AccountClearing::Limits) {
            own.limits = Limits::default();
        }
        named.apply(own);
    };
    let changed = database.acting(&actor()).change_account(account.id, apply, now).await?;
    let hashes = changed.unwrap_or_default();
    drop_cached(redis.as_ref(), &hashes, terminal).await;
    Ok(terminal.say(format_args!("account \"{name}\" is changed")))
}

async fn list(database: &Database, json: bool, terminal: &mut Terminal<'_>) -> anyhow::Result<End> {
    let heads = ["ID", "FUNDING", "USD", "KEYS", "TIER", "CREATED", "NAME"];
    if !json && terminal.say(row(heads)) != End::Done {
        return Ok(End::Unable);
    }
    let mut last = None;
    loop {
        let page = database.accounts(last, PAGE).await?;
        let Some(end) = page.last() else { return Ok(End::Done) };
        last = Some(end.id);
        for account in &page {
            let line = if json { as_json(account).to_string() } else { as_row(account) };
            if terminal.say(line) != End::Done {
                return Ok(End::Unable);
            }
        }
    }
}

async fn show(
    database: &Database,
    name: &str,
    (json, terminal): (bool, &mut Terminal<'_>),
) -> anyhow::Result<End> {
    let Some(account) = find(database, name, terminal).await? else { return Ok(End::Mistaken) };
    if json {
        return Ok(terminal.say(as_json(&account)));
    }
    let limits = limits_in_words(account.terms.limits, account.terms.tier.as_deref());
    let limits = limits.as_deref().and_then(|words| words.strip_prefix("limits: "));
    for (head, value) in [
        ("name", cell(&account.name)),
        ("id", account.id.to_string()),
        ("funding", account.funding.as_str().to_owned()),
        ("balance", format!("{} USD", account.balance)),
        ("policy", account.terms.policy.as_deref().map_or_else(|| "none".to_owned(), cell)),
        ("limits", limits.unwrap_or("those of the default tier").to_owned()),
        ("keys", account.keys.to_string()),
        ("created", clock::seconds(account.created)),
    ] {
        if terminal.say(format_args!("{head:<8}  {value}")) != End::Done {
            return Ok(End::Unable);
        }
    }
    Ok(End::Done)
}

fn row([id, funding, balance, keys, tier, created, name]: [&str; 7]) -> String {
    let line = format!(
        "{id:<30}  {funding:<9}  {balance:>17}  {keys:>6}  {tier:<12}  {created:<20}  {name}"
    );
    line.trim_end().to_owned()
}

fn as_row(account: &Account) -> String {
    let (id, balance) = (account.id.to_string(), account.balance.to_string());
    let tier = account.terms.tier.as_deref().map_or_else(|| "-".to_owned(), cell);
    let (keys, created) = (account.keys.to_string(), clock::seconds(account.created));
    let name = cell(&account.name);
    row([&id, account.funding.as_str(), &balance, &keys, &tier, &created, &name])
}

fn as_json(account: &Account) -> Value {
    json!({
        "id": account.id.to_string(),
        "name": account.name,
        "funding": account.funding.as_str(),
        "balance_usd": account.balance.to_string(),
        "keys": account.keys,
        "tier": account.terms.tier.as_deref(),
        "policy": account.terms.policy.as_deref(),
        "limits": limits_as_json(account.terms.limits),
        "created": clock::micros(account.created),
    })
}
