//! Checks the sections that are about the node itself: state, addresses, shutdown, logs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret, SecretString};
use tokenroute_store::RedisCache;

use super::check::{Checker, bounds};
use super::plan::{
    DatabasePlan, Listen, Log, LogFormat, LogLevel, Names, Shutdown, StatePlan, Tls,
};
use super::providers::DEMO;
use super::{credential, file, preset, read};

const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
const THREADS_MAX: u64 = 1024;
const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    #[cfg(debug_assertions)]
    ("trace", LogLevel::Trace),
];
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Where the node's state is.
pub(super) fn state(checker: &mut Checker<'_>, file: &file::File) -> StatePlan {
    let dir = state_dir(checker, file);
    let pepper_file = match &file.keys.pepper_file {
        Some(path) => checker.path("keys.pepper_file", path),
        None => dir.join("pepper"),
    };
    let vault_file = match &file.keys.vault_file {
        Some(path) => checker.path("keys.vault_file", path),
        None => dir.join("vault"),
    };
    let (redis_url, redis_authorities) = redis(checker, &file.redis);
    let (database, names) = (database(checker, &file.database), Some(names(file)));
    StatePlan { dir, pepper_file, vault_file, redis_url, redis_authorities, database, names }
}

/// What keys and accounts may name.
fn names(file: &file::File) -> Names {
    let from_environment = file.providers_from_environment.unwrap_or(file.providers.is_empty());
    let presets = preset::names().filter(|_| from_environment).map(str::to_owned);
    let demo = file.demo.enabled.unwrap_or(file.providers.is_empty());
    let demo = demo.then(|| DEMO.to_owned());
    let providers = file.providers.keys().cloned().chain(presets).chain(demo);
    let providers: BTreeSet<String> = providers.collect();
    Names {
        tiers: file.tiers.keys().cloned().collect(),
        policies: file.policies.keys().cloned().collect(),
        providers: providers.into_iter().collect(),
    }
}

/// The folder of state: as typed, or the usual place.
fn state_dir(checker: &mut Checker<'_>, file: &file::File) -> PathBuf {
    if let Some(typed) = &file.state_dir {
        return checker.path("state_dir", typed);
    }
    if let Some(folder) = checker.variable("TOKENROUTE_STATE_DIR") {
        return PathBuf::from(folder);
    }
    if let Some(folder) = checker.variable("XDG_STATE_HOME") {
        return Path::new(&folder).join("tokenroute");
    }
    if let Some(home) = checker.variable("HOME") {
        return Path::new(&home).join(".local/state/tokenroute");
    }
    checker.problem("state_dir", "is missing, and neither TOKENROUTE_STATE_DIR nor HOME is set");
    PathBuf::new()
}

/// Where clients connect.
pub(super) fn listen(checker: &mut Checker<'_>, typed: &file::Listen) -> Listen {
    let address = address(checker, "listen.address", typed.address.as_deref(), LISTEN_DEFAULT);
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = match checker.size("listen.threads", typed.threads, bounds(0, 0, THREADS_MAX)) {
        0 => cores,
        threads => threads,
    };
    let tls = tls(checker, &typed.tls);
    Listen { address, h2c: typed.h2c.unwrap_or(false), threads, tls }
}

/// Where operators connect.
pub(super) fn admin(
    checker: &mut Checker<'_>,
    typed: &file::Admin,
    listen: SocketAddr,
) -> SocketAddr {
    let admin = address(checker, "admin.address", typed.address.as_deref(), ADMIN_DEFAULT);
    if admin == listen && admin.port() != 0 {
        checker.problem("admin.address", "is the same as listen.address");
    }
    admin
}

/// Names that operators may ask under.
pub(super) fn admin_hosts(checker: &mut Checker<'_>, typed: &file::Admin) -> Vec<String> {
    let hosts = typed.hosts.clone().unwrap_or_default();
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    for (place, host) in hosts.iter().enumerate() {
        if host.is_empty() || !host.bytes().all(sound) {
            checker.problem(
                format!("admin.hosts[{place}]"),
                "must be a name without a port, such as \"edge.internal\"",
            );
        }
    }
    hosts
}

/// An address with its port; port 0 takes any free one.
pub(super) fn address(
    checker: &mut Checker<'_>,
    path: &str,
    typed: Option<&str>,
    default: SocketAddr,
) -> SocketAddr {
    let Some(typed) = typed else { return default };
    typed.parse().unwrap_or_else(|_| {
        checker.problem(path, "must be an IP address and a port, such as \"127.0.0.1:8080\"");
        default
    })
}

