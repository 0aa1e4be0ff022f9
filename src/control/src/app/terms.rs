//! What a key or an account may do, as the API says it.

use std::sync::Arc;

use tokenroute_api::keys::{Limits as Said, NewKey};
use tokenroute_domain::catalog::{Catalog, is_model_name};
use tokenroute_domain::key::Terms;
use tokenroute_domain::limit::Limits;
use tokenroute_domain::pool::{Ceiling, Period};

use super::Problem;
use super::text::{self, invalid};

/// Most models, and most providers, that a key may name: every look-up of the key reads them.
const NAMED_MAX: usize = 100;
/// Longest all names of such a list, in bytes.
const NAMED_BYTES_MAX: usize = 4_096;
/// The greatest limit of requests, and of calls at the same time.
const REQUESTS_MAX: u32 = 1_000_000;
/// The greatest limit of tokens a minute.
const TOKENS_MAX: u64 = 1_000_000_000_000;

/// The terms of a key that is to be made.
pub(crate) fn of_key(wish: &NewKey, catalog: &Catalog) -> Result<Terms, Problem> {
    let ceiling = wish.ceiling_usd.as_deref().map(|text| text::amount("ceiling_usd", text));
    let ceiling = ceiling.transpose()?.map(|limit| Ceiling { period: Period::Total, limit });
    Ok(Terms {
        ceilings: ceiling.into_iter().collect(),
        models: models(wish.models.as_deref())?,
        providers: providers(wish.providers.as_deref(), catalog)?,
        limits: limits(wish.limits)?,
        ..Terms::default()
    })
}

fn models(names: Option<&[String]>) -> Result<Option<Vec<Arc<str>>>, Problem> {
    let Some(names) = names else { return Ok(None) };
    let is_good = |name: &String| is_model_name(name.strip_suffix('*').unwrap_or(name));
    if !names.iter().all(is_good) {
        let message = "models: write names as clients write them, or the beginning of one and *";
        return Err(invalid("models_invalid", "models", message));
    }
    listed("models", names).map(Some)
}

fn providers(
    names: Option<&[String]>,
    catalog: &Catalog,
) -> Result<Option<Vec<Arc<str>>>, Problem> {
    let Some(names) = names else { return Ok(None) };
    let is_known = |name: &String| {
        let mut targets = catalog.targets().iter();
        targets.any(|target| target.name.split('/').next() == Some(name))
    };
    if !names.iter().all(is_known) {
        let message = "providers: write names of providers that answer for a model here: \
                       a model's ID begins with its provider's name";
        return Err(invalid("providers_invalid", "providers", message));
    }
    listed("providers", names).map(Some)
}

/// A list without doubles. An empty one is a list all the same: nothing is allowed.
fn listed(param: &'static str, names: &[String]) -> Result<Vec<Arc<str>>, Problem> {
    let bytes = names.iter().map(String::len).fold(0, usize::saturating_add);
    if names.len() > NAMED_MAX || bytes > NAMED_BYTES_MAX {
        let message =
            format!("{param}: name at most {NAMED_MAX}, of {NAMED_BYTES_MAX} bytes together");
        return Err(invalid("list_too_long", param, message));
    }
    let mut names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(name.as_str())).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Limits within their bounds.
pub(crate) fn limits(said: Said) -> Result<Limits, Problem> {
    let small = [said.requests_per_second, said.requests_per_minute, said.concurrency];
    let small = small.into_iter().flatten().all(|count| (1..=REQUESTS_MAX).contains(&count));
    let tokens = said.tokens_per_minute.is_none_or(|count| (1..=TOKENS_MAX).contains(&count));
    if !small || !tokens {
        let message = format!(
            "limits: write 1 to {REQUESTS_MAX}, and for tokens_per_minute 1 to {TOKENS_MAX}"
        );
        return Err(invalid("limits_invalid", "limits", message));
    }
    Ok(Limits {
        requests_per_second: said.requests_per_second,
        requests_per_minute: said.requests_per_minute,
        tokens_per_minute: said.tokens_per_minute,
        concurrency: said.concurrency,
    })
}

/// Refuses limits that are wider than those that hold without them: whoever has a key may narrow what it
/// does, and an operator alone may widen it.
pub(crate) fn narrower(wanted: Limits, given: Limits) -> Result<(), Problem> {
    let wider = |wanted: Option<u64>, given: Option<u64>| {
        wanted.is_some_and(|wanted| given.is_some_and(|given| wanted > given))
    };
    let pairs = [
        (wanted.requests_per_second.map(u64::from), given.requests_per_second.map(u64::from)),
        (wanted.requests_per_minute.map(u64::from), given.requests_per_minute.map(u64::from)),
        (wanted.tokens_per_minute, given.tokens_per_minute),
        (wanted.concurrency.map(u64::from), given.concurrency.map(u64::from)),
    ];
    if pairs.into_iter().any(|(wanted, given)| wider(wanted, given)) {
        let message = "limits: a key can have narrower limits than its tier, no wider ones: \
                       ask an administrator for another tier";
        return Err(invalid("limits_too_wide", "limits", message));
    }
    Ok(())
}

/// Limits as the API shows them.
pub(crate) fn shown(limits: Limits) -> Said {
    Said {
        requests_per_second: limits.requests_per_second,
        requests_per_minute: limits.requests_per_minute,
        tokens_per_minute: limits.tokens_per_minute,
        concurrency: limits.concurrency,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_may_be_narrowed_and_not_widened() {
        let ten = Limits { requests_per_second: Some(10), ..Limits::default() };
        let one = Limits { requests_per_second: Some(1), ..Limits::default() };
        let tokens = Limits { tokens_per_minute: Some(9), ..Limits::default() };
        assert!(narrower(one, ten).is_ok() && narrower(ten, ten).is_ok());
        assert!(narrower(ten, one).is_err());
        assert!(narrower(tokens, ten).is_ok(), "what nobody limits may be limited");
    }

    #[test]
    fn what_could_never_match_is_refused() {
        let catalog = Catalog::default();
        for wish in [
            NewKey { models: Some(vec!["a b".to_owned()]), ..NewKey::default() },
            NewKey { models: Some(vec!["*".to_owned()]), ..NewKey::default() },
            NewKey { providers: Some(vec!["nobody".to_owned()]), ..NewKey::default() },
            NewKey { models: Some(vec!["m".to_owned(); 101]), ..NewKey::default() },
            NewKey { models: Some(vec!["m".repeat(250); 17]), ..NewKey::default() },
            NewKey { ceiling_usd: Some("-1".to_owned()), ..NewKey::default() },
            NewKey { ceiling_usd: Some("9000001".to_owned()), ..NewKey::default() },
            NewKey {
                limits: Said { concurrency: Some(0), ..Said::default() },
                ..NewKey::default()
            },
        ] {
            assert!(of_key(&wish, &catalog).is_err(), "{wish:?}");
        }
        let none = NewKey { models: Some(Vec::new()), ..NewKey::default() };
        assert_eq!(of_key(&none, &catalog).unwrap().models, Some(Vec::new()));
    }
}
