//! `/healthz`, `/readyz`, `/metrics` and `/admin/targets`, on an address of their own.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v1::server::HttpSession;

use tokenroute_domain::routing::{Failure, Standing};
use tokenroute_wire::head::{self, Flaw};

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::snapshot::Snapshot;

/// What plain pages are.
const TEXT: &str = "text/plain; charset=utf-8";

/// Status, type and text.
type Page = (StatusCode, &'static str, String);

/// The admin pages. They read; nothing can be changed here.
#[derive(Debug)]
pub struct Admin {
    /// Whether calls are taken.
    pub lifecycle: Lifecycle,
    /// What is counted.
    pub metrics: Metrics,
    /// Whose free slots are told.
    pub outbox: Outbox,
    /// The table whose targets are told.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Names that the pages may be asked for under, beside IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

impl Admin {
    /// What a request is answered, whose head is held against the same reading as a client's.
    fn answer(&self, session: &ServerSession) -> Page {
        let head = session.req_header();
        let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
        let raw = session.as_http1().map(HttpSession::get_headers_raw_bytes);
        let flaw = raw.and_then(|raw| head::read(&raw).err());
        match (flaw, host) {
            // Health checks in HTTP/1.0 know no host. Browsers, which can be lured, do.
            (Some(Flaw::Host), None) if head.version == Version::HTTP_10 => {}
            (Some(_), _) => return (StatusCode::BAD_REQUEST, TEXT, "bad request\n".into()),
            (None, host) if !self.knows(host.unwrap_or_default()) => {
                return (
                    StatusCode::MISDIRECTED_REQUEST,
                    TEXT,
                    "not a name in [admin] hosts\n".into(),
                );
            }
            (None, _) => {}
        }
        self.page(&head.method, head.uri.path())
    }

    /// Whether a host is an IP address, `localhost` or one of ours, with a port or without.
    fn knows(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        if host.parse::<SocketAddr>().is_ok() || host.parse::<Ipv4Addr>().is_ok() {
            return true;
        }
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let name = host.split(':').next().unwrap_or_default();
        bracketed.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    fn page(&self, method: &Method, path: &str) -> Page {
        match (method, path) {
            (&Method::GET, "/healthz") => (StatusCode::OK, TEXT, "ok\n".into()),
            (&Method::GET, "/readyz") if !self.lifecycle.wants_traffic() => {
                (StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n".into())
            }
            (&Method::GET, "/readyz") => (StatusCode::OK, TEXT, "ready\n".into()),
            (&Method::GET, "/metrics") => {
                let free = i64::try_from(self.outbox.free()).unwrap_or(i64::MAX);
                self.metrics.outbox_free.set(free);
                self.snapshot.load().targets().iter().for_each(|target| target.tell_state());
                (StatusCode::OK, prometheus::TEXT_FORMAT, self.metrics.encode())
            }
            (&Method::GET, "/admin/targets") => {
                (StatusCode::OK, "application/json", targets(&self.snapshot.load()))
            }
            (&Method::GET, _) => (StatusCode::NOT_FOUND, TEXT, "not found\n".into()),
            _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "method not allowed\n".into()),
        }
    }
}

/// How a target stands, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// `provider/model`.
    pub name: Arc<str>,
    /// `closed`, `open`, `half_open`, `cooling` or `benched`.
    pub state: &'static str,
    /// How long it is left alone from now on; zero where nobody knows.
    pub left: Duration,
    /// Whether another edge says that it is off.
    pub hinted: bool,
    /// Attempts under way.
    pub outstanding: u32,
    /// Its usual time to the first token.
    pub latency: Duration,
    /// How many of a thousand attempts failed lately.
    pub failing_permille: u32,
    /// Attempts so far.
    pub attempts: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Why the last one failed.
    pub last_failure: Option<&'static str>,
}

/// How each target stands: the configured ones, and what wildcards were filled in with where there is
/// anything to tell.
pub fn standings(snapshot: &Snapshot) -> Vec<Told> {
    let filled = snapshot.targets().iter().flat_map(|target| target.remarkable());
    let all = snapshot.targets().iter().cloned().chain(filled);
    let told = all.map(|target| {
        let outlook = target.outlook();
        let (state, left) = match outlook.standing {
            Standing::Closed => ("closed", None),
            Standing::HalfOpen => ("half_open", None),
            Standing::Open { left } if target.last_failure() == Some(Failure::Credential) => {
                ("benched", Some(left))
            }
            Standing::Open { left } => ("open", Some(left)),
            Standing::Cooling { left } => ("cooling", Some(left)),
        };
        let (attempts, failures) = target.counts();
        Told {
            name: Arc::clone(&target.name),
            state,
            // Until its probe has told, nobody knows.
            left: left.filter(|left| *left != Duration::MAX).unwrap_or_default(),
            hinted: outlook.hinted,
            outstanding: outlook.outstanding,
            latency: Duration::from_micros(outlook.latency_micros),
            failing_permille: outlook.failing_permille,
            attempts,
            failures,
            last_failure: target.last_failure().map(Failure::as_str),
        }
    });
    told.collect()
}

/// How each target stands, as a JSON object.
fn targets(snapshot: &Snapshot) -> String {
    let mut page = format!("{{\"generation\":{},\"targets\":[", snapshot.generation());
    for (place, target) in standings(snapshot).iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let last = target.last_failure.map_or("null".into(), |word| format!("\"{word}\""));
        // Names of targets are of letters, digits and -_.:/@+* alone, so they stand as they are.
        let _written = write!(
            page,
            "{comma}{{\"name\":\"{}\",\"provider\":\"{}\",\"state\":\"{}\",\"left_ms\":{},\"hinted\":{},\
             \"outstanding\":{},\"latency_ms\":{},\"failing_permille\":{},\"attempts\":{},\
             \"failures\":{},\"last_failure\":{last}}}",
            target.name,
            target.name.split('/').next().unwrap_or_default(),
            target.state,
            target.left.as_millis(),
            target.hinted,
            target.outstanding,
            target.latency.as_millis(),
            target.failing_permille,
            target.attempts,
            target.failures,
        );
    }
    page.push_str("]}\n");
    page
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let (status, kind, body) = self.answer(session);
        if status == StatusCode::BAD_REQUEST {
            session.set_keepalive(None);
        }
        let length = body.len().into();
        let mut response = Response::new(body.into_bytes());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, length);
        response
    }
}
