//! What keys and accounts may do, as options of commands say it.

use std::sync::Arc;

use clap::Args;
use tokenroute_domain::key::Terms;
use tokenroute_domain::limit::Limits;
use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd};
use tokenroute_domain::pool::{Ceiling, Period};

use super::is_name;

/// Models or providers that one key can name.
const WORDS_MAX: usize = 100;

/// Options that say how often and how much may be called.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct LimitOptions {
    /// Calls that may come at once, and every second after that.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_second: Option<u32>,
    /// Calls a minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_minute: Option<u32>,
    /// Input and output tokens a minute.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 53))]
    tokens_per_minute: Option<u64>,
    /// Calls at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
}

impl LimitOptions {
    pub(crate) const fn limits(self) -> Limits {
        Limits {
            requests_per_second: self.requests_per_second,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            concurrency: self.concurrency,
        }
    }
}

/// Options that say what a key may do.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TermsOptions {
    /// How much may be spent with it in USD, such as 5.00 in all or 1.00/day, 1.00/week, 1.00/month (UTC,
    /// weeks from Monday). May be repeated, once for each period.
    #[arg(long = "ceiling", value_name = "USD[/PERIOD]")]
    ceilings: Vec<String>,
    /// A model that may be asked for, by its name or as PREFIX/*. May be repeated; without it, all.
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// A provider that may answer. May be repeated; without it, all.
    #[arg(long = "provider", value_name = "NAME")]
    providers: Vec<String>,
    /// The tier of the configuration that says what its limits leave open.
    #[arg(long, value_name = "NAME")]
    tier: Option<String>,
    #[command(flatten)]
    limits: LimitOptions,
}

impl TermsOptions {
    /// The terms, or what is wrong with them.
    pub(crate) fn terms(&self) -> Result<Terms, String> {
        let mut ceilings: Vec<Ceiling> = Vec::new();
        for text in &self.ceilings {
            let one = ceiling(text)?;
            if ceilings.iter().any(|known| known.period == one.period) {
                let period = one.period.as_str();
                return Err(format!("--ceiling: there are two of the period \"{period}\""));
            }
            ceilings.push(one);
        }
        if let Some(tier) = &self.tier {
            word("tier", tier)?;
        }
        Ok(Terms {
            ceilings,
            models: words("model", &self.models)?,
            providers: words("provider", &self.providers)?,
            limits: self.limits.limits(),
            tier: self.tier.as_deref().map(Arc::from),
            ..Terms::default()
        })
    }
}

/// Reads `5.00` or `1.00/day`.
fn ceiling(text: &str) -> Result<Ceiling, String> {
    let (amount, period) = text.split_once('/').unwrap_or((text, Period::Total.as_str()));
    let (amount, period) = (amount.parse::<NanoUsd>().ok(), Period::parse(period));
    match (amount, period) {
        (Some(limit), Some(period)) if (NanoUsd::ZERO..=ACCOUNT_MAX).contains(&limit) => {
            Ok(Ceiling { period, limit })
        }
        _ => Err(format!(
            "--ceiling: write an amount in USD of at most {ACCOUNT_MAX}, alone or with /day, /week \
             or /month, such as 1.00/day"
        )),
    }
}

fn words(option: &str, all: &[String]) -> Result<Option<Vec<Arc<str>>>, String> {
    if all.len() > WORDS_MAX {
        return Err(format!("--{option}: there can be at most {WORDS_MAX}"));
    }
    for one in all {
        word(option, one)?;
    }
    let words: Vec<Arc<str>> = all.iter().map(|one| Arc::from(one.as_str())).collect();
    Ok((!words.is_empty()).then_some(words))
}

/// A `*` that is not the whole last part of a name would match nothing, which nobody wants to say.
pub(crate) fn word(option: &str, text: &str) -> Result<(), String> {
    let plain = text.strip_suffix("/*").unwrap_or(text);
    if !is_name(text) || plain.is_empty() || plain.contains('*') {
        return Err(format!("--{option}: that is no name"));
    }
    Ok(())
}
