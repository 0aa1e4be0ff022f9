//! Reads model names; does not play them.

use std::time::Duration;

use super::{
    AfterDone, Answer, Early, Ending, Extra, Fault, LineEnd, Prefill, Script, Status, StatusKind,
    UsageForm, UsageOdd, UsageWhen,
};

/// Largest count that a name may ask for (events, tokens).
const COUNT_MAX: usize = 1_000_000;
/// Largest size that a name may ask for, bytes.
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// Most parts in one name.
const PARTS_MAX: usize = 16;
/// The token at which an answer diverges unless the name says another.
const DIVERGES_AT: usize = 5;

impl Script {
    /// Reads a model name; `None` when a part of it is unknown.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (mut parts, mut first, mut outages) = (vec![], vec![], vec![]);
        for (index, part) in name.split('+').enumerate() {
            if index >= PARTS_MAX {
                return None;
            }
            if let Some((count, part)) = parse_first(part) {
                first.push((count, part));
            } else if let Some(outage) = part.strip_prefix("on-") {
                outages.push(outage.to_owned());
            } else if !part.starts_with("tag-") {
                parts.push(part.to_owned());
            }
        }
        let mut script = Self::of_parts(&parts)?;
        script.parts = parts;
        script.outages = outages;
        for (count, part) in first {
            let varied = script.with(part)?;
            script.first.push((count, varied));
        }
        Some(script)
    }

    /// The script with one more part, which takes the place of what is answered if it says that.
    pub(crate) fn with(&self, part: &str) -> Option<Self> {
        let says = parse_answer(part).is_some();
        let kept = self.parts.iter().filter(|kept| !(says && parse_answer(kept).is_some()));
        let parts = kept.map(String::as_str).chain([part]).map(str::to_owned).collect::<Vec<_>>();
        Self::of_parts(&parts)
    }

    fn of_parts(parts: &[String]) -> Option<Self> {
        let mut script = Self::plain(Answer::Words(0));
        let mut answer = None;
        for part in parts {
            if let Some((said, pace)) = parse_answer(part) {
                if answer.replace(said).is_some() {
                    return None;
                }
                script.pace = pace.unwrap_or(script.pace);
            } else if !(script.read_time(part)
                || script.read_usage(part)
                || script.read_saying(part)
                || script.read_framing(part)
                || script.read_ending(part)
                || script.read_fault(part))
            {
                return None;
            }
        }
        script.answer = answer.unwrap_or_else(|| Answer::Words(script.words_needed()));
        Some(script)
    }

    /// Enough words for the ending or the extra event to come before the stream's own end.
    fn words_needed(&self) -> usize {
        let ending = match self.ending {
            Ending::Whole => 0,
            Ending::ResetAfter(at) | Ending::FinAfter(at) | Ending::StallAfter(at) => at,
            // An event has more bytes than that.
            Ending::ResetAtByte(at) | Ending::FinAtByte(at) | Ending::StallAtByte(at) => at / 64,
        };
        let extra = self.extra.map_or(0, |(at, _)| at);
        let diverges = self.diverges_at.unwrap_or(0);
        ending.max(extra).max(diverges).saturating_add(8)
    }

    fn read_time(&mut self, part: &str) -> bool {
        if part == "role-only-first" {
            self.after_role = Duration::from_millis(200);
            return true;
        }
        let slot = |script: &mut Self, prefix: &str, time: Duration| match prefix {
            "pace-" => script.pace = time,
            "late-head-" => script.late_head = time,
            "late-first-token-" => script.late_first = time,
            "role-only-first-" => script.after_role = time,
            "idle-close-" => script.idle_close = Some(time),
            "stall-pings-" => script.stall_pings = Some(time),
            other => debug_assert!(false, "no time is called {other}"),
        };
        for prefix in [
            "pace-",
            "late-head-",
            "late-first-token-",
            "role-only-first-",
            "idle-close-",
            "stall-pings-",
        ] {
            if let Some(time) = part.strip_prefix(prefix).and_then(parse_millis) {
                slot(self, prefix, time);
                return true;
            }
        }
        false
    }

    fn read_usage(&mut self, part: &str) -> bool {
        match part {
            "no-usage" => self.usage_when = UsageWhen::Never,
            "usage-every-chunk" => self.usage_when = UsageWhen::Every,
            "usage-last-content" => self.usage_when = UsageWhen::LastContent,
            "usage-always" => self.usage_when = UsageWhen::Always,
            "usage-zero" => self.usage_odd = Some(UsageOdd::Zero),
            "usage-negative" => self.usage_odd = Some(UsageOdd::Negative),
            "usage-float" => self.usage_odd = Some(UsageOdd::Float),
            "usage-huge" => self.usage_odd = Some(UsageOdd::Huge),
            "usage-text" => self.usage_odd = Some(UsageOdd::Text),
            "strict-fields" => self.strict_fields = true,
            other => {
                let Some(form) = other.strip_prefix("usage-forms-").and_then(parse_form) else {
                    return false;
                };
                self.usage_form = form;
                self.strict_fields |= form == UsageForm::Mistral;
            }
        }
        true
    }

    fn read_saying(&mut self, part: &str) -> bool {
        let count = |prefix: &str| part.strip_prefix(prefix).and_then(parse_count);
        match part {
            "prefill" => self.prefill = Prefill::Taken,
            "prefill-prefix" => self.prefill = Prefill::Prefix,
            "prefill-partial" => self.prefill = Prefill::Partial,
            "prefill-continue" => self.prefill = Prefill::ContinueFinalMessage,
            "prefill-reject" => self.prefill = Prefill::Rejected,
            "divergent" => self.diverges_at = Some(DIVERGES_AT),
            _ => match (count("divergent-"), count("pieces-"), count("after-reasoning-")) {
                (Some(at), _, _) if at > 0 => self.diverges_at = Some(at),
                (_, Some(characters), _) if characters > 0 => {
                    self.piece_characters = Some(characters);
                }
                (_, _, Some(deltas)) => self.reasoning = deltas,
                (_, _, None) => return false,
            },
        }
        true
    }

    fn read_framing(&mut self, part: &str) -> bool {
        match part {
            "crlf" => self.line_end = LineEnd::CrLf,
            "cr" => self.line_end = LineEnd::Cr,
            "bom" => self.bom = true,
            "no-space" => self.no_space = true,
            "comments" => self.comments = true,
            "no-done" => self.done = false,
            "done-then-linger" => self.after_done = AfterDone::Linger,
            "more-after-done" => self.after_done = AfterDone::More,
            "one-write" => self.one_write = true,
            "gzip" => self.gzip = true,
            "no-length" => self.no_length = true,
            "chunked-json" => self.chunked_json = true,
            "slow-json" => self.slow_json = true,
            "blank-lines" => self.blank_lines = true,
            "close" => self.closes = true,
            other => match other.strip_prefix("split-").and_then(parse_count) {
                Some(bytes) if bytes > 0 => self.split_bytes = Some(bytes),
                Some(_) | None => return false,
            },
        }
        true
    }

    fn read_ending(&mut self, part: &str) -> bool {
        let count = |prefix: &str| part.strip_prefix(prefix).and_then(parse_count);
        if let Some(at) = count("cut-after-") {
            self.ending = Ending::ResetAfter(at);
        } else if let Some(at) = count("fin-after-") {
            self.ending = Ending::FinAfter(at);
        } else if let Some(at) = count("stall-after-") {
            self.ending = Ending::StallAfter(at);
        } else if let Some(at) = count("cut-at-byte-") {
            self.ending = Ending::ResetAtByte(at);
        } else if let Some(at) = count("fin-at-byte-") {
            self.ending = Ending::FinAtByte(at);
        } else if let Some(at) = count("stall-at-byte-") {
            self.ending = Ending::StallAtByte(at);
        } else if let Some(at) = count("garbage-at-") {
            self.extra = Some((at, Extra::Garbage));
        } else if let Some(at) = count("garbage-from-") {
            self.extra = Some((at, Extra::GarbageOn));
        } else if let Some(at) = count("error-event-at-") {
            self.extra = Some((at, Extra::Error));
        } else if let Some(size) = part.strip_prefix("big-event-").and_then(parse_size) {
            self.extra = Some((1, Extra::Big(size)));
        } else {
            return false;
        }
        true
    }

    fn read_fault(&mut self, part: &str) -> bool {
        let fault = match part {
            "silence" => Fault::Silence,
            "reset-before-head" => Fault::ResetBeforeHead,
            "fin-before-head" => Fault::FinBeforeHead,
            "half-head" => Fault::HalfHead,
            "reset-on-reuse" => Fault::ResetOnReuse,
            "bad-chunk" => Fault::BadChunk,
            "length-and-chunked" => Fault::LengthAndChunked,
            "two-lengths" => Fault::TwoLengths,
            "two-answers" => Fault::TwoAnswers,
            "short-body" => Fault::ShortBody,
            "not-http" => Fault::NotHttp,
            "informational" => Fault::Informational,
            "slow-read" => {
                self.slow_read = true;
                return true;
            }
            other => {
                let Some(code) = other.strip_prefix("early-").and_then(parse_code) else {
                    return false;
                };
                self.early = Early::Status(code);
                return true;
            }
        };
        self.fault = Some(fault);
        true
    }
}

