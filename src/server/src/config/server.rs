//! Checks the sections that are about the node itself: addresses, limits, shutdown, logs, state.

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

use super::check::{Checker, bounds};
use super::plan::{Limits, Listen, Log, LogFormat, LogLevel, Shutdown, Tls};
use super::{credential, file, read};

const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
const THREADS_MAX: u64 = 1024;
const PEM_BYTES_MAX: u64 = 1024 * 1024;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The folder of state: as typed, or the usual place.
pub(super) fn state_dir(checker: &mut Checker<'_>, file: &file::File) -> PathBuf {
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

/// An address with its port; port 0 takes any free one.
fn address(
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
                error.into_iter().for_each(|why| checker.problem(path, why));
            }
        }
    }
    Some(Tls { certificate, key })
}

/// Where Redis is; `None` if no field says.
pub(super) fn redis_url(checker: &mut Checker<'_>, typed: &file::Redis) -> Option<SecretString> {
    let (path, url) = match (&typed.url, &typed.url_env, &typed.url_file) {
        (None, None, None) => return None,
        (Some(url), None, None) => ("redis.url", Ok(url.clone())),
        (None, Some(name), None) => {
            ("redis.url_env", credential::from_value(name, checker.variable(name)))
        }
        (None, None, Some(file)) => {
            let file = checker.path("redis.url_file", file);
            ("redis.url_file", credential::from_file(&file))
        }
        (_, _, _) => {
            checker.problem("redis", "has more than one of url_env, url_file and url: keep one");
            return None;
        }
    };
    let known = |url: &SecretString| {
        let text = url.expose_secret();
        ["redis://", "unix://", "redis+unix://"].into_iter().any(|scheme| {
            text.strip_prefix(scheme).is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic())
            })
        })
    };
    match url {
        Ok(url) if known(&url) => Some(url),
        Ok(_) => {
            checker.problem(path, "must start with redis:// or unix://, and hold no spaces");
            None
        }
        Err(why) => {
            checker.problem(path, why);
            None
        }
    }
}

/// Bounds of calls and connections.
pub(super) fn limits(checker: &mut Checker<'_>, typed: &file::Limits) -> Limits {
    let second = Duration::from_secs;
    let time = |default| bounds(second(default), Duration::from_millis(10), second(3_600));
    let limits = Limits {
        body_bytes_max: checker.count(
            "limits.body_bytes_max",
            typed.body_bytes_max,
            bounds(32 * MIB, 1, GIB),
        ),
        stream_after_bytes: checker.count(
            "limits.stream_after_bytes",
            typed.stream_after_bytes,
            bounds(MIB, 0, GIB),
        ),
        replay_bytes_max: checker.count(
            "limits.replay_bytes_max",
            typed.replay_bytes_max,
            bounds(8 * MIB, 0, GIB),
        ),
        buffered_bytes_max: checker.count(
            "limits.buffered_bytes_max",
            typed.buffered_bytes_max,
            bounds(512 * MIB, MIB, 1024 * GIB),
        ),
        head_bytes_max: checker.size(
            "limits.head_bytes_max",
            typed.head_bytes_max,
            bounds(64 * KIB, KIB, MIB),
        ),
        headers_max: checker.size("limits.headers_max", typed.headers_max, bounds(100, 10, 256)),
        target_bytes_max: checker.size(
            "limits.target_bytes_max",
            typed.target_bytes_max,
            bounds(8 * KIB, 256, 64 * KIB),
        ),
        calls_in_flight_max: checker.size(
            "limits.calls_in_flight_max",
            typed.calls_in_flight_max,
            bounds(10_000, 1, 1_000_000),
        ),
        records_max: checker.size(
            "limits.records_max",
            typed.records_max,
            bounds(65_536, 1, 1_000_000),
        ),
        connections_max: checker.size(
            "limits.connections_max",
            typed.connections_max,
            bounds(10_000, 1, 1_000_000),
        ),
        requests_per_connection_max: requests_per_connection_max(checker, typed),
        body: checker.seconds("limits.body_seconds", typed.body_seconds, time(300)),
        body_stall: checker.seconds(
            "limits.body_stall_seconds",
            typed.body_stall_seconds,
            time(30),
        ),
        write_stall: checker.seconds(
            "limits.write_stall_seconds",
            typed.write_stall_seconds,
            time(60),
        ),
        keepalive: checker.seconds(
            "limits.keepalive_seconds",
            typed.keepalive_seconds,
            bounds(second(60), second(1), second(3_600)),
        ),
    };
    if limits.stream_after_bytes > limits.body_bytes_max {
        checker.problem("limits.stream_after_bytes", "must not exceed limits.body_bytes_max");
    }
    if limits.body_bytes_max > limits.buffered_bytes_max {
        checker.problem("limits.buffered_bytes_max", "must not be below limits.body_bytes_max");
    }
    limits
}

fn requests_per_connection_max(checker: &mut Checker<'_>, typed: &file::Limits) -> u32 {
    let count = checker.count(
        "limits.requests_per_connection_max",
        typed.requests_per_connection_max,
        bounds(1_000, 1, 1_000_000),
    );
    u32::try_from(count).unwrap_or(u32::MAX)
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
        format: checker.word("log.format", format, LogFormat::WORDS, LogFormat::Text),
        level: checker.word("log.level", level, LogLevel::WORDS, LogLevel::Info),
    }
}
