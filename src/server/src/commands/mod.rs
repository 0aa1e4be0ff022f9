//! The operator's commands. Each writes to a [`Terminal`] and ends in an [`End`]; none serves calls.

mod accounts;
mod audit;
mod check;
mod credit;
mod explain;
mod findings;
mod kept;
pub(crate) mod keys;
mod ledger;
mod line;
mod migrate;
mod reconcile;
mod records;
mod secrets;
mod settings;
mod table;
mod terms;
mod upgrade;
mod usage;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokenroute_domain::key::Pepper;
use tokenroute_domain::time::{Timestamp, utc as clock};
use tokenroute_store::{Database, RedisCache};

use self::line::{KeysCommand, StoredCommand};
use crate::config::{self, Environment, Names, Problem, StatePlan};
use crate::{run, state};

pub(crate) use self::line::Command;

/// Names the configuration file where `--config` does not.
const CONFIG_VARIABLE: &str = "TOKENROUTE_CONFIG";

/// Seconds in a day.
const DAY: u64 = 86_400;

/// How a command ended, as its exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// 0: it did what it was asked.
    Done,
    /// 1: what it was asked, or its configuration, is wrong.
    Mistaken,
    /// 2: something around it, such as the database or the disk, does not work.
    Unable,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        match end {
            End::Done => Self::SUCCESS,
            End::Mistaken => Self::from(1),
            End::Unable => Self::from(2),
        }
    }
}

/// Where a command writes.
pub(crate) struct Terminal<'a> {
    out: Box<dyn Write + 'a>,
    err: Box<dyn Write + 'a>,
    /// Whether the reader of `out` has left.
    gone: bool,
}

impl<'a> Terminal<'a> {
    /// `out` is for what was asked for, people and pipes read it; `err` for everything else.
    pub(crate) fn new(out: impl Write + 'a, err: impl Write + 'a) -> Self {
        Self { out: Box::new(out), err: Box::new(err), gone: false }
    }

    /// The process's own.
    pub(crate) fn of_process() -> Self {
        Self::new(io::stdout(), io::stderr())
    }

    /// Tells a person something. A terminal that is gone hears nothing, which is no error.
    fn tell(&mut self, message: impl Display) {
        writeln!(self.err, "{message}").unwrap_or_default();
    }

    /// Tells what is wrong with a configuration.
    fn mistaken(&mut self, problems: &[Problem]) -> End {
        for problem in problems {
            self.tell(problem);
        }
        End::Mistaken
    }

    /// Tells what is wrong with what was asked.
    fn refuse(&mut self, problem: impl Display) -> End {
        self.tell(problem);
        End::Mistaken
    }

    /// Tells why the command could not do what it was asked.
    fn unable(&mut self, error: &dyn Display) -> End {
        self.tell(error);
        End::Unable
    }

    /// Writes a line of what was asked for. `Done` if it was written.
    fn say(&mut self, line: impl Display) -> End {
        match writeln!(self.out, "{line}").and_then(|()| self.out.flush()) {
            Ok(()) => End::Done,
            Err(error) => {
                self.gone = error.kind() == ErrorKind::BrokenPipe;
                End::Unable
            }
        }
    }

    /// Writes lines of what was asked for, up to the first that cannot be written.
    fn say_all(&mut self, lines: impl IntoIterator<Item = impl Display>) -> End {
        let all = lines.into_iter().all(|line| self.say(line) == End::Done);
        if all { End::Done } else { End::Unable }
    }
}

/// A text in a table: without what could move the cursor or forge a line.
fn cell(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// Who gives a command. Who is at the terminal can say what it likes of itself; whom the system takes it
/// for it cannot.
fn actor() -> String {
    format!("uid {}", rustix::process::getuid().as_raw())
}

/// What commands find around them.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// The configuration file that was named, if any.
    pub config: Option<&'a Path>,
    /// The variables that are set.
    pub environment: Environment<'a>,
    /// When the command was given.
    pub now: Timestamp,
}

/// Does a command. Nothing is left to write to a reader that has left, as `head` does after enough
/// lines: that is a good end.
pub(crate) fn perform(
    command: Command,
    surroundings: Surroundings<'_>,
    terminal: &mut Terminal<'_>,
) -> End {
    let Surroundings { config, environment, now } = surroundings;
    let variable = environment(CONFIG_VARIABLE).filter(|value| !value.is_empty());
    let variable = variable.map(PathBuf::from);
    let config = config.or(variable.as_deref());
    let end = match command {
        Command::Run { role } => serve(config, role, environment, terminal),
        Command::Upgrade => match config::load_state(config, environment) {
            Ok(plan) => upgrade::upgrade(&plan.dir, terminal),
            Err(problems) => terminal.mistaken(&problems),
        },
        Command::Check { file } => check::check(&file, environment, terminal),
        Command::Explain { model, json } => {
            let kept = kept::look(config, environment, terminal);
            match config::load_routes(config, environment, kept.as_ref()) {
                Ok(plan) => explain::explain(&plan, (&model, json), terminal),
                Err(problems) => terminal.mistaken(&problems),
            }
        }
        Command::Migrate { check } => match config::load_state(config, environment) {
            Ok(plan) => migrate::migrate(&plan, check, terminal),
            Err(problems) => terminal.mistaken(&problems),
        },
        Command::SetupLink => match config::load_control(config, environment) {
            Ok(control) => {
                let plan = config::load_state(config, environment);
                with_stores(plan, terminal, async |stores, terminal| {
                    secrets::link(&control, &stores.database, (now, terminal)).await
                })
            }
            Err(problems) => terminal.mistaken(&problems),
        },
        Command::InternalSecret { name } => secrets::internal(&name, terminal),
        Command::Stored(command) => {
            let plan = config::load_state(config, environment);
            with_stores(plan, terminal, async |stores, terminal| {
                manage(stores, &command, (now, terminal)).await
            })
        }
    };
    if terminal.gone { End::Done } else { end }
}

