//! What is asked of an external issuer, over HTTP: short answers, soon, from where it was said and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// The whole of one request and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;
/// Requests at the same time.
const REQUESTS_MAX: usize = 4;

/// Why there is no answer. For the log: it holds no more than the issuer's own address and words of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0} is neither an https:// URL nor an http:// one to this machine")]
    Address(String),
    #[error("{url}: {error}")]
    Request { url: String, error: String },
    #[error(transparent)]
    Database(#[from] tokenroute_store::Error),
    #[error("the request broke off")]
    Gone,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    agent: Agent,
    room: Arc<Semaphore>,
}

impl Fetcher {
    pub(super) fn new() -> Self {
        // Said here, because several are built in and a process has no default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(PATIENCE))
            // An issuer's answer is where it says; who leads elsewhere is not followed.
            .max_redirects(0)
            .max_redirects_will_error(true)
            // Variables of the environment are read by the configuration alone.
            .proxy(None)
            .max_idle_connections(0)
            .user_agent(concat!("tokenroute/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), room: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    /// The answer to a GET, if it is 200.
    pub(super) async fn get(&self, url: &str, bearer: Option<&str>) -> Result<Vec<u8>, Failure> {
        if !is_safe(url) {
            return Err(Failure::Address(url.to_owned()));
        }
        let permit =
            Arc::clone(&self.room).acquire_owned().await.map_err(|_closed| Failure::Gone)?;
        let (agent, url) = (self.agent.clone(), url.to_owned());
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let asking = tokio::task::spawn_blocking(move || {
            let answer = ask(&agent, &url, bearer.as_deref());
            drop(permit);
            answer.map_err(|error| Failure::Request { url, error: error.to_string() })
        });
        asking.await.map_err(|_broken| Failure::Gone)?
    }
}

fn ask(agent: &Agent, url: &str, bearer: Option<&str>) -> Result<Vec<u8>, ureq::Error> {
    let mut request = agent.get(url).header("accept", "application/json");
    if let Some(bearer) = bearer {
        request = request.header("authorization", bearer);
    }
    let answer = request.call()?;
    if answer.status() != 200 {
        return Err(ureq::Error::StatusCode(answer.status().as_u16()));
    }
    answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec()
}

/// Whether what travels there is nobody else's to read: TLS, or this machine.
pub(super) fn is_safe(url: &str) -> bool {
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"@\\".contains(&byte));
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _port)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let near = address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let near = near || host == "localhost" || authority == "[::1]";
    plain && !host.is_empty() && (scheme == "https" || (scheme == "http" && near))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_travel_by_tls_or_not_at_all() {
        for safe in [
            "https://issuer.example/oidc",
            "https://issuer.example:8443/jwks?x=1",
            "http://127.0.0.1:9000/jwks",
            "http://localhost/jwks",
            "http://[::1]:80/jwks",
            "http://[::1]/jwks",
        ] {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_one in [
            "http://issuer.example/jwks",
            "http://127.0.0.1.evil.example/jwks",
            "http://127.0.0.1@evil.example/jwks",
            "http://localhost.evil.example/",
            "http://evil.example/127.0.0.1",
            "file:///etc/passwd",
            "https://",
            "https:///path",
            "https://a b/",
            "issuer.example",
            "",
        ] {
            assert!(!is_safe(unsafe_one), "{unsafe_one}");
        }
    }
}
