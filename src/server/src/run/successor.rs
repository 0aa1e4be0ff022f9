//! The process that takes this one's place: started from the same file, with the same sockets, and
//! waited for until it serves.

use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::sockets::{NAMES, PREDECESSOR, READY, Sockets};

/// For a successor to serve: it opens the database, which may have to be migrated.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long one that says that it serves must have lived on to be believed.
const SETTLED: Duration = Duration::from_millis(100);
/// The first number of an inherited descriptor, by systemd's protocol.
const FIRST: RawFd = 3;
/// The longest reason that is read.
const REASON_BYTES_MAX: u64 = 16 * 1024;

/// How this process was started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The program of this process. To be called at its start: later the file may be another.
    pub(super) fn of_process() -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        // As it was typed, so that a symbolic link is followed again. Without a slash it was searched
        // for, and what was found is known only with its links resolved.
        let typed =
            arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let path = typed.map_or_else(std::env::current_exe, Ok)?;
        Ok(Self { path, arguments: arguments.collect() })
    }
}

/// A successor that does not serve yet. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Successor {
    child: Option<Child>,
    word: UnixStream,
}

impl Successor {
    /// Starts it.
    pub(super) fn start(program: &Program, sockets: &Sockets) -> io::Result<Self> {
        let (word, theirs) = StdStream::pair()?;
        let mut given = sockets.copies()?;
        given.push((PREDECESSOR, OwnedFd::from(theirs)));
        let names: Vec<_> = given.iter().map(|(name, _)| *name).collect();
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env("LISTEN_FDS", given.len().to_string())
            .env(NAMES, names.join(":"))
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS_FIRST_FD");
        let mappings = (FIRST..)
            .zip(given)
            .map(|(child_fd, (_, parent_fd))| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect()).map_err(io::Error::other)?;
        word.set_nonblocking(true)?;
        let word = UnixStream::from_std(word)?;
        // With `command` the copies go, so that the end of the child is heard.
        Ok(Self { child: Some(command.spawn()?), word })
    }

    /// Waits until it serves, at most `within`, and returns its process ID. Else it is ended, and the
    /// error says why.
    pub(super) async fn serve(mut self, within: Duration) -> Result<u32, String> {
        let mut said = Vec::new();
        let mut word = (&mut self.word).take(REASON_BYTES_MAX);
        let Ok(read) = timeout(within, word.read_to_end(&mut said)).await else {
            return Err(format!("it did not serve within {} s", within.as_secs_f32()));
        };
        let said = String::from_utf8_lossy(&said);
        let Some(mut child) = self.child.take() else {
            return Err("it was ended".to_owned());
        };
        if read.is_ok() && said == READY {
            // One whose end closed its word is not gone yet.
            tokio::time::sleep(SETTLED).await;
            if matches!(child.try_wait(), Ok(None)) {
                return Ok(child.id());
            }
        }
        let end = end(&mut child);
        Err(if said.is_empty() || said == READY { end } else { said.trim_end().to_owned() })
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }
}

/// Ends a child; tells how it ended, or had ended before.
fn end(child: &mut Child) -> String {
    // One that has ended already cannot be ended; waiting for it is what remains.
    child.kill().unwrap_or_default();
    child.wait().map_or_else(|error| error.to_string(), |status| format!("it ended: {status}"))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::time::Instant;

    use super::super::sockets::Socket;
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// Sockets, each with an address that the system chose.
    fn sockets() -> Sockets {
        let open = || {
            let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            Socket { address: listener.local_addr().unwrap(), listener, named: true }
        };
        Sockets { edge: open(), admin: open(), control: None }
    }

    fn start(script: &str) -> Successor {
        let arguments = ["-c", script].map(OsString::from).to_vec();
        Successor::start(&Program { path: "/bin/sh".into(), arguments }, &sockets()).unwrap()
    }

    fn is_running(process: u32) -> bool {
        std::path::Path::new(&format!("/proc/{process}")).exists()
    }

    #[tokio::test]
    async fn it_is_given_what_it_is_told_of() {
        let script = r#"test -S /proc/self/fd/3 && test -S /proc/self/fd/4 && test -S /proc/self/fd/5 &&
            ! test -e /proc/self/fd/6 && echo "$LISTEN_FDS $LISTEN_FDNAMES $LISTEN_PID." >&5"#;
        let why = start(script).serve(LONG).await.unwrap_err();
        assert_eq!(why, "3 edge:admin:predecessor .");
    }

    #[tokio::test]
    async fn one_that_serves_is_left_alone() {
        let process =
            start("printf ready >&5; exec 5>&-; exec sleep 30").serve(LONG).await.unwrap();
        assert!(is_running(process));
        let pid = rustix::process::Pid::from_raw(process.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn one_that_ends_has_failed_whatever_it_said() {
        assert_eq!(start("exit 3").serve(LONG).await.unwrap_err(), "it ended: exit status: 3");
        assert_eq!(start("echo no >&5; sleep 0.1").serve(LONG).await.unwrap_err(), "no");
        let said_so = start("printf ready >&5").serve(LONG).await;
        assert_eq!(said_so.unwrap_err(), "it ended: exit status: 0");
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended() {
        let successor = start("exec sleep 30");
        let process = successor.child.as_ref().unwrap().id();
        let began = Instant::now();
        let why = successor.serve(Duration::from_millis(50)).await.unwrap_err();
        assert!(why.contains("within 0.05 s"), "{why}");
        assert!(began.elapsed() < LONG && !is_running(process));
    }

    #[tokio::test]
    async fn one_that_nobody_waits_for_is_ended() {
        let successor = start("exec sleep 30");
        let process = successor.child.as_ref().unwrap().id();
        drop(successor);
        assert!(!is_running(process));
    }
}
