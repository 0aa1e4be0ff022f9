//! What there is to spend.

use tokenroute_api::balance::Balance;
use tokenroute_domain::id::AccountId;

use super::{Problem, keys};
use crate::Parts;
use crate::identity::caller::Holder;

/// The currency of all money here.
const CURRENCY: &str = "USD";

/// What the account has; of a key, what it may still spend of that.
pub(crate) async fn of_holder(parts: &Parts, holder: &Holder) -> Result<Balance, Problem> {
    match holder {
        Holder::Person(person) => of_account(parts, person.account).await,
        Holder::Key { key, .. } => {
            let listing = parts.database.key(*key).await?.ok_or(Problem::NotFound("key"))?;
            let left = keys::left(parts, &listing).await?;
            Ok(Balance { balance_usd: left.to_string(), currency: CURRENCY.to_owned() })
        }
    }
}

/// What an account has, what is lent to edges included.
pub(crate) async fn of_account(parts: &Parts, account: AccountId) -> Result<Balance, Problem> {
    let balance = parts.database.balance(account).await?;
    Ok(Balance { balance_usd: balance.total().to_string(), currency: CURRENCY.to_owned() })
}
