//! Who may ask what: one type for each, so that an endpoint says by its arguments who may ask it.

use tokenroute_domain::id::{AccountId, KeyId};

/// A person who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// The user's ID.
    pub(crate) user: String,
    /// Whose money the user spends.
    pub(crate) account: AccountId,
    /// Whether the user may administer.
    pub(crate) is_admin: bool,
}

/// A person, or a program with an API key: what both may read is the account's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A person, who sees all of the account.
    Person(Person),
    /// An API key, which sees its own part.
    Key {
        /// The account that pays.
        account: AccountId,
        /// The key.
        key: KeyId,
    },
}

/// A person who may administer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admin(pub(crate) Person);

/// Who has one of the internal secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partner {
    /// The secret's name.
    pub(crate) name: String,
}
