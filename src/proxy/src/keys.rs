//! What the data plane needs of a directory of API keys.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tokenroute_domain::key::{KeyHash, SharedKey};
use tokenroute_domain::time::Timestamp;

/// The directory cannot be asked now, and nothing cached is young enough to be believed.
/// The client reads 503; a valid key is never answered with 401 for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// The answer of a look-up that has to wait.
pub type Find<'a> =
    Pin<Box<dyn Future<Output = Result<Option<SharedKey>, Unavailable>> + Send + 'a>>;

/// A directory of keys. `None` is a key that nobody has, or that was revoked.
pub trait Keys: Send + Sync + fmt::Debug + 'static {
    /// What is known without waiting: the steady state of every call.
    fn cached(&self, hash: &KeyHash, now: Timestamp) -> Option<Option<SharedKey>>;

    /// Asks whoever has to be asked.
    fn find<'a>(&'a self, hash: &'a KeyHash, now: Timestamp) -> Find<'a>;
}
