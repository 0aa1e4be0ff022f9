//! What a client reads of each refusal and failure: status, type, stable reason, sentence, parameter.
//! `docs/status-codes.md` lists the same for people.

use tokenroute_domain::admission::Refusal;
use tokenroute_domain::routing::Failure;
use tokenroute_wire::envelope::Envelope;

/// An error as a client reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    pub(crate) status: u16,
    /// OpenAI's error type.
    kind: &'static str,
    /// The stable word for programs.
    pub(crate) reason: &'static str,
    message: &'static str,
    param: Option<&'static str>,
}

impl Words {
    /// The same words with a provider's own status.
    pub(crate) const fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(crate) fn envelope(&self) -> Envelope<'_> {
        Envelope {
            message: self.message,
            kind: self.kind,
            code: self.status,
            param: self.param,
            reason: self.reason,
            request_id: None,
            can_afford_tokens: None,
        }
    }
}

/// What is said of a limit of ours.
const fn limit(reason: &'static str, message: &'static str) -> Words {
    Words { status: 429, kind: "rate_limit_error", reason, message, param: None }
}

const AUTH: &str = "authentication_error";
const INVALID: &str = "invalid_request_error";
const UNAVAILABLE: &str = "service_unavailable";
const UPSTREAM: &str = "upstream_error";
const QUOTA: &str = "insufficient_quota";

