//! What a key or an account may do, as flags say it and as listings show it.

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use tokenroute_domain::catalog::is_model_name;
use tokenroute_domain::key::Terms;
use tokenroute_domain::limit::Limits;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Ceiling, Period};

use tokenroute_store::AccountTerms;

use super::cell;
use crate::config::Names;

/// Longest name of a key, an account, a tier or a provider, in characters.
pub(super) const NAME_LEN_MAX: usize = 100;
/// Most models, and most providers, that a key may name: every look-up of the key reads them.
const NAMED_MAX: usize = 100;

/// Limits, and the tier that says what they leave open.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LimitFlags {
    /// The tier, a `[tiers.NAME]` of the configuration, that says what the limits below leave open.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub tier: Option<String>,
    /// Calls that may come at once, and every second after that.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests_per_second: Option<u32>,
    /// Calls a minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub requests_per_minute: Option<u32>,
    /// Input and output tokens a minute.
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub tokens_per_minute: Option<u64>,
    /// Calls at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub concurrency: Option<u32>,
}

/// Limits, tier and policy of an account.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AccountFlags {
    /// The policy, a `[policies.NAME]` of the configuration, that says which models and providers its keys may
    /// use.
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    #[command(flatten)]
    pub limits: LimitFlags,
}

/// What a change to an account can take away first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AccountClearing {
    /// Its tier.
    Tier,
    /// Its policy: all models and providers may be used.
    Policy,
    /// Its own limits.
    Limits,
}

/// What a change to a key can take away first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeyClearing {
    /// Every ceiling.
    Ceilings,
    /// The list of models: all may be asked for.
    Models,
    /// The list of providers: all may answer.
    Providers,
    /// Its tier.
    Tier,
    /// Its own limits.
    Limits,
    /// When it expires: never.
    Expiry,
}

/// What a key may do.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TermsFlags {
    /// How much may be spent with it, in USD: `5.00` in its whole life, `1.00/day`, `/week` (from
    /// Monday) or `/month`, by UTC. Repeat it for more than one.
    #[arg(long = "ceiling", value_name = "USD[/PERIOD]", value_parser = parse_ceiling)]
    pub ceilings: Vec<Ceiling>,
    /// A model that may be asked for, or all that begin with `PREFIX*`; repeat it for more. Without
    /// this, all may.
    #[arg(long = "model", value_name = "NAME", value_parser = parse_model)]
    pub models: Vec<String>,
    /// A provider that may answer, by its name; repeat it for more. Without this, all may.
    #[arg(long = "provider", value_name = "NAME", value_parser = parse_name)]
    pub providers: Vec<String>,
    #[command(flatten)]
    pub limits: LimitFlags,
}

impl LimitFlags {
    /// The limits that were named.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            requests_per_second: self.requests_per_second,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            concurrency: self.concurrency,
        }
    }
}

impl AccountFlags {
    /// Whether nothing is named.
    pub(super) fn is_empty(&self) -> bool {
        self.policy.is_none() && self.limits.is_empty()
    }

    /// Puts what is named in the place of what was.
    pub(super) fn apply(&self, own: &mut AccountTerms) {
        if let Some(named) = &self.policy {
            own.policy = Some(Arc::from(named.as_str()));
        }
        self.limits.apply(&mut own.tier, &mut own.limits);
    }

    /// What is wrong with the names, in words for the operator.
    pub(super) fn misnamed(&self, known: Option<&Names>) -> Option<String> {
        let policy = || misnamed("policy", self.policy.as_slice(), &known?.policies);
        self.limits.misnamed(known).or_else(policy)
    }
}

impl TermsFlags {
    /// The terms, or what is wrong with them, in words for the operator.
    pub(super) fn terms(&self) -> Result<Terms, String> {
        for period in Period::ALL {
            let of_period = self.ceilings.iter().filter(|one| one.period == period);
            if of_period.count() > 1 {
                return Err(format!(
                    "--ceiling: two are for the same time ({}): name each once",
                    period.as_str()
                ));
            }
        }
        let mut ceilings = self.ceilings.clone();
        ceilings.sort_by_key(|one| one.period);
        Ok(Terms {
            ceilings,
            models: named("model", &self.models)?,
            providers: named("provider", &self.providers)?,
            limits: self.limits.limits(),
            tier: self.limits.tier.as_deref().map(Arc::from),
            ..Terms::default()
        })
    }
}

