//! Reads TOML into what was typed, collecting every unknown field and every value of a wrong type.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::file::File;
use super::problem::Problem;

/// Longest configuration file, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Values of a wrong type that are told at once; each costs one more pass over the file.
const WRONG_TYPES_MAX: usize = 100;

/// What was typed, and what is already known to be wrong with it.
#[derive(Debug, Default)]
pub(super) struct Written<T = File> {
    /// The settings, without those that could not be understood.
    pub file: T,
    /// Fields that do not exist and values of wrong types.
    pub problems: Vec<Problem>,
    /// What is allowed but unwise.
    pub warnings: Vec<String>,
}

/// Reads a file of settings.
pub(super) fn path(path: &Path) -> Result<Written, Vec<Problem>> {
    let whole = |message: String| vec![Problem::new("file", message)];
    let text = file(path, FILE_BYTES_MAX).map_err(whole)?;
    let text = String::from_utf8(text).map_err(|_| whole("is not UTF-8".to_owned()))?;
    let mut written: Written = toml(&text).map_err(|problem| vec![problem])?;
    written.warnings.extend(loose_permissions(path));
    Ok(written)
}

/// The bytes of the regular file at `path`. The error is a message without any of its content.
pub(super) fn file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let unreadable =
        |error: std::io::Error| format!("cannot read {}: {}", path.display(), error.kind());
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("cannot read {}: it is no regular file", path.display()));
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(path).map_err(unreadable)?;
    opened.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(format!("{} is longer than {bytes_max} bytes", path.display()));
    }
    Ok(bytes)
}

/// A warning if others than the owner may change the file.
pub(super) fn loose_permissions(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_MAY_WRITE: u32 = 0o022;
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & OTHERS_MAY_WRITE != 0)
        .then(|| format!("{} can be changed by other users: chmod go-w", path.display()))
}

/// Reads TOML text. The error is for text that is no TOML at all.
pub(super) fn toml<T: DeserializeOwned + Default>(text: &str) -> Result<Written<T>, Problem> {
    let table: toml::Table = text.parse().map_err(|error| not_toml(text, &error))?;
    Ok(value(toml::Value::Table(table)))
}

/// Reads the text of a JSON object as if it stood in a file. A `null` says nothing.
pub(super) fn json<T: DeserializeOwned + Default>(text: &str) -> Written<T> {
    if let Ok(object @ serde_json::Value::Object(_)) = serde_json::from_str(text) {
        return value(as_toml(object));
    }
    let problems = vec![Problem::new("file", "is no JSON object")];
    Written { problems, ..Written::default() }
}

fn as_toml(json: serde_json::Value) -> toml::Value {
    use serde_json::Value;
    match json {
        // It stands in lists alone, and is found wrong there.
        Value::Null => toml::Value::Table(toml::Table::new()),
        Value::Bool(value) => value.into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or(f64::MAX).into(),
        },
        Value::String(text) => text.into(),
        Value::Array(list) => list.into_iter().map(as_toml).collect::<Vec<_>>().into(),
        Value::Object(members) => {
            let said = members.into_iter().filter(|(_, value)| !value.is_null());
            toml::Value::Table(said.map(|(name, value)| (name, as_toml(value))).collect())
        }
    }
}

fn value<T: DeserializeOwned + Default>(mut table: toml::Value) -> Written<T> {
    let mut problems = Vec::new();
    for _ in 0..WRONG_TYPES_MAX {
        let mut unknown = Vec::new();
        match typed(table.clone(), &mut unknown) {
            Ok(file) => {
                problems.append(&mut unknown);
                return Written { file, problems, warnings: Vec::new() };
            }
            Err(error) => {
                let path: Vec<Step> = error.path().iter().filter_map(step).collect();
                problems.push(Problem::new(join(&path), wrong_type(error.inner().message())));
                if !remove(&mut table, &path) {
                    break;
                }
            }
        }
    }
    problems.push(Problem::new("file", "has too many wrong values to go on"));
    Written { file: T::default(), problems, warnings: Vec::new() }
}

/// One pass: the typed value, or where and why it has a wrong type.
fn typed<T: DeserializeOwned>(
    table: toml::Value,
    unknown: &mut Vec<Problem>,
) -> Result<T, serde_path_to_error::Error<toml::de::Error>> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(table, &mut track);
    let typed = serde_ignored::deserialize(tracked, |path| {
        unknown.push(Problem::new(
            join(&ignored_steps(&path)),
            "is not a setting: remove or rename it",
        ));
    });
    typed.map_err(|error| serde_path_to_error::Error::new(track.path(), error))
}

/// The parser's message without the line that it quotes, which may hold a secret.
fn not_toml(text: &str, error: &toml::de::Error) -> Problem {
    let start = error.span().map_or(0, |span| span.start);
    let line = text.get(..start).unwrap_or_default().lines().count().max(1);
    let reason = error.message().lines().next().unwrap_or_default();
    // What stands in quotes is taken from the text.
    let reason = reason.split(['`', '"']).next().unwrap_or_default().trim_end();
    Problem::new("file", format!("is not TOML at line {line}: {reason}"))
}

/// What was expected instead, without the value that serde quotes before it.
fn wrong_type(message: &str) -> String {
    let expected = message.rsplit_once("expected ").map_or("another value", |(_, what)| what);
    let expected = expected.lines().next().unwrap_or_default();
    let expected = match expected {
        "i64" => "an integer",
        "a sequence" => "an array",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    format!("has a wrong type: expected {expected}")
}

/// One step from a table or an array to what it holds.
enum Step {
    Key(String),
    Place(usize),
}

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Seq { index } => Some(Step::Place(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn ignored_steps(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    let (parent, step) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Step::Place(*index))),
        Path::Map { parent, key } => (parent, Some(Step::Key(key.clone()))),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = ignored_steps(parent);
    steps.extend(step);
    steps
}

/// `routes[0].targets[1].weight`
fn join(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Step::Place(place) => path.extend(["[", place.to_string().as_str(), "]"]),
        }
    }
    if path.is_empty() { "file".to_owned() } else { path }
}

/// Takes the value at `path` away. In an array an empty table takes its place, so that the others
/// keep theirs. Whether there was one.
fn remove(value: &mut toml::Value, path: &[Step]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut holder = value;
    for step in parents {
        let next = match step {
            Step::Key(key) => holder.get_mut(key),
            Step::Place(place) => holder.get_mut(*place),
        };
        let Some(next) = next else { return false };
        holder = next;
    }
    match last {
        Step::Key(key) => holder.as_table_mut().is_some_and(|table| table.remove(key).is_some()),
        Step::Place(place) => match holder.get_mut(*place) {
            Some(value) if !value.is_table() => {
                *value = toml::Value::Table(toml::Table::new());
                true
            }
            Some(_) | None => false,
        },
    }
}
