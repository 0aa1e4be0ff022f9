//! A real Redis server of the test's own, which can be stalled, killed and started again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::eventually;

pub(crate) struct RedisServer {
    process: Child,
    place: SocketAddr,
    folder: TempDir,
    durable: bool,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(false).await
    }

    /// One that has after [`Self::kill`] what it had before.
    pub(crate) async fn start_durable() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(durable: bool) -> Self {
        let place = TcpListener::bind((own_host(), 0)).unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(place, &folder, durable);
        let mut server = Self { process, place, folder, durable };
        server.answers().await;
        server
    }

    pub(crate) fn address(&self) -> String {
        format!("redis://{}", self.place)
    }

    /// It keeps its connections, and answers nothing.
    pub(crate) fn stall(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts again on the same port, with what it keeps.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(self.place, &self.folder, self.durable);
        self.answers().await;
    }

    /// What the server answers to a command.
    pub(crate) async fn ask<T: redis::FromRedisValue>(
        &self,
        words: &[&str],
    ) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.address())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let (name, rest) = words.split_first().unwrap();
        redis::cmd(name).arg(rest).query_async(&mut connection).await
    }

    async fn answers(&mut self) {
        eventually("Redis answers", async || self.ask::<String>(&["PING"]).await.is_ok()).await;
        assert!(self.process.try_wait().unwrap().is_none(), "somebody else's server answered");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A loopback address for one server alone, so that no other takes its port while it is down.
fn own_host() -> Ipv4Addr {
    static SERVERS: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high % 254 + 1, low, SERVERS.fetch_add(1, Ordering::Relaxed))
}

fn spawn(place: SocketAddr, folder: &TempDir, durable: bool) -> Child {
    Command::new("redis-server")
        .args([
            "--save",
            "",
            "--appendonly",
            if durable { "yes" } else { "no" },
            "--bind",
            &place.ip().to_string(),
        ])
        .args(["--port", &place.port().to_string()])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server must be installed: apt install redis-server")
}

/// How often edges poll in tests in which only Redis may bring the news.
pub(crate) const NEVER: Duration = Duration::from_hours(1);
