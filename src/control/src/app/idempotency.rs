//! Requests that may be repeated: whoever repeats one under the same key gets the answer of the first time, and
//! nothing is done twice. Answers are kept encrypted, because some of them hold an API key.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokenroute_domain::time::Timestamp;
use tokenroute_store::vault::{NONCE_BYTES, Place};
use tokenroute_store::{Ask, Claim};

use super::Problem;
use super::text::invalid;
use crate::Parts;

/// Longest key, in characters.
const KEY_LEN_MAX: usize = 200;
/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// After this long whoever does a request has died over it. Far longer than anything here takes.
const LAPSE: Duration = Duration::from_mins(1);
/// How often it is looked whether another one is done with the same request.
const LOOK: Duration = Duration::from_millis(50);
/// Looks until nobody waits any longer: five seconds.
const LOOKS_MAX: u32 = 100;
/// What stands for every answer: only good ones are kept, and each operation has one good status.
const GOOD: u16 = 200;

/// A request that is done once.
#[derive(Clone, Debug)]
pub(crate) struct Once {
    scope: String,
    key: String,
    request: [u8; 32],
}

impl Once {
    /// The request of `actor` that it calls `key`: an operation, on what, and what was said.
    pub(crate) fn new(
        (actor, key): (&str, &str),
        (operation, subject): (&str, &str),
        said: &impl Serialize,
    ) -> Result<Self, Problem> {
        let is_plain = key.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || !(1..=KEY_LEN_MAX).contains(&key.len()) {
            let message = format!(
                "Idempotency-Key: write 1 to {KEY_LEN_MAX} characters of ASCII, without spaces"
            );
            return Err(invalid("idempotency_key_invalid", "Idempotency-Key", message));
        }
        let said = serde_json::to_vec(said).map_err(|_defect| Problem::Internal)?;
        let mut hasher = Sha256::new();
        for part in [operation.as_bytes(), subject.as_bytes(), &said] {
            hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part);
        }
        let request = hasher.finalize().into();
        Ok(Self { scope: actor.to_owned(), key: key.to_owned(), request })
    }

    /// Does it, or tells what came of it before. It goes on if the client leaves.
    pub(crate) async fn perform<T>(
        self,
        parts: &Parts,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let parts = parts.clone();
        let task = tokio::spawn(async move { self.run(&parts, work).await });
        task.await.map_err(|_defect| Problem::Internal)?
    }

    async fn run<T>(
        self,
        parts: &Parts,
        work: impl Future<Output = Result<T, Problem>> + Send,
    ) -> Result<T, Problem>
    where
        T: Serialize + DeserializeOwned,
    {
        let ask = Ask { scope: &self.scope, key: &self.key, request: self.request };
        if let Some(answer) = self.before(parts, &ask).await? {
            return serde_json::from_str(answer.expose_secret())
                .map_err(|_defect| Problem::Internal);
        }
        let came = work.await;
        let kept = match &came {
            Ok(answer) => match serde_json::to_string(answer) {
                Ok(text) => self.keep(parts, &ask, SecretString::from(text)).await,
                Err(_defect) => Err(Problem::Internal),
            },
            // Nothing was done.
            Err(_) => parts.database.give_up(&ask).await.map_err(Problem::from),
        };
        // What was done is told, even if it cannot be told again.
        if kept.is_err() {
            tracing::error!("the answer to a request could not be kept");
        }
        came
    }

    /// The answer of the first time; `None` if this is it.
    async fn before(&self, parts: &Parts, ask: &Ask<'_>) -> Result<Option<SecretString>, Problem> {
        let ago = |by: Duration| {
            Timestamp((parts.now)().micros().saturating_sub(Timestamp(0).plus(by).micros()))
        };
        parts.database.forget_answers(ago(KEPT)).await?;
        for _look in 0..LOOKS_MAX {
            match parts.database.claim(ask, ago(LAPSE), (parts.now)()).await? {
                Claim::Ours => return Ok(None),
                Claim::Theirs => tokio::time::sleep(LOOK).await,
                Claim::Done { answer, .. } => {
                    let answer = parts.vault.unseal(&self.place(), &answer);
                    return answer.map(Some).map_err(|error| {
                        tracing::error!(%error, "a kept answer cannot be read");
                        Problem::Internal
                    });
                }
                Claim::Other => {
                    let message = "this Idempotency-Key was used for another request".to_owned();
                    return Err(Problem::Conflict { reason: "idempotency_conflict", message });
                }
            }
        }
        let message = "the same request is still being done: repeat it in a moment".to_owned();
        Err(Problem::Conflict { reason: "idempotency_pending", message })
    }

    async fn keep(
        &self,
        parts: &Parts,
        ask: &Ask<'_>,
        answer: SecretString,
    ) -> Result<(), Problem> {
        let drawn = (parts.chance)().ok_or(Problem::Internal)?;
        let nonce = drawn.first_chunk::<NONCE_BYTES>().ok_or(Problem::Internal)?;
        let sealed = parts
            .vault
            .seal(&self.place(), &answer, *nonce)
            .map_err(|_locked| Problem::Internal)?;
        Ok(parts.database.answer(ask, GOOD, &sealed).await?)
    }

    fn place(&self) -> Place<'_> {
        Place { table: "idempotency", row: &self.key, provider: &self.scope, origin: "" }
    }
}