impl LimitFlags {
    /// Whether nothing is named.
    pub(super) fn is_empty(&self) -> bool {
        self.tier.is_none() && self.limits() == Limits::default()
    }

    /// Puts what is named in the place of what was.
    pub(super) fn apply(&self, tier: &mut Option<Arc<str>>, limits: &mut Limits) {
        if let Some(named) = &self.tier {
            *tier = Some(Arc::from(named.as_str()));
        }
        *limits = self.limits().or(*limits);
    }

    /// What is wrong with the names, in words for the operator.
    pub(super) fn misnamed(&self, known: Option<&Names>) -> Option<String> {
        misnamed("tier", self.tier.as_slice(), &known?.tiers)
    }
}

impl TermsFlags {
    /// The terms if all that they name is known, or what is wrong with them.
    pub(super) fn checked(&self, known: Option<&Names>) -> Result<Terms, String> {
        self.misnamed(known).map_or_else(|| self.terms(), Err)
    }

    /// Whether nothing is named.
    pub(super) fn is_empty(&self) -> bool {
        let lists = [self.models.is_empty(), self.providers.is_empty(), self.limits.is_empty()];
        self.ceilings.is_empty() && lists == [true; 3]
    }

    /// What is wrong with the names, in words for the operator.
    fn misnamed(&self, known: Option<&Names>) -> Option<String> {
        let providers = || misnamed("provider", &self.providers, &known?.providers);
        self.limits.misnamed(known).or_else(providers)
    }
}

/// Takes away what is to be cleared, and then puts what is named in the place of what was: a ceiling in that of
/// the same period, a list in that of the whole list.
pub(super) fn change(own: &mut Terms, clear: &[KeyClearing], named: &Terms) {
    for what in clear {
        match what {
            KeyClearing::Ceilings => own.ceilings.clear(),
            KeyClearing::Models => own.models = None,
            KeyClearing::Providers => own.providers = None,
            KeyClearing::Tier => own.tier = None,
            KeyClearing::Limits => own.limits = Limits::default(),
            KeyClearing::Expiry => {}
        }
    }
    own.ceilings.retain(|old| named.ceilings.iter().all(|one| one.period != old.period));
    own.ceilings.extend(named.ceilings.iter().copied());
    own.ceilings.sort_by_key(|one| one.period);
    for (old, new) in [(&mut own.models, &named.models), (&mut own.providers, &named.providers)] {
        if new.is_some() {
            old.clone_from(new);
        }
    }
    if named.tier.is_some() {
        own.tier.clone_from(&named.tier);
    }
    own.limits = named.limits.or(own.limits);
}

/// Says which of the names nobody knows, and which are known.
fn misnamed(flag: &str, names: &[String], known: &[String]) -> Option<String> {
    let stranger = names.iter().find(|name| !known.contains(name))?;
    let known = match known {
        [] => format!("the configuration has no {flag}s"),
        known => format!("the configuration has {}", known.join(", ")),
    };
    Some(format!("--{flag}: there is no {flag} \"{}\": {known}", cell(stranger)))
}

/// A list of names without doubles; none at all leaves everything open.
fn named(flag: &str, names: &[String]) -> Result<Option<Vec<Arc<str>>>, String> {
    if names.len() > NAMED_MAX {
        return Err(format!("--{flag}: name at most {NAMED_MAX}, or use a pattern"));
    }
    let mut names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(name.as_str())).collect();
    names.sort();
    names.dedup();
    Ok((!names.is_empty()).then_some(names))
}

/// Reads `5.00` or `1.00/day`.
fn parse_ceiling(text: &str) -> Result<Ceiling, String> {
    let (amount, period) = text.split_once('/').unwrap_or((text, Period::Total.as_str()));
    let limit: NanoUsd = amount.parse().map_err(|error| format!("{error}"))?;
    if limit < NanoUsd::ZERO {
        return Err("write an amount that is not below zero".to_owned());
    }
    let period = Period::parse(period).ok_or("write /day, /week, /month or nothing after it")?;
    Ok(Ceiling { period, limit })
}

fn parse_model(text: &str) -> Result<String, String> {
    if is_model_name(text.strip_suffix('*').unwrap_or(text)) {
        Ok(text.to_owned())
    } else {
        Err("write a model's name as clients write it, or the beginning of one and *".to_owned())
    }
}

