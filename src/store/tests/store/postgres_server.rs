//! A real PostgreSQL server for this process, on a socket in a folder of its own, with a database a test.

use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::migrate::MigrateDatabase;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

/// How long a busy machine may take to set up a server.
const SET_UP: Duration = Duration::from_mins(2);

/// Sets up a server in `$1` and runs it until standard input ends, as it does with this process however
/// that ends; then nothing is left of it. As root it runs as somebody else, which the server insists on.
const SCRIPT: &str = r#"
set -eu
# What stops the tests must not stop the tidying up after them.
trap '' HUP INT TERM
folder=$1
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)"
bin=$(dirname "$(readlink -f "$(command -v postgres)")")
as=
if [ "$(id -u)" = 0 ]; then
    user=postgres; id "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$folder"
    as="setpriv --reuid=$user --regid=$(id -g "$user") --clear-groups"
fi
cd "$folder"
$as "$bin/initdb" -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >log 2>&1
# Detached from our standard input, whose end is what stops it.
$as "$bin/postgres" -D data -k "$folder" -c listen_addresses= -c max_connections=400 \
    -c fsync=off -c shared_buffers=32MB >>log 2>&1 </dev/null &
server=$!
read -r _ || true
kill -QUIT "$server" 2>/dev/null || true
wait "$server" || true
rm -rf "$folder"
"#;

struct Server {
    folder: std::path::PathBuf,
    /// Held open as long as this process lives.
    _alive: ChildStdin,
    _script: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let folder = TempDir::with_prefix("pg-").unwrap().keep();
        let mut script = Command::new("sh")
            .args(["-c", SCRIPT, "postgres"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        let alive = script.stdin.take().unwrap();
        Server { folder, _alive: alive, _script: script }
    })
}

fn options(name: &str) -> PgConnectOptions {
    PgConnectOptions::new().socket(&server().folder).username("postgres").database(name)
}

/// A connection to a database of the server, waiting for it to be set up.
pub(crate) async fn connection(name: &str) -> PgConnection {
    let start = std::time::Instant::now();
    loop {
        match options(name).connect().await {
            Ok(connection) => return connection,
            Err(error) => assert!(
                start.elapsed() < SET_UP,
                "PostgreSQL must be installed (apt install postgresql): {error}; see {}",
                server().folder.join("log").display()
            ),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The name of a new, empty database.
pub(crate) async fn create() -> String {
    static DATABASES: AtomicU32 = AtomicU32::new(1);
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    connection("postgres").await.close().await.unwrap();
    sqlx::Postgres::create_database(&url(&name)).await.unwrap();
    name
}

/// The address of a database.
pub(crate) fn url(name: &str) -> String {
    let folder = server().folder.to_str().unwrap().replace('/', "%2F");
    format!("postgres://postgres@{folder}/{name}")
}