/// How many requests a part named `first-N-PART` is about, and what they get.
fn parse_first(part: &str) -> Option<(u64, &str)> {
    let (count, part) = part.strip_prefix("first-")?.split_once('-')?;
    Some((count.parse().ok()?, part))
}

fn parse_answer(part: &str) -> Option<(Answer, Option<Duration>)> {
    if part == "echo" || part.starts_with("echo-") {
        return Some((Answer::Echo, None));
    }
    match part {
        "unicode" => return Some((Answer::Unicode, None)),
        "base-resp" => return Some((Answer::BaseResp, None)),
        _ => {}
    }
    if let Some(name) = part.strip_prefix("replay-") {
        return Some((Answer::Replay(name.to_owned()), None));
    }
    if let Some(name) = part.strip_prefix("said-") {
        return Some((Answer::Said(name.to_owned()), None));
    }
    if let Some(count) = part.strip_prefix("words-").and_then(parse_count) {
        return Some((Answer::Words(count), None));
    }
    if let Some(bytes) = part.strip_prefix("json-bytes-").and_then(parse_size) {
        return Some((Answer::JsonBytes(bytes), None));
    }
    if let Some((count, pace)) = part.strip_prefix("sse-").and_then(|rest| rest.split_once('x')) {
        let pace = parse_millis(pace.strip_suffix("ms")?)?;
        return Some((Answer::Words(parse_count(count)?), Some(pace)));
    }
    parse_status(part.strip_prefix("status-")?).map(|status| (Answer::Status(status), None))
}

