//! `/healthz`, `/readyz` and `/metrics`, on an address of their own.

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::outbox::Outbox;

/// The admin pages. They read; nothing can be changed here.
#[derive(Debug)]
pub struct Admin {
    /// Whether calls are taken.
    pub lifecycle: Lifecycle,
    /// What is counted.
    pub metrics: Metrics,
    /// Whose free slots are told.
    pub outbox: Outbox,
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
                (StatusCode::OK, prometheus::TEXT_FORMAT, self.metrics.encode())
            }
            (&Method::GET, _) => (StatusCode::NOT_FOUND, TEXT, "not found\n".into()),
            _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "method not allowed\n".into()),
        }
    }
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
