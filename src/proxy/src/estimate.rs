//! Our own token count, for answers whose provider gave none: on a thread of its own, so that no
//! stream waits for it.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use pingora_timeout::timeout;
use tokenroute_wire::meter::prompt_text;
use tokio::sync::oneshot;

use crate::account::Count;
use crate::call::Settlement;
use crate::request::Request;

/// Bytes of a prompt that are counted; what lies beyond is counted in proportion.
pub(crate) const PROMPT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of text in a token where the tokenizer cannot be asked: a cautious ratio for English.
const BYTES_PER_TOKEN: u64 = 4;
/// How long a call in flight waits for a count.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Hands answers to the counting thread.
#[derive(Clone)]
pub(crate) struct Estimator {
    jobs: SyncSender<Job>,
}

impl fmt::Debug for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Estimator")
    }
}

/// What is to be counted.
enum Job {
    /// A call that is over, and its request.
    Settle(Box<(Settlement, Option<Request>)>),
    /// A text of a call in flight.
    Text(String, oneshot::Sender<u64>),
}

impl Job {
    fn run(self, tokens: &dyn Fn(&str) -> u64) {
        match self {
            Self::Settle(over) => {
                let (settlement, request) = *over;
                settlement.settle(&Counting { tokens, request: request.as_ref() });
            }
            Self::Text(text, answer) => {
                // Who asked may have stopped waiting.
                let _waiting = answer.send(tokens(&text));
            }
        }
    }
}

/// Counts with a tokenizer.
struct Counting<'a> {
    tokens: &'a dyn Fn(&str) -> u64,
    request: Option<&'a Request>,
}

impl Count for Counting<'_> {
    fn text(&self, kept: &str, bytes_total: u64) -> u64 {
        in_proportion((self.tokens)(kept), kept.len(), bytes_total)
    }

    fn prompt(&self) -> u64 {
        let mut prompt = String::new();
        let bytes_total = self.request.map_or(0, |request| {
            prompt_text(request.frames.parts(), &mut prompt, PROMPT_BYTES_MAX)
        });
        self.text(&prompt, bytes_total)
    }
}

/// Scales a count of a text's kept part up to all of it.
pub(crate) fn in_proportion(tokens: u64, kept: usize, total: u64) -> u64 {
    match u64::try_from(kept) {
        Ok(kept) if kept > 0 && kept < total => {
            tokens.saturating_mul(total).checked_div(kept).unwrap_or(tokens)
        }
        Ok(_) | Err(_) => tokens,
    }
}

impl Estimator {
    /// Starts the thread. It holds at most `jobs_max` answers, one for each slot of the outbox,
    /// and ends when the last handle is gone.
    pub(crate) fn start(jobs_max: usize) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(jobs_max.max(1));
        std::thread::Builder::new().name("estimator".into()).spawn(move || run(&waiting))?;
        Ok(Self { jobs })
    }

    /// Counts what a call's providers have not told and settles it, later.
    pub(crate) fn settle(&self, settlement: Settlement, request: Option<Request>) {
        self.hand_over(Job::Settle(Box::new((settlement, request))));
    }

    /// Tokens of a text; `None` if the thread is too busy.
    pub(crate) async fn count_text(&self, text: String) -> Option<u64> {
        let (answer, counted) = oneshot::channel();
        self.hand_over(Job::Text(text, answer));
        timeout(WAIT_MAX, counted).await.ok()?.ok()
    }

    fn hand_over(&self, job: Job) {
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.jobs.try_send(job)
        {
            job.run(&|text| {
                u64::try_from(text.len()).unwrap_or_default().div_ceil(BYTES_PER_TOKEN)
            });
        }
    }
}

fn run(waiting: &Receiver<Job>) {
    while let Ok(job) = waiting.recv() {
        // Linear in the length of any text, also hostile ones; vocabulary of the current OpenAI
        // models. Loaded when the first answer needs it: it takes some 60 MB.
        let tokenizer = bpe_openai::o200k_base();
        job.run(&|text| u64::try_from(tokenizer.count(text)).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_kept_counts_in_proportion() {
        assert_eq!(in_proportion(10, 100, 100), 10);
        assert_eq!(in_proportion(10, 100, 250), 25);
        assert_eq!(in_proportion(0, 0, 250), 0);
    }
}
