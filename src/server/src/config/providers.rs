//! Checks who answers calls: presets, addresses, credentials, quirks and model lists.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokenroute_domain::catalog::is_model_name;
use tokenroute_domain::money::{Price, Prices, Rate};
use tokenroute_proxy::egress::{Egress, Network};
use tokenroute_proxy::snapshot::{Deadlines, OnDisconnect, OutputCap, Probe, ProbeKind};
use tokenroute_wire::meter::Reasoning;
use tokenroute_wire::request::PrefillForm;

use super::base::{Base, Origin};
use super::check::{Checker, bounds};
use super::file::{self, File, Provider};
use super::plan::{ModelPlan, ProviderPlan};
use super::stored::Sealed;
use super::{credential, deadlines, preset, price, stored};

/// The name of the provider that runs in this process.
pub(super) const DEMO: &str = "demo";
/// The models of the demo provider.
const DEMO_MODELS: [&str; 1] = ["echo"];
/// Most providers in a file.
const PROVIDERS_MAX: usize = 1_000;
/// Most models of a provider.
const MODELS_MAX: usize = 10_000;
/// Most networks that names may lead to.
const NETWORKS_MAX: usize = 100;
/// Longest name of a provider: it becomes a part of model names, headers and metrics.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// Most tokens that a model may be said to hold.
pub(super) const TOKENS_MAX: u64 = 1_000_000_000;

const ON_DISCONNECT: [(&str, OnDisconnect); 2] =
    [("cancel", OnDisconnect::Cancel), ("drain", OnDisconnect::Drain)];
const REASONING: [(&str, Reasoning); 3] =
    [("inside", Reasoning::Inside), ("added", Reasoning::Added), ("by_total", Reasoning::ByTotal)];
const CAPS: [(&str, OutputCap); 2] = [
    ("max_tokens", OutputCap::MaxTokens),
    ("max_completion_tokens", OutputCap::MaxCompletionTokens),
];
const PREFILL: [(&str, PrefillForm); 4] = [
    ("message", PrefillForm::Message),
    ("prefix", PrefillForm::Prefix),
    ("partial", PrefillForm::Partial),
    ("continue_final_message", PrefillForm::ContinueFinalMessage),
];
const PROBES: [(&str, ProbeKind); 2] =
    [("models", ProbeKind::Models), ("completion", ProbeKind::Completion)];
/// The wire formats that are spoken.
const DIALECTS: [(&str, ()); 1] = [("openai", ())];

/// A provider, and what its routes need to know of it.
pub(super) struct Checked {
    pub plan: ProviderPlan,
    /// Whether every model of it can be asked for as `NAME/model`.
    pub open: bool,
}

/// Every provider: those of the file, those that the environment brings up, and the demo.
pub(super) fn check(checker: &mut Checker<'_>, file: &File, demo: bool) -> Vec<Checked> {
    let defaults = deadlines::defaults();
    let defaults = deadlines::deadlines(checker, "deadlines", &file.deadlines, &defaults);
    if file.providers.len() > PROVIDERS_MAX {
        checker.problem("providers", format!("are too many: at most {PROVIDERS_MAX}"));
    }
    let mut providers = Vec::new();
    for (name, typed) in file.providers.iter().take(PROVIDERS_MAX) {
        let path = format!("providers.{name}");
        check_name(checker, &path, name);
        let sealed = file.stored.provider(name);
        let one = check_one(checker, (&path, name), (typed, sealed), &defaults);
        if sealed.is_some() {
            stored::check_reach(checker, &path, &one.plan.base, &file.egress);
        }
        providers.push(one);
    }
    if file.providers_from_environment.unwrap_or(file.providers.is_empty()) {
        let absent = |name: &&str| !file.providers.contains_key(*name);
        for name in preset::names().filter(absent) {
            providers.extend(from_environment(checker, name, &defaults));
        }
    }
    if demo {
        providers.push(demo_provider(&defaults));
    }
    providers
}

/// Where the names of providers may lead.
pub(super) fn egress(checker: &mut Checker<'_>, typed: &file::Egress) -> Egress {
    let typed = typed.allow_private.as_deref().unwrap_or_default();
    if typed.len() > NETWORKS_MAX {
        let message = format!("are too many: at most {NETWORKS_MAX}");
        checker.problem("egress.allow_private", message);
    }
    let mut networks = Vec::new();
    for (place, text) in typed.iter().take(NETWORKS_MAX).enumerate() {
        match Network::parse(text) {
            Some(network) => networks.push(network),
            None => checker.problem(
                format!("egress.allow_private[{place}]"),
                "is no network: write its first address and its bits, such as \"10.0.0.0/8\"",
            ),
        }
    }
    Egress::new(networks)
}

/// Whether a name can be a part of others, of headers and of metrics.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(plain)
}

fn check_name(checker: &mut Checker<'_>, path: &str, name: &str) {
    if !is_plain_name(name) {
        checker.problem(path, "is no name: use a-z, 0-9, - and _, at most 64 of them");
    } else if name == DEMO {
        checker.problem(path, "is the name of the built-in demo provider: choose another");
    }
}