/// The certificate, if there is to be one: both files must be there and fit each other.
fn tls(checker: &mut Checker<'_>, typed: &file::ListenTls) -> Option<Tls> {
    let (certificate, key) = match (&typed.certificate, &typed.key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return None,
        (None, Some(_)) => {
            checker.problem("listen.tls.certificate", "is missing");
            return None;
        }
        (Some(_), None) => {
            checker.problem("listen.tls.key", "is missing");
            return None;
        }
    };
    let certificate = checker.path("listen.tls.certificate", certificate);
    let key = checker.path("listen.tls.key", key);
    let chain = read::file(&certificate, PEM_BYTES_MAX).and_then(|pem| {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        chain.ok_or_else(|| format!("{} holds no PEM certificates", certificate.display()))
    });
    let signer = read::file(&key, PEM_BYTES_MAX).and_then(|pem| {
        let der = PrivateKeyDer::from_pem_slice(&pem).ok();
        let signer = der.and_then(|der| any_supported_type(&der).ok());
        signer.ok_or_else(|| format!("{} holds no PEM private key", key.display()))
    });
    match (chain, signer) {
        (Ok(chain), Ok(signer)) => {
            if CertifiedKey::new(chain, signer).keys_match().is_err() {
                checker.problem("listen.tls.key", "does not belong to the certificate");
            }
        }
        (chain, signer) => {
            for (path, error) in
                [("listen.tls.certificate", chain.err()), ("listen.tls.key", signer.err())]
            {
                if let Some(why) = error {
                    checker.problem(path, why);
                }
            }
        }
    }
    Some(Tls { certificate, key })
}

/// Where Redis is, if a field says so, and whom it is to be vouched for by.
fn redis(
    checker: &mut Checker<'_>,
    typed: &file::Address,
) -> (Option<SecretString>, Option<Vec<u8>>) {
    let authorities = authorities(checker, "redis", typed).map(|(_, pem)| pem);
    let Some((path, url)) = address_of(checker, "redis", typed) else { return (None, None) };
    if authorities.is_some() && !url.expose_secret().starts_with("rediss://") {
        checker.problem("redis.ca_file", "needs an address with TLS: write rediss://");
    } else if let Err(why) = RedisCache::trusting(url.expose_secret(), authorities.clone()) {
        checker.problem(path, format!("is {why}"));
    }
    (Some(url), authorities)
}

/// The authorities that a server's certificate must be of: their file, and what is in it.
fn authorities(
    checker: &mut Checker<'_>,
    section: &str,
    typed: &file::Address,
) -> Option<(PathBuf, Vec<u8>)> {
    let path = format!("{section}.ca_file");
    let file = checker.path(&path, typed.ca_file.as_ref()?);
    match read::file(&file, PEM_BYTES_MAX) {
        Ok(pem) if CertificateDer::pem_slice_iter(&pem).next().is_some_and(|one| one.is_ok()) => {
            return Some((file, pem));
        }
        Ok(_) => checker.problem(path, format!("{} holds no PEM certificates", file.display())),
        Err(why) => checker.problem(path, why),
    }
    None
}

/// Which database is the truth: without an address, a file in the folder of state.
fn database(checker: &mut Checker<'_>, typed: &file::Address) -> DatabasePlan {
    let ca_file = authorities(checker, "database", typed).map(|(file, _)| file);
    let Some((path, url)) = address_of(checker, "database", typed) else {
        return DatabasePlan::Sqlite;
    };
    let scheme = url.expose_secret().split_once("://").map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|scheme| ["postgres", "postgresql"].contains(&scheme)) {
        checker.problem(path, "is no address of PostgreSQL: write postgres://user@host/database");
    }
    DatabasePlan::Postgres(url, ca_file)
}

/// The address that a section names, and the setting that says it; `None` if no field says.
fn address_of(
    checker: &mut Checker<'_>,
    section: &str,
    typed: &file::Address,
) -> Option<(String, SecretString)> {
    let at = |field: &str| format!("{section}.{field}");
    let (path, url) = match (&typed.url, &typed.url_env, &typed.url_file) {
        (None, None, None) => return None,
        (Some(url), None, None) => (at("url"), Ok(url.clone())),
        (None, Some(name), None) => {
            (at("url_env"), credential::from_value(name, checker.variable(name)))
        }
        (None, None, Some(file)) => {
            let path = at("url_file");
            let file = checker.path(&path, file);
            (path, credential::from_file(&file))
        }
        (_, _, _) => {
            checker.problem(section, "has more than one of url_env, url_file and url: keep one");
            return None;
        }
    };
    match url {
        Ok(url) => Some((path, url)),
        Err(why) => {
            checker.problem(path, why);
            None
        }
    }
}

/// How a node goes down.
pub(super) fn shutdown(checker: &mut Checker<'_>, typed: &file::Shutdown) -> Shutdown {
    let second = Duration::from_secs;
    Shutdown {
        delay: checker.seconds(
            "shutdown.delay_seconds",
            typed.delay_seconds,
            bounds(second(5), Duration::ZERO, second(600)),
        ),
        streams: checker.seconds(
            "shutdown.streams_seconds",
            typed.streams_seconds,
            bounds(second(120), Duration::ZERO, second(3_600)),
        ),
    }
}

/// What is logged.
pub(super) fn log(checker: &mut Checker<'_>, typed: &file::Log) -> Log {
    let format = typed.format.as_deref();
    let level = typed.level.as_deref();
    Log {
        format: checker.word("log.format", format, &LOG_FORMATS, LogFormat::Text),
        level: checker.word("log.level", level, LOG_LEVELS, LogLevel::Info),
    }
}
