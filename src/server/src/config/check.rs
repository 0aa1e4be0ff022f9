//! From what was typed to what it means: one pass over all sections, every problem kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{File, Fraction, Seconds};
use super::plan::{ControlPlan, Plan, RoutesPlan, StatePlan};
use super::problem::{PROBLEMS_MAX, Problem};
use super::read::Written;
use super::{Environment, control, limits, money, policies, providers, routes, server};

/// Checks what was typed. Relative paths are taken from `folder`, the file's own.
pub(super) fn check(
    written: Written,
    folder: &Path,
    environment: Environment<'_>,
) -> Result<Plan, Vec<Problem>> {
    let Written { file, problems, warnings } = written;
    let mut checker = Checker::new(&problems, folder, environment);
    let plan = plan(&mut checker, &file);
    let Checker { problems: found, warnings: more, .. } = checker;
    let plan = Plan { warnings: [warnings, more].concat(), ..plan };
    unless([problems, found].concat(), plan)
}

/// Checks only where the state is.
pub(super) fn check_state(
    written: Written,
    folder: &Path,
    environment: Environment<'_>,
) -> Result<StatePlan, Vec<Problem>> {
    let Written { file, mut problems, .. } = written;
    let concerns = |path: &str| {
        let section = path.split(['.', '[']).next().unwrap_or_default();
        ["file", "state_dir", "keys", "redis", "database"].contains(&section)
    };
    problems.retain(|problem| concerns(&problem.path));
    let mut checker = Checker::new(&problems, folder, environment);
    let state = server::state(&mut checker, &file);
    let found = checker.problems;
    unless([problems, found].concat(), state)
}

/// Checks only where the management plane is, and whom it believes.
pub(super) fn check_control(
    written: Written,
    folder: &Path,
    environment: Environment<'_>,
) -> Result<ControlPlan, Vec<Problem>> {
    let Written { file, mut problems, .. } = written;
    let concerns = |path: &str| {
        ["file", "control"].contains(&path.split(['.', '[']).next().unwrap_or_default())
    };
    problems.retain(|problem| concerns(&problem.path));
    let mut checker = Checker::new(&problems, folder, environment);
    let control = control::control(&mut checker, &file.control, &[]);
    let found = checker.problems;
    unless([problems, found].concat(), control)
}

/// Checks only which model leads where.
pub(super) fn check_routes(
    written: Written,
    folder: &Path,
    environment: Environment<'_>,
) -> Result<RoutesPlan, Vec<Problem>> {
    let Written { file, problems, .. } = written;
    let mut checker = Checker::new(&problems, folder, environment);
    let Plan { admin, catalog, .. } = plan(&mut checker, &file);
    let mut found = checker.problems;
    let concerns = |path: &str| {
        let (section, setting) = (path.split(['.', '[']).next(), path.rsplit('.').next());
        let sections = ["file", "admin", "deadlines", "routing", "providers", "routes", "demo"];
        let credential = setting.is_some_and(|name| name.starts_with("credential_"));
        section.is_some_and(|section| sections.contains(&section)) && !credential
    };
    found.retain(|problem| concerns(&problem.path));
    let typed = problems.iter().filter(|problem| concerns(&problem.path)).cloned().collect();
    unless([typed, found].concat(), RoutesPlan { admin, catalog })
}

/// What was checked, unless there are problems.
fn unless<T>(mut problems: Vec<Problem>, checked: T) -> Result<T, Vec<Problem>> {
    problems.truncate(PROBLEMS_MAX);
    if problems.is_empty() { Ok(checked) } else { Err(problems) }
}

/// The plan of a file. Where there is a problem a harmless value stands in, so that the rest can be
/// checked too; such a plan is never handed out.
fn plan(checker: &mut Checker<'_>, file: &File) -> Plan {
    let state = server::state(checker, file);
    let listen = server::listen(checker, &file.listen);
    let admin = server::admin(checker, &file.admin, listen.address);
    let control = control::control(checker, &file.control, &[listen.address, admin]);
    let limits = limits::limits(checker, &file.limits);
    let sizes = limits::sizes(checker, &file.limits);
    let shutdown = server::shutdown(checker, &file.shutdown);
    let log = server::log(checker, &file.log);
    let tiers = money::tiers(checker, file);
    let money = money::money(checker, &file.money);
    let demo = file.demo.enabled.unwrap_or(file.providers.is_empty());
    let egress = providers::egress(checker, &file.egress);
    let providers = providers::check(checker, file, demo);
    let policies = policies::check(checker, file, &providers);
    let catalog = routes::check(checker, file, &providers).with_policies(policies);
    let providers = providers.into_iter().map(|provider| provider.plan).collect();
    Plan {
        state,
        listen,
        admin,
        admin_hosts: server::admin_hosts(checker, &file.admin),
        control,
        limits,
        sizes,
        shutdown,
        log,
        demo,
        egress,
        providers,
        catalog,
        tiers,
        money,
        warnings: Vec::new(),
    }
}

