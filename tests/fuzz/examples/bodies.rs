//! Writes bodies and what we make of them, for the differential test to compare with other readers.
//!
//! `bodies SEED COUNT FILE`. A record is three texts, each after its length in four bytes, lowest
//! first: the body, what we found (JSON), and what we would send (empty if we refuse the body).

use std::fs::File;
use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};
use tokenroute_fuzz::attempt::{Attempt, send};
use tokenroute_fuzz::body;
use tokenroute_fuzz::chance::Chance;
use tokenroute_wire::request::{Change, Flag, Model, Name, Number, Options, Prefill, PrefillForm};

/// Model IDs that upstreams could have.
const MODELS: &[&str] = &["up/1", "", "a\"b\\c", "é\u{1f600}\n\u{1}", "gpt-5-mini-2025-08-07"];

/// Beginnings of answers.
const TEXTS: &[&str] = &["Half", "", "a\"b\\c\u{1}", "é\u{1f600}\n\u{2028}", "\"}],\"x\":[{"];

/// Members that cap an answer.
const CAPS: &[&str] = &["max_tokens", "max_completion_tokens"];

const FORMS: &[PrefillForm] = &[
    PrefillForm::Message,
    PrefillForm::Prefix,
    PrefillForm::Partial,
    PrefillForm::ContinueFinalMessage,
];

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok());
    let (Some(seed), Some(count), Some(path)) = (number(), number(), arguments.next()) else {
        return Err(io::Error::other("usage: bodies SEED COUNT FILE"));
    };
    let mut out = BufWriter::new(File::create(path)?);
    let mut dice = Chance::new(seed);
    for _ in 0..count {
        let body = body::write(&mut dice);
        let include_usage = dice.once_in(2);
        let (text, form) = (dice.pick(TEXTS), dice.pick(FORMS));
        let change = Change {
            model: dice.pick(MODELS),
            include_usage,
            prefill: dice.once_in(3).then_some(Prefill { text, form }),
            output_tokens_max: dice.once_in(3).then_some(dice.draw() >> 40),
            output_cap: dice.once_in(2).then_some(dice.pick(CAPS)),
        };
        let attempt = send(&body, &change, &mut dice);
        let found = describe(&attempt, &change).to_string();
        let sent = if attempt.verdict.is_ok() { attempt.sent.as_slice() } else { &[] };
        for text in [&body, found.as_bytes(), sent] {
            let len = u32::try_from(text.len()).map_err(io::Error::other)?;
            out.write_all(&len.to_le_bytes())?;
            out.write_all(text)?;
        }
    }
    out.flush()
}

fn describe(attempt: &Attempt, change: &Change<'_>) -> Value {
    let facts = attempt.scanner.facts();
    json!({
        "verdict": attempt.verdict.err().map_or("ok", |malformed| malformed.as_str()),
        "upstream_model": change.model,
        "include_usage": change.include_usage,
        "prefill": change.prefill.filter(|_| attempt.late).map(describe_prefill),
        "output_tokens_max": change.output_tokens_max.filter(|_| attempt.late),
        "output_cap": change.output_cap.filter(|_| attempt.late),
        "growth": attempt.growth,
        "model": facts.model.as_ref().map(describe_model),
        "stream": facts.stream.map(describe_flag),
        "stream_options": facts.stream_options.map(|found| describe_options(found.options)),
        "max_tokens": facts.max_tokens.map(describe_number),
        "max_completion_tokens": facts.max_completion_tokens.map(describe_number),
        "n": facts.n.map(describe_number),
        "best_of": facts.best_of.map(describe_number),
        "messages": facts.messages.map(|messages| json!({ "empty": messages.empty })),
        "tools": facts.tools,
        "logprobs": facts.logprobs,
    })
}

fn describe_prefill(prefill: Prefill<'_>) -> Value {
    let form = match prefill.form {
        PrefillForm::Message => "message",
        PrefillForm::Prefix => "prefix",
        PrefillForm::Partial => "partial",
        PrefillForm::ContinueFinalMessage => "continue",
    };
    json!({ "text": prefill.text, "form": form })
}

fn describe_model(model: &Model) -> Value {
    match &model.name {
        Name::Text(text) => json!({ "text": text }),
        Name::Unpaired => json!("unpaired"),
        Name::NotText => json!("not text"),
    }
}

fn describe_flag(flag: Flag) -> &'static str {
    match flag {
        Flag::True => "true",
        Flag::False => "false",
        Flag::Null => "null",
        Flag::Other => "other",
    }
}

fn describe_number(number: Number) -> String {
    match number {
        Number::Null => "null".into(),
        Number::Integer(value) => value.to_string(),
        Number::Other => "other".into(),
    }
}

fn describe_options(options: Options) -> Value {
    match options {
        Options::Null => json!("null"),
        Options::Other => json!("other"),
        Options::Object { empty, include_usage } => {
            let flag = include_usage.map(|(flag, _)| describe_flag(flag));
            json!({ "empty": empty, "include_usage": flag })
        }
    }
}
