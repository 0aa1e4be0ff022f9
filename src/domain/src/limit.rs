//! How often and how much a key or an account may call.

/// Limits of one key or one account. What is `None` is said elsewhere: by a tier, or by nobody, and then
/// it is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Calls that may come at once, and every second after that.
    pub requests_per_second: Option<u32>,
    /// Calls a minute, sustained.
    pub requests_per_minute: Option<u32>,
    /// Input and output tokens a minute, sustained.
    pub tokens_per_minute: Option<u64>,
    /// Calls at the same time.
    pub concurrency: Option<u32>,
}

impl Limits {
    /// These limits, and where they say nothing, those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            requests_per_second: self.requests_per_second.or(other.requests_per_second),
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(other.tokens_per_minute),
            concurrency: self.concurrency.or(other.concurrency),
        }
    }
}
