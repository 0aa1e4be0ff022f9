//! The house rules that no lint can hold: who may import whom, what a crate must not reach, what
//! every file begins with, what no file says.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Longest source file, in lines, tests not counted.
const FILE_LINES_MAX: usize = 500;

/// Who imports whom among ourselves. A crate earns its place by forbidding an import.
const IMPORTS: [(&str, &[&str]); 12] = [
    ("tokenroute-domain", &[]),
    ("tokenroute-wire", &["tokenroute-domain"]),
    ("tokenroute-api", &[]),
    ("tokenroute-store", &["tokenroute-domain"]),
    ("tokenroute-proxy", &["tokenroute-domain", "tokenroute-wire"]),
    ("tokenroute-control", &["tokenroute-domain", "tokenroute-api", "tokenroute-store"]),
    ("tokenroute-cli", &["tokenroute-api"]),
    (
        "tokenroute-server",
        &[
            "tokenroute-domain",
            "tokenroute-wire",
            "tokenroute-api",
            "tokenroute-store",
            "tokenroute-proxy",
            "tokenroute-control",
            "tokenroute-provider",
        ],
    ),
    ("tokenroute-provider", &[]),
    ("tokenroute-driver", &["tokenroute-provider"]),
    ("tokenroute-tests", &[]),
    ("tokenroute-fuzz", &["tokenroute-domain", "tokenroute-wire", "tokenroute-store"]),
];

/// What the pure crates must not reach, however indirectly.
const IMPURE: [&str; 16] = [
    "tokio",
    "async-std",
    "mio",
    "http",
    "hyper",
    "h2",
    "serde_json",
    "serde",
    "pingora",
    "pingora-core",
    "pingora-http",
    "axum",
    "sqlx",
    "redis",
    "rand",
    "getrandom",
];

/// What is no part of a command line that is installed in a moment: servers, stores, other clients, other TLS.
const HEAVY: [&str; 15] = [
    "tokio",
    "mio",
    "async-std",
    "hyper",
    "h2",
    "axum",
    "reqwest",
    "pingora",
    "pingora-core",
    "pingora-proxy",
    "sqlx",
    "sqlx-core",
    "redis",
    "openssl",
    "native-tls",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn crates_import_only_what_the_table_allows() {
    let metadata = metadata();
    let members: BTreeSet<_> =
        metadata["workspace_members"].as_array().unwrap().iter().map(Value::to_string).collect();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: Vec<_> =
        packages.iter().filter(|package| members.contains(&package["id"].to_string())).collect();
    let table: BTreeMap<_, _> = IMPORTS.into_iter().collect();
    let names: BTreeSet<_> = ours.iter().map(|package| text(package, "name")).collect();
    assert_eq!(names, table.keys().copied().collect(), "the table names every crate");
    for package in ours {
        let name = text(package, "name");
        let imported: BTreeSet<_> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|dependency| text(dependency, "name"))
            .filter(|dependency| names.contains(dependency))
            .collect();
        let allowed = table[name].iter().copied().collect();
        assert!(imported.is_subset(&allowed), "{name} imports {imported:?}, may {allowed:?}");
    }
}

#[test]
fn the_pure_crates_reach_nothing_impure() {
    let metadata = metadata();
    let nodes: BTreeMap<_, _> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (text(node, "id").to_owned(), node))
        .collect();
    let names: BTreeMap<_, _> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (text(package, "id").to_owned(), text(package, "name").to_owned()))
        .collect();
    for pure in ["tokenroute-domain", "tokenroute-wire"] {
        let mut seen = BTreeSet::new();
        let start = names.iter().find(|(_, name)| *name == pure).unwrap().0.clone();
        let mut open = vec![start];
        while let Some(id) = open.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            for dependency in nodes[&id]["deps"].as_array().unwrap() {
                let normal = |kind: &Value| kind["kind"].is_null();
                if dependency["dep_kinds"].as_array().unwrap().iter().any(normal) {
                    open.push(text(dependency, "pkg").to_owned());
                }
            }
        }
        let reached: BTreeSet<_> = seen.iter().map(|id| names[id].as_str()).collect();
        let impure: Vec<_> = IMPURE.iter().filter(|name| reached.contains(**name)).collect();
        assert!(impure.is_empty(), "{pure} reaches {impure:?}");
    }
}

