//! What settings are held against before they are stored: the file of this node, and the checks that a start
//! makes. Whoever runs this plane has them; it asks.

use std::collections::BTreeMap;
use std::fmt;

use tokenroute_api::error::Flaw;
use tokenroute_store::{SettingKind, StoredSettings};

use crate::Later;

/// The rules.
pub trait Rules: fmt::Debug + Send + Sync {
    /// What the file and these settings come to together, as it is at this moment.
    fn judge(&self, settings: StoredSettings) -> Later<'_, Result<Whole, Unsound>>;
}

/// What the file and the stored settings come to.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// What is not stored.
    pub fixed: Vec<Fixed>,
    /// Where each provider is, as `https://host:port`: whereto its secret may be sent.
    pub origins: BTreeMap<String, String>,
}

/// A setting that is not stored, so that it cannot be changed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// What it is.
    pub kind: SettingKind,
    /// Its name.
    pub name: String,
    /// `file`, `environment` or `built_in`.
    pub source: &'static str,
    /// What it says, as a JSON object.
    pub content: String,
}

/// Why they cannot be used together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsound {
    /// The file says this one already.
    DefinedInFile(SettingKind, String),
    /// Everything that is wrong.
    Flawed(Vec<Flaw>),
}
