//! Every recorded stream, whole and at every split: the bytes that go out and what is known of them.

#![cfg(test)]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::usage::Usage;
use tokenroute_wire::meter::{Options, Reasoning};

mod support;

use support::{
    Facts, Relayed, chat, read_json, read_plainly, relay_body, relay_events, split_at_chance,
};

/// Random splits of each stream, beside all splits in two and the one into single bytes.
const CHANCE_SPLITS: u64 = 100;

struct Fixture {
    name: String,
    bytes: Vec<u8>,
    events: bool,
    /// What the meter is to know of it.
    expected: Value,
}

impl Fixture {
    fn options(&self, strip_usage: bool) -> Options {
        let endpoint =
            Endpoint::ALL.into_iter().find(|one| one.as_str() == self.expected["endpoint"]);
        let reasoning = match self.expected["reasoning"].as_str() {
            Some("inside") => Reasoning::Inside,
            Some("added") => Reasoning::Added,
            Some("by_total") => Reasoning::ByTotal,
            other => panic!("{}: {other:?}", self.name),
        };
        Options { endpoint: endpoint.unwrap(), reasoning, ..chat(strip_usage) }
    }

    #[expect(single_use_lifetimes, reason = "an unnamed one is not yet allowed here")]
    fn relay<'a>(&self, frames: impl IntoIterator<Item = &'a [u8]>, strip_usage: bool) -> Relayed {
        let options = self.options(strip_usage);
        if self.events { relay_events(frames, options) } else { relay_body(frames, options) }
    }

    fn whole(&self, strip_usage: bool) -> Relayed {
        self.relay([&self.bytes[..]], strip_usage)
    }
}

fn fixtures() -> Vec<Fixture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut fixtures = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let events = path.extension().is_some_and(|extension| extension == "sse");
        if events || path.extension().is_some_and(|extension| extension == "body") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let expected = fs::read(path.with_extension("json")).expect(&name);
            let expected = serde_json::from_slice(&expected).expect(&name);
            fixtures.push(Fixture { name, bytes: fs::read(&path).unwrap(), events, expected });
        }
    }
    assert!(fixtures.len() >= 38, "only {} fixtures were found", fixtures.len());
    fixtures
}

/// Facts and count of held events in the form of the files beside the streams.
fn as_json(fixture: &Fixture, relayed: &Relayed) -> Value {
    let Facts { usage, suspect, text, complete, done, error, malformed, .. } = &relayed.facts;
    let mut value = json!({
        "suspect": suspect, "text": text, "held": relayed.held, "complete": complete,
        "done": done, "error": error, "malformed": malformed, "usage": usage.map(usage_json),
    });
    for given in ["endpoint", "reasoning"] {
        value[given] = fixture.expected[given].clone();
    }
    value
}

/// A usage without the kinds that are 0, but for the two that every answer has.
fn usage_json(usage: Usage) -> Value {
    let kinds = [
        ("input_cache_read", usage.input_cache_read),
        ("input_cache_write", usage.input_cache_write),
        ("input_cache_write_long", usage.input_cache_write_long),
        ("input_audio", usage.input_audio),
        ("input_image", usage.input_image),
        ("output_reasoning", usage.output_reasoning),
        ("output_audio", usage.output_audio),
        ("output_image", usage.output_image),
    ];
    let mut value = json!({ "input": usage.input, "output": usage.output });
    for (kind, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
        value[kind] = json!(count);
    }
    value
}

#[test]
fn every_stream_is_understood() {
    for fixture in fixtures() {
        for strip_usage in [false, true] {
            let relayed = fixture.whole(strip_usage);
            assert_eq!(as_json(&fixture, &relayed), fixture.expected, "{}", fixture.name);
            let total = u64::try_from(relayed.facts.text.len()).unwrap();
            assert_eq!(relayed.facts.text_bytes_total, total);
        }
    }
}

#[test]
fn without_stripping_every_byte_passes_that_is_not_malformed() {
    let mut odd = Vec::new();
    for fixture in fixtures() {
        let out = fixture.whole(false).out;
        if out != fixture.bytes {
            assert_eq!(events(&out), sound_events(&fixture.bytes), "{}", fixture.name);
            odd.push(fixture.name);
        }
    }
    odd.sort();
    assert_eq!(odd, ["cut_in_character", "malformed_event"]);
}

/// The events that are JSON, or the end.
fn sound_events(stream: &[u8]) -> Vec<String> {
    let sound = |event: &String| {
        event.starts_with("[DONE]") || event.starts_with('{') && event.ends_with('}')
    };
    events(stream).into_iter().filter(sound).collect()
}

/// What a provider sends that was not asked for usage: no `usage` member, no event that is only that.
fn without_usage(stream: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    for event in read_plainly(stream) {
        let Some(mut chunk) = read_json(&event.data) else {
            if event.data.starts_with(b"[DONE]") {
                events.push(String::from_utf8_lossy(&event.data).into_owned());
            }
            continue;
        };
        let usage = chunk.as_object_mut().unwrap().remove("usage").unwrap_or_default();
        let empty = chunk["choices"].as_array().is_some_and(Vec::is_empty);
        if !(empty && usage.is_object()) {
            events.push(chunk.to_string());
        }
    }
    events
}

#[test]
fn stripping_leaves_the_stream_that_was_asked_for() {
    let mut stripped = 0;
    for fixture in fixtures().iter().filter(|fixture| fixture.events) {
        let out = fixture.whole(true).out;
        assert_eq!(events(&out), without_usage(&fixture.bytes), "{}", fixture.name);
        stripped += usize::from(out != fixture.bytes);
    }
    assert!(stripped >= 15, "only {stripped} streams had anything to strip");
}

