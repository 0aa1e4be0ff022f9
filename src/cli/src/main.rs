//! `tokenroute`, the command line: gets a person or an agent from nothing to a working key.
//!
//! It is a client and nothing else: it asks the gateway's management API and, for trials, a model. `surroundings`
//! alone reads variables, clock and terminal, `network` alone opens connections, `files` alone touches the
//! disk; what a command says comes back as a value and is written here.

mod address;
mod arguments;
mod brand;
mod commands;
mod credentials;
mod evidence;
mod failure;
mod files;
mod login;
mod network;
mod output;
mod secret;
mod session;
mod surroundings;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use crate::address::Address;
use crate::arguments::{Command, CommandLine, KeyChoice, Keys};
use crate::commands::{account, inference, keys, smoke};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::files::Files;
use crate::login::Prompt;
use crate::network::Wire;
use crate::output::Output;
use crate::secret::{Secret, presentable};
use crate::session::World;
use crate::surroundings::{Machine, Surroundings, open_page};

/// How long a request may take, in seconds, if nobody says.
const TIMEOUT_SECONDS_DEFAULT: u64 = 60;
/// The longest that can be said.
const TIMEOUT_SECONDS_MAX: u64 = 600;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let surroundings = Surroundings::read();
    // Also where the rest cannot be parsed: who asked for JSON reads JSON.
    let json = surroundings.json || words.iter().any(|word| word == "--json");
    let done = match CommandLine::try_parse_from(words) {
        Ok(line) => run(&line.command, &surroundings, json),
        Err(error) => misread(&error),
    };
    match done {
        Ok(output) => finish(&output, json),
        Err(failure) => fail(&failure, json),
    }
}

fn finish(output: &Output, json: bool) -> ExitCode {
    if let Some(warning) = &output.warning {
        drop(writeln!(io::stderr(), "warning: {}", presentable(warning)));
    }
    let text = if json { &output.json } else { &output.human };
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(failure: &Failure, json: bool) -> ExitCode {
    if let (false, Some(evidence)) = (json, &failure.evidence) {
        drop(writeln!(io::stdout(), "{evidence}"));
    }
    let line = if json { failure.json() } else { failure.line() };
    drop(writeln!(io::stderr(), "{line}"));
    ExitCode::from(failure.exit.code())
}

/// What the parser says: help, the version, or what is wrong with what was typed.
fn misread(error: &clap::Error) -> Result<Output, Failure> {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Output::new(text.trim_end(), &text.trim_end());
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let message = format!("a command is missing: {} --help lists them", brand::NAME);
        return Err(Failure::input("arguments", message));
    }
    // A key may have been typed in the wrong place.
    let lines: Vec<_> = text.lines().map(presentable).filter(|line| !line.is_empty()).collect();
    let message = lines.join("\n");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    Err(Failure::input("arguments", message))
}

fn run(command: &Command, around: &Surroundings, json: bool) -> Result<Output, Failure> {
    let timeout = timeout(around)?;
    let network = Wire::new(timeout);
    let clock = Machine::start();
    let files = Files::of(around.home.as_deref());
    let world = World {
        network: &network,
        clock: &clock,
        credentials: Credentials::of(files.clone()),
        gateway: gateway(around)?,
        key: key(around)?,
    };
    let open: Option<&dyn Fn(&str) -> bool> =
        if around.is_terminal && !json { Some(&open_page) } else { None };
    match command {
        Command::Login => account::login(&world, &mut |prompt| tell(prompt, json)),
        Command::Logout => account::logout(&world),
        Command::Whoami => account::whoami(&world),
        Command::Keys(Keys::Create(wanted)) => keys::create(&world, wanted),
        Command::Keys(Keys::List) => keys::list(&world),
        Command::Keys(Keys::Revoke { id }) => keys::revoke(&world, id),
        Command::Keys(Keys::Rotate { id, grace_seconds, no_cache }) => {
            keys::rotate(&world, id, *grace_seconds, *no_cache)
        }
        Command::Balance => account::balance(&world),
        Command::Topup { amount } => account::topup(&world, amount, open),
        Command::Usage { days } => account::usage(&world, *days),
        Command::Env { key } => inference::env(&world, typed(key)),
        Command::Test { model, key } => inference::test(&world, model, typed(key)),
        Command::Models => inference::models(&world),
        Command::Smoke { model, key } => smoke::smoke(&world, &files, model.as_deref(), typed(key)),
    }
}

fn typed(choice: &KeyChoice) -> Option<&str> {
    choice.key.as_ref().map(|key| key.0.as_str())
}

fn gateway(around: &Surroundings) -> Result<Address, Failure> {
    let text = around.api_url.as_deref().unwrap_or(brand::API_URL_DEFAULT).trim();
    Address::parse_base(text).map_err(|why| {
        Failure::input("api_url", format!("{} is no address: {why}", brand::API_URL))
    })
}

fn key(around: &Surroundings) -> Result<Option<Secret>, Failure> {
    let wrong = || Failure::input("api_key", format!("{} is no key", brand::API_KEY));
    around.api_key.as_ref().map(|key| Secret::parse(&key.0).ok_or_else(wrong)).transpose()
}

fn timeout(around: &Surroundings) -> Result<Duration, Failure> {
    let Some(text) = &around.timeout_seconds else {
        return Ok(Duration::from_secs(TIMEOUT_SECONDS_DEFAULT));
    };
    let seconds = text.trim().parse().ok().filter(|n| (1..=TIMEOUT_SECONDS_MAX).contains(n));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let message =
            format!("{} is a number from 1 to {TIMEOUT_SECONDS_MAX}", brand::TIMEOUT_SECONDS);
        Failure::input("timeout_seconds", message)
    })
}

/// Shows a person where to go, while we wait. Programs read one JSON object on stderr: stdout is the outcome's.
fn tell(prompt: &Prompt, json: bool) {
    if json {
        let told = serde_json::json!({
            "verification_uri": prompt.verification_uri,
            "verification_uri_complete": prompt.verification_uri_complete,
            "user_code": prompt.user_code,
            "expires_in": prompt.expires_in,
        });
        drop(writeln!(io::stderr(), "{told}"));
        return;
    }
    let mut out = io::stdout().lock();
    drop(writeln!(out, "Visit: {}", prompt.verification_uri));
    drop(writeln!(out, "And enter code: {}", prompt.user_code));
    drop(out.flush());
}
