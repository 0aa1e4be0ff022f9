//! Checks which model name leads where: the routes that providers' lists give, and one's own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tokenroute_domain::catalog::{
    Catalog, Listed, ProviderIndex, Route, Target, TargetSlot, is_model_name,
};
use tokenroute_domain::routing::{Policy, TARGETS_MAX};

use super::check::{Checker, bounds};
use super::file::{self, File};
use super::plan::ModelPlan;
use super::providers::{Checked, TOKENS_MAX};
use super::{policy, price};

/// Most routes in a file.
const ROUTES_MAX: usize = 10_000;
/// Greatest weight of a target.
const WEIGHT_MAX: u64 = 10_000;
/// Greatest rank of a target.
const RANK_MAX: u64 = 100;
/// Who is said to run a model whose name is one's own.
const OWNER: &str = "tokenroute";
/// Stands for the rest of a name.
const WILDCARD: &str = "*";

/// The catalog. A route of one's own takes the place of the one that a provider's list gives.
pub(super) fn check(checker: &mut Checker<'_>, file: &File, providers: &[Checked]) -> Catalog {
    let defaults = Arc::new(policy::defaults(checker, &file.routing));
    let mut table = Table::new(providers, Arc::clone(&defaults));
    for (index, provider) in providers.iter().enumerate() {
        table.add_list(ProviderIndex(index), provider);
    }
    let all = file.routes.len().saturating_add(file.stored.routes.len());
    if all > ROUTES_MAX {
        checker.problem("routes", format!("are too many: at most {ROUTES_MAX}"));
    }
    let mut own = HashSet::new();
    let typed = file.routes.iter().enumerate();
    let typed = typed.map(|(place, typed)| (format!("routes[{place}]"), typed));
    let stored = file.stored.routes.iter().map(|(name, typed)| (format!("routes.{name}"), typed));
    for (path, typed) in typed.chain(stored).take(ROUTES_MAX) {
        let model = check_model(checker, &path, typed);
        // Also where the name is wrong: every problem is told at once.
        let policy = Arc::new(policy::of_route(checker, &path, typed, &defaults));
        let pattern = typed.model.as_deref().unwrap_or_default();
        let targets = table.check_targets(checker, (&path, pattern), &typed.targets);
        let Some(model) = model else { continue };
        if !own.insert(model) {
            checker.problem(format!("{path}.model"), format!("has two routes: {model}"));
        }
        table.add_own(model, targets, policy);
    }
    Catalog::new(table.routes.into_values().collect(), table.listed.into_values().collect())
}

/// What clients ask for: a name, or `prefix/*`.
fn check_model<'a>(
    checker: &mut Checker<'_>,
    path: &str,
    typed: &'a file::Route,
) -> Option<&'a str> {
    let field = format!("{path}.model");
    let Some(model) = typed.model.as_deref() else {
        checker.problem(field, "is missing");
        return None;
    };
    if !is_model_name(model.strip_suffix("/*").unwrap_or(model)) {
        let message = "is no model name: use letters, digits and -_.:/@+, or a prefix and /*";
        checker.problem(field, message);
        return None;
    }
    Some(model)
}

/// The routes so far, by what clients ask for.
struct Table<'a> {
    providers: &'a [Checked],
    by_name: HashMap<&'a str, ProviderIndex>,
    /// What providers' lists say, by provider and model.
    models: HashMap<(usize, &'a str), &'a ModelPlan>,
    /// How routes that say nothing try their targets.
    policy: Arc<Policy>,
    routes: BTreeMap<String, Route>,
    listed: BTreeMap<String, Listed>,
}

impl<'a> Table<'a> {
    fn new(providers: &'a [Checked], policy: Arc<Policy>) -> Self {
        let names = providers.iter().enumerate();
        let by_name = names.map(|(at, one)| (one.plan.name.as_ref(), ProviderIndex(at))).collect();
        let models = |(at, one): (usize, &'a Checked)| {
            one.plan.models.iter().map(move |model| ((at, model.id.as_ref()), model))
        };
        let models = providers.iter().enumerate().flat_map(models).collect();
        let (routes, listed) = (BTreeMap::new(), BTreeMap::new());
        Self { providers, by_name, models, policy, routes, listed }
    }

    /// `NAME/id` for every listed model, and `NAME/*` for a provider that is open.
    fn add_list(&mut self, index: ProviderIndex, provider: &'a Checked) {
        let name = &provider.plan.name;
        for model in &provider.plan.models {
            let id = format!("{name}/{}", model.id);
            let target = self.target(index, &model.id, (1, 0));
            self.insert(&id, vec![target], Arc::clone(&self.policy));
            let listed = Listed {
                id: Arc::from(id.as_str()),
                created: model.created,
                owner: Arc::clone(name),
            };
            self.listed.insert(id, listed);
        }
        if provider.open {
            let target = self.target(index, WILDCARD, (1, 0));
            let all = format!("{name}/{WILDCARD}");
            self.insert(&all, vec![target], Arc::clone(&self.policy));
        }
    }

