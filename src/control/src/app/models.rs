//! What can be called, and what it costs. Prices are public; what a key may call is its own.

use std::sync::Arc;

use tokenroute_api::models::{Model, Models, Pricing};
use tokenroute_domain::admission;
use tokenroute_domain::catalog::Route;
use tokenroute_domain::key::ApiKey;
use tokenroute_domain::money::{NanoUsd, Price, Rate};

use super::Problem;
use crate::Parts;

/// Every model that is listed; for a key, those that it may be routed to.
pub(crate) fn list(parts: &Parts, key: Option<&ApiKey>) -> Models {
    let (catalog, now) = (parts.edges.catalog(), (parts.now)());
    let route = |name: &str| match key {
        Some(key) => admission::decide(key, &catalog, name, now).ok().map(|one| one.route),
        None => catalog.find(name),
    };
    let price = |route: &Arc<Route>| {
        // That of the first target that has one: that is where calls go first.
        route.targets.iter().find_map(|target| target.prices.at(now)).map(|price| pricing(price))
    };
    let listed = catalog.listed().iter();
    let data = listed.filter_map(|one| {
        let route = route(&one.id)?;
        let first = route.targets.first();
        Some(Model {
            id: one.id.to_string(),
            context_tokens: first.and_then(|target| target.context_tokens),
            output_tokens_max: first.and_then(|target| target.output_tokens_max),
            pricing: price(&route),
        })
    });
    Models { data: data.collect() }
}

/// The key that asks, as an edge would know it.
pub(crate) async fn of_key(
    parts: &Parts,
    id: tokenroute_domain::id::KeyId,
) -> Result<ApiKey, Problem> {
    parts.database.find_key_by_id(id).await?.ok_or(Problem::NotFound("key"))
}

/// Rates are nano-USD for a million units; so are decimals in USD.
fn rate(rate: Rate) -> String {
    NanoUsd(rate.0).to_string()
}

pub(super) fn pricing(price: &Price) -> Pricing {
    let other = |part: Rate, whole: Rate| (part != whole).then(|| rate(part));
    Pricing {
        input: rate(price.input),
        input_cache_read: other(price.input_cache_read, price.input),
        input_cache_write: other(price.input_cache_write, price.input),
        output: rate(price.output),
        output_reasoning: other(price.output_reasoning, price.output),
        request: (price.request != NanoUsd::ZERO).then(|| price.request.to_string()),
    }
}
