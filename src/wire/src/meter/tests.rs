//! Verdicts, counts and cuts, one case at a time and by chance.

mod resumed;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::sse::{Block, Piece, Scanner};

const OPTIONS: Options = Options {
    endpoint: Endpoint::ChatCompletions,
    strip_usage: true,
    client_usage: false,
    reasoning: Reasoning::Inside,
    text_bytes_max: 1000,
    resume: None,
};

fn judge(meter: &mut Meter, stream: &str) -> Verdict {
    let block: Block = Scanner::new().feed(Bytes::copy_from_slice(stream.as_bytes()));
    let pieces: Vec<_> = block.pieces().collect();
    let [Piece::Event(event)] = &pieces[..] else { panic!("no single event: {stream:?}") };
    meter.event(event)
}

/// The verdict on a first event.
fn verdict(data: &str) -> Verdict {
    judge(&mut Meter::new(OPTIONS), &format!("data: {data}\n\n"))
}

fn replaced(data: &str) -> Verdict {
    Verdict::Replace(Bytes::from(format!("data: {data}\n\n")))
}

/// The usage that a meter reads from a `usage` member, and whether it is suspect.
fn usage_by(reasoning: Reasoning, usage: &str) -> (Option<Usage>, bool) {
    let mut meter = Meter::new(Options { reasoning, ..OPTIONS });
    let usage = usage.replace('\n', " ");
    judge(&mut meter, &format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n"));
    (meter.usage(), meter.suspect())
}

fn usage_of(usage: &str) -> (Option<Usage>, bool) {
    usage_by(Reasoning::Inside, usage)
}

#[test]
fn the_service_tier_is_the_one_that_was_told_last() {
    let mut meter = Meter::new(OPTIONS);
    assert_eq!(meter.service_tier(), None);
    let mut tell = |tier: &str| {
        judge(&mut meter, &format!("data: {{\"choices\":[],\"service_tier\":{tier}}}\n\n"));
        meter.service_tier()
    };
    assert_eq!(tell("null"), None);
    assert_eq!(tell("\"auto\""), Some(ServiceTier::Auto));
    assert_eq!(tell("\"priority\""), Some(ServiceTier::Priority));
    assert_eq!(tell("null"), Some(ServiceTier::Priority));
    assert_eq!(tell("\"turbo\""), Some(ServiceTier::Other));

    let body = r#"{"choices":[{"message":{"content":"a"}}],"service_tier":"flex"}"#;
    let long = body.replace("\"a\"", &format!("\"{}\"", "a".repeat(DOCUMENT_BYTES_MAX)));
    for body in [body, &long] {
        let mut meter = Meter::new(OPTIONS);
        meter.body(body.as_bytes());
        meter.finish();
        assert_eq!(meter.service_tier(), Some(ServiceTier::Flex));
    }
}

#[test]
fn an_event_is_held_until_one_says_something() {
    let nothing = [
        r#"{"choices":[]}"#,
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"finish_reason":null}]}"#,
        r#"{"choices":[{"delta":{"content":null,"tool_calls":[],"function_call":null,"reasoning":"","x":{}}}]}"#,
        r#"{"choices":[{"delta":{"obfuscation":"aaaa"},"logprobs":null}],"prompt_filter_results":[{"a":1}]}"#,
        r#"{"choices":[{"text":"","index":0}]}"#,
        r#"{"choices":null}"#,
    ];
    for data in nothing {
        assert_eq!(verdict(data), Verdict::Hold(None), "{data}");
    }
    let something = [
        r#"{"choices":[{"delta":{"content":"a"}}]}"#,
        r#"{"choices":[{"delta":{"content":[{"type":"text","text":"a"}]}}]}"#,
        r#"{"choices":[{"delta":{"reasoning_content":"a"}}]}"#,
        r#"{"choices":[{"delta":{"reasoning":"a"}}]}"#,
        r#"{"choices":[{"delta":{"refusal":"a"}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}}]}"#,
        r#"{"choices":[{"delta":{"function_call":{"name":"f","arguments":""}}}]}"#,
        r#"{"choices":[{"delta":{"images":[{"type":"image_url"}]}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"delta":{"content":""},"logprobs":{"content":[{"token":"a"}]}}]}"#,
        r#"{"choices":[{"text":"a","index":0}]}"#,
    ];
    for data in something {
        let mut meter = Meter::new(OPTIONS);
        assert_eq!(judge(&mut meter, &format!("data: {data}\n\n")), Verdict::Pass, "{data}");
        assert!(meter.semantic(), "{data}");
        let empty = "data: {\"choices\":[{\"delta\":{}}]}\n\n";
        assert_eq!(judge(&mut meter, empty), Verdict::Pass, "held behind {data}");
    }
}

