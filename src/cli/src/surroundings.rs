//! What is around the process: variables, the home folder, the clock, the terminal, the browser. No other module
//! asks the operating system for any of it.
#![expect(clippy::disallowed_methods, reason = "variables and the clock are read here, for all")]

use std::env;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::brand;

/// What is known before anything is done.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Where the gateway is, as typed.
    pub(crate) api_url: Option<String>,
    /// An API key, as typed.
    pub(crate) api_key: Option<Key>,
    /// How long a request may take, as typed.
    pub(crate) timeout_seconds: Option<String>,
    /// Whether answers are to be JSON.
    pub(crate) json: bool,
    /// The user's home.
    pub(crate) home: Option<PathBuf>,
    /// Whether a person reads what is written.
    pub(crate) is_terminal: bool,
}

/// A key as typed, which may be none.
pub(crate) struct Key(pub(crate) String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Surroundings {
    /// What this process is surrounded by.
    pub(crate) fn read() -> Self {
        let json = variable(brand::JSON).is_some_and(|text| text != "0" && text != "false");
        Self {
            api_url: variable(brand::API_URL),
            api_key: variable(brand::API_KEY).map(Key),
            timeout_seconds: variable(brand::TIMEOUT_SECONDS),
            json,
            home: env::home_dir().filter(|home| home.is_absolute()),
            is_terminal: io::stdout().is_terminal(),
        }
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.trim().is_empty())
}

/// What time it is, and waiting.
pub(crate) trait Clock {
    /// The wall clock, in seconds since the Unix epoch.
    fn now_seconds(&self) -> i64;
    /// How long the process has run; it never goes back.
    fn elapsed(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct Machine(Instant);

impl Machine {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Machine {
    fn now_seconds(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }
}

/// Shows a page to the person at this terminal; says whether it could.
pub(crate) fn open_page(url: &str) -> bool {
    webbrowser::open(url).is_ok()
}
