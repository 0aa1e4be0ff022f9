//! What this program, its files and its variables are called: here, and nowhere else.

/// The program's name.
macro_rules! name {
    () => {
        "tokenroute"
    };
}

/// The name of an environment variable.
macro_rules! variable {
    ($rest:literal) => {
        concat!("TOKENROUTE_", $rest)
    };
}

pub(crate) use name;

/// The program's name.
pub(crate) const NAME: &str = name!();
/// The folder in the user's home.
pub(crate) const FOLDER: &str = concat!(".", name!());
/// What API keys begin with.
pub(crate) const KEY_PREFIX: &str = "sk-tr-";
/// The public gateway.
pub(crate) const API_URL_DEFAULT: &str = concat!("https://api.", name!(), ".dev");
/// The model that `test` calls if nobody names one, and that `smoke` prefers.
pub(crate) const MODEL_DEFAULT: &str = "openai/gpt-4o-mini";
/// What servers are told of who asks.
pub(crate) const USER_AGENT: &str = concat!(name!(), "/", env!("CARGO_PKG_VERSION"));
/// This version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the gateway's management plane is.
pub(crate) const API_URL: &str = variable!("API_URL");
/// An API key, which makes a login needless.
pub(crate) const API_KEY: &str = variable!("API_KEY");
/// `1`: answers are JSON.
pub(crate) const JSON: &str = variable!("JSON");
/// How long a request may take, in seconds.
pub(crate) const TIMEOUT_SECONDS: &str = variable!("TIMEOUT_SECONDS");

/// What is said of variables below every command's help.
pub(crate) const HELP: &str = concat!(
    "Environment:\n",
    "  ",
    variable!("API_URL"),
    "          the gateway's management address [https://api.",
    name!(),
    ".dev]\n  ",
    variable!("API_KEY"),
    "          an API key: balance, usage, models, env, test and smoke need no login then\n  ",
    variable!("JSON"),
    "=1           the same as --json\n  ",
    variable!("TIMEOUT_SECONDS"),
    "  how long one request may take [60]\n\n",
    "Exit codes: 0 done, 1 what was asked is wrong (input, no key, no balance, any 4xx),\n",
    "2 the network failed, 3 the server failed (any 5xx, a login that did not come to its end).",
);