const KEY_MISSING: Words = Words {
    status: 401,
    kind: AUTH,
    reason: "key_missing",
    message: "No API key was sent. Send it as 'Authorization: Bearer sk-tr-…'.",
    param: None,
};
const KEY_UNKNOWN: Words = Words {
    status: 401,
    kind: AUTH,
    reason: "key_unknown",
    message: "The API key is not valid. Check that it is complete and has not been revoked.",
    param: None,
};
const KEY_EXPIRED: Words = Words {
    status: 401,
    kind: AUTH,
    reason: "key_expired",
    message: "The API key has expired. Create a new one.",
    param: None,
};
const KEY_AMBIGUOUS: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "key_ambiguous",
    message: "More than one API key was sent. Send exactly one.",
    param: None,
};
const FUNDS_UNAVAILABLE: Words = Words {
    status: 503,
    kind: UNAVAILABLE,
    reason: "funds_unavailable",
    message: "The account's balance cannot be checked now. Try again shortly.",
    param: None,
};
const MODEL_NOT_FOUND: Words = Words {
    status: 404,
    kind: INVALID,
    reason: "model_not_found",
    message: "The model does not exist or this key may not use it. GET /v1/models lists those that work.",
    param: Some("model"),
};
const MODEL_NOT_ALLOWED: Words = Words {
    status: 403,
    kind: "permission_error",
    reason: "model_not_allowed",
    message: "This key may not use the model. GET /v1/models lists those that it may.",
    param: Some("model"),
};
const MODEL_NOT_PRICED: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "model_not_priced",
    message: "The model has no price, so it cannot be paid for. GET /v1/models lists those that can.",
    param: Some("model"),
};
const MODEL_MISSING: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "model_missing",
    message: "The request must name a model: \"model\": \"provider/model-id\".",
    param: Some("model"),
};
const INVALID_JSON: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "invalid_json",
    message: "The body is not one JSON object in UTF-8 of at most 64 levels.",
    param: None,
};
const DUPLICATE_KEY: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "duplicate_key",
    message: "A member that decides routing or price occurs more than once, or in another case, in the body.",
    param: None,
};
const INVALID_VALUE: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "invalid_value",
    message: "model, stream, stream_options, n, best_of, max_tokens, max_completion_tokens or service_tier has a value that it cannot have.",
    param: None,
};
const BODY_TOO_LARGE: Words = Words {
    status: 413,
    kind: INVALID,
    reason: "body_too_large",
    message: "The body is longer than this gateway accepts.",
    param: None,
};
const UNSUPPORTED_MEDIA: Words = Words {
    status: 415,
    kind: INVALID,
    reason: "unsupported_media",
    message: "Send the body as plain JSON, not compressed.",
    param: None,
};
const BODY_TIMEOUT: Words = Words {
    status: 408,
    kind: INVALID,
    reason: "body_timeout",
    message: "The body did not arrive in time.",
    param: None,
};
const HEAD_TOO_LARGE: Words = Words {
    status: 431,
    kind: INVALID,
    reason: "head_too_large",
    message: "The request's header fields are too many or too long.",
    param: None,
};
const TARGET_TOO_LONG: Words = Words {
    status: 414,
    kind: INVALID,
    reason: "target_too_long",
    message: "The request's target is too long.",
    param: None,
};
const BAD_REQUEST: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "bad_request",
    message: "The request's body is framed in a way that cannot be read.",
    param: None,
};
const HEAD_MALFORMED: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "head_malformed",
    message: "A line of the request's head is not as HTTP wants it.",
    param: None,
};
const FRAMING_AMBIGUOUS: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "framing_ambiguous",
    message: "Send either one Content-Length, in digits, or Transfer-Encoding: chunked.",
    param: None,
};
const HOST_INVALID: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "host_invalid",
    message: "Send exactly one Host, a name or an address, with a port or without.",
    param: None,
};
const TARGET_INVALID: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "target_invalid",
    message: "The request's target must be one plain path: no dot segments, doubled or encoded slashes, backslashes, semicolons, spaces.",
    param: None,
};
const HEAD_TIMEOUT: Words = Words {
    status: 408,
    kind: INVALID,
    reason: "head_timeout",
    message: "The request's head did not arrive in time.",
    param: None,
};
const EXPECTATION_FAILED: Words = Words {
    status: 417,
    kind: INVALID,
    reason: "expectation_failed",
    message: "Nothing but 100-continue can be expected.",
    param: None,
};
const PATH_NOT_FOUND: Words = Words {
    status: 404,
    kind: INVALID,
    reason: "path_not_found",
    message: "No such path. The API begins at /v1.",
    param: None,
};
const METHOD_NOT_ALLOWED: Words = Words {
    status: 405,
    kind: INVALID,
    reason: "method_not_allowed",
    message: "This path does not have that method.",
    param: None,
};
const OVERLOADED: Words = Words {
    status: 503,
    kind: UNAVAILABLE,
    reason: "overloaded",
    message: "The gateway has no room for this call now. Try again shortly.",
    param: None,
};
const KEYS_UNAVAILABLE: Words = Words {
    status: 503,
    kind: UNAVAILABLE,
    reason: "keys_unavailable",
    message: "The key cannot be checked now. Try again shortly.",
    param: None,
};
const SHUTTING_DOWN: Words = Words {
    status: 503,
    kind: UNAVAILABLE,
    reason: "shutting_down",
    message: "This edge is shutting down. Try again.",
    param: None,
};
const REQUESTS_PER_SECOND: Words = limit(
    "requests_per_second",
    "More requests a second than the key or its account may make. Wait for the time in Retry-After, and send more slowly.",
);
const REQUESTS_PER_MINUTE: Words = limit(
    "requests_per_minute",
    "More requests a minute than the key or its account may make. Wait for the time in Retry-After, and send more slowly.",
);
const TOKENS_PER_MINUTE: Words = limit(
    "tokens_per_minute",
    "More tokens a minute than the key or its account may use. Wait for the time in Retry-After, or send shorter prompts.",
);
const CONCURRENCY: Words = limit(
    "concurrency",
    "More requests at the same time than the key or its account may make. Wait until one of them has ended.",
);
const UPSTREAM_UNREACHABLE: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_unreachable",
    message: "The provider cannot be reached.",
    param: None,
};
const UPSTREAM_RESET: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_reset",
    message: "The provider closed the connection without an answer.",
    param: None,
};
const UPSTREAM_TIMEOUT: Words = Words {
    status: 504,
    kind: UPSTREAM,
    reason: "upstream_timeout",
    message: "The provider did not answer in time.",
    param: None,
};
const UPSTREAM_PROTOCOL: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_protocol",
    message: "The provider's answer could not be understood.",
    param: None,
};
const PROVIDER_AUTH: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "provider_auth",
    message: "The provider refused this gateway's credential. Your key is fine; the operator has to act.",
    param: None,
};
const PROVIDER_RATE_LIMITED: Words = Words {
    status: 429,
    kind: "rate_limit_error",
    reason: "provider_rate_limited",
    message: "The provider is rate limiting this gateway.",
    param: None,
};
const UPSTREAM_ERROR: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_error",
    message: "The provider had a fault.",
    param: None,
};
const UPSTREAM_REDIRECT: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_redirect",
    message: "The provider redirected, which is not followed.",
    param: None,
};
const REQUEST_REJECTED: Words = Words {
    status: 400,
    kind: INVALID,
    reason: "request_rejected",
    message: "The provider rejected the request.",
    param: None,
};
const UPSTREAM_CUT: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_cut",
    message: "The provider broke off its answer. What you have received is incomplete.",
    param: None,
};
const UPSTREAM_STALLED: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_stalled",
    message: "The provider stopped in the middle of its answer. What you have received is incomplete.",
    param: None,
};
const UPSTREAM_DIVERGED: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_diverged",
    message: "The provider broke off its answer, and no other could go on with the same one. What you have received is incomplete.",
    param: None,
};
/// The provider said in the middle of its answer that it failed.
pub(crate) const ERROR_EVENT: Words = Words {
    status: 502,
    kind: UPSTREAM,
    reason: "upstream_error_event",
    message: "The provider failed in the middle of its answer. What you have received is incomplete.",
    param: None,
};
/// The balance does not cover a call.
pub(crate) const INSUFFICIENT_QUOTA: Words = Words {
    status: 402,
    kind: QUOTA,
    reason: "insufficient_quota",
    message: "The account's balance does not cover the most that this call can cost. Ask for at most metadata.can_afford_tokens output tokens, or add credit.",
    param: None,
};
/// A key's ceiling does not cover a call.
pub(crate) const KEY_CEILING: Words = Words {
    status: 402,
    kind: QUOTA,
    reason: "key_ceiling",
    message: "What is left under this key's spending ceiling does not cover the most that this call can cost. Ask for at most metadata.can_afford_tokens output tokens, wait for the ceiling's next period, or use another key.",
    param: None,
};
/// A key's ceiling is reached in the middle of an answer.
pub(crate) const KEY_CEILING_REACHED: Words = Words {
    status: 402,
    kind: QUOTA,
    reason: "key_ceiling_reached",
    message: "This key's spending ceiling was reached in the middle of the answer. What you have received is incomplete.",
    param: None,
};
/// No target takes calls now.
pub(crate) const TARGETS_UNAVAILABLE: Words = Words {
    status: 503,
    kind: UNAVAILABLE,
    reason: "targets_unavailable",
    message: "No target of this model takes calls now, because they have failed of late. Try again after the time in Retry-After.",
    param: None,
};
/// The edge goes down before the answer is complete.
pub(crate) const SHUTDOWN: Words = Words {
    status: 503,
    kind: UNAVAILABLE,
    reason: "shutdown",
    message: "This edge was shut down before the answer was complete. Try again.",
    param: None,
};
/// A defect of ours.
pub(crate) const PANICKED: Words = Words {
    status: 500,
    kind: "server_error",
    reason: "internal_error",
    message: "The gateway failed on this call.",
    param: None,
};

