//! Fuzzes the configuration, with raw text and with files that are nearly sound: it never panics, what it
//! takes it takes again, and it says nothing of a secret.
//!
//! Each target runs for a few seconds; `BOLERO_RANDOM_TEST_TIME_MS` sets another time.

use std::sync::LazyLock;
use std::time::Duration;

use super::{Base, Origin, REFERENCE, SECRET, plan, summary};
use crate::config::problem::PROBLEMS_MAX;

const TIME: Duration = Duration::from_secs(4);
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/config");

/// A change of a file: which of its lines, what is done there, and with which other line.
type Edit = (u16, u8, u16);

/// Values that are put in where others were.
const VALUES: [&str; 16] = [
    "0",
    "-1",
    "1.5",
    "nan",
    "9223372036854775807",
    "true",
    "\"\"",
    "\"x\"",
    "[]",
    "{}",
    "[{}]",
    "\"https://h\"",
    "\"http://127.0.0.1:1\"",
    "\"10.0.0.0/8\"",
    "\"\\u0000\"",
    "1979-05-27",
];

/// Where people have put a secret that does not belong there.
const SECRET_FIELDS: [&str; 8] =
    ["credential_env", "url_env", "url", "base_url", "credential", "api_key", "input", "address"];

/// Files to start from: the corpus, and the reference file with every setting in it.
static SEEDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let entries = std::fs::read_dir(CORPUS).unwrap();
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let mut seeds: Vec<_> = entries.map(|entry| read(entry.unwrap().path())).collect();
    let setting = |line: &str| {
        line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_owned)
    };
    let shown =
        REFERENCE.lines().map(|line| setting(line).unwrap_or_else(|| line.to_owned()) + "\n");
    seeds.push(shown.collect());
    seeds.push(REFERENCE.to_owned());
    assert!(seeds.len() >= 12, "the corpus is gone");
    seeds
});

/// What must hold for any text.
fn check(text: &str) -> bool {
    match plan(text) {
        Ok(taken) => {
            assert_eq!(
                summary(&plan(text).unwrap()),
                summary(&taken),
                "the same file means two things"
            );
            assert_eq!(taken.needs_restart(&taken), Vec::<&str>::new());
            assert_eq!(taken.settings(1, 1).providers.len(), taken.providers.len());
            for provider in &taken.providers {
                let Base::At(origin) = &provider.base else { continue };
                let host = if origin.host.contains(':') {
                    format!("[{}]", origin.host)
                } else {
                    origin.host.clone()
                };
                let scheme = if origin.tls { "https" } else { "http" };
                let url = format!("{scheme}://{host}:{}{}", origin.port, origin.path_prefix);
                assert_eq!(
                    Origin::parse(&url).as_ref(),
                    Ok(origin),
                    "what is dialled is not what was read"
                );
            }
            true
        }
        Err(problems) => {
            assert!(!problems.is_empty() && problems.len() <= PROBLEMS_MAX);
            assert!(
                problems
                    .iter()
                    .all(|problem| !problem.path.is_empty() && !problem.message.is_empty())
            );
            assert!(
                !text.contains(SECRET) || problems.iter().all(|one| !one.message.contains(SECRET))
            );
            false
        }
    }
}

/// A seed with some lines changed.
fn changed(seed: usize, edits: &[Edit]) -> String {
    let text = SEEDS.get(seed.checked_rem(SEEDS.len()).unwrap_or_default()).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (place, what, with) in edits {
        let at = usize::from(*place).checked_rem(lines.len()).unwrap_or_default();
        let other =
            lines.get(usize::from(*with).checked_rem(lines.len()).unwrap_or_default()).cloned();
        let (Some(line), Some(other)) = (lines.get_mut(at), other) else { break };
        let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
        let value =
            VALUES.get(usize::from(*with).checked_rem(VALUES.len()).unwrap_or_default()).unwrap();
        match what % 6 {
            0 => *line = format!("{} = {value}", name(line)),
            1 => {
                let value = other.split_once('=').map_or(*value, |(_, value)| value);
                *line = format!("{} = {value}", name(line));
            }
            2 => lines.insert(at, other),
            3 => drop(lines.remove(at)),
            4 => {
                let fields = SECRET_FIELDS.iter().cycle().skip(usize::from(*with % 8));
                *line = format!("{} = \"{SECRET}\"", fields.take(1).copied().collect::<String>());
            }
            _ => {
                let kept = usize::from(*with).checked_rem(40).unwrap_or_default();
                *line = line.chars().take(kept).collect();
            }
        }
    }
    lines.join("\n")
}

#[test]
fn text() {
    bolero::check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        check(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn files() {
    bolero::check!().with_test_time(TIME).with_type::<(usize, Vec<Edit>)>().for_each(
        |(seed, edits)| {
            check(&changed(*seed, edits));
        },
    );
}

#[test]
fn corpus() {
    let taken = SEEDS.iter().filter(|text| check(text)).count();
    assert!(taken >= 5, "only {taken} of the corpus are sound");
}

#[test]
fn nothing_is_too_deep() {
    for (open, close) in [("[", "]"), ("{a=", "}"), ("a.", "")] {
        let deep = open.repeat(50_000);
        check(&format!("x = {deep}1{}", close.repeat(50_000)));
        check(&format!("{deep}a = 1"));
        check(&format!("[{deep}a]"));
    }
}
