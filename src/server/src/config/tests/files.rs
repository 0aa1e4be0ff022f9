//! Configurations and credentials as files: what is read, watched, warned of and refused.

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::super::{Watch, load, load_state};
use super::{SECRET, home, plan_in};

#[test]
fn credential_files_are_read_and_watched() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = at("tokenroute.toml");
    std::fs::write(at("key"), format!("{SECRET}\n")).unwrap();
    std::fs::write(&config, "[providers.p]\nbase_url = 'https://h'\ncredential_file = 'key'")
        .unwrap();
    let mut watch = Watch::new(&config);
    let plan = load(Some(&config), &home).unwrap();
    assert_eq!(plan.providers[0].credential.as_ref().unwrap().expose_secret(), SECRET);
    assert!(!watch.changed());

    std::fs::write(at("key"), "two\nlines").unwrap();
    assert!(watch.changed() && !watch.changed());
    assert_eq!(load(Some(&config), &home).unwrap_err()[0].path, "providers.p.credential_file");
    std::fs::remove_file(at("key")).unwrap();
    assert!(watch.changed() && !watch.changed());

    // Kubernetes turns a link to another folder; the new file may be of the same size and age.
    std::fs::write(at("a.toml"), "[log]\nlevel = 'warn'").unwrap();
    std::fs::write(at("b.toml"), "[log]\nlevel = 'info'").unwrap();
    std::os::unix::fs::symlink("a.toml", at("link.toml")).unwrap();
    let mut watch = Watch::new(&at("link.toml"));
    std::os::unix::fs::symlink("b.toml", at("new")).unwrap();
    std::fs::rename(at("new"), at("link.toml")).unwrap();
    assert!(watch.changed() && !watch.changed());
}

#[test]
fn files_that_others_may_change_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("tokenroute.toml");
    std::fs::write(&config, "[demo]\nenabled = true").unwrap();
    let warnings = |mode| {
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(mode)).unwrap();
        load(Some(&config), &home).unwrap().warnings
    };
    assert!(warnings(0o644).is_empty());
    assert_eq!(warnings(0o666).len(), 1);
    assert_eq!(warnings(0o660).len(), 1);
}

#[test]
fn files_that_cannot_be_a_configuration_are_refused() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("tokenroute.toml");
    let refused = || load(Some(&config), &home).unwrap_err().remove(0).path;
    assert_eq!(refused(), "file");
    std::fs::write(&config, [0xff, 0xfe]).unwrap();
    assert_eq!(refused(), "file");
    std::fs::write(&config, "#".repeat(5 * 1024 * 1024)).unwrap();
    assert_eq!(refused(), "file");
    assert_eq!(load(Some(folder.path()), &home).unwrap_err()[0].path, "file");
}

#[test]
fn the_state_is_found_in_a_file_whose_rest_is_broken() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("tokenroute.toml");
    let text =
        "state_dir = 'state'\n[listen]\nthreads = 'x'\n[providers.p]\ncredential_env = 'NONE'";
    std::fs::write(&config, text).unwrap();
    assert!(load(Some(&config), &home).is_err());
    let state = load_state(Some(&config), &home).unwrap();
    assert_eq!(state.dir, folder.path().join("state"));
    std::fs::write(&config, "state_dir = 3\nx = 1\n[redis]\nurls = ''").unwrap();
    let problems = load_state(Some(&config), &home).unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["state_dir", "redis.urls"]);
}

#[test]
fn files_that_hold_no_certificate_or_key_are_told() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("pem"), "-----BEGIN NOTHING-----").unwrap();
    let problems =
        plan_in(folder.path(), "[listen.tls]\ncertificate = 'pem'\nkey = 'pem'").unwrap_err();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["listen.tls.certificate", "listen.tls.key"]);
    assert!(problems.iter().all(|problem| problem.message.contains("holds no PEM")));
}