#[test]
fn errors_and_unknown_events_say_nothing() {
    for (data, expected) in [
        (r#"{"error":{"message":"m"}}"#, Verdict::Failed),
        (r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"error"}]}"#, Verdict::Failed),
        (r#"{"type":"ping"}"#, Verdict::Pass),
        ("[1]", Verdict::Pass),
        ("7", Verdict::Pass),
        ("not json", Verdict::Drop),
        ("", Verdict::Drop),
        (" ", Verdict::Drop),
    ] {
        let mut meter = Meter::new(OPTIONS);
        assert_eq!(judge(&mut meter, &format!("data: {data}\n\n")), expected, "{data}");
        assert!(!meter.semantic() && meter.text().is_empty(), "{data}");
        assert_eq!(meter.semantic_events(), 0, "{data}");
        assert_eq!(meter.error(), expected == Verdict::Failed, "{data}");
        assert_eq!(meter.malformed() == 1, data == "not json", "{data}");
    }
    assert_eq!(judge(&mut Meter::new(OPTIONS), "event: ping\n\n"), Verdict::Pass);
}

#[test]
fn a_malformed_event_counts_for_nothing() {
    let mut meter = Meter::new(OPTIONS);
    let cut = r#"{"choices":[{"text":"lost","finish_reason":"stop"}],"usage":{"total_tokens":1}"#;
    assert_eq!(judge(&mut meter, &format!("data: {cut}\n\n")), Verdict::Drop);
    assert_eq!((meter.text(), meter.text_bytes_total(), meter.malformed()), ("", 0, 1));
    assert!(!meter.semantic() && !meter.complete() && meter.usage().is_none());
}

#[test]
fn done_ends_whatever_follows_it() {
    for data in ["[DONE]", "[DONE] ", "[DONE]{}"] {
        let mut meter = Meter::new(OPTIONS);
        assert_eq!(judge(&mut meter, &format!("data:{data}\n\n")), Verdict::End);
        assert!(meter.done() && meter.complete() && meter.malformed() == 0);
    }
}

