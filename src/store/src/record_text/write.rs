//! A record as JSON, written member by member as `read` reads it.
//!
//! Each paid call is written so while its client waits, and behind Redis once more. A serialiser that escapes
//! names which never change, one after the other, took several times as long.

use tokenroute_domain::pool::PurseId;
use tokenroute_domain::record::{Attempt, Record};
use tokenroute_domain::usage::Usage;

/// A record.
pub(crate) fn record(out: &mut Vec<u8>, record: &Record) {
    plain(out, "{\"call\":\"");
    record.call.push_to(out);
    plain(out, "\",\"started\":");
    unsigned(out, record.started.micros());
    plain(out, ",\"endpoint\":");
    word(out, record.endpoint.as_str());
    if let Some(key) = &record.key {
        plain(out, ",\"key\":\"");
        key.push_to(out);
        out.push(b'"');
    }
    if let Some(account) = &record.account {
        plain(out, ",\"account\":\"");
        account.push_to(out);
        out.push(b'"');
    }
    text_if_any(out, ",\"model\":", record.model.as_deref());
    text_if_any(out, ",\"target\":", record.target.as_deref());
    plain(out, ",\"attempts\":");
    list(out, &record.attempts, attempt);
    plain(out, ",\"status\":");
    unsigned(out, record.status.into());
    plain(out, ",\"outcome\":");
    word(out, record.outcome.as_str());
    text_if_any(out, ",\"error\":", record.error);
    plain(out, ",\"streamed\":");
    flag(out, record.streamed);
    plain(out, ",\"usage\":");
    usage(out, &record.usage);
    plain(out, ",\"usage_source\":");
    word(out, record.usage_source.as_str());
    plain(out, ",\"cost\":");
    signed(out, record.cost.0);
    plain(out, ",\"charge\":");
    signed(out, record.charge.0);
    text_if_any(out, ",\"price_version\":", record.price_version.as_deref());
    plain(out, ",\"house_cost\":");
    signed(out, record.house_cost.0);
    plain(out, ",\"latency_micros\":");
    unsigned(out, record.latency_micros);
    if let Some(micros) = record.first_token_micros {
        plain(out, ",\"first_token_micros\":");
        unsigned(out, micros);
    }
    out.push(b'}');
}

fn attempt(out: &mut Vec<u8>, attempt: &Attempt) {
    plain(out, "{\"target\":");
    text(out, &attempt.target);
    plain(out, ",\"why\":");
    word(out, attempt.why.as_str());
    plain(out, ",\"result\":");
    text(out, attempt.result);
    if let Some(status) = attempt.status {
        plain(out, ",\"status\":");
        unsigned(out, status.into());
    }
    plain(out, ",\"micros\":");
    unsigned(out, attempt.micros);
    plain(out, ",\"output_tokens\":");
    unsigned(out, attempt.output_tokens);
    plain(out, ",\"cost\":");
    signed(out, attempt.cost.0);
    plain(out, ",\"house_cost\":");
    signed(out, attempt.house_cost.0);
    out.push(b'}');
}

/// Counts in the order of the members of [`Usage`].
pub(crate) fn usage(out: &mut Vec<u8>, usage: &Usage) {
    let Usage {
        input,
        input_cache_read,
        input_cache_write,
        input_cache_write_long,
        input_audio,
        input_image,
        output,
        output_reasoning,
        output_audio,
        output_image,
    } = *usage;
    let counts = [
        input,
        input_cache_read,
        input_cache_write,
        input_cache_write_long,
        input_audio,
        input_image,
        output,
        output_reasoning,
        output_audio,
        output_image,
    ];
    list(out, &counts, |out, count| unsigned(out, *count));
}

/// Ceilings, each as key, period and number; nothing if there are none.
pub(crate) fn purses(out: &mut Vec<u8>, purses: &[PurseId]) {
    if purses.is_empty() {
        return;
    }
    plain(out, ",\"purses\":");
    list(out, purses, |out, purse| {
        plain(out, "[\"");
        purse.key.push_to(out);
        plain(out, "\",");
        word(out, purse.period.as_str());
        out.push(b',');
        unsigned(out, purse.number.into());
        out.push(b']');
    });
}

pub(crate) fn list<T>(out: &mut Vec<u8>, all: &[T], one: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (place, item) in all.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        one(out, item);
    }
    out.push(b']');
}

/// What is JSON as it stands.
pub(crate) fn plain(out: &mut Vec<u8>, json: &'static str) {
    out.extend_from_slice(json.as_bytes());
}

pub(crate) fn unsigned(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(crate) fn signed(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(crate) fn flag(out: &mut Vec<u8>, flag: bool) {
    plain(out, if flag { "true" } else { "false" });
}

fn text_if_any(out: &mut Vec<u8>, name: &'static str, text_if_any: Option<&str>) {
    if let Some(one) = text_if_any {
        plain(out, name);
        text(out, one);
    }
}

/// A word of ours, which needs no escape.
pub(crate) fn word(out: &mut Vec<u8>, word: &'static str) {
    out.push(b'"');
    plain(out, word);
    out.push(b'"');
}

/// A text; names of models and targets hardly ever need an escape.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    let needs_none = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(needs_none) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Into memory, and of a text: neither can fail.
        serde_json::to_writer(out, text).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_read_as_it_was() {
        for written in ["", "a/b", "\"", "\\", "\n", "\u{0}", "\u{7f}é\u{2028}", "end\\"] {
            let mut out = Vec::new();
            text(&mut out, written);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), written);
        }
    }
}
