//! Passwords of local users: argon2id, on threads that may be busy, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::app::Problem;

/// Memory of one hash, in KiB, and how often it is gone over (OWASP's first choice for argon2id).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes at the same time.
const HASHES_MAX: usize = 2;
/// Hashes that are made or waited for.
const WAITING_MAX: usize = 32;
/// When to come again if more are wanted.
const COME_AGAIN: Duration = Duration::from_secs(5);
/// Shortest and longest password, in characters.
pub(crate) const LENGTHS: std::ops::RangeInclusive<usize> = 10..=256;
/// What the password of nobody is compared with, so that it takes as long as somebody's: no password has it.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Who hashes passwords.
#[derive(Debug)]
pub(crate) struct Passwords {
    busy: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        let (busy, waiting) = (Semaphore::new(HASHES_MAX), Semaphore::new(WAITING_MAX));
        Self { busy: Arc::new(busy), waiting: Arc::new(waiting) }
    }
}

impl Passwords {
    /// What is kept of a password.
    pub(crate) async fn hash(
        &self,
        password: SecretString,
        salt: [u8; 16],
    ) -> Result<String, Problem> {
        let hashed = self
            .work(move || hasher()?.hash_password_with_salt(bytes(&password), &salt).ok())
            .await?;
        Ok(hashed.ok_or(Problem::Internal)?.to_string())
    }

    /// Whether a password is the one of which `kept` was kept; never, without. It takes as long either way.
    pub(crate) async fn verify(
        &self,
        password: SecretString,
        kept: Option<String>,
    ) -> Result<bool, Problem> {
        let known = kept.is_some();
        let kept = kept.unwrap_or_else(|| NOBODY.to_owned());
        let same = self
            .work(move || {
                let kept = PasswordHash::new(&kept).ok()?;
                Some(hasher()?.verify_password(bytes(&password), &kept).is_ok())
            })
            .await?;
        Ok(same.ok_or(Problem::Internal)? && known)
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Result<Option<T>, Problem> {
        let busy = Problem::TooMany { retry_after: COME_AGAIN };
        let _waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_full| busy)?;
        let turn = Arc::clone(&self.busy).acquire_owned().await;
        let turn = turn.map_err(|_closed| Problem::Internal)?;
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        working.await.map_err(|_broken| Problem::Internal)
    }
}

fn bytes(password: &SecretString) -> &[u8] {
    password.expose_secret().as_bytes()
}

fn hasher() -> Option<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_the_one_that_was_kept() {
        let passwords = Passwords::default();
        let kept = passwords.hash("correct horse".into(), [7; 16]).await.unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert!(passwords.verify("correct horse".into(), Some(kept.clone())).await.unwrap());
        assert!(!passwords.verify("correct horsf".into(), Some(kept)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_has_a_password_and_it_is_worked_for_all_the_same() {
        let parameters = |text: &str| text.rsplitn(3, '$').last().map(str::to_owned);
        let passwords = Passwords::default();
        let kept = passwords.hash("correct horse".into(), [7; 16]).await.unwrap();
        assert_eq!(parameters(NOBODY), parameters(&kept), "the same work");
        let nobody = PasswordHash::new(NOBODY).unwrap();
        assert_eq!(nobody.hash.unwrap().as_bytes().len(), 32);
        assert!(!passwords.verify("correct horse".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn those_who_wait_are_bounded() {
        let passwords = Passwords::default();
        let _all = Arc::clone(&passwords.waiting).try_acquire_many_owned(32).unwrap();
        let refused = passwords.verify("correct horse".into(), None).await;
        assert!(matches!(refused, Err(Problem::TooMany { .. })));
    }
}
