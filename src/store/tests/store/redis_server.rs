//! A real Redis server of the test's own, which can be stalled, killed and started again.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::eventually;

pub(crate) struct RedisServer {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let server = Self { process: spawn(port, &folder), port, folder };
        server.answers().await;
        server
    }

    pub(crate) fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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

    /// Starts again on the same port, with nothing kept.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(self.port, &self.folder);
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

    async fn answers(&self) {
        eventually("Redis answers", async || self.ask::<String>(&["PING"]).await.is_ok()).await;
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

fn spawn(port: u16, folder: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
        .arg(port.to_string())
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server must be installed: apt install redis-server")
}

/// How often edges poll in tests in which only Redis may bring the news.
pub(crate) const NEVER: Duration = Duration::from_hours(1);
