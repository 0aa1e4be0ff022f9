//! Accounts, for administrators and partners.

use std::sync::Arc;

use tokenroute_api::accounts::{Account, AccountChange, Accounts, NewAccount};
use tokenroute_domain::id::AccountId;
use tokenroute_domain::key::Funding;
use tokenroute_domain::time::{Timestamp, utc};
use tokenroute_store::{self as store, AccountTerms};

use super::page::Page;
use super::{Problem, terms, text};
use crate::{Change, Parts};

/// A page of accounts, the oldest first.
pub(crate) async fn list(parts: &Parts, page: Page<'_>) -> Result<Accounts, Problem> {
    let limit = page.limit()?;
    let after = page.after(AccountId::parse)?;
    let mut all = parts.database.accounts(after, limit.saturating_add(1)).await?;
    let next_cursor = Page::next(&mut all, limit, |account| account.id.to_string());
    Ok(Accounts { data: all.into_iter().map(shown).collect(), next_cursor })
}

/// An account.
pub(crate) async fn show(parts: &Parts, id: &str) -> Result<Account, Problem> {
    find(parts, id).await.map(shown)
}

/// The account with that identifier.
pub(crate) async fn find(parts: &Parts, id: &str) -> Result<store::Account, Problem> {
    let found = match AccountId::parse(id) {
        Some(id) => parts.database.account_by_id(id).await?,
        None => None,
    };
    found.ok_or(Problem::NotFound("account"))
}

/// Makes an account that pays from a balance, which begins at nothing.
pub(crate) async fn create(
    parts: &Parts,
    actor: &str,
    (wish, chance): (&NewAccount, u128),
) -> Result<Account, Problem> {
    let now: Timestamp = (parts.now)();
    let name = text::name("name", &wish.name)?;
    let id = AccountId::new(now, chance);
    let acting = parts.database.acting(actor);
    if !acting.create_account(id, name, Funding::Prepaid, now).await? {
        let message = "an account is called so already: take another name".to_owned();
        return Err(Problem::Conflict { reason: "name_taken", message });
    }
    show(parts, &id.to_string()).await
}

/// Changes an account's tier, policy and limits, everywhere within a second.
pub(crate) async fn change(
    parts: &Parts,
    actor: &str,
    (id, wish): (&str, &AccountChange),
) -> Result<Account, Problem> {
    let account = find(parts, id).await?;
    for (param, named) in [("tier", &wish.tier), ("policy", &wish.policy)] {
        if let Some(Some(named)) = named {
            text::name(param, named)?;
        }
    }
    known(parts, wish)?;
    let limits = wish.limits.map(|limits| terms::limits(limits.unwrap_or_default())).transpose()?;
    let apply = |own: &mut AccountTerms| {
        for (old, new) in [(&mut own.tier, &wish.tier), (&mut own.policy, &wish.policy)] {
            if let Some(new) = new {
                *old = new.as_deref().map(Arc::from);
            }
        }
        own.limits = limits.unwrap_or(own.limits);
    };
    let acting = parts.database.acting(actor);
    let keys = acting.change_account(account.id, apply, (parts.now)()).await?;
    for hash in keys.ok_or(Problem::NotFound("account"))? {
        parts.edges.tell(Change::Changed(hash)).await;
    }
    show(parts, id).await
}

/// Whether what the account is to be under is there: a tier that is not leaves it without limits, a policy that is
/// not lets it use nothing.
fn known(parts: &Parts, wish: &AccountChange) -> Result<(), Problem> {
    let unknown = |param, name: &str| Problem::Invalid {
        reason: "name_unknown",
        param: Some(param),
        message: format!("{param}: there is none of the name \"{name}\"; make it first"),
    };
    if let Some(Some(tier)) = &wish.tier
        && !parts.edges.knows_tier(tier)
    {
        return Err(unknown("tier", tier));
    }
    if let Some(Some(policy)) = &wish.policy
        && parts.edges.catalog().policy(policy).is_none()
    {
        return Err(unknown("policy", policy));
    }
    Ok(())
}

fn shown(account: store::Account) -> Account {
    Account {
        id: account.id.to_string(),
        name: account.name,
        funding: account.funding.as_str().to_owned(),
        balance_usd: account.balance.to_string(),
        created_at: utc::seconds(account.created),
        keys: account.keys,
        tier: account.terms.tier.as_deref().map(str::to_owned),
        policy: account.terms.policy.as_deref().map(str::to_owned),
        limits: terms::shown(account.terms.limits),
    }
}