fn events(stream: &[u8]) -> Vec<String> {
    let text = |data: Vec<u8>| String::from_utf8_lossy(&data).into_owned();
    let plain =
        |data: Vec<u8>| read_json(&data).map_or_else(|| text(data), |json| json.to_string());
    read_plainly(stream).into_iter().map(|event| plain(event.data)).collect()
}

#[test]
fn every_split_gives_the_same_bytes_and_the_same_facts() {
    for fixture in fixtures() {
        for strip_usage in [false, true] {
            let whole = fixture.whole(strip_usage);
            let same = |frames: Vec<&[u8]>, split: &str| {
                let relayed = fixture.relay(frames, strip_usage);
                assert_eq!(relayed, whole, "{} {split} strip_usage={strip_usage}", fixture.name);
            };
            for at in 0..=fixture.bytes.len() {
                let (a, b) = fixture.bytes.split_at(at);
                same(vec![a, b], &format!("at {at}"));
            }
            same(fixture.bytes.chunks(1).collect(), "into single bytes");
            for seed in 0..CHANCE_SPLITS {
                let longest = [3, 40, 700][usize::try_from(seed % 3).unwrap()];
                same(split_at_chance(&fixture.bytes, seed, longest), &format!("by seed {seed}"));
            }
        }
    }
}

#[test]
fn line_ends_make_no_difference_to_what_is_known() {
    for fixture in fixtures().iter().filter(|fixture| fixture.events) {
        let Ok(text) = std::str::from_utf8(&fixture.bytes) else { continue };
        let lines = text.replace("\r\n", "\n").replace('\r', "\n");
        for end in ["\n", "\r\n", "\r"] {
            let stream = lines.replace('\n', end);
            let relayed = fixture.relay([stream.as_bytes()], true);
            assert_eq!(as_json(fixture, &relayed), fixture.expected, "{} {end:?}", fixture.name);
        }
    }
}

/// A stream with an event over the scanner's bound in its middle.
fn stream_with_long_event(length: usize) -> Vec<u8> {
    let chunk = |delta: &str, usage: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]{usage}}}\n\n"
        )
    };
    [
        chunk("{\"content\":\"a\"}", ""),
        "event: chunk\nid: 7\n: long\n".to_owned(),
        chunk(&format!("{{\"content\":\"{}\"}}", "é".repeat(length / 2)), USAGE),
        chunk("{\"content\":\"b\"}", ""),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
    .into_bytes()
}

const USAGE: &str = ",\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}";

#[test]
fn a_long_event_passes_raw_and_is_metered() {
    for length in [70_000, 900_000, 3_000_000] {
        let stream = stream_with_long_event(length);
        let whole = relay_events([&stream[..]], Options { text_bytes_max: 1_000, ..chat(true) });
        assert_eq!(whole.out, stream);
        let usage = Usage { input: 5, output: 7, ..Usage::default() };
        assert_eq!(whole.facts.usage, Some(usage));
        assert!(whole.facts.done && whole.facts.malformed == 0);
        assert!(whole.facts.text.len() <= 1_000 && whole.facts.text.starts_with("aé"));
        let total = usize::try_from(whole.facts.text_bytes_total).unwrap();
        assert!(if length < 1_000_000 { total == length + 2 } else { total > 1_000_000 });
        for longest in [100, 5_000, 70_000] {
            let frames = split_at_chance(&stream, 7, longest);
            let options = Options { text_bytes_max: 1_000, ..chat(true) };
            let relayed = relay_events(frames, options);
            assert_eq!(relayed.out, whole.out);
            let Facts { usage, text, done, malformed, .. } = relayed.facts;
            assert_eq!((usage, text), (whole.facts.usage, whole.facts.text.clone()));
            assert!(done && malformed == 0);
        }
    }
}

#[test]
fn a_large_body_is_metered_without_being_kept() {
    let vector = "0.0123456789,-0.1,1e-5,".repeat(200_000);
    let body = format!(
        "{{\"object\":\"list\",\"data\":[{{\"embedding\":[{vector}0],\"usage\":{{\"prompt_tokens\":1}},\
         \"note\":\"\\\"usage\\\":{{}}]]}}\\\" [{{\\\\\"}}],\"us\\u0061ge\" : {{\"prompt_tokens\": 8, \"total_tokens\": 8 }}}}\n"
    );
    for endpoint in [Endpoint::Embeddings, Endpoint::ChatCompletions] {
        let options = || Options { endpoint, ..chat(false) };
        let whole = relay_body([body.as_bytes()], options());
        assert_eq!(whole.facts.usage, Some(Usage { input: 8, ..Usage::default() }));
        assert!(whole.facts.complete && whole.facts.malformed == 0);
        let split = relay_body(split_at_chance(body.as_bytes(), 3, 30_000), options());
        assert_eq!(split, whole);
        let cut = relay_body([&body.as_bytes()[..body.len() - 3]], options());
        assert!(!cut.facts.complete);
    }
}

#[test]
fn a_body_that_is_cut_is_not_complete_but_its_text_is_counted() {
    let body = b"{\"id\":\"x\",\"choices\":[{\"message\":{\"content\":\"half an ans";
    let facts = relay_body([&body[..]], chat(false)).facts;
    assert!(!facts.complete && facts.usage.is_none());
    assert_eq!(facts.malformed, 1);
    assert_eq!(facts.text, "half an ans");
}