/// Runs the gateway until it is told to end.
fn serve(
    config: Option<&Path>,
    role: run::Role,
    environment: Environment<'_>,
    terminal: &mut Terminal<'_>,
) -> End {
    let (inherited, mut predecessor) = run::inherit(environment);
    let plan = match config::load(config, environment) {
        Ok(plan) => plan,
        Err(problems) => {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            predecessor.failed(lines.join("\n"));
            return terminal.mistaken(&problems);
        }
    };
    let start = run::Start { role, path: config, inherited, predecessor: &mut predecessor };
    match run::run(plan, start) {
        Ok(()) => End::Done,
        Err(error) => {
            predecessor.failed(format_args!("{error:#}"));
            terminal.unable(&format_args!("{error:#}"))
        }
    }
}

/// What the operator's commands work with.
struct Stores {
    database: Database,
    redis: Option<RedisCache>,
    pepper: Pepper,
    /// What keys and accounts may name; `None` where no file says.
    names: Option<Names>,
}

/// Opens the stores for one command, and closes them after it.
fn with_stores<'t>(
    plan: Result<StatePlan, Vec<Problem>>,
    terminal: &mut Terminal<'t>,
    command: impl AsyncFnOnce(&Stores, &mut Terminal<'t>) -> End,
) -> End {
    let plan = match plan {
        Ok(plan) => plan,
        Err(problems) => return terminal.mistaken(&problems),
    };
    in_runtime(terminal, async |terminal| {
        let stores = match open(&plan).await {
            Ok(stores) => stores,
            Err(error) => return terminal.unable(&format_args!("{error:#}")),
        };
        let end = command(&stores, terminal).await;
        stores.database.close().await;
        end
    })
}

/// Does what waits for stores.
fn in_runtime<'t>(
    terminal: &mut Terminal<'t>,
    command: impl AsyncFnOnce(&mut Terminal<'t>) -> End,
) -> End {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command(terminal)),
        Err(error) => terminal.unable(&error),
    }
}

async fn open(plan: &StatePlan) -> anyhow::Result<Stores> {
    let state = state::open(plan)?;
    let redis = plan.redis()?;
    let database = state::open_database(plan).await?;
    let mut names = plan.names.clone();
    if let Some(names) = &mut names {
        names.add(&database.settings().await?);
    }
    Ok(Stores { database, redis, pepper: state.pepper, names })
}

async fn manage(
    stores: &Stores,
    command: &StoredCommand,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let database = &stores.database;
    match command {
        StoredCommand::Accounts(command) => {
            accounts::manage(stores, command, (now, terminal)).await
        }
        StoredCommand::Credit(command) => credit::manage(stores, command, terminal).await,
        StoredCommand::Keys(command) => manage_keys(stores, command, (now, terminal)).await,
        StoredCommand::Records { follow, limit, json } => {
            let follow = follow.then_some(records::POLL);
            let choice = records::Choice { limit: *limit, follow, json: *json };
            records::show(database, choice, terminal).await
        }
        StoredCommand::Ledger { account, limit, json } => {
            let account = account.as_deref();
            let choice = ledger::Choice { account, limit: *limit, json: *json };
            ledger::show(database, choice, terminal).await
        }
        StoredCommand::Usage { days, account, json } => {
            let account = account.as_deref();
            let choice = usage::Choice { days: *days, account, json: *json };
            usage::show(database, choice, (now, terminal)).await
        }
        StoredCommand::Reconcile { json } => reconcile::check(stores, *json, (now, terminal)).await,
        StoredCommand::Audit { verify: true, .. } => audit::verify(database, terminal).await,
        StoredCommand::Audit { verify: false, limit, json } => {
            audit::show(database, (*limit, *json), terminal).await
        }
        StoredCommand::Findings(command) => {
            findings::manage(database, command, (now, terminal)).await
        }
        StoredCommand::Settings(command) => {
            settings::manage(database, command, (now, terminal)).await
        }
    }
}

async fn manage_keys(
    stores: &Stores,
    command: &KeysCommand,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let Stores { database, redis, pepper, names } = stores;
    let context = (now, &mut *terminal);
    match command {
        KeysCommand::Create { name, account, expires_in_days, terms } => {
            let expires = keys::expiry(*expires_in_days, now);
            let terms = match terms.checked(names.as_ref()) {
                Ok(terms) => terms,
                Err(problem) => return terminal.refuse(problem),
            };
            let wish = keys::Wish { name, account, expires, terms };
            keys::create(database, pepper, wish, context).await
        }
        KeysCommand::Set { id, clear, expires_in_days, terms } => {
            if clear.is_empty() && expires_in_days.is_none() && terms.is_empty() {
                return terminal.refuse("name what is to be changed: see `keys set --help`");
            }
            let expires = keys::expiry(*expires_in_days, now);
            let terms = match terms.checked(names.as_ref()) {
                Ok(terms) => terms,
                Err(problem) => return terminal.refuse(problem),
            };
            let change = keys::Change { clear, expires, terms };
            keys::set((database, redis.as_ref()), id, change, context).await
        }
        KeysCommand::List { json } => keys::list(database, *json, context).await,
        KeysCommand::Revoke { id } => keys::revoke(database, redis.as_ref(), id, context).await,
    }
}