    /// A route of one's own, which is listed unless it stands for many names.
    fn add_own(&mut self, model: &str, targets: Vec<Target>, policy: Arc<Policy>) {
        if !model.ends_with(WILDCARD) && !self.listed.contains_key(model) {
            let listed = Listed { id: Arc::from(model), created: 0, owner: Arc::from(OWNER) };
            self.listed.insert(model.to_owned(), listed);
        }
        self.insert(model, targets, policy);
    }

    fn insert(&mut self, model: &str, targets: Vec<Target>, policy: Arc<Policy>) {
        let name: Arc<str> = Arc::from(model);
        let route = Route { model: Arc::clone(&name), pattern: name, targets, policy };
        self.routes.insert(model.to_owned(), route);
    }

    fn target(&self, index: ProviderIndex, model: &str, (weight, rank): (u32, u32)) -> Target {
        let provider = self.providers.get(index.0).map_or("", |one| one.plan.name.as_ref());
        let listed = self.models.get(&(index.0, model));
        Target {
            name: Arc::from(format!("{provider}/{model}")),
            provider: index,
            upstream_model: Arc::from(model),
            prices: listed.map(|model| model.prices.clone()).unwrap_or_default(),
            weight,
            rank,
            slot: TargetSlot(0),
            prefill: false,
            context_tokens: listed.and_then(|model| model.context_tokens),
            output_tokens_max: listed.and_then(|model| model.output_tokens_max),
            image_tokens_max: listed.and_then(|model| model.image_tokens_max),
        }
    }

    /// The targets of a route, in order of rank.
    fn check_targets(
        &self,
        checker: &mut Checker<'_>,
        (path, pattern): (&str, &str),
        typed: &[file::Target],
    ) -> Vec<Target> {
        let list = format!("{path}.targets");
        if typed.is_empty() {
            checker.problem(list, "is missing or empty: a route needs a target");
            return Vec::new();
        }
        if typed.len() > TARGETS_MAX {
            checker.problem(list, format!("are too many: at most {TARGETS_MAX}"));
        }
        let mut targets = Vec::new();
        for (place, typed) in typed.iter().take(TARGETS_MAX).enumerate() {
            let path = format!("{path}.targets[{place}]");
            targets.extend(self.check_target(checker, (&path, pattern), typed));
        }
        targets.sort_by_key(|target| target.rank);
        let mut names = HashSet::new();
        for target in &targets {
            if !names.insert(&target.name) {
                checker.problem(format!("{path}.targets"), format!("name {} twice", target.name));
            }
        }
        targets
    }

    fn check_target(
        &self,
        checker: &mut Checker<'_>,
        (path, pattern): (&str, &str),
        typed: &file::Target,
    ) -> Option<Target> {
        let weight =
            checker.count(&format!("{path}.weight"), typed.weight, bounds(1, 0, WEIGHT_MAX));
        let rank = checker.count(&format!("{path}.rank"), typed.rank, bounds(0, 0, RANK_MAX));
        let mut tokens = |name: &str, typed: Option<i64>| {
            typed.map(|_| checker.count(&format!("{path}.{name}"), typed, bounds(1, 1, TOKENS_MAX)))
        };
        let context = tokens("context_tokens", typed.context_tokens);
        let output = tokens("output_tokens_max", typed.output_tokens_max);
        let image = tokens("image_tokens_max", typed.image_tokens_max);
        let prices = price::of_target(checker, path, &typed.prices);
        let order = (u32::try_from(weight).ok()?, u32::try_from(rank).ok()?);
        let model = check_upstream_model(checker, (path, pattern), typed.model.as_deref());
        let field = format!("{path}.provider");
        let Some(provider) = typed.provider.as_deref() else {
            checker.problem(field, "is missing");
            return None;
        };
        let Some(index) = self.by_name.get(provider) else {
            // A provider that could not even be read is told already.
            if !checker.spoiled(&format!("providers.{provider}")) {
                checker.problem(
                    field,
                    format!("names no provider: there is no [providers.{provider}]"),
                );
            }
            return None;
        };
        let target = self.target(*index, model?, order);
        Some(Target {
            prefill: typed.prefill.unwrap_or(false),
            context_tokens: context.or(target.context_tokens),
            output_tokens_max: output.or(target.output_tokens_max),
            image_tokens_max: image.or(target.image_tokens_max),
            prices: if typed.prices.is_empty() { target.prices.clone() } else { prices },
            ..target
        })
    }
}

fn check_upstream_model<'a>(
    checker: &mut Checker<'_>,
    (path, pattern): (&str, &str),
    typed: Option<&'a str>,
) -> Option<&'a str> {
    let field = format!("{path}.model");
    let Some(model) = typed else {
        checker.problem(field, "is missing");
        return None;
    };
    if !is_model_name(&model.replace(WILDCARD, "x")) {
        checker.problem(field, "is no model name: use letters, digits and -_.:/@+, at most 256");
        return None;
    }
    if model.contains(WILDCARD) && !pattern.ends_with(WILDCARD) {
        checker.problem(field, "has a * although the route's model has none");
        return None;
    }
    Some(model)
}