/// What all checks share: where to look things up, and where to tell what is wrong.
pub(super) struct Checker<'a> {
    folder: &'a Path,
    environment: Environment<'a>,
    /// What is known to be wrong before anything is checked.
    known: &'a [Problem],
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
}

impl<'a> Checker<'a> {
    fn new(known: &'a [Problem], folder: &'a Path, environment: Environment<'a>) -> Self {
        Self { folder, environment, known, problems: Vec::new(), warnings: Vec::new() }
    }
}

impl Checker<'_> {
    /// Notes what is wrong with the setting at `path`, unless it was not even understood: that is
    /// already told.
    pub(crate) fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        if !self.spoiled(&path) {
            self.problems.push(Problem { path, message: message.into() });
        }
    }

    /// Whether the setting at `path` was given, but could not be understood.
    pub(super) fn spoiled(&self, path: &str) -> bool {
        self.known.iter().any(|problem| is_within(path, &problem.path))
    }

    /// The value of a variable; an empty one counts as unset.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// A path as typed, from the folder of the file.
    pub(crate) fn path(&mut self, path: &str, typed: &str) -> PathBuf {
        if typed.is_empty() || typed.contains('\0') {
            self.problem(path, "is no path");
        }
        self.folder.join(typed)
    }

    /// A whole number within `[min, max]`, or `default` if none was typed.
    pub(crate) fn count(&mut self, path: &str, typed: Option<i64>, bounds: Bounds<u64>) -> u64 {
        let Some(typed) = typed else { return bounds.default };
        match u64::try_from(typed) {
            Ok(value) if (bounds.min..=bounds.max).contains(&value) => value,
            Ok(_) | Err(_) => {
                let Bounds { min, max, .. } = bounds;
                self.problem(path, format!("must be a whole number from {min} to {max}"));
                bounds.default
            }
        }
    }

    /// The same for what is counted in memory.
    pub(crate) fn size(&mut self, path: &str, typed: Option<i64>, bounds: Bounds<u64>) -> usize {
        usize::try_from(self.count(path, typed, bounds)).unwrap_or(usize::MAX)
    }

    /// A length of time within the bounds in seconds, or their default.
    pub(crate) fn seconds(
        &mut self,
        path: &str,
        typed: Option<Seconds>,
        bounds: Bounds<Duration>,
    ) -> Duration {
        let Some(Seconds(seconds)) = typed else { return bounds.default };
        match Duration::try_from_secs_f64(seconds) {
            Ok(length) if (bounds.min..=bounds.max).contains(&length) => length,
            Ok(_) | Err(_) => {
                let (min, max) = (bounds.min.as_secs_f64(), bounds.max.as_secs_f64());
                self.problem(path, format!("must be a number of seconds from {min} to {max}"));
                bounds.default
            }
        }
    }

    /// A part of a whole, in thousandths, within the bounds or their default.
    pub(crate) fn permille(
        &mut self,
        path: &str,
        typed: Option<Fraction>,
        bounds: Bounds<u32>,
    ) -> u32 {
        let Some(Fraction(fraction)) = typed else { return bounds.default };
        // A thousandth of a whole is a millisecond of a second, and those are converted for us.
        let length = Duration::try_from_secs_f64(fraction).ok();
        let permille = length.and_then(|length| u32::try_from(length.as_millis()).ok());
        let (min, max) = (f64::from(bounds.min) / 1_000.0, f64::from(bounds.max) / 1_000.0);
        match permille {
            Some(permille) if (min..=max).contains(&fraction) => permille,
            Some(_) | None => {
                self.problem(path, format!("must be a number from {min} to {max}"));
                bounds.default
            }
        }
    }

    /// One of a setting's words, or the first of them if none was typed.
    pub(crate) fn word<T: Copy>(
        &mut self,
        path: &str,
        typed: Option<&str>,
        words: &[(&str, T)],
        default: T,
    ) -> T {
        let Some(typed) = typed else { return default };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == typed) {
            return *value;
        }
        let known: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.problem(path, format!("must be {}", known.join(" or ")));
        default
    }
}

/// Whether `path` is `outer` or a part of it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What a number may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<T> {
    pub default: T,
    pub min: T,
    pub max: T,
}

/// `default`, and the least and the most that a file may say.
pub(super) const fn bounds<T>(default: T, min: T, max: T) -> Bounds<T> {
    Bounds { default, min, max }
}