fn parse_status(text: &str) -> Option<Status> {
    let (code, rest) = text.split_once('-').unwrap_or((text, ""));
    let mut status = Status {
        code: parse_code(code)?,
        retry_after_seconds: None,
        retry_after_ms: None,
        kind: StatusKind::Plain,
    };
    match rest {
        "" => {}
        "context" => status.kind = StatusKind::Context,
        "quota" => status.kind = StatusKind::Quota,
        "policy" => status.kind = StatusKind::Policy,
        "html" => status.kind = StatusKind::Html,
        "empty" => status.kind = StatusKind::Empty,
        other => {
            let time = other.strip_prefix("retry-")?;
            match time.strip_prefix("ms-") {
                Some(millis) => status.retry_after_ms = Some(millis.parse().ok()?),
                None => status.retry_after_seconds = Some(time.parse().ok()?),
            }
        }
    }
    Some(status)
}

fn parse_form(text: &str) -> Option<UsageForm> {
    Some(match text {
        "openai" => UsageForm::OpenAi,
        "anthropic" => UsageForm::Anthropic,
        "deepseek" => UsageForm::DeepSeek,
        "gemini" => UsageForm::Gemini,
        "groq" => UsageForm::Groq,
        "minimax" => UsageForm::MiniMax,
        "mistral" => UsageForm::Mistral,
        "moonshot" => UsageForm::Moonshot,
        "ollama" => UsageForm::Ollama,
        "openrouter" => UsageForm::OpenRouter,
        "qwen" => UsageForm::Qwen,
        "vllm" => UsageForm::Vllm,
        "xai" => UsageForm::Xai,
        "zai" => UsageForm::Zai,
        _ => return None,
    })
}