/// What a client reads of a refusal.
pub(crate) const fn of_refusal(refusal: Refusal) -> Words {
    match refusal {
        Refusal::KeyMissing => KEY_MISSING,
        Refusal::KeyUnknown => KEY_UNKNOWN,
        Refusal::KeyExpired => KEY_EXPIRED,
        Refusal::KeyAmbiguous => KEY_AMBIGUOUS,
        Refusal::FundsUnavailable => FUNDS_UNAVAILABLE,
        Refusal::ModelNotFound => MODEL_NOT_FOUND,
        Refusal::ModelNotAllowed => MODEL_NOT_ALLOWED,
        Refusal::ModelNotPriced => MODEL_NOT_PRICED,
        Refusal::ModelMissing => MODEL_MISSING,
        Refusal::InvalidJson => INVALID_JSON,
        Refusal::DuplicateKey => DUPLICATE_KEY,
        Refusal::InvalidValue => INVALID_VALUE,
        Refusal::BodyTooLarge => BODY_TOO_LARGE,
        Refusal::UnsupportedMedia => UNSUPPORTED_MEDIA,
        Refusal::BodyTimeout => BODY_TIMEOUT,
        Refusal::HeadTooLarge => HEAD_TOO_LARGE,
        Refusal::TargetTooLong => TARGET_TOO_LONG,
        Refusal::BadRequest => BAD_REQUEST,
        Refusal::HeadMalformed => HEAD_MALFORMED,
        Refusal::FramingAmbiguous => FRAMING_AMBIGUOUS,
        Refusal::HostInvalid => HOST_INVALID,
        Refusal::TargetInvalid => TARGET_INVALID,
        Refusal::HeadTimeout => HEAD_TIMEOUT,
        Refusal::ExpectationFailed => EXPECTATION_FAILED,
        Refusal::PathNotFound => PATH_NOT_FOUND,
        Refusal::MethodNotAllowed => METHOD_NOT_ALLOWED,
        Refusal::Overloaded => OVERLOADED,
        Refusal::KeysUnavailable => KEYS_UNAVAILABLE,
        Refusal::ShuttingDown => SHUTTING_DOWN,
        Refusal::RequestsPerSecond => REQUESTS_PER_SECOND,
        Refusal::RequestsPerMinute => REQUESTS_PER_MINUTE,
        Refusal::TokensPerMinute => TOKENS_PER_MINUTE,
        Refusal::Concurrency => CONCURRENCY,
    }
}

