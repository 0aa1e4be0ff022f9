//! Pingora's application for clients: it reads a request's head, has the gateway serve it, and keeps the
//! connection for the next one. A `ProxyHttp` in between would do nothing here but make each call larger.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use pingora_core::apps::{
    HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream,
};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use pingora_core::{Error, ErrorType};
use tokio::sync::watch;

use crate::gateway::Gateway;

/// What clients connect to.
pub struct Edge {
    gateway: Gateway,
    options: HttpServerOptions,
    h2: H2Options,
    /// Turns true when connections that wait for a request are to close.
    closing: watch::Sender<bool>,
}

impl Edge {
    /// The gateway, on connections with these bounds.
    pub fn new(gateway: Gateway, options: HttpServerOptions, h2: H2Options) -> Self {
        Self { gateway, options, h2, closing: watch::Sender::new(false) }
    }

    /// Reads the next request's head; `false` if there is none, and the connection is to close.
    async fn read_head(&self, session: &mut ServerSession) -> bool {
        let mut closing = self.closing.subscribe();
        let read = tokio::select! {
            biased;
            read = session.read_request() => read,
            _ = closing.wait_for(|closing| *closing) => return false,
        };
        match read {
            Ok(read) => read,
            Err(error) => {
                refuse(session, &error).await;
                false
            }
        }
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

/// Answers what is no request. What else can go wrong with a head leaves nobody to answer.
async fn refuse(session: &mut ServerSession, error: &Error) {
    if *error.etype() == ErrorType::InvalidHTTPHeader {
        // A client that does not read it has left.
        let _answered = session.respond_error(400).await;
    }
    session.shutdown().await;
}

#[async_trait]
impl HttpServerApp for Edge {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !self.read_head(&mut session).await {
            return None;
        }
        if session.req_header().method == Method::CONNECT {
            // A tunnel has a framing of its own (RFC 9110, 9.3.6).
            let _answered = session.respond_error(405).await;
            session.shutdown().await;
            return None;
        }
        if *shutdown.borrow() {
            session.set_keepalive(None);
        }
        if let Err(broken) = self.gateway.answer(&mut session).await {
            session.on_proxy_failure(broken);
            return None;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok().flatten()?;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }

    async fn http_cleanup(&self) {
        self.closing.send_replace(true);
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }
}
