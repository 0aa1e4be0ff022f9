//! `/healthz`, `/readyz`, `/metrics` and `/admin/targets`, on an address of their own.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

use tokenroute_domain::routing::{Failure, Standing};

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::snapshot::Snapshot;

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
}

impl Admin {
    fn page(&self, method: &Method, path: &str) -> (StatusCode, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
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

/// How each target stands, as a JSON object.
fn targets(snapshot: &Snapshot) -> String {
    let mut page = format!("{{\"generation\":{},\"targets\":[", snapshot.generation());
    let filled = snapshot.targets().iter().flat_map(|target| target.remarkable());
    let targets: Vec<_> = snapshot.targets().iter().cloned().chain(filled).collect();
    for (place, target) in targets.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
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
        let last =
            target.last_failure().map_or("null".into(), |one| format!("\"{}\"", one.as_str()));
        // Names of targets are of letters, digits and -_.:/@+* alone, so they stand as they are.
        let _written = write!(
            page,
            "{comma}{{\"name\":\"{}\",\"provider\":\"{}\",\"state\":\"{state}\",\"left_ms\":{},\"hinted\":{},\
             \"outstanding\":{},\"latency_ms\":{},\"failing_permille\":{},\"attempts\":{attempts},\
             \"failures\":{failures},\"last_failure\":{last}}}",
            target.name,
            target.name.split('/').next().unwrap_or_default(),
            // Until its probe has told, nobody knows.
            left.filter(|left| *left != Duration::MAX).unwrap_or_default().as_millis(),
            outlook.hinted,
            outlook.outstanding,
            outlook.latency_micros / 1_000,
            outlook.failing_permille,
        );
    }
    page.push_str("]}\n");
    page
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        let (status, kind, body) = self.page(&head.method, head.uri.path());
        let length = body.len().into();
        let mut response = Response::new(body.into_bytes());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, length);
        response
    }
}
