//! A server that speaks Redis badly on purpose, and remembers what it was told.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What to do about one command.
pub(crate) enum Reply {
    /// These bytes, and on.
    Bytes(Vec<u8>),
    /// These bytes, and the connection is cut.
    Cut(Vec<u8>),
}

pub(crate) struct FakeRedis {
    pub(crate) address: String,
    heard: Arc<Mutex<Vec<Vec<String>>>>,
}

impl FakeRedis {
    /// Answers `PING` and the handshake properly, and every other command with what `reply` says.
    pub(crate) async fn start(reply: impl Fn(&[String]) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("redis://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (reply, ears) = (Arc::new(reply), Arc::clone(&heard));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (reply, ears) = (Arc::clone(&reply), Arc::clone(&ears));
                tokio::spawn(async move { serve(stream, &*reply, &ears).await });
            }
        });
        Self { address, heard }
    }

    /// The commands of that name, so far.
    pub(crate) fn heard(&self, name: &str) -> Vec<Vec<String>> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|words| words[0] == name).cloned().collect()
    }
}

async fn serve(
    stream: TcpStream,
    reply: &(dyn Fn(&[String]) -> Reply + Send + Sync),
    ears: &Mutex<Vec<Vec<String>>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(words) = read_command(&mut stream).await {
        ears.lock().unwrap().push(words.clone());
        let answer = match words[0].as_str() {
            "PING" => Reply::Bytes(b"+PONG\r\n".to_vec()),
            "CLIENT" => Reply::Bytes(b"+OK\r\n".to_vec()),
            "SUBSCRIBE" => {
                let name = &words[1];
                let text = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len());
                Reply::Bytes(text.into_bytes())
            }
            _ => reply(&words),
        };
        match answer {
            Reply::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Cut(bytes) => {
                drop(stream.write_all(&bytes).await);
                return;
            }
        }
    }
}

async fn read_command(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let count = read_number(stream, '*').await?;
    let mut words = Vec::new();
    for _word in 0..count {
        let length = read_number(stream, '$').await?;
        let mut word = vec![0; length + 2];
        stream.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8_lossy(&word[..length]).into_owned());
    }
    Some(words)
}

async fn read_number(stream: &mut BufReader<TcpStream>, sign: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}
