//! Accounts, for those who run the gateway and for partners.

use serde::{Deserialize, Serialize};

use crate::keys::Limits;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Account {
    /// Its ID.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// `prepaid`: calls are paid from its balance; `unmetered`: they are only recorded.
    pub funding: String,
    /// What it has, in USD.
    pub balance_usd: String,
    /// When it was created.
    pub created_at: String,
    /// Its keys that are not revoked.
    pub keys: u64,
    /// The tier that says what its limits leave open; `null`: the default.
    pub tier: Option<String>,
    /// The policy that says which models and providers its keys may use; `null`: all.
    pub policy: Option<String>,
    /// Its own limits, which all its keys share.
    pub limits: Limits,
}

/// A page of accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Accounts {
    /// Accounts in the order of their creation.
    pub data: Vec<Account>,
    /// What asks for the next page; `null` if this is the last.
    pub next_cursor: Option<String>,
}

/// An account that is to be made. It begins with nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// What it is called; no two are called the same.
    #[cfg_attr(feature = "schema", schema(min_length = 1, max_length = 100))]
    pub name: String,
}

/// What an account is to be from now on. What is left out stays; `null` takes it away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AccountChange {
    /// The tier that says what its limits leave open.
    #[serde(default, with = "said", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub tier: Option<Option<String>>,
    /// The policy that says which models and providers its keys may use.
    #[serde(default, with = "said", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub policy: Option<Option<String>>,
    /// All its own limits.
    #[serde(default, with = "said", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<Limits>))]
    pub limits: Option<Option<Limits>>,
}

/// A member that may be left out, be `null`, or say something: three things.
mod said {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::option_option, reason = "left out, null and a value are three things")]
    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(super) fn serialize<S: Serializer, T: Serialize>(
        value: &Option<Option<T>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().and_then(Option::as_ref).serialize(to)
    }

    #[expect(clippy::option_option, reason = "left out, null and a value are three things")]
    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        from: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::<T>::deserialize(from).map(Some)
    }
}

/// Money that is to be moved into an account, or out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewCredit {
    /// How much, in USD, as a decimal.
    #[cfg_attr(
        feature = "schema",
        schema(pattern = r"^[0-9]{1,7}(\.[0-9]{1,9})?$", example = "1.50")
    )]
    pub amount_usd: String,
    /// Why, for whoever reads the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(max_length = 1000))]
    pub note: Option<String>,
}

/// Money that was moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Credit {
    /// Whose.
    pub account_id: String,
    /// How much, in USD.
    pub amount_usd: String,
    /// What the account has now, in USD.
    pub balance_usd: String,
    /// Whether the ledger has it yet; if not, it follows in a moment.
    pub posted: bool,
}
