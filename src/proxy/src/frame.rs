//! The frame of calls: a connection's requests one after the other, over Pingora's sessions. HTTP/2
//! connections are Pingora's own; each of their streams is a session as well.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::TRANSFER_ENCODING;
use pingora_core::apps::{
    HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp,
};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::server::ShutdownWatch;
use tokenroute_domain::admission::Refusal;
use tokio::sync::watch;

use crate::accept;
use crate::floods::Watch;
use crate::gateway::Gateway;
use crate::patience::{Patient, Progress};

/// For one read of a connection's first head. [`Patient`] loses its patience earlier.
const READ_SECONDS: u64 = 60;

/// How connections are kept.
#[derive(Debug)]
pub struct Settings {
    /// Whether HTTP/2 is spoken without TLS to clients that begin with it.
    pub h2c: bool,
    /// Requests until a connection is closed, or its client told to make another one.
    pub requests_max: u32,
    /// What HTTP/2 connections are told.
    pub http2: H2Options,
    /// After which an HTTP/2 connection without a stream is closed.
    pub http2_idle: Duration,
}

/// Serves connections with a gateway.
pub struct Frame {
    gateway: Arc<Gateway>,
    h2c: bool,
    requests_max: u32,
    http2: Arc<Http2>,
}

impl Frame {
    /// The frame of `gateway`'s calls.
    pub fn new(gateway: Gateway, settings: Settings) -> Self {
        let Settings { h2c, requests_max, http2: told, http2_idle } = settings;
        let gateway = Arc::new(gateway);
        let mut options = HttpServerOptions::default();
        // Whoever is passed on to it speaks HTTP/2.
        options.h2c = true;
        options.h2_idle_timeout = Some(http2_idle);
        let http2 = Arc::new(Http2 { gateway: Arc::clone(&gateway), options, told });
        Self { gateway, h2c, requests_max, http2 }
    }

    /// One request after the other, until the connection is not to be used any more.
    async fn serve_http1(&self, stream: Patient, progress: &Progress, leaving: &ShutdownWatch) {
        let mut closing = self.gateway.lifecycle().closing();
        let mut session = ServerSession::new_http1(Box::new(stream));
        session.set_keepalive((!*leaving.borrow()).then_some(READ_SECONDS));
        session.set_keepalive_reuses_remaining(Some(self.requests_max));
        loop {
            let read = tokio::select! {
                // What has come already is served.
                biased;
                read = session.read_request() => read,
                () = closing.wait() => return,
            };
            let begun = match read {
                Ok(true) => begin(&session, progress),
                Ok(false) => return,
                Err(error) => Err(accept::unreadable(&error, progress.tried())),
            };
            if let Err(refusal) = begun {
                return self.gateway.unreadable(&mut session, refusal).await;
            }
            // On the heap for its own time only: a connection between two requests does not hold its room.
            let served = Box::pin(exchange(&self.gateway, session, leaving)).await;
            let Some((stream, settings)) = served.map(ReusedHttpStream::consume) else { return };
            progress.kept();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }

    /// Streams beside each other, until the client leaves, or has done nothing for long, or floods us.
    async fn serve_http2(&self, mut stream: Patient, progress: &Progress, leaving: &ShutdownWatch) {
        let leave = watch::Sender::new(false);
        stream.watch(Watch::new(self.requests_max, leave.clone()));
        let told = leave.subscribe();
        let mut leaving = leaving.clone();
        tokio::select! {
            biased;
            () = async {
                if leaving.changed().await.is_ok() {
                    leave.send_replace(true);
                }
                std::future::pending::<()>().await;
            } => {}
            _ = self.http2.process_new(Box::new(stream), &told) => {}
        }
        if progress.is_flooded() {
            self.gateway.note_flood();
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("h2c", &self.h2c).finish_non_exhaustive()
    }
}

#[async_trait]
impl ServerApp for Frame {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        leaving: &ShutdownWatch,
    ) -> Option<Stream> {
        let progress = Progress::default();
        let mut stream = Patient::new(stream, self.gateway.waits(), progress.clone());
        if stream.speaks_http2(self.h2c).await.ok()? {
            self.serve_http2(stream, &progress, leaving).await;
            None
        } else {
            self.serve_http1(stream, &progress, leaving).await;
            None
        }
    }
}

/// Says that a head is complete, and looks at what has come of the body if there are chunks to look at.
fn begin(session: &ServerSession, progress: &Progress) -> Result<(), Option<Refusal>> {
    let chunked = session.req_header().headers.contains_key(TRANSFER_ENCODING);
    let Some(http1) = session.as_http1().filter(|_| chunked) else {
        progress.serving();
        return Ok(());
    };
    let raw = http1.get_headers_raw_bytes();
    // If the head is no better, it is the one to be told of.
    let told = || accept::flaw(&raw).unwrap_or(Refusal::BadRequest);
    progress.chunked(raw.len()).map_err(|_| Some(told()))
}

/// A request whose head has been read. `None` if its connection must not be used again.
async fn exchange(
    gateway: &Gateway,
    mut session: ServerSession,
    leaving: &ShutdownWatch,
) -> Option<ReusedHttpStream> {
    if *leaving.borrow() {
        session.set_keepalive(None);
    }
    gateway.answer(&mut session).await.ok()?;
    let settings = HttpPersistentSettings::for_session(&session);
    let stream = session.finish().await.ok()??;
    Some(ReusedHttpStream::from_reusable_stream(stream, settings))
}

/// What Pingora asks of those whose HTTP/2 connections it keeps.
struct Http2 {
    gateway: Arc<Gateway>,
    options: HttpServerOptions,
    told: H2Options,
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        leaving: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // Its head is what it begins with.
        session.read_request().await.is_ok_and(|read| read).then_some(())?;
        exchange(&self.gateway, session, leaving).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.told.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
