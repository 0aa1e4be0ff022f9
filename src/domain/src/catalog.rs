//! What can be asked for, and where it goes: models, routes, targets and their prices.

use std::collections::HashMap;
use std::sync::Arc;

use crate::money::Prices;
use crate::policy::{self, Policies};
use crate::routing::Policy;
use crate::time::Timestamp;

/// Longest model name that is looked up, in bytes. Longer ones lead nowhere.
pub const MODEL_LEN_MAX: usize = 256;

/// A provider by its place in the snapshot's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProviderIndex(pub usize);

/// A configured target by its place in the snapshot's list. Targets that a wildcard fills in share the
/// place of the one they were made from, so there are only as many as were configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetSlot(pub usize);

/// One place that can answer for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `provider/upstream-model`, as records, headers and metrics name it.
    pub name: Arc<str>,
    /// Who answers.
    pub provider: ProviderIndex,
    /// The model's ID at that provider.
    pub upstream_model: Arc<str>,
    /// What it costs there in the course of time.
    pub prices: Prices,
    /// Share of the calls among targets of equal rank; 0 takes none.
    pub weight: u32,
    /// Order among the targets of a route: lower ranks first.
    pub rank: u32,
    /// Where its standing is kept.
    pub slot: TargetSlot,
    /// Whether it goes on from an assistant's message that the request ends in.
    pub prefill: bool,
    /// How many tokens of input and output it can hold together; `None` if nobody has said.
    pub context_tokens: Option<u64>,
    /// The longest answer that it gives, in tokens; `None` if nobody has said.
    pub output_tokens_max: Option<u64>,
    /// Most input tokens that it makes of one image; `None` if nobody has said.
    pub image_tokens_max: Option<u64>,
}

/// A model name and the targets that answer for it, in order of rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name that the client asked for.
    pub model: Arc<str>,
    /// The name in the table: the same, or `prefix/*`. A bounded set, so metrics may use it.
    pub pattern: Arc<str>,
    /// Never empty.
    pub targets: Vec<Target>,
    /// How they are tried.
    pub policy: Arc<Policy>,
}

/// A model as `GET /v1/models` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name to ask for.
    pub id: Arc<str>,
    /// When it was added, in seconds since the Unix epoch.
    pub created: u64,
    /// Who runs it.
    pub owner: Arc<str>,
}

/// Every route of one generation.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    exact: HashMap<Arc<str>, Arc<Route>>,
    /// Longest prefix first, so the most specific one wins.
    prefixes: Vec<(Arc<str>, Route)>,
    listed: Vec<Listed>,
    /// Every configured target, by its slot.
    targets: Vec<Configured>,
    /// Every target's prices, by its name: two routes may say different ones of the same.
    prices: Vec<(Arc<str>, Prices)>,
    policies: Policies,
}

/// A target as it was configured, once for all routes that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// `provider/upstream-model`, a `*` in it standing for what wildcards fill in.
    pub name: Arc<str>,
    /// Who answers.
    pub provider: ProviderIndex,
    /// The model's ID at that provider.
    pub upstream_model: Arc<str>,
}

/// Ends a route's pattern that stands for all names with the same beginning.
const WILDCARD: &str = "*";

impl Catalog {
    /// Builds the table. A route whose pattern ends in `*` answers for every name with that
    /// beginning, and a `*` in its targets' models stands for the rest of the name.
    pub fn new(mut routes: Vec<Route>, mut listed: Vec<Listed>) -> Self {
        let targets = assign_slots(&mut routes);
        let prices = distinct_prices(&routes);
        let (wild, plain): (Vec<_>, Vec<_>) =
            routes.into_iter().partition(|route| route.pattern.ends_with(WILDCARD));
        let exact = plain.into_iter().map(|route| (Arc::clone(&route.pattern), Arc::new(route)));
        let mut prefixes: Vec<(Arc<str>, Route)> = wild
            .into_iter()
            .filter_map(|route| Some((Arc::from(route.pattern.strip_suffix(WILDCARD)?), route)))
            .collect();
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        listed.sort_by(|a, b| a.id.cmp(&b.id));
        Self {
            exact: exact.collect(),
            prefixes,
            listed,
            targets,
            prices,
            policies: Policies::new(),
        }
    }

    /// The same table, for accounts under these policies.
    #[must_use]
    pub fn with_policies(self, policies: Policies) -> Self {
        Self { policies, ..self }
    }

    /// The policy of that name.
    pub fn policy(&self, name: &str) -> Option<&policy::Policy> {
        self.policies.get(name)
    }

    /// Every configured target, by its slot.
    pub fn targets(&self) -> &[Configured] {
        &self.targets
    }

    /// The route for a model name, or `None` if no route answers for it.
    pub fn find(&self, model: &str) -> Option<Arc<Route>> {
        if let Some(route) = self.exact.get(model) {
            return Some(Arc::clone(route));
        }
        if !is_model_name(model) {
            return None;
        }
        let (prefix, route) =
            self.prefixes.iter().find(|(prefix, _)| model.starts_with(prefix.as_ref()))?;
        let rest = model.strip_prefix(prefix.as_ref()).filter(|rest| !rest.is_empty())?;
        let targets = route.targets.iter().map(|target| target.filled_in(rest)).collect();
        Some(Arc::new(Route {
            model: Arc::from(model),
            pattern: Arc::clone(&route.pattern),
            targets,
            policy: Arc::clone(&route.policy),
        }))
    }