fn parse_code(text: &str) -> Option<u16> {
    text.parse().ok().filter(|code| (300..600).contains(code))
}

fn parse_count(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| *count <= COUNT_MAX)
}

fn parse_size(text: &str) -> Option<usize> {
    text.parse().ok().filter(|bytes| *bytes <= BYTES_MAX)
}

/// A time in milliseconds, at most an hour.
fn parse_millis(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|millis| *millis <= 3_600_000).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::names;

    #[test]
    fn parts_add_up() {
        let script = Script::parse("sse-20x5ms+crlf+no-usage+cut-after-9").unwrap();
        assert_eq!(script.answer, Answer::Words(20));
        assert_eq!(script.pace, Duration::from_millis(5));
        assert_eq!(script.line_end, LineEnd::CrLf);
        assert_eq!(script.ending, Ending::ResetAfter(9));
        assert_eq!(Script::parse("stall-after-4").unwrap().answer, Answer::Words(12));
        let status = |retry_after_seconds, retry_after_ms| {
            let kind = StatusKind::Plain;
            Answer::Status(Status { code: 429, retry_after_seconds, retry_after_ms, kind })
        };
        let answer = |name| Script::parse(name).unwrap().answer;
        assert_eq!(answer("status-429-retry-2"), status(Some(2), None));
        assert_eq!(answer("status-429-retry-ms-250"), status(None, Some(250)));
    }

    #[test]
    fn a_part_that_is_due_first_takes_the_place_of_what_is_answered() {
        let name = "words-9+tag-x+crlf+first-1-status-503+first-3-cut-after-2";
        let script = Script::parse(name).unwrap();
        assert!(script.counts());
        let answers = [0, 1, 2, 3].map(|before| {
            let due = script.at_count(before);
            assert_eq!(due.line_end, LineEnd::CrLf);
            (matches!(due.answer, Answer::Status(_)), due.ending)
        });
        let cut = Ending::ResetAfter(2);
        assert_eq!(
            answers,
            [(true, Ending::Whole), (false, cut), (false, cut), (false, Ending::Whole)]
        );
        assert_eq!(script.with("silence").unwrap().fault, Some(Fault::Silence));
        assert_eq!(Script::parse("words-9+first-2-nonsense"), None);
        assert_eq!(Script::parse("tag-x").unwrap().answer, Answer::Words(8));
    }

    #[test]
    fn unknown_and_contradictory_names_are_refused() {
        for name in ["", "gpt-4o", "echo+", "echo+words-3", "words-x", "split-0", "status-99"] {
            assert_eq!(Script::parse(name), None, "{name}");
        }
        assert_eq!(Script::parse(&["crlf"; 17].join("+")), None);
    }

    #[test]
    fn every_listed_name_is_understood() {
        for name in names().iter().filter(|name| !name.starts_with("load-")) {
            assert!(Script::parse(name).is_some(), "{name}");
        }
    }
}
