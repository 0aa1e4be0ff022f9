//! Settings that are kept in the database, as parts of the file: the same types, the same checks, one
//! generation. A name that both say is refused, so that there is one place to look for what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use tokenroute_api::settings::Provider;
use tokenroute_proxy::egress::{Egress, Network};
use tokenroute_store::vault::{Place, Vault};
use tokenroute_store::{SealedCredential, SettingKind, StoredSettings};

use super::Environment;
use super::base::Base;
use super::check::{self, Checker};
use super::file::{self, File, Route};
use super::plan::Plan;
use super::problem::Problem;
use super::providers::DEMO;
use super::read::{self, Written};

/// The table of the vault's secrets for providers.
pub(crate) const CREDENTIALS: &str = "credentials";

/// What the database keeps, and what opens its secrets.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The settings.
    pub settings: Arc<StoredSettings>,
    /// The keys of the secrets; `None`: they stay closed.
    pub vault: Option<Arc<Vault>>,
}

/// What of a merged file is kept in the database and has no place in a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// Routes by what clients ask for: in a file they are a list.
    pub routes: BTreeMap<String, Route>,
    /// Names of providers.
    providers: BTreeSet<String>,
    /// Secrets for them.
    sealed: BTreeMap<String, SealedCredential>,
    /// What opens them.
    vault: Option<Arc<Vault>>,
}

/// A stored provider's secret, if it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed<'a> {
    vault: Option<&'a Vault>,
    credential: Option<&'a SealedCredential>,
}

impl Stored {
    /// The secret of a provider that is stored; `None`: it is not, and its secret is where a file says.
    pub(super) fn provider(&self, name: &str) -> Option<Sealed<'_>> {
        self.providers
            .contains(name)
            .then(|| Sealed { vault: self.vault.as_deref(), credential: self.sealed.get(name) })
    }
}

impl Sealed<'_> {
    /// The secret, if it is for where the provider is.
    pub(super) fn open(
        self,
        checker: &mut Checker<'_>,
        (path, name): (&str, &str),
        typed: &Provider,
        base: &Base,
    ) -> Option<SecretString> {
        for (field, named) in
            [("credential_env", &typed.credential_env), ("credential_file", &typed.credential_file)]
        {
            if named.is_some() {
                let message = "is for files alone: give the credential itself, which is encrypted";
                checker.problem(format!("{path}.{field}"), message);
            }
        }
        let (credential, vault) = (self.credential?, self.vault?);
        let Base::At(origin) = base else { return None };
        let (field, origin) = (format!("{path}.credential"), origin.address());
        if credential.origin != origin {
            let message = format!(
                "is for {} and is not sent to {origin}: give it anew, or take it away first",
                credential.origin
            );
            checker.problem(field, message);
            return None;
        }
        let place = place(name, &origin);
        let opened = vault.unseal(&place, &credential.sealed);
        let told = |why| checker.problem(field, format!("cannot be opened, {why}: give it anew"));
        opened.map_err(told).ok()
    }
}

/// What stands in a file is the operator's own word. An administrator's leads to a private address only where
/// the operator lets names lead.
pub(super) fn check_reach(
    checker: &mut Checker<'_>,
    path: &str,
    base: &Base,
    egress: &file::Egress,
) {
    let Base::At(origin) = base else { return };
    let literal = match origin.host.as_str() {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.parse().ok(),
    };
    let networks = egress.allow_private.iter().flatten().filter_map(|text| Network::parse(text));
    let egress = Egress::new(networks.collect());
    if literal.is_some_and(|address| !egress.permits("", address)) {
        let message =
            "is a private address: have its network in [egress] allow_private of the file";
        checker.problem(format!("{path}.base_url"), message);
    }
}

/// What a provider's secret is bound to.
pub(crate) const fn place<'a>(provider: &'a str, origin: &'a str) -> Place<'a> {
    Place { table: CREDENTIALS, row: provider, provider, origin }
}

/// Puts what is kept beside what was typed. What is wrong with it is told with its path.
pub(super) fn merge(written: &mut Written, kept: &Kept) {
    let Written { file, problems, .. } = written;
    if kept.settings.settings.is_empty() {
        return;
    }
    // What a file leaves open does not hang on what is stored.
    let none = file.providers.is_empty();
    file.demo.enabled.get_or_insert(none);
    file.providers_from_environment.get_or_insert(none);
    for one in &kept.settings.settings {
        let (name, path) = (one.name.clone(), path(one.kind, &one.name));
        if is_in(file, one.kind, &name) {
            let message = "is in the file and in the database too: take it out of one of them \
                (out of the database with `tokenrouted settings remove`)";
            problems.push(Problem::new(path, message));
            continue;
        }
        match one.kind {
            SettingKind::Provider => {
                file.stored.providers.insert(name.clone());
                file.providers.insert(name, typed(problems, &path, &one.content));
            }
            SettingKind::Route => {
                let typed: Route = typed(problems, &path, &one.content);
                if typed.model.as_ref().is_some_and(|model| *model != name) {
                    let message = "is not the name that the route is stored under";
                    problems.push(Problem::new(format!("{path}.model"), message));
                }
                let model = Some(name.clone());
                file.stored.routes.insert(name, Route { model, ..typed });
            }
            SettingKind::Tier => {
                file.tiers.insert(name, typed(problems, &path, &one.content));
            }
            SettingKind::Policy => {
                file.policies.insert(name, typed(problems, &path, &one.content));
            }
        }
    }
    let sealed = kept.settings.credentials.iter();
    file.stored.sealed = sealed.map(|one| (one.provider.clone(), one.clone())).collect();
    file.stored.vault.clone_from(&kept.vault);
}