    /// Every model to list, in order of name.
    pub fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// When the first price changes after `now`, if one does.
    pub fn next_price_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.prices.iter().filter_map(|(_, prices)| prices.next_change(now)).min()
    }

    /// The prices of every configured target that has any, by its name; one that is priced differently
    /// in several routes is there with each.
    pub fn prices(&self) -> &[(Arc<str>, Prices)] {
        &self.prices
    }

    /// The patterns of all routes: the bounded set of names that metrics may use.
    pub fn patterns(&self) -> impl Iterator<Item = &Arc<str>> {
        self.exact.keys().chain(self.prefixes.iter().map(|(_, route)| &route.pattern))
    }
}

fn distinct_prices(routes: &[Route]) -> Vec<(Arc<str>, Prices)> {
    let mut known: HashMap<&str, Vec<&Prices>> = HashMap::new();
    let mut distinct = Vec::new();
    for target in routes.iter().flat_map(|route| &route.targets) {
        let of_name = known.entry(&target.name).or_default();
        if !target.prices.all().is_empty() && !of_name.contains(&&target.prices) {
            of_name.push(&target.prices);
            distinct.push((Arc::clone(&target.name), target.prices.clone()));
        }
    }
    distinct
}

/// Gives each target that was configured a place of its own; one that several routes name has one.
fn assign_slots(routes: &mut [Route]) -> Vec<Configured> {
    let mut known: HashMap<Arc<str>, TargetSlot> = HashMap::new();
    let mut targets = Vec::new();
    for target in routes.iter_mut().flat_map(|route| &mut route.targets) {
        target.slot = *known.entry(Arc::clone(&target.name)).or_insert_with(|| {
            targets.push(Configured {
                name: Arc::clone(&target.name),
                provider: target.provider,
                upstream_model: Arc::clone(&target.upstream_model),
            });
            TargetSlot(targets.len().saturating_sub(1))
        });
    }
    targets
}

impl Target {
    /// This target with every `*` of its model standing for `rest`.
    fn filled_in(&self, rest: &str) -> Self {
        let fill = |text: &Arc<str>| Arc::from(text.replace(WILDCARD, rest));
        Self {
            name: fill(&self.name),
            upstream_model: fill(&self.upstream_model),
            provider: self.provider,
            prices: self.prices.clone(),
            weight: self.weight,
            rank: self.rank,
            slot: self.slot,
            prefill: self.prefill,
            context_tokens: self.context_tokens,
            output_tokens_max: self.output_tokens_max,
            image_tokens_max: self.image_tokens_max,
        }
    }

    /// The provider's name: the part of its own before the first slash, which no provider has in its.
    pub fn provider_name(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// Whether a pattern stands for `name`: it is that name, or ends in `*` and `name` goes on where it does.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix(WILDCARD) {
        Some(prefix) => name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        None => pattern == name,
    }
}

/// Whether a text may be part of a header, a log line and a record as it stands.
pub fn is_model_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/@+".contains(&b);
    let relative = text.split('/').any(|part| matches!(part, "." | ".."));
    !text.is_empty() && text.len() <= MODEL_LEN_MAX && text.bytes().all(allowed) && !relative
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pattern: &str, upstream: &str) -> Route {
        let target = Target {
            name: Arc::from(format!("p/{upstream}")),
            provider: ProviderIndex(0),
            upstream_model: Arc::from(upstream),
            prices: Prices::default(),
            weight: 1,
            rank: 0,
            slot: TargetSlot(0),
            prefill: false,
            context_tokens: None,
            output_tokens_max: None,
            image_tokens_max: None,
        };
        Route {
            model: Arc::from(pattern),
            pattern: Arc::from(pattern),
            targets: vec![target],
            policy: Arc::default(),
        }
    }

    fn upstream(catalog: &Catalog, model: &str) -> Option<String> {
        catalog.find(model).map(|route| route.targets[0].upstream_model.to_string())
    }

    #[test]
    fn exact_beats_prefix_and_the_longest_prefix_wins() {
        let routes = vec![
            route("a/*", "*"),
            route("a/b/*", "deep-*"),
            route("a/x", "exact"),
            route("y", "y"),
        ];
        let catalog = Catalog::new(routes, vec![]);
        assert_eq!(upstream(&catalog, "a/x").as_deref(), Some("exact"));
        assert_eq!(upstream(&catalog, "a/z/1").as_deref(), Some("z/1"));
        assert_eq!(upstream(&catalog, "a/b/c").as_deref(), Some("deep-c"));
        assert_eq!(upstream(&catalog, "a/"), None);
        assert_eq!(upstream(&catalog, "z"), None);
    }

    #[test]
    fn hostile_names_lead_nowhere() {
        let catalog = Catalog::new(vec![route("a/*", "*")], vec![]);
        for bad in
            ["a/../x", "a/.", "a/\r\nx: y", "a/ b", "a/%2e", "a/?x", "a/#", "a/\0", "a/\u{202e}x"]
        {
            assert!(catalog.find(bad).is_none(), "{bad:?}");
        }
        assert!(catalog.find(&format!("a/{}", "x".repeat(MODEL_LEN_MAX))).is_none());
    }
}
