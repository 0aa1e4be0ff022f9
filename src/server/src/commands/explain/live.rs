//! How targets stand in a node that runs: its page `/admin/targets`, read within a deadline and a bound.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokenroute_domain::routing::{Outlook, Standing};

/// What asking a node may take in all: it is on this machine, or next to it.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Longest answer: ten thousand targets take about three million bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Read at once.
const PART_BYTES: usize = 16 * 1024;

/// A target of which nothing bad is known.
pub(super) const WELL: Outlook = Outlook {
    standing: Standing::Closed,
    hinted: false,
    outstanding: 0,
    latency_micros: 0,
    failing_permille: 0,
};

/// What a node says.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub(super) struct Page {
    /// Which of its tables this is of.
    pub generation: u64,
    targets: Vec<Live>,
}

/// What a node says of one target. Fields that it does not know are left at nothing, so that an older or
/// newer node is understood too.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default)]
pub(super) struct Live {
    pub name: String,
    /// `closed`, `half_open`, `open`, `cooling` or `benched`.
    pub state: String,
    /// Until it takes calls again; where nobody knows, too large for a whole number.
    left_ms: Option<f64>,
    pub hinted: bool,
    pub outstanding: u32,
    pub latency_ms: u64,
    pub failing_permille: u32,
    pub attempts: u64,
    pub failures: u64,
    pub last_failure: Option<String>,
}

impl Page {
    pub(super) fn find(&self, name: &str) -> Option<&Live> {
        self.targets.iter().find(|target| target.name == name)
    }
}

impl Live {
    /// One that nobody has asked yet.
    pub(super) fn fresh(name: &str) -> Self {
        Self { name: name.to_owned(), state: "closed".to_owned(), ..Self::default() }
    }

    /// How long it takes no calls; `None`: it takes them, or nobody knows.
    pub(super) fn left(&self) -> Option<Duration> {
        let left = Duration::try_from_secs_f64(self.left_ms? / 1_000.0).ok()?;
        (!left.is_zero()).then_some(left)
    }

    /// The same as the rule wants to know it. What a state means that we do not know, nobody knows.
    pub(super) fn outlook(&self) -> Outlook {
        let left = self.left().unwrap_or(Duration::MAX);
        let standing = match self.state.as_str() {
            "half_open" => Standing::HalfOpen,
            "open" | "benched" => Standing::Open { left },
            "cooling" => Standing::Cooling { left },
            _ => Standing::Closed,
        };
        Outlook {
            standing,
            hinted: self.hinted,
            outstanding: self.outstanding,
            latency_micros: self.latency_ms.saturating_mul(1_000),
            failing_permille: self.failing_permille,
        }
    }
}

/// Asks the node whose admin address this is, and waits so long for its answer.
pub(super) fn ask(address: SocketAddr, within: Duration) -> anyhow::Result<Page> {
    read(&exchange(address, within)?)
}

/// The whole answer to a request in HTTP/1.0, after which the node closes the connection.
fn exchange(address: SocketAddr, within: Duration) -> anyhow::Result<Vec<u8>> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, within).context("no node answers")?;
    stream.set_write_timeout(Some(within))?;
    write!(
        stream,
        "GET /admin/targets HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut part = vec![0; PART_BYTES];
    while !is_whole(&answer) {
        let left = within.saturating_sub(start.elapsed());
        ensure!(!left.is_zero(), "the node does not answer in time");
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut part).context("the node does not answer")?;
        let Some(read) = part.get(..count).filter(|read| !read.is_empty()) else { break };
        answer.extend_from_slice(read);
        let bytes_max = if split(&answer).is_some() { ANSWER_BYTES_MAX } else { HEAD_BYTES_MAX };
        ensure!(answer.len() <= bytes_max, "the node's answer is too long");
    }
    Ok(answer)
}

/// Whether a body of the announced length is there, in case that the connection stays open.
fn is_whole(answer: &[u8]) -> bool {
    let Some((head, body)) = split(answer) else { return false };
    let length = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}

fn split(answer: &[u8]) -> Option<(&str, &[u8])> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).take(HEAD_BYTES_MAX).position(|some| some == END)?;
    let (head, rest) = answer.split_at(end);
    Some((std::str::from_utf8(head).ok()?, rest.strip_prefix(END)?))
}

/// What an answer says.
fn read(answer: &[u8]) -> anyhow::Result<Page> {
    let Some((head, body)) = split(answer) else { bail!("the node does not speak HTTP") };
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "the node does not tell how its targets stand: status {status:.3}");
    serde_json::from_slice(body).context("the node does not tell how its targets stand")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_with_fields_missing_or_unknown() {
        let body = r#"{"generation":3,"new":1,"targets":[
            {"name":"a/x","state":"open","left_ms":1500,"outstanding":2,"latency_ms":40,"more":[]},
            {"name":"b/y","state":"cooling","left_ms":18446744073709551615999,"last_failure":null},
            {"name":"c/z","state":"asleep"}]}"#;
        let page = read(format!("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{body}").as_bytes()).unwrap();
        assert_eq!(page.generation, 3);
        let outlook = |name: &str| page.find(name).unwrap().outlook();
        let left = Duration::from_millis(1500);
        let open = Outlook {
            standing: Standing::Open { left },
            outstanding: 2,
            latency_micros: 40_000,
            ..WELL
        };
        assert_eq!(outlook("a/x"), open);
        assert_eq!(outlook("b/y").standing, Standing::Cooling { left: Duration::MAX });
        assert_eq!(outlook("c/z"), WELL);
        assert_eq!(page.find("d"), None);
        assert_eq!(Live::fresh("d").outlook(), WELL);
    }

    #[test]
    fn what_is_no_page_is_told() {
        for answer in [
            "",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{",
            "HTTP/1.1 200 OK\r\n\r\n[]",
            "\r\n\r\n{}",
        ] {
            assert!(read(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_node_that_answers_forever_or_never_is_left() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(ask(address, Duration::from_millis(20)).is_err(), "nobody accepts");
        let endless = std::thread::spawn(move || {
            let (_left, (mut headless, _)) =
                (listener.accept().unwrap(), listener.accept().unwrap());
            while headless.write_all(&[b'x'; PART_BYTES]).is_ok() {}
            let (mut bodied, _) = listener.accept().unwrap();
            bodied.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
            while bodied.write_all(&[b'x'; PART_BYTES]).is_ok() {}
        });
        for _way in 0..2 {
            let problem = ask(address, Duration::from_mins(1)).unwrap_err();
            assert_eq!(problem.to_string(), "the node's answer is too long");
        }
        endless.join().unwrap();
    }

    #[test]
    fn an_answer_is_whole_at_its_announced_length() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n\r\n{}"), "it ends with the connection");
    }
}