/// `providers.acme`, `routes.gpt-x`, `tiers.gold`, `policies.eu`
fn path(kind: SettingKind, name: &str) -> String {
    let table = match kind {
        SettingKind::Provider => "providers",
        SettingKind::Route => "routes",
        SettingKind::Tier => "tiers",
        SettingKind::Policy => "policies",
    };
    format!("{table}.{name}")
}

/// Whether what was typed has that name already.
fn is_in(file: &File, kind: SettingKind, name: &str) -> bool {
    match kind {
        SettingKind::Provider => file.providers.contains_key(name),
        SettingKind::Route => file.routes.iter().any(|one| one.model.as_deref() == Some(name)),
        SettingKind::Tier => file.tiers.contains_key(name),
        SettingKind::Policy => file.policies.contains_key(name),
    }
}

/// What a setting says, without what could not be understood.
fn typed<T: DeserializeOwned + Default>(
    problems: &mut Vec<Problem>,
    path: &str,
    content: &str,
) -> T {
    let written: Written<T> = read::json(content);
    problems.extend(written.problems.into_iter().map(|problem| Problem {
        path: match problem.path.as_str() {
            "file" => path.to_owned(),
            within => format!("{path}.{within}"),
        },
        ..problem
    }));
    written.file
}

/// What the file and the database come to.
#[derive(Debug)]
pub(crate) struct Whole {
    /// What is in use with them.
    pub plan: Plan,
    /// What is not stored: kind, name, where it comes from, and what it says.
    pub fixed: Vec<(SettingKind, String, &'static str, String)>,
}

/// Why they do not fit.
#[derive(Debug)]
pub(crate) enum Unsound {
    /// The file says this already.
    DefinedInFile(SettingKind, String),
    /// All that is wrong.
    Problems(Vec<Problem>),
}

impl From<Vec<Problem>> for Unsound {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Problems(problems)
    }
}

/// Checks what is kept with what was typed.
pub(super) fn judge(
    mut written: Written,
    (folder, environment): (&Path, Environment<'_>),
    kept: &Kept,
) -> Result<Whole, Unsound> {
    let mut all = kept.settings.settings.iter();
    if let Some(one) = all.find(|one| is_in(&written.file, one.kind, &one.name)) {
        return Err(Unsound::DefinedInFile(one.kind, one.name.clone()));
    }
    let mut fixed = fixed(&written.file);
    merge(&mut written, kept);
    let known: BTreeSet<_> = written.file.providers.keys().cloned().collect();
    let plan = check::check(written, folder, environment)?;
    for provider in plan.providers.iter().filter(|one| !known.contains(&*one.name)) {
        let name = provider.name.to_string();
        let built_in = name == DEMO;
        let source = if built_in { "built_in" } else { "environment" };
        let said = if built_in {
            Provider::default()
        } else {
            Provider { preset: Some(name.clone()), ..Provider::default() }
        };
        fixed.push((SettingKind::Provider, name, source, text(&said)));
    }
    Ok(Whole { plan, fixed })
}

/// What a file says of what can be stored.
fn fixed(file: &File) -> Vec<(SettingKind, String, &'static str, String)> {
    let of = |kind, name: &str, content| (kind, name.to_owned(), "file", content);
    let providers = file.providers.iter();
    let providers = providers.map(|(name, one)| of(SettingKind::Provider, name, text(one)));
    let routes = file
        .routes
        .iter()
        .filter_map(|one| Some(of(SettingKind::Route, one.model.as_deref()?, text(one))));
    let tiers = file.tiers.iter().map(|(name, one)| of(SettingKind::Tier, name, text(one)));
    let policies = file.policies.iter().map(|(name, one)| of(SettingKind::Policy, name, text(one)));
    providers.chain(routes).chain(tiers).chain(policies).collect()
}

/// Plain texts, numbers and lists: writing them cannot fail.
fn text<T: serde::Serialize>(content: &T) -> String {
    serde_json::to_string(content).unwrap_or_default()
}
