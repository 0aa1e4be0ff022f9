//! Why an attempt did not do, and who is to blame for it.

/// Why an attempt did not do. Decides what is tried next; never shown as such to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The provider's name has no address, or none that is known.
    Resolve,
    /// No connection within the deadline, or refused.
    Connect,
    /// A pooled connection turned out to be closed before any byte of an answer.
    Stale,
    /// The connection broke before a whole response head.
    Reset,
    /// No response head within the deadline.
    HeadTimeout,
    /// No semantic token within the deadline, whatever else came.
    FirstTokenTimeout,
    /// What came was not HTTP, or was framed ambiguously.
    Protocol,
    /// The provider refused our credential (401, 403), or our account there is empty (402).
    Credential,
    /// The provider asked us to slow down (429).
    RateLimited,
    /// The provider had a fault (5xx).
    Server,
    /// The provider redirected, which is never followed (3xx).
    Redirect,
    /// The provider refused what the client asked for (other 4xx).
    Request,
    /// The prompt is longer than the model's context.
    ContextLength,
    /// The provider's policy forbids the prompt or its answer.
    ContentPolicy,
    /// The answer broke off before its end.
    Cut,
    /// Nothing semantic came for longer than the deadline in the middle of an answer.
    Stall,
    /// The answer turned into something that is no answer.
    Garbage,
    /// The provider said in the middle of its answer that it failed.
    ErrorEvent,
    /// A target that was to repeat what the client has said something else.
    Diverged,
}

/// Who is to blame for a failure, and so what a target's standing makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The target: it counts against it.
    Target,
    /// Our credential there: the target is benched until somebody acts or time has passed.
    Credential,
    /// The target's limit: it cools down, and is not faulty.
    Limit,
    /// The caller, or nobody: it never counts.
    Caller,
}

impl Failure {
    /// Every failure, in the order of their bounded metric labels.
    pub const ALL: [Self; 19] = [
        Self::Resolve,
        Self::Connect,
        Self::Stale,
        Self::Reset,
        Self::HeadTimeout,
        Self::FirstTokenTimeout,
        Self::Protocol,
        Self::Credential,
        Self::RateLimited,
        Self::Server,
        Self::Redirect,
        Self::Request,
        Self::ContextLength,
        Self::ContentPolicy,
        Self::Cut,
        Self::Stall,
        Self::Garbage,
        Self::ErrorEvent,
        Self::Diverged,
    ];

    /// The stable word for records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Stale => "stale_connection",
            Self::Reset => "reset",
            Self::HeadTimeout => "head_timeout",
            Self::FirstTokenTimeout => "first_token_timeout",
            Self::Protocol => "protocol",
            Self::Credential => "provider_auth",
            Self::RateLimited => "rate_limited",
            Self::Server => "server_error",
            Self::Redirect => "redirect",
            Self::Request => "request_rejected",
            Self::ContextLength => "context_length",
            Self::ContentPolicy => "content_policy",
            Self::Cut => "cut",
            Self::Stall => "stall",
            Self::Garbage => "garbage",
            Self::ErrorEvent => "error_event",
            Self::Diverged => "diverged",
        }
    }

    /// Who is to blame.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Credential => Blame::Credential,
            Self::RateLimited => Blame::Limit,
            Self::Stale
            | Self::Request
            | Self::ContextLength
            | Self::ContentPolicy
            | Self::Diverged => Blame::Caller,
            Self::Resolve
            | Self::Connect
            | Self::Reset
            | Self::HeadTimeout
            | Self::FirstTokenTimeout
            | Self::Protocol
            | Self::Server
            | Self::Redirect
            | Self::Cut
            | Self::Stall
            | Self::Garbage
            | Self::ErrorEvent => Blame::Target,
        }
    }
}

/// Why it is a target's turn, for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is the only one of the first rank, or was drawn.
    Chosen,
    /// Calls with the same beginning go there.
    Affinity,
    /// It was closed off and gets one call to show that it is well again.
    Probe,
    /// The pooled connection of the attempt before was stale.
    Reconnect,
    /// The same target once more.
    Retry,
    /// Another target has failed, or does not take calls now.
    Fallback,
    /// Another target has not spoken in time.
    Hedge,
    /// It goes on with an answer that broke off.
    Continue,
}

impl Why {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Chosen,
        Self::Affinity,
        Self::Probe,
        Self::Reconnect,
        Self::Retry,
        Self::Fallback,
        Self::Hedge,
        Self::Continue,
    ];

    /// The stable word for records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Affinity => "affinity",
            Self::Probe => "probe",
            Self::Reconnect => "reconnect",
            Self::Retry => "retry",
            Self::Fallback => "fallback",
            Self::Hedge => "hedge",
            Self::Continue => "continue",
        }
    }
}