/// The preset of that name, if the variable of its credential is set.
fn from_environment(
    checker: &mut Checker<'_>,
    name: &'static str,
    defaults: &Deadlines,
) -> Option<Checked> {
    let preset = match preset::find(name)? {
        Ok(preset) => preset,
        Err(problem) => {
            checker.problems.push(problem);
            return None;
        }
    };
    let variable = preset.credential_env.as_deref()?;
    checker.variable(variable)?;
    let typed = Provider { preset: Some(name.to_owned()), ..Provider::default() };
    let path = format!("environment.{variable}");
    Some(check_one(checker, (&path, name), (&typed, None), defaults))
}

/// One provider; what it does not say, its preset says.
fn check_one(
    checker: &mut Checker<'_>,
    (path, name): (&str, &str),
    (typed, stored): (&Provider, Option<Sealed<'_>>),
    defaults: &Deadlines,
) -> Checked {
    let preset = find_preset(checker, path, typed);
    let open = preset.is_some();
    let preset = preset.unwrap_or_default();
    let at = |field: &str| format!("{path}.{field}");
    let base = check_base(checker, (path, name), typed, &preset);
    let credential = match stored {
        // What the environment of a node holds is not sent where an administrator says.
        Some(sealed) => sealed.open(checker, (path, name), typed, &base),
        None => check_credential(checker, path, typed, &preset),
    };
    let dialect = typed.dialect.as_deref().or(preset.dialect.as_deref());
    checker.word(&at("dialect"), dialect, &DIALECTS, ());
    let end = typed.on_disconnect.as_deref().or(preset.on_disconnect.as_deref());
    let on_disconnect =
        checker.word(&at("on_disconnect"), end, &ON_DISCONNECT, OnDisconnect::Cancel);
    let quirk = typed.quirks.reasoning.as_deref().or(preset.quirks.reasoning.as_deref());
    let reasoning = checker.word(&at("quirks.reasoning"), quirk, &REASONING, Reasoning::Inside);
    let stream_options = typed.quirks.stream_options.or(preset.quirks.stream_options);
    let quirk = typed.quirks.prefill.as_deref().or(preset.quirks.prefill.as_deref());
    let prefill = checker.word(&at("quirks.prefill"), quirk, &PREFILL, PrefillForm::Message);
    let quirk = typed.quirks.output_cap.as_deref().or(preset.quirks.output_cap.as_deref());
    let output_cap = checker.word(&at("quirks.output_cap"), quirk, &CAPS, OutputCap::MaxTokens);
    let defaults = deadlines::deadlines(checker, &at("deadlines"), &preset.deadlines, defaults);
    let deadlines = deadlines::deadlines(checker, &at("deadlines"), &typed.deadlines, &defaults);
    let probe = typed.probe.as_ref().or(preset.probe.as_ref());
    let probe = probe.map(|probe| check_probe(checker, &at("probe"), probe));
    let models = check_models(checker, path, &typed.models, &preset.models);
    let name = Arc::from(name);
    let plan = ProviderPlan {
        name,
        base,
        credential,
        stream_options: stream_options.unwrap_or(true),
        reasoning,
        on_disconnect,
        deadlines,
        http2: typed.http2.or(preset.http2).unwrap_or(false),
        prefill,
        output_cap,
        probe,
        models,
    };
    Checked { plan, open }
}

fn find_preset(checker: &mut Checker<'_>, path: &str, typed: &Provider) -> Option<Provider> {
    let name = typed.preset.as_deref()?;
    match preset::find(name) {
        Some(Ok(preset)) => Some(preset),
        Some(Err(problem)) => {
            checker.problems.push(problem);
            None
        }
        None => {
            let known: Vec<_> = preset::names().collect();
            let message = format!("is not one of {}", known.join(", "));
            checker.problem(format!("{path}.preset"), message);
            None
        }
    }
}

fn check_credential(
    checker: &mut Checker<'_>,
    path: &str,
    typed: &Provider,
    preset: &Provider,
) -> Option<SecretString> {
    let (field, secret) = match (&typed.credential_env, &typed.credential_file) {
        (Some(_), Some(_)) => {
            checker.problem(path, "has both credential_env and credential_file: keep one");
            return None;
        }
        (None, Some(file)) => {
            let field = format!("{path}.credential_file");
            let file = checker.path(&field, file);
            warn_if_readable(checker, &file);
            (field, credential::from_file(&file))
        }
        (Some(name), None) => {
            let field = format!("{path}.credential_env");
            (field, credential::from_value(name, checker.variable(name)))
        }
        (None, None) => {
            // A provider at one's own address may need none.
            let name = preset.credential_env.as_deref()?;
            let field = format!("{path}.credential_env");
            (field, credential::from_value(name, checker.variable(name)))
        }
    };
    secret.map_err(|why| checker.problem(field, why)).ok()
}

/// Warns if a credential can be read by others than its owner and group.
fn warn_if_readable(checker: &mut Checker<'_>, file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_MAY_READ: u32 = 0o004;
    let mode = std::fs::metadata(file).map(|found| found.permissions().mode());
    if mode.is_ok_and(|mode| mode & OTHERS_MAY_READ != 0) {
        checker.warnings.push(format!("{} can be read by all users: chmod o-r", file.display()));
    }
}

fn check_base(
    checker: &mut Checker<'_>,
    (path, name): (&str, &str),
    typed: &Provider,
    preset: &Provider,
) -> Base {
    let field = format!("{path}.base_url");
    let Some(url) = typed.base_url.as_deref().or(preset.base_url.as_deref()) else {
        if typed.preset.is_none() {
            let hint = match preset::find(name) {
                Some(_) => format!("is missing: add it, or preset = \"{name}\""),
                None => "is missing: add it, or a preset".to_owned(),
            };
            checker.problem(field, hint);
        }
        return Base::Demo;
    };
    match Origin::parse(url) {
        Ok(origin) => {
            let plain_allowed = typed.allow_http.or(preset.allow_http).unwrap_or(false);
            if !origin.tls && !plain_allowed && !origin.is_loopback() {
                let message = "sends the credential in plain text: use https, or allow_http = true";
                checker.problem(field, message);
            }
            Base::At(origin)
        }
        Err(why) => {
            checker.problem(field, why);
            Base::Demo
        }
    }
}

/// How a provider is looked after: at most ten times a second, so that none is hammered.
fn check_probe(checker: &mut Checker<'_>, path: &str, typed: &file::Probe) -> Probe {
    let between =
        bounds(Duration::from_secs(10), Duration::from_millis(100), Duration::from_hours(1));
    let every = checker.seconds(&format!("{path}.every_seconds"), typed.every_seconds, between);
    let kind = typed.kind.as_deref();
    let kind = checker.word(&format!("{path}.kind"), kind, &PROBES, ProbeKind::Models);
    Probe { every, kind }
}

/// The preset's models, and over them those of the file.
fn check_models(
    checker: &mut Checker<'_>,
    path: &str,
    typed: &[file::Model],
    preset: &[file::Model],
) -> Vec<ModelPlan> {
    if typed.len() > MODELS_MAX {
        checker.problem(format!("{path}.models"), format!("are too many: at most {MODELS_MAX}"));
    }
    let mut ids = HashSet::new();
    let mut models = Vec::new();
    for (place, model) in typed.iter().take(MODELS_MAX).enumerate() {
        let path = format!("{path}.models[{place}]");
        let plan = check_model(checker, &path, model);
        if !plan.id.is_empty() && !ids.insert(Arc::clone(&plan.id)) {
            checker.problem(format!("{path}.id"), format!("is listed twice: {}", plan.id));
        }
        models.push(plan);
    }
    for (place, model) in preset.iter().enumerate() {
        let plan = check_model(checker, &format!("{path}.preset.models[{place}]"), model);
        if ids.insert(Arc::clone(&plan.id)) {
            models.push(plan);
        }
    }
    models
}

fn check_model(checker: &mut Checker<'_>, path: &str, model: &file::Model) -> ModelPlan {
    let id = model.id.as_deref().unwrap_or_default();
    let field = format!("{path}.id");
    if model.id.is_none() {
        checker.problem(field, "is missing");
    } else if !is_model_name(id) {
        checker.problem(field, "is no model name: use letters, digits and -_.:/@+, at most 256");
    }
    let tokens = |checker: &mut Checker<'_>, name: &str, typed: Option<i64>| {
        let count = checker.count(&format!("{path}.{name}"), typed, bounds(0, 1, TOKENS_MAX));
        typed.map(|_| count)
    };
    let context_tokens = tokens(checker, "context_tokens", model.context_tokens);
    let output_tokens_max = tokens(checker, "output_tokens_max", model.output_tokens_max);
    let image_tokens_max = tokens(checker, "image_tokens_max", model.image_tokens_max);
    let created = checker.count(&format!("{path}.created"), model.created, bounds(0, 0, 1 << 40));
    let prices = price::of_model(checker, path, model);
    let id = Arc::from(id);
    ModelPlan { id, created, prices, context_tokens, output_tokens_max, image_tokens_max }
}

/// The provider that runs in this process, free of charge.
fn demo_provider(defaults: &Deadlines) -> Checked {
    let model = |id: &str| ModelPlan {
        id: Arc::from(id),
        created: 0,
        prices: Prices::always(Price::flat(Rate(0), Rate(0))),
        context_tokens: None,
        output_tokens_max: None,
        image_tokens_max: None,
    };
    let plan = ProviderPlan {
        name: Arc::from(DEMO),
        base: Base::Demo,
        credential: None,
        stream_options: true,
        reasoning: Reasoning::Inside,
        on_disconnect: OnDisconnect::Cancel,
        deadlines: *defaults,
        http2: false,
        prefill: PrefillForm::Message,
        output_cap: OutputCap::MaxTokens,
        probe: None,
        models: DEMO_MODELS.into_iter().map(model).collect(),
    };
    Checked { plan, open: false }
}
