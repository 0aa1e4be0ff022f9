//! A connection that hears what is published on one channel, and notices when it has gone silent.

use std::fmt;

use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Client, Msg};
use tokio::time::sleep;

use super::{CONNECT_WAIT, PING_EVERY, RedisFailure, in_time};

/// A subscription. It ends with its connection: its owner opens another.
pub(crate) struct Ears {
    sink: PubSubSink,
    stream: PubSubStream,
}

impl fmt::Debug for Ears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ears").finish_non_exhaustive()
    }
}

impl Ears {
    pub(super) async fn open(client: &Client, channel: &str) -> Result<Self, RedisFailure> {
        let listening = async {
            let (mut sink, stream) = client.get_async_pubsub().await?.split();
            sink.subscribe(channel).await?;
            Ok(Self { sink, stream })
        };
        in_time(listening, CONNECT_WAIT).await
    }

    /// The next message, however long it takes, as long as the server shows signs of life.
    pub(crate) async fn next(&mut self) -> Result<Msg, RedisFailure> {
        loop {
            tokio::select! {
                message = self.stream.next() => {
                    return message.ok_or_else(|| RedisFailure::Refused("closed".to_owned()));
                }
                () = sleep(PING_EVERY) => {
                    in_time(self.sink.ping::<redis::Value>(), CONNECT_WAIT).await?;
                }
            }
        }
    }
}
