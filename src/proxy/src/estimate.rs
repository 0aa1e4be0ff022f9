//! Our own token count, for answers whose provider gave none: on a thread of its own, so that no
//! stream waits for it.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokenroute_domain::usage::{Usage, UsageSource};
use tokenroute_wire::meter::{Meter, prompt_text};

use crate::call::Settlement;
use crate::request::Prompt;

/// Bytes of a prompt that are counted; what lies beyond is counted in proportion.
const PROMPT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of text in a token where the tokenizer cannot be asked: a cautious ratio for English.
const BYTES_PER_TOKEN: u64 = 4;
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

/// One answer to count.
pub(crate) struct Job {
    settlement: Settlement,
    output: String,
    output_bytes: u64,
    prompt: Option<Prompt>,
}

impl Job {
    pub(crate) fn new(settlement: Settlement, meter: &Meter, prompt: Option<Prompt>) -> Self {
        let output = meter.text().to_owned();
        Self { settlement, output, output_bytes: meter.text_bytes_total(), prompt }
    }

    /// Counts and settles.
    fn run(self, count: impl Fn(&str) -> u64) {
        let mut prompt = String::new();
        let prompt_bytes = self
            .prompt
            .as_ref()
            .map_or(0, |kept| prompt_text(kept.frames.parts(), &mut prompt, PROMPT_BYTES_MAX));
        let usage = Usage {
            input: in_proportion(count(&prompt), prompt.len(), prompt_bytes),
            output: in_proportion(count(&self.output), self.output.len(), self.output_bytes),
            ..Usage::default()
        };
        self.settlement.settle(Some((usage, UsageSource::Estimated)));
    }
}

/// Scales a count of a text's kept part up to all of it.
fn in_proportion(tokens: u64, kept: usize, total: u64) -> u64 {
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

    /// Counts an answer and settles it, later.
    pub(crate) fn count(&self, job: Job) {
        if let Err(returned) = self.jobs.try_send(job) {
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            let (Full(job) | Disconnected(job)) = returned;
            job.run(|text| u64::try_from(text.len()).unwrap_or_default().div_ceil(BYTES_PER_TOKEN));
        }
    }
}

fn run(waiting: &Receiver<Job>) {
    while let Ok(job) = waiting.recv() {
        // Linear in the length of any text, also hostile ones; vocabulary of the current OpenAI
        // models. Loaded when the first answer needs it: it takes some 60 MB.
        let tokenizer = bpe_openai::o200k_base();
        job.run(|text| u64::try_from(tokenizer.count(text)).unwrap_or_default());
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
