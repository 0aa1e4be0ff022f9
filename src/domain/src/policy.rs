//! Which models and providers the keys of an account may use: one policy for any number of accounts.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::matches;

/// Policies by name.
pub type Policies = HashMap<Arc<str>, Policy>;

/// What keys may use. It only ever takes away: a key may use what its own terms and this allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The models that may be asked for, as names or as `prefix/*`; `None` is all.
    pub models: Option<Vec<Arc<str>>>,
    /// The providers that may answer, by name; `None` is all.
    pub providers: Option<Vec<Arc<str>>>,
}

impl Policy {
    /// Whether a model of this name may be asked for.
    pub fn allow_model(&self, model: &str) -> bool {
        lists_model(self.models.as_deref(), model)
    }

    /// Whether a provider of this name may answer.
    pub fn allow_provider(&self, provider: &str) -> bool {
        lists_provider(self.providers.as_deref(), provider)
    }
}

/// Whether a list of models, if there is one, has this one.
pub(crate) fn lists_model(list: Option<&[Arc<str>]>, model: &str) -> bool {
    list.is_none_or(|all| all.iter().any(|one| matches(one, model)))
}

/// Whether a list of providers, if there is one, has this one.
pub(crate) fn lists_provider(list: Option<&[Arc<str>]>, provider: &str) -> bool {
    list.is_none_or(|all| all.iter().any(|one| **one == *provider))
}
