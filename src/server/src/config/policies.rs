//! Checks policies: which models and providers the keys of an account may use.

use std::sync::Arc;

use tokenroute_domain::catalog::is_model_name;
use tokenroute_domain::policy::{Policies, Policy};

use super::check::Checker;
use super::file::{self, File};
use super::providers::{Checked, NAME_BYTES_MAX, is_plain_name};

/// Most policies in a file.
const POLICIES_MAX: usize = 1_000;
/// Most names in one list of a policy.
const NAMES_MAX: usize = 1_000;

/// Every policy, by its name.
pub(super) fn check(checker: &mut Checker<'_>, file: &File, providers: &[Checked]) -> Policies {
    if file.policies.len() > POLICIES_MAX {
        checker.problem("policies", format!("are too many: at most {POLICIES_MAX}"));
    }
    let mut policies = Policies::new();
    for (name, typed) in file.policies.iter().take(POLICIES_MAX) {
        policies.insert(Arc::from(name.as_str()), check_one(checker, name, typed, providers));
    }
    policies
}

fn check_one(
    checker: &mut Checker<'_>,
    name: &str,
    typed: &file::Policy,
    providers: &[Checked],
) -> Policy {
    let path = format!("policies.{name}");
    if !is_plain_name(name) {
        let message = format!("is no name: use a-z, 0-9, - and _, at most {NAME_BYTES_MAX}");
        checker.problem(&path, message);
    }
    let is_model = |pattern: &str| is_model_name(&pattern.replacen('*', "x", 1));
    for (place, model) in typed.models.iter().flatten().take(NAMES_MAX).enumerate() {
        let star = model.find('*').is_none_or(|at| at.saturating_add(1) == model.len());
        if !star || !is_model(model) {
            let message =
                "is no model name: use letters, digits and -_.:/@+, and * at the end alone";
            checker.problem(format!("{path}.models[{place}]"), message);
        }
    }
    for (place, provider) in typed.providers.iter().flatten().take(NAMES_MAX).enumerate() {
        // A provider that could not even be read is told already.
        let known = providers.iter().any(|one| *one.plan.name == **provider)
            || checker.spoiled(&format!("providers.{provider}"));
        if !known {
            let message = format!("names no provider: there is no [providers.{provider}]");
            checker.problem(format!("{path}.providers[{place}]"), message);
        }
    }
    for (field, list) in [("models", &typed.models), ("providers", &typed.providers)] {
        if list.as_ref().is_some_and(|list| list.len() > NAMES_MAX) {
            checker
                .problem(format!("{path}.{field}"), format!("are too many: at most {NAMES_MAX}"));
        }
    }
    let names = |list: &Option<Vec<String>>| {
        list.as_ref().map(|list| list.iter().map(|name| Arc::from(name.as_str())).collect())
    };
    Policy { models: names(&typed.models), providers: names(&typed.providers) }
}