/// Reads a name that people give.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(name_rule()) }
}

/// What a name has to be, in words for the operator.
pub(super) fn name_rule() -> String {
    format!("write 1 to {NAME_LEN_MAX} characters, none of them a control character")
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// The terms as JSON, with what has been spent under each ceiling in its present period.
pub(super) fn as_json(terms: &Terms, spent: &[NanoUsd]) -> Value {
    let ceiling = |(one, spent): (&Ceiling, &NanoUsd)| {
        json!({
            "period": one.period.as_str(),
            "limit_usd": one.limit.to_string(),
            "spent_usd": spent.to_string(),
        })
    };
    json!({
        "ceilings": terms.ceilings.iter().zip(spent).map(ceiling).collect::<Vec<_>>(),
        "models": terms.models.as_deref().map(texts),
        "providers": terms.providers.as_deref().map(texts),
        "tier": terms.tier.as_deref(),
        "limits": limits_as_json(terms.limits),
    })
}

fn texts(names: &[Arc<str>]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

/// Limits as JSON; what is left open is `null`.
pub(super) fn limits_as_json(limits: Limits) -> Value {
    json!({
        "requests_per_second": limits.requests_per_second,
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrency": limits.concurrency,
    })
}

/// The terms in words, one part a line; nothing where nothing was said.
pub(super) fn in_words(terms: &Terms, spent: &[NanoUsd]) -> Vec<String> {
    let mut lines = Vec::new();
    for (one, spent) in terms.ceilings.iter().zip(spent) {
        let period = match one.period {
            Period::Total => "in all",
            Period::Day => "this day",
            Period::Week => "this week",
            Period::Month => "this month",
        };
        lines.push(format!("spent {spent} of {} USD {period}", one.limit));
    }
    for (what, names) in [("models", &terms.models), ("providers", &terms.providers)] {
        if let Some(names) = names {
            let names: Vec<_> = names.iter().map(|name| cell(name)).collect();
            lines.push(format!("{what}: {}", names.join(", ")));
        }
    }
    lines.extend(limits_in_words(terms.limits, terms.tier.as_deref()));
    lines
}

/// Limits and tier in words, on one line; `None` where nothing was said.
pub(super) fn limits_in_words(limits: Limits, tier: Option<&str>) -> Option<String> {
    let parts = [
        tier.map(|tier| format!("tier {}", cell(tier))),
        limits.requests_per_second.map(|count| format!("{count} requests/s")),
        limits.requests_per_minute.map(|count| format!("{count} requests/min")),
        limits.tokens_per_minute.map(|count| format!("{count} tokens/min")),
        limits.concurrency.map(|count| format!("{count} at the same time")),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("limits: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_read_as_they_are_written() {
        let nano = |amount| NanoUsd(amount);
        for (text, period, limit) in [
            ("5.00", Period::Total, nano(5_000_000_000)),
            ("1/day", Period::Day, nano(1_000_000_000)),
            ("0.000000001/week", Period::Week, nano(1)),
            ("0/month", Period::Month, nano(0)),
        ] {
            assert_eq!(parse_ceiling(text), Ok(Ceiling { period, limit }), "{text}");
        }
        for bad in ["", "-1", "1/year", "1/", "/day", "1 /day", "1/day/day", "1e3", "1/Day"] {
            assert!(parse_ceiling(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_names_nothing_may_do_everything() {
        assert_eq!(TermsFlags::default().terms(), Ok(Terms::default()));
        assert_eq!(in_words(&Terms::default(), &[]), Vec::<String>::new());
        let models = vec!["b".to_owned(), "a*".to_owned(), "b".to_owned()];
        let named = TermsFlags { models, ..TermsFlags::default() }.terms().unwrap();
        assert_eq!(named.models, Some(vec!["a*".into(), "b".into()]));
        assert_eq!(named.providers, None);
    }

    #[test]
    fn names_that_could_never_match_are_refused() {
        for bad in ["", "*", "a b", "a**", "../x", "a\u{1b}"] {
            assert!(parse_model(bad).is_err(), "{bad}");
        }
        for good in ["gpt-x", "open/*", "a*", "a/b:c@d+e"] {
            assert!(parse_model(good).is_ok(), "{good}");
        }
    }
}
