//! What can be typed. The parser's own errors are exit code 1 and, in JSON mode, one JSON object.

use clap::{Args, Parser, Subcommand};

use crate::brand;
use crate::brand::name;

/// Longest amount, in characters.
const AMOUNT_CHARS_MAX: usize = 20;
const NO_CACHE: &str = concat!("Do not keep the key in ~/.", name!(), "/last_key.txt");
/// Most days that usage goes back.
const DAYS_MAX: i64 = 365;

/// Keys, credit and usage of a gateway for models.
#[derive(Debug, Parser)]
#[command(name = brand::NAME, version, after_help = brand::HELP, propagate_version = true)]
pub(crate) struct CommandLine {
    /// Answer in JSON; an error is one JSON object on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Log in: confirm a code in a browser, on this or any other machine
    Login,
    /// Forget the login here
    Logout,
    /// Show who is logged in
    Whoami,
    /// Create, list, rotate and revoke API keys
    #[command(subcommand)]
    Keys(Keys),
    /// Show what there is to spend
    Balance,
    /// Get a page where a person pays; this never pays by itself
    Topup {
        /// How much, in USD, such as 5 or 12.50
        #[arg(long, value_name = "USD", value_parser = amount)]
        amount: String,
    },
    /// Show what was used
    Usage {
        /// How many days, today included (1-365)
        #[arg(long, default_value_t = 30, value_name = "N",
              value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: u32,
    },
    /// Print what an OpenAI SDK takes from its environment
    Env {
        #[command(flatten)]
        key: KeyChoice,
    },
    /// Call a model once
    Test {
        /// The model
        #[arg(long, default_value = brand::MODEL_DEFAULT, value_name = "MODEL")]
        model: String,
        #[command(flatten)]
        key: KeyChoice,
    },
    /// List models with their prices
    Models,
    /// Prove an integration: list models, one call, one stream; keep what was found, without any secret
    Smoke {
        /// The model; without it the usual one, if it is listed, or else the first
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
        #[command(flatten)]
        key: KeyChoice,
    },
}

/// Which key to use.
#[derive(Debug, Args)]
pub(crate) struct KeyChoice {
    /// The API key, instead of the environment's or the last that was created here
    #[arg(long = "key", value_name = "KEY", hide_possible_values = true)]
    pub(crate) key: Option<Typed>,
}

/// A key that was typed, which nothing shows.
#[derive(Clone)]
pub(crate) struct Typed(pub(crate) String);

impl std::fmt::Debug for Typed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl From<&str> for Typed {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Create a key; it is shown this once
    Create(NewKey),
    /// List keys, each by its first characters
    List,
    /// Revoke a key: within a second no call is done with it
    Revoke {
        /// Its ID, as listed
        #[arg(value_parser = id)]
        id: String,
    },
    /// Create a key with the terms of another, which goes on working for a while
    Rotate {
        /// The old key's ID, as listed
        #[arg(value_parser = id)]
        id: String,
        /// For how many seconds the old key goes on working
        #[arg(long, default_value_t = 0, value_name = "N")]
        grace_seconds: u32,
        /// Do not keep the key here
        #[arg(long, help = NO_CACHE)]
        no_cache: bool,
    },
}

/// What a key is to be.
#[derive(Debug, Args)]
pub(crate) struct NewKey {
    /// What to call it
    #[arg(long)]
    pub(crate) name: String,
    /// The most that it may ever spend, in USD
    #[arg(long, value_name = "USD", value_parser = amount)]
    pub(crate) ceiling: Option<String>,
    /// When it stops working, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_at: Option<String>,
    /// A model that it may call, `*` at the end for all that begin so; once for each
    #[arg(long = "model", value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// A provider that may answer it; once for each
    #[arg(long = "provider", value_name = "PROVIDER")]
    pub(crate) providers: Vec<String>,
    /// Requests a second, as a burst
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_second: Option<u32>,
    /// Requests a minute
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_minute: Option<u32>,
    /// Tokens of input and output a minute
    #[arg(long, value_name = "N")]
    pub(crate) tokens_per_minute: Option<u64>,
    /// Calls at the same time
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<u32>,
    /// Do not keep the key here
    #[arg(long, help = NO_CACHE)]
    pub(crate) no_cache: bool,
}

/// An amount of money: a decimal above zero. How much is allowed the server says.
fn amount(text: &str) -> Result<String, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_zero = text.bytes().all(|b| b == b'0' || b == b'.');
    if text.len() <= AMOUNT_CHARS_MAX && is_digits(whole) && is_digits(part) && !is_zero {
        return Ok(text.to_owned());
    }
    Err("an amount is a decimal above zero, such as 5 or 12.50".to_owned())
}

/// An ID goes into a path: nothing else may.
fn id(text: &str) -> Result<String, String> {
    let is_id = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if text.starts_with(brand::KEY_PREFIX) {
        return Err("that is the key itself; its ID is what `keys list` shows".to_owned());
    }
    if (1..=64).contains(&text.len()) && text.bytes().all(is_id) {
        return Ok(text.to_owned());
    }
    Err("an ID is what `keys list` shows, such as key_…".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn amounts_are_decimals_above_zero() {
        for text in ["5", "12.50", "0.01", "1000000"] {
            assert_eq!(amount(text), Ok(text.to_owned()));
        }
        for text in ["", "0", "0.00", "-5", "5.", ".5", "5e3", "1,5", "NaN", "٥", "+5", "5 "] {
            assert!(amount(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_id_is_nothing_that_changes_a_path() {
        assert!(id("key_01ABC").is_ok());
        for text in ["", "..", "a/b", "a?b", "a%2fb", "sk-tr-abc"] {
            assert!(id(text).is_err(), "{text:?}");
        }
    }
}