/// What a client reads of a failure, if no target gave an answer.
pub(crate) const fn of_failure(failure: Failure) -> Words {
    match failure {
        Failure::Resolve | Failure::Connect => UPSTREAM_UNREACHABLE,
        Failure::Stale | Failure::Reset | Failure::Cut => UPSTREAM_RESET,
        Failure::HeadTimeout | Failure::FirstTokenTimeout | Failure::Stall => UPSTREAM_TIMEOUT,
        Failure::Protocol | Failure::Garbage | Failure::Diverged => UPSTREAM_PROTOCOL,
        Failure::Credential => PROVIDER_AUTH,
        Failure::RateLimited => PROVIDER_RATE_LIMITED,
        Failure::Server | Failure::ErrorEvent => UPSTREAM_ERROR,
        Failure::Redirect => UPSTREAM_REDIRECT,
        Failure::Request | Failure::ContextLength | Failure::ContentPolicy => REQUEST_REJECTED,
    }
}

/// What a client reads in the middle of an answer that breaks off.
pub(crate) const fn of_cut(failure: Failure) -> Words {
    match failure {
        Failure::HeadTimeout | Failure::FirstTokenTimeout | Failure::Stall => UPSTREAM_STALLED,
        Failure::Diverged => UPSTREAM_DIVERGED,
        Failure::Resolve
        | Failure::Connect
        | Failure::Stale
        | Failure::Reset
        | Failure::Protocol
        | Failure::Credential
        | Failure::RateLimited
        | Failure::Server
        | Failure::Redirect
        | Failure::Request
        | Failure::ContextLength
        | Failure::ContentPolicy
        | Failure::Cut
        | Failure::Garbage
        | Failure::ErrorEvent => UPSTREAM_CUT,
    }
}

#[cfg(test)]
mod tests {
    use tokenroute_domain::admission::Refusal;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/status-codes.md");

    #[test]
    fn the_document_lists_what_clients_read() {
        let failures = Failure::ALL.map(of_failure);
        let cuts = Failure::ALL.map(of_cut);
        let refusals = Refusal::ALL.map(of_refusal);
        let others = [
            SHUTDOWN,
            PANICKED,
            TARGETS_UNAVAILABLE,
            ERROR_EVENT,
            INSUFFICIENT_QUOTA,
            KEY_CEILING,
            KEY_CEILING_REACHED,
        ];
        for words in failures.iter().chain(&cuts).chain(&refusals).chain(&others) {
            let row = format!("| {} | `{}` | `{}` |", words.status, words.kind, words.reason);
            assert!(DOCUMENT.contains(&row), "{row}");
        }
    }
}