#[test]
fn the_command_line_is_a_client_and_nothing_else() {
    // Built by itself, on any system: with other crates at its side some of its own have more features.
    let tree = ["tree", "--locked", "--offline", "--package", "tokenroute-cli", "--target", "all"];
    let output = Command::new(env!("CARGO"))
        .args(tree)
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    let reached: BTreeSet<_> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(reached.contains("ureq"), "the tree is not that of a client: {reached:?}");
    let heavy: Vec<_> = HEAVY.iter().filter(|name| reached.contains(**name)).collect();
    assert!(heavy.is_empty(), "the command line reaches {heavy:?}");
}

/// Every file that git would commit.
fn files() -> Vec<PathBuf> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(list).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git is needed: {}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).unwrap();
    listed.lines().map(|line| root().join(line)).filter(|path| path.is_file()).collect()
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "rs");
    let read = |path: PathBuf| {
        let source = fs::read_to_string(&path).unwrap();
        (path, source)
    };
    let found: Vec<_> = files().into_iter().filter(is_rust).map(read).collect();
    assert!(found.len() > 30, "only {} Rust files were found", found.len());
    found
}

#[test]
fn every_file_begins_with_a_summary() {
    for (path, source) in rust_files() {
        assert!(source.starts_with("//! "), "{}: no `//!` summary", path.display());
    }
}

#[test]
fn no_file_is_long() {
    for (path, source) in rust_files() {
        let tests = path.components().any(|part| part.as_os_str() == "tests")
            || path.file_stem().is_some_and(|stem| stem == "tests");
        let lines = source.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(tests || lines <= FILE_LINES_MAX, "{}: {lines} lines", path.display());
    }
}

#[test]
fn sql_is_never_made_of_text_that_came_in() {
    for (path, source) in rust_files() {
        let made = ["AssertSqlSafe", "raw_sql(&", "query(&format", "QueryBuilder"];
        let found = made.iter().find(|word| source.contains(**word));
        let this = path.ends_with("tests/tidy.rs");
        assert!(this || found.is_none(), "{}: {}", path.display(), found.unwrap());
    }
}

#[test]
fn no_test_is_skipped() {
    for (path, source) in rust_files() {
        let skipped = source.lines().any(|line| line.trim_start().starts_with("#[ignore"));
        assert!(!skipped, "{}: an ignored test", path.display());
    }
}

#[test]
fn every_scanner_has_a_fuzz_target() {
    let targets = root().join("tests/fuzz/tests");
    let wire = root().join("src/wire/src");
    let mut scanners = 0;
    for (path, source) in rust_files() {
        if path.starts_with(&wire) && source.contains("pub struct Scanner") {
            let module = path.strip_prefix(&wire).unwrap().components().next().unwrap();
            let module = Path::new(module.as_os_str()).file_stem().unwrap().to_owned();
            let target = targets.join(&module).with_extension("rs");
            assert!(target.is_file(), "{} has no {}", path.display(), target.display());
            scanners += 1;
        }
    }
    assert!(scanners >= 2, "only {scanners} scanners were found");
}

#[test]
fn the_repository_speaks_of_the_project_alone() {
    // Written in two parts, so that this file does not contain what it looks for.
    let banned = [
        concat!("/work", "/main"),
        concat!("/tmp", "/brief"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("registry.npmjs", ".org"),
        concat!("static.crates", ".io"),
        concat!("files.python", "hosted"),
    ];
    for path in files() {
        let Ok(source) = fs::read_to_string(&path) else { continue };
        let found = banned.iter().find(|word| source.contains(**word));
        assert!(found.is_none(), "{}: {}", path.display(), found.unwrap());
    }
}
