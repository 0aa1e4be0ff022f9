//! The text of what a key may do: JSON in one column of SQL, and a part of a cached key.
//!
//! A member that is not known here may be a restriction that a newer program knows: it is refused.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokenroute_domain::key::Terms;
use tokenroute_domain::limit::Limits;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Ceiling, Period};

/// A key's own terms; those of its account are kept with the account.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TermsText {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ceilings: Vec<CeilingText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    providers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    #[serde(skip_serializing_if = "LimitsText::is_empty")]
    limits: LimitsText,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CeilingText {
    period: String,
    limit: i64,
}

/// Limits; what is left out is said by a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsText {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_second: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
}

impl LimitsText {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Limits> for LimitsText {
    fn from(limits: Limits) -> Self {
        Self {
            requests_per_second: limits.requests_per_second,
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            concurrency: limits.concurrency,
        }
    }
}

impl From<LimitsText> for Limits {
    fn from(text: LimitsText) -> Self {
        Self {
            requests_per_second: text.requests_per_second,
            requests_per_minute: text.requests_per_minute,
            tokens_per_minute: text.tokens_per_minute,
            concurrency: text.concurrency,
        }
    }
}

impl From<&Terms> for TermsText {
    fn from(terms: &Terms) -> Self {
        let words = |words: &Option<Vec<Arc<str>>>| {
            words.as_ref().map(|words| words.iter().map(ToString::to_string).collect())
        };
        let ceilings = terms
            .ceilings
            .iter()
            .map(|one| CeilingText { period: one.period.as_str().to_owned(), limit: one.limit.0 });
        Self {
            ceilings: ceilings.collect(),
            models: words(&terms.models),
            providers: words(&terms.providers),
            tier: terms.tier.as_deref().map(str::to_owned),
            limits: terms.limits.into(),
        }
    }
}

impl TermsText {
    /// The terms, with nothing of the account's; `None` if there is a period that nobody knows, or a
    /// ceiling below nothing.
    pub(crate) fn read(self) -> Option<Terms> {
        let words = |words: Option<Vec<String>>| -> Option<Vec<Arc<str>>> {
            words.map(|words| words.into_iter().map(Arc::from).collect())
        };
        let ceiling = |one: CeilingText| {
            let period = Period::parse(&one.period)?;
            (one.limit >= 0).then_some(Ceiling { period, limit: NanoUsd(one.limit) })
        };
        Some(Terms {
            ceilings: self.ceilings.into_iter().map(ceiling).collect::<Option<_>>()?,
            models: words(self.models),
            providers: words(self.providers),
            limits: self.limits.into(),
            tier: self.tier.map(Arc::from),
            account_limits: Limits::default(),
            account_tier: None,
            account_policy: None,
        })
    }
}

/// A key's own terms as a column holds them.
pub(crate) fn write(terms: &Terms) -> String {
    // Plain numbers and texts: this cannot fail, and an empty text would not be read as no terms.
    serde_json::to_string(&TermsText::from(terms)).unwrap_or_default()
}

/// Reads what [`write`] wrote.
pub(crate) fn read(text: &str) -> Option<Terms> {
    // The reader would take a list for the members in their order.
    text.starts_with('{').then(|| serde_json::from_str::<TermsText>(text).ok())??.read()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Terms in which everything is said.
    pub(crate) fn all() -> Terms {
        Terms {
            ceilings: vec![
                Ceiling { period: Period::Total, limit: NanoUsd(5) },
                Ceiling { period: Period::Month, limit: NanoUsd(i64::MAX) },
            ],
            models: Some(vec!["gpt-x".into(), "open/*".into()]),
            providers: Some(Vec::new()),
            limits: Limits { requests_per_second: Some(1), ..Limits::default() },
            tier: Some("gold".into()),
            account_limits: Limits { tokens_per_minute: Some(u64::MAX), ..Limits::default() },
            account_tier: Some("silver".into()),
            account_policy: Some("eu".into()),
        }
    }

    #[test]
    fn reads_what_it_wrote_of_the_key() {
        let own = Terms {
            account_limits: Limits::default(),
            account_tier: None,
            account_policy: None,
            ..all()
        };
        assert_eq!(read(&write(&all())), Some(own));
        assert_eq!(write(&Terms::default()), "{}");
        assert_eq!(read("{}"), Some(Terms::default()));
    }

    #[test]
    fn what_is_not_known_is_never_taken_for_leave() {
        for text in [
            "",
            "[]",
            r#"{"regions":["eu"]}"#,
            r#"{"limits":{"requests_per_hour":1}}"#,
            r#"{"ceilings":[{"period":"year","limit":1}]}"#,
            r#"{"ceilings":[{"period":"day","limit":-1}]}"#,
            r#"{"ceilings":[{"period":"day","limit":1,"soft":true}]}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