#[test]
fn only_what_usage_caused_is_taken_out() {
    let usage = r#"{"prompt_tokens":1,"completion_tokens":1}"#;
    for gone in ["[]", "null"] {
        assert_eq!(verdict(&format!("{{\"choices\":{gone},\"usage\":{usage}}}")), Verdict::Drop);
    }
    assert_eq!(verdict(&format!("{{\"id\":1,\"usage\":{usage}}}")), Verdict::Drop);
    let held = verdict(r#"{"choices":[],"usage":null,"prompt_filter_results":[]}"#);
    let kept = r#"{"choices":[],"prompt_filter_results":[]}"#;
    assert_eq!(held, Verdict::Hold(Some(Bytes::from(format!("data: {kept}\n\n")))));
    let error = format!("{{\"error\":{{}},\"choices\":[],\"usage\":{usage}}}");
    assert_eq!(verdict(&error), Verdict::Failed);
}

#[test]
fn a_member_is_cut_with_one_comma() {
    let said = r#""choices":[{"delta":{"content":",\"usage\":null"}}]"#;
    let cases = [
        (format!(r#"{{{said},"usage":null}}"#), format!("{{{said}}}")),
        (format!(r#"{{"usage":null,{said}}}"#), format!("{{{said}}}")),
        (format!(r#"{{"id":1,"usage":{{"a":[1,{{}}]}},{said}}}"#), format!(r#"{{"id":1,{said}}}"#)),
        (format!(r#"{{ "usage" : null , {said} }}"#), format!("{{  {said} }}")),
        (format!(r#"{{ {said} , "usage" : null }}"#), format!("{{ {said}  }}")),
        (format!(r#"{{"us\u0061ge":null,{said}}}"#), format!("{{{said}}}")),
        (format!(r#"{{"usage":1,"usage":2,{said},"usage":3}}"#), format!("{{{said}}}")),
        (format!(r#"{{{said},"usage":1,"usage":2}}"#), format!("{{{said}}}")),
    ];
    for (data, rest) in cases {
        assert_eq!(verdict(&data), replaced(&rest), "{data}");
    }
    let nested = format!(r#"{{"x":{{"usage":null}},{said}}}"#);
    assert_eq!(verdict(&nested), Verdict::Pass);
}

#[test]
fn a_member_is_cut_from_lines_and_nothing_else_is() {
    let stream = "id: 7\r\ndata: {\"choices\":[{\"text\":\"a\"}],\r\n: why\r\ndata:\"usage\"\r\ndata: :\r\ndata: null}\r\n\r\n";
    let expected = "id: 7\r\ndata: {\"choices\":[{\"text\":\"a\"}]\r\n: why\r\ndata:\r\ndata: \r\ndata: }\r\n\r\n";
    let verdict = judge(&mut Meter::new(OPTIONS), stream);
    assert_eq!(verdict, Verdict::Replace(Bytes::from_static(expected.as_bytes())));
}

#[test]
fn counts_are_disjoint_in_every_provider_s_form() {
    let cases = [
        (
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4,
               "cache_write_tokens":3,"audio_tokens":1,"image_tokens":1},"completion_tokens_details":{"reasoning_tokens":2,
               "audio_tokens":1,"image_tokens":1,"rejected_prediction_tokens":1}}"#,
            Usage {
                input: 1,
                input_cache_read: 4,
                input_cache_write: 3,
                input_audio: 1,
                input_image: 1,
                output: 1,
                output_reasoning: 2,
                output_audio: 1,
                output_image: 1,
                ..Usage::default()
            },
        ),
        (
            r#"{"prompt_tokens":10,"completion_tokens":0,"prompt_cache_hit_tokens":7,"prompt_cache_miss_tokens":3}"#,
            Usage { input: 3, input_cache_read: 7, ..Usage::default() },
        ),
        (
            r#"{"prompt_tokens":10,"completion_tokens":1,"num_cached_tokens":7,"cached_tokens":null,
               "prompt_tokens_details":null}"#,
            Usage { input: 3, input_cache_read: 7, output: 1, ..Usage::default() },
        ),
        (
            r#"{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":{"cache_creation_input_tokens":9}}"#,
            Usage { input: 1, input_cache_write: 9, output: 1, ..Usage::default() },
        ),
        (r#"{"prompt_tokens":8,"total_tokens":8}"#, Usage { input: 8, ..Usage::default() }),
        (r#"{"total_tokens":8}"#, Usage { input: 8, ..Usage::default() }),
        (
            r#"{"completion_tokens":3,"total_tokens":8}"#,
            Usage { input: 5, output: 3, ..Usage::default() },
        ),
        (
            // Cached audio is both: it is counted once, and that is as it should be.
            r#"{"prompt_tokens":10,"completion_tokens":0,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":9}}"#,
            Usage { input_cache_read: 8, input_audio: 2, ..Usage::default() },
        ),
    ];
    for (json, usage) in cases {
        assert_eq!(usage_of(json), (Some(usage), false), "{json}");
    }
}

#[test]
fn nothing_is_not_zero() {
    assert_eq!(usage_of("null"), (None, false));
    assert_eq!(usage_of("{}"), (None, false));
    assert_eq!(usage_of(r#"{"prompt_tokens":null}"#), (None, false));
    let zero = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
    assert_eq!(usage_of(zero), (Some(Usage::default()), false));
    let mut meter = Meter::new(OPTIONS);
    for usage in [r#"{"prompt_tokens":3,"completion_tokens":1}"#, "null", "{}"] {
        judge(&mut meter, &format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n"));
    }
    assert_eq!(meter.usage(), Some(Usage { input: 3, output: 1, ..Usage::default() }));
}

#[test]
fn the_last_usage_wins() {
    let mut meter = Meter::new(OPTIONS);
    for tokens in [1, 2, 3] {
        let usage = format!("{{\"prompt_tokens\":9,\"completion_tokens\":{tokens}}}");
        judge(&mut meter, &format!("data: {{\"choices\":[{{}}],\"usage\":{usage}}}\n\n"));
    }
    assert_eq!(meter.usage(), Some(Usage { input: 9, output: 3, ..Usage::default() }));
}

#[test]
fn reasoning_is_counted_by_its_rule() {
    let reported = |total: u64, reasoning: u64| {
        format!(
            "{{\"prompt_tokens\":10,\"completion_tokens\":20,\"total_tokens\":{total},\
             \"completion_tokens_details\":{{\"reasoning_tokens\":{reasoning}}}}}"
        )
    };
    let cases = [
        (Reasoning::Inside, 30, 15, (5, 15), false),
        (Reasoning::Added, 45, 15, (20, 15), false),
        (Reasoning::ByTotal, 30, 15, (5, 15), false),
        (Reasoning::ByTotal, 45, 15, (20, 15), false),
        (Reasoning::ByTotal, 45, 0, (20, 15), false),
        (Reasoning::Inside, 45, 0, (20, 0), false),
        (Reasoning::Inside, 30, 21, (0, 20), true),
        (Reasoning::Inside, 29, 1, (19, 1), true),
    ];
    for (rule, total, reasoning, (output, output_reasoning), odd) in cases {
        let usage = Usage { input: 10, output, output_reasoning, ..Usage::default() };
        let reported = reported(total, reasoning);
        assert_eq!(usage_by(rule, &reported), (Some(usage), odd), "{rule:?} {reported}");
    }
}

#[test]
fn absurd_counts_are_clamped_and_suspect() {
    let cases = [
        ("-1", 0),
        ("-1e99", 0),
        ("3.7", 3),
        ("1e3", TOKENS_MAX),
        ("1e-3", 0),
        ("1e400", TOKENS_MAX),
        ("9223372036854775808", TOKENS_MAX),
        ("99999999999999999999999999999999", TOKENS_MAX),
        ("18446744073709551616.5", TOKENS_MAX),
        ("\"12\"", 12),
    ];
    for (count, input) in cases {
        let usage = Usage { input, output: 1, ..Usage::default() };
        let json = format!("{{\"prompt_tokens\":{count},\"completion_tokens\":1}}");
        assert_eq!(usage_of(&json), (Some(usage), true), "{count}");
    }
    for count in ["\"many\"", "true", "[1]", "{}", "\"\""] {
        let (usage, odd) =
            usage_of(&format!("{{\"prompt_tokens\":{count},\"completion_tokens\":1}}"));
        assert!(odd, "{count}");
        assert_eq!(usage.map(|usage| usage.output_total()), Some(1), "{count}");
    }
    let audio =
        r#"{"prompt_tokens":2,"completion_tokens":1,"prompt_tokens_details":{"audio_tokens":3}}"#;
    let usage = Usage { input_audio: 2, output: 1, ..Usage::default() };
    assert_eq!(usage_of(audio), (Some(usage), true));
    for usage in ["\"none\"", "[]", "5", "true"] {
        assert_eq!(usage_of(usage), (None, true), "{usage}");
    }
}

#[test]
fn an_answer_is_complete_when_all_that_began_has_finished() {
    let choice = |index: u64, reason: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    let mut meter = Meter::new(OPTIONS);
    assert!(!meter.complete());
    for (index, reason, complete) in [
        (0, "null", false),
        (3, "null", false),
        (0, "\"stop\"", false),
        (3, "\"length\"", true),
        (1, "null", false),
    ] {
        judge(&mut meter, &choice(index, reason));
        assert_eq!(meter.complete(), complete, "{index} {reason}");
    }
    let mut meter = Meter::new(OPTIONS);
    judge(&mut meter, &choice(99_999_999_999, "\"stop\""));
    assert!(meter.complete());
    let mut meter = Meter::new(OPTIONS);
    judge(&mut meter, &choice(0, "\"error\""));
    assert!(meter.error() && !meter.complete() && !meter.semantic());
}

#[test]
fn delivered_text_is_kept_to_its_bound_and_counted_beyond() {
    let mut meter = Meter::new(Options { text_bytes_max: 4, ..OPTIONS });
    for text in ["ab", "cé", "f"] {
        judge(&mut meter, &format!("data: {{\"choices\":[{{\"text\":\"{text}\"}}]}}\n\n"));
    }
    assert_eq!(meter.text(), "abc");
    assert_eq!(meter.text_bytes_total(), 6);
}

#[test]
fn all_that_is_billed_as_output_is_text_once() {
    let mut meter = Meter::new(OPTIONS);
    let delta = r#"{"reasoning":"r","reasoning_content":"r","reasoning_details":[{"text":"r"}],"content":"c","refusal":"n",
        "tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}"#
        .replace('\n', "");
    judge(&mut meter, &format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n"));
    assert_eq!(meter.text(), "rcnf{\"a\":1}");
}

#[test]
fn of_equal_members_the_last_one_counts() {
    let mut meter = Meter::new(OPTIONS);
    judge(
        &mut meter,
        "data: {\"choices\":[{\"text\":\"gone\"}],\"choices\":[{\"text\":\"kept\"}]}\n\n",
    );
    assert_eq!(meter.text(), "kept");
}

#[test]
fn a_prompt_is_its_strings() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"Hi "},{"role":"user","content":[{"type":"text","text":"you\n"},
        {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}},{"type":"input_audio","input_audio":{"data":"QUJD","format":"wav"}}]},
        {"role":"assistant","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]}],
        "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"user":"nobody"}"#;
    let expected = "userHi useryou\nlowwavassistantf{}f";
    let read = |frames: Vec<&[u8]>, bytes_max: usize| {
        let mut out = String::new();
        let total = prompt_text(frames, &mut out, bytes_max);
        (out, usize::try_from(total).unwrap())
    };
    assert_eq!(read(vec![body.as_bytes()], 1000), (expected.to_owned(), expected.len()));
    assert_eq!(
        read(body.as_bytes().chunks(7).collect(), 1000),
        (expected.to_owned(), expected.len())
    );
    assert_eq!(read(vec![body.as_bytes()], 9), ("userHi us".to_owned(), expected.len()));
    assert_eq!(read(vec![&body.as_bytes()[..60]], 1000).0, "userHi ");
    assert_eq!(
        read(vec![br#"{"prompt":["a","b"],"input":[[1,2],3],"suffix":"c"}"#], 100).0,
        "ab a a ac"
    );
    assert_eq!(read(vec![], 100), (String::new(), 0));
}

/// A chunk with a `usage` member, or several, anywhere, written with chance white space.
fn chunk() -> impl Strategy<Value = (Vec<(String, Value)>, Vec<u8>)> {
    let value = prop_oneof![
        Just(Value::Null),
        Just(json!({"a": [1, {"usage": null}], "b": "},\"usage\":1"})),
        Just(json!("x\",\"usage\":null,\"")),
        any::<i32>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let key = prop_oneof![2 => Just("usage".to_owned()), 3 => "[a-z]{1,6}", 1 => ".{0,3}"];
    let choices = ("choices".to_owned(), json!([{"index": 0, "delta": {"content": "c"}}]));
    let members =
        prop::collection::vec((key, value), 0..6).prop_perturb(move |mut members, mut chance| {
            let at = usize::try_from(chance.next_u32()).unwrap() % (members.len() + 1);
            members.insert(at, choices.clone());
            members
        });
    (members, prop::collection::vec(0..4_u8, 40))
}

/// Writes the members; a space of 3 is a new line, which may begin a new data line.
fn write(members: &[(String, Value)], spaces: &[u8]) -> String {
    let mut spaces = spaces.iter().copied().cycle();
    let mut space = || ["", "", " ", "\n"][usize::from(spaces.next().unwrap())];
    let mut out = format!("{{{}", space());
    for (index, (key, value)) in members.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let key = Value::from(key.as_str());
        out +=
            &[comma, space(), &key.to_string(), space(), ":", space(), &value.to_string(), space()]
                .concat();
    }
    out + "}"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_left_is_the_chunk_without_its_usage((members, spaces) in chunk(), crlf: bool) {
        // The line breaks between tokens become new data lines of the event; JSON strings have none.
        let line = if crlf { "\r\ndata: " } else { "\ndata: " };
        let stream = format!("data: {}\n\n", write(&members, &spaces).replace('\n', line));
        let kept: Vec<_> = members.iter().filter(|(key, _)| key != "usage").cloned().collect();
        let block = |bytes: &[u8]| Scanner::new().feed(Bytes::copy_from_slice(bytes));
        let data = |bytes: &[u8]| match block(bytes).pieces().next() {
            Some(Piece::Event(event)) => serde_json::from_slice::<Value>(&event.data().unwrap()).unwrap(),
            other => panic!("{other:?}"),
        };
        let expected: Value = Value::Object(kept.iter().cloned().collect());
        match judge(&mut Meter::new(OPTIONS), &stream) {
            Verdict::Replace(bytes) => {
                prop_assert_eq!(data(&bytes), expected);
                prop_assert!(bytes.len() < stream.len());
            }
            Verdict::Pass => prop_assert_eq!(kept.len(), members.len()),
            other @ (Verdict::Hold(_) | Verdict::Drop | Verdict::End | Verdict::Failed | Verdict::Diverged) => {
                prop_assert!(false, "{:?}", other);
            }
        }
    }

    #[test]
    fn no_usage_overflows(counts in prop::collection::vec("-?[0-9]{1,25}(\\.[0-9]{1,3})?(e[0-9]{1,3})?", 6), rule in 0..3_usize) {
        let json = format!(
            "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\"prompt_tokens_details\":\
             {{\"cached_tokens\":{},\"audio_tokens\":{}}},\"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}",
            counts[0], counts[1], counts[2], counts[3], counts[4], counts[5]
        );
        let rule = [Reasoning::Inside, Reasoning::Added, Reasoning::ByTotal][rule];
        if let (Some(usage), _) = usage_by(rule, &json) {
            prop_assert!(usage.input_total() <= TOKENS_MAX);
            prop_assert!(usage.output_total() <= 2 * TOKENS_MAX);
        }
    }
}
