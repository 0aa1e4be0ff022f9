//! What of an answer can go on elsewhere, and what becomes of the chunks of one that goes on.

use super::*;

const OURS: &str = r#""id":"a-1","object":"chat.completion.chunk","created":5,"model":"m/1""#;

fn options(start: Start) -> Options {
    let first = format!(r#"{{{OURS},"choices":[]}}"#);
    let identity = Identity::read(first.as_bytes()).unwrap();
    let resume = Resume { identity, start, delivered_tokens: 4, prompt_tokens: 6 };
    let (strip_usage, client_usage) = (false, true);
    Options { strip_usage, client_usage, resume: Some(Box::new(resume)), ..OPTIONS }
}

fn afresh(delivered: &str) -> Meter {
    Meter::new(options(Start::Afresh { delivered: delivered.into() }))
}

fn prefilled(trimmed: &str) -> Meter {
    Meter::new(options(Start::Prefilled { trimmed: trimmed.into() }))
}

fn event(meter: &mut Meter, data: &str) -> Verdict {
    judge(meter, &format!("data: {data}\n\n"))
}

/// The verdict on a delta of the next target, which names itself otherwise.
fn delta(meter: &mut Meter, delta: &str) -> Verdict {
    choice(meter, &format!(r#"{{"index":0,"delta":{delta},"finish_reason":null}}"#))
}

fn choice(meter: &mut Meter, choice: &str) -> Verdict {
    event(
        meter,
        &format!(
            r#"{{"id":"b","object":"chat.completion.chunk","created":9,"model":"n","system_fingerprint":"fp","choices":[{choice}]}}"#
        ),
    )
}

/// The delta goes, as one of the first answer.
fn goes(delta: &str) -> Verdict {
    replaced(&format!(
        r#"{{{OURS},"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#
    ))
}

/// What could go on behind chunks with these choices.
fn resumable(choices: &[&str]) -> Option<String> {
    let mut meter = Meter::new(OPTIONS);
    for choices in choices {
        event(&mut meter, &format!("{{\"choices\":[{choices}]}}"));
    }
    meter.resumable().map(|delivered| delivered.content.to_owned())
}

#[test]
fn one_plain_text_can_go_on() {
    let say = |delta: &str| format!("{{\"index\":0,\"delta\":{delta}}}");
    let said = |deltas: &[&str]| {
        let choices: Vec<_> = deltas.iter().map(|delta| say(delta)).collect();
        resumable(&choices.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (a, b) = (r#"{"content":"a\u0062"}"#, r#"{"content":"c"}"#);
    assert_eq!(said(&[r#"{"role":"assistant","content":""}"#]), None);
    assert_eq!(said(&[a, r#"{"content":""}"#, r#"{"content":null}"#, "{}", b]), Some("abc".into()));
    for before in [
        r#"{"reasoning_content":"r"}"#,
        r#"{"reasoning":"r","reasoning_details":[{"text":"r"}]}"#,
        r#"{"thinking_blocks":[{"thinking":"r"}]}"#,
        r#"{"role":"assistant","tool_calls":[],"refusal":null,"annotations":[]}"#,
    ] {
        assert_eq!(said(&[before, a, b]), Some("abc".into()), "{before}");
    }
    assert_eq!(said(&[r#"{"reasoning":"r","content":"a"}"#, b]), Some("ac".into()));
    for other in [
        r#"{"content":"x","reasoning":"r"}"#,
        r#"{"content":"x","content":"y"}"#,
        r#"{"tool_calls":[{"index":0,"function":{"name":"f"}}]}"#,
        r#"{"function_call":{"name":"f"}}"#,
        r#"{"refusal":"no"}"#,
        r#"{"audio":{"id":"x"}}"#,
        r#"{"content":[{"type":"text","text":"x"}]}"#,
        r#"{"unheard_of":1}"#,
    ] {
        assert_eq!(said(&[a, other, b]), None, "{other}");
        assert_eq!(said(&[other, a]), None, "{other}");
    }
    for between in [r#"{"reasoning":"r"}"#, r#"{"reasoning_details":[{"text":"r"}]}"#] {
        assert_eq!(said(&[a, between]), None, "{between}");
    }
}

#[test]
fn what_is_not_one_open_choice_of_chat_cannot_go_on() {
    let a = r#"{"delta":{"content":"a"}}"#;
    assert_eq!(resumable(&[a]), Some("a".into()));
    for other in [
        r#"{"index":1,"delta":{}}"#,
        r#"{"delta":{"content":"b"},"logprobs":{"content":[]}}"#,
        r#"{"delta":{},"finish_reason":"stop"}"#,
        r#"{"text":"b"}"#,
        r#"{"message":{"content":"b"}}"#,
        r#"{"delta":{"content":"b"}},{"delta":{"content":"c"}}"#,
        r#"{"delta":{}}],"choices":["#,
    ] {
        assert_eq!(resumable(&[a, other]), None, "{other}");
    }
    let a = format!("{{\"choices\":[{a}]}}");
    let begun = |options: Options| {
        let mut meter = Meter::new(options);
        event(&mut meter, &a);
        meter
    };
    let mut meter = begun(OPTIONS);
    event(&mut meter, "{\"choices\":[{\"delta\":{\"content\":\"lost");
    assert_eq!(meter.resumable(), Some(Delivered { content: "a" }));
    event(&mut meter, "[DONE]");
    assert_eq!(meter.resumable(), None);
    let mut meter = begun(OPTIONS);
    assert_eq!(meter.body(b"data: {"), Verdict::Pass);
    assert_eq!(meter.resumable(), None);
    let short = begun(Options { text_bytes_max: 0, ..OPTIONS });
    assert_eq!(short.resumable(), None);
    let other = begun(Options { endpoint: Endpoint::Completions, ..OPTIONS });
    assert_eq!(other.resumable(), None);
}

#[test]
fn half_a_character_waits_for_its_other_half() {
    let content = |text: &str| format!("{{\"delta\":{{\"content\":\"{text}\"}}}}");
    let all = |texts: &[&str]| {
        let choices: Vec<_> = texts.iter().map(|text| content(text)).collect();
        resumable(&choices.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(all(&["a", "\\ud83d"]), None);
    assert_eq!(all(&["a", "\\ud83d", "", "\\ude00b"]), Some("a\u{1f600}b".into()));
    assert_eq!(all(&["\\ud83d", "\\ude00\\ud83d", "\\ude01"]), Some("\u{1f600}\u{1f601}".into()));
    assert_eq!(all(&["\\ud83d", "b"]), None);
    assert_eq!(all(&["\\ude00", "\\ud83d", "b"]), None);
    assert_eq!(all(&["\\ud83db"]), None);
    assert_eq!(all(&["\\ufffd\u{fffd}"]), Some("\u{fffd}\u{fffd}".into()));
    // What does not count for delivered has torn nothing.
    for lost in ["{\"choices\":[CHOICE]", "{\"choices\":[CHOICE],\"error\":1}"] {
        let mut meter = Meter::new(OPTIONS);
        event(&mut meter, &format!("{{\"choices\":[{}]}}", content("a")));
        event(&mut meter, &lost.replace("CHOICE", &content("\\ud83db\\ud83d")));
        meter.error = false;
        assert_eq!(meter.resumable(), Some(Delivered { content: "a" }), "{lost}");
    }
}

#[test]
fn a_value_that_spans_lines_is_replaced_once() {
    let stream = "data: {\"id\":[1,\r\ndata: 2\r\ndata: ],\"choices\":[{\"delta\":{\"content\"\r\ndata: :\"ab\"}}]}\r\n\r\n";
    let expected = "data: {\"id\":\"a-1\"\r\ndata: \r\ndata: ,\"choices\":[{\"delta\":{\"content\"\r\ndata: :\"b\"}}]}\r\n\r\n";
    let verdict = judge(&mut afresh("a"), stream);
    assert_eq!(verdict, Verdict::Replace(Bytes::from_static(expected.as_bytes())));
}

#[test]
fn an_answer_is_named_by_its_first_choice() {
    let named = |chunks: &[&str]| {
        let mut meter = Meter::new(OPTIONS);
        for chunk in chunks {
            event(&mut meter, chunk);
        }
        let identity = meter.identity().cloned()?;
        Some(identity.members().map(|(name, raw)| format!("{name}={raw}")).collect::<Vec<_>>())
    };
    let azure = r#"{"choices":[],"id":"","model":"","created":0}"#;
    let first = r#"{"model":"\u006d","choices":[{"delta":{}}],"created": 5e0 ,"id":"i","x":1}"#;
    let second = r#"{"model":"n","choices":[{"delta":{}}],"id":"j","object":"o"}"#;
    assert_eq!(named(&[azure]), None);
    let expected = ["id=\"i\"", "created=5e0", "model=\"\\u006d\""].map(str::to_owned);
    assert_eq!(named(&[azure, "cut", first, second]), Some(expected.to_vec()));
    assert_eq!(named(&[r#"{"choices":[{}]}"#, second]), Some(vec![]));
    let long = |length: usize| format!(r#"{{"id":"{}","choices":[{{}}]}}"#, "i".repeat(length));
    assert!(named(&[&long(IDENTITY_MEMBER_BYTES_MAX - 2)]).is_some());
    assert_eq!(named(&[&long(IDENTITY_MEMBER_BYTES_MAX - 1)]), None);
    assert_eq!(named(&[r#"{"id":["x"],"choices":[{}]}"#]), None);
    assert_eq!(named(&[r#"{"id":"x","id":"y","choices":[{}]}"#]), None);
}

#[test]
fn a_repeated_text_is_suppressed_and_the_rest_goes() {
    let mut meter = afresh("ab\u{e9}\n\u{1f600}");
    assert!(!meter.repeating() && !meter.semantic());
    for known in [
        r#"{"role":"assistant","content":""}"#,
        r#"{"reasoning_content":"hm","content":null}"#,
        r#"{"content":"a","role":"assistant"}"#,
        r#"{"content":"\u0062\u00e9"}"#,
        r#"{"content":"\n\ud83d"}"#,
        "{}",
    ] {
        assert_eq!(delta(&mut meter, known), Verdict::Drop, "{known}");
    }
    assert!(meter.repeating() && !meter.semantic());
    assert_eq!(meter.resumable(), Some(Delivered { content: "" }));
    let last = r#"{ "role":"assistant", "content":"\ude00\u0063\ud83d" , "x":1}"#;
    assert_eq!(delta(&mut meter, last), goes(r#"{  "content":"\u0063\ud83d" , "x":1}"#));
    assert!(!meter.repeating() && meter.semantic());
    assert_eq!(delta(&mut meter, r#"{"content":"\ude00d"}"#), goes(r#"{"content":"\ude00d"}"#));
    assert_eq!(meter.text(), "c\u{1f600}d");
    assert_eq!(meter.suppressed(), "hmab\u{e9}\n\u{1f600}");
    assert_eq!(meter.suppressed_bytes(), 2 + 4 + 1 + 4);
    assert_eq!(meter.semantic_events(), 6);
    assert_eq!(meter.resumable(), None);
    assert!(!meter.complete());
}

#[test]
fn white_space_that_was_not_sent_along_is_not_said_twice() {
    for (trimmed, said, rest) in [
        (" \n", " \nx", "x"),
        (" \n", " x", "x"),
        (" \n", "x \n", "x \n"),
        (" \n", "\n x", "\n x"),
        ("\u{a0}", "\u{a1}", "\u{a1}"),
        ("", " x", " x"),
    ] {
        let mut meter = prefilled(trimmed);
        let verdict = delta(&mut meter, &format!("{{\"content\":{}}}", json!(said)));
        assert_eq!(verdict, goes(&format!("{{\"content\":{}}}", json!(rest))), "{said:?}");
        assert_eq!(meter.text(), rest);
    }
    let mut meter = prefilled(" \n");
    assert_eq!(delta(&mut meter, r#"{"content":" "}"#), Verdict::Drop);
    assert_eq!(delta(&mut meter, r#"{"content":"\ud83d"}"#), goes(r#"{"content":"\ud83d"}"#));
    assert_eq!(delta(&mut meter, r#"{"content":" \n"}"#), goes(r#"{"content":" \n"}"#));
}

#[test]
fn what_a_chunk_says_beside_text_goes_when_it_is_news() {
    let tool = r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}"#;
    let mut meter = prefilled("");
    assert_eq!(delta(&mut meter, tool), goes(tool));
    assert_eq!(meter.text(), "f");
    assert_eq!(meter.resumable(), None);
    let mut meter = afresh("a");
    assert_eq!(delta(&mut meter, r#"{"annotations":[1]}"#), Verdict::Drop);
    let logprobs = r#"{"delta":{"content":"a"},"logprobs":{"content":[1]}}"#;
    assert_eq!(choice(&mut meter, logprobs), Verdict::Drop);
    assert_eq!(delta(&mut meter, r#"{"annotations":[1]}"#), goes(r#"{"annotations":[1]}"#));
    assert_eq!(delta(&mut meter, tool), goes(tool));
    let mut meter = afresh("a");
    let logprobs = r#"{"logprobs":{"content":[1]},"delta":{"content":"ab"}}"#;
    let kept = r#"{"logprobs":null,"delta":{"content":"b"}}"#;
    let kept = replaced(&format!("{{{OURS},\"choices\":[{kept}]}}"));
    assert_eq!(choice(&mut meter, logprobs), kept);
    let finish = r#"{"delta":{},"finish_reason":"stop"}"#;
    let kept = replaced(&format!("{{{OURS},\"choices\":[{finish}]}}"));
    assert_eq!(choice(&mut meter, finish), kept);
    assert!(meter.complete());
    // A last delta that has nothing new and the end.
    let mut meter = afresh("ab");
    let finish = r#"{"finish_reason":"stop","delta":{"content":"ab"}}"#;
    let kept = r#"{"finish_reason":"stop","delta":{"content":""}}"#;
    assert_eq!(choice(&mut meter, finish), replaced(&format!("{{{OURS},\"choices\":[{kept}]}}")));
    assert_eq!(event(&mut meter, "[DONE]"), Verdict::End);
    // Whatever else a stream has.
    let mut meter = prefilled("");
    for nothing in [r#"{"choices":[],"prompt_filter_results":[1]}"#, r#"{"type":"ping"}"#, "7", ""]
    {
        assert_eq!(event(&mut meter, nothing), Verdict::Drop, "{nothing}");
    }
    assert_eq!(judge(&mut meter, "event: ping\n\n"), Verdict::Pass);
    let same = format!("{{{OURS},\"x\":1,\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}]}}");
    assert_eq!(event(&mut meter, &same), replaced(&same));
    assert_eq!(event(&mut meter, r#"{"error":{"message":"m"}}"#), Verdict::Failed);
}

#[test]
fn reasoning_in_a_list_of_parts_is_suppressed() {
    let mut meter = afresh("a");
    let thought = r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}"#;
    assert_eq!(delta(&mut meter, thought), Verdict::Drop);
    assert_eq!(
        delta(&mut meter, r#"{"content":"ab","thinking":"hm"}"#),
        goes(r#"{"content":"b"}"#)
    );
    assert_eq!(meter.suppressed(), "hmahm");
}

#[test]
fn another_answer_does_not_pass() {
    let cases = [
        r#"{"delta":{"content":"b"}}"#,
        r#"{"delta":{"content":"ac"}}"#,
        r#"{"delta":{"content":"a\ud83d\ude00"}}"#,
        r#"{"delta":{"content":"\ud83da"}}"#,
        r#"{"index":1,"delta":{"content":"a"}}"#,
        r#"{"delta":{"content":"a"},"finish_reason":"stop"}"#,
        r#"{"delta":{"content":[{"type":"text","text":"a"}]}}"#,
        r#"{"delta":{"content":[{"type":"thinking"},{"type":"text","text":"a"}]}}"#,
        r#"{"delta":{"content":"ab","content":"ab"}}"#,
        r#"{"delta":{"content":"ab"},"delta":{}}"#,
        r#"{"delta":{"refusal":"no"}}"#,
        r#"{"delta":{"tool_calls":[{"index":0}]}}"#,
        r#"{"message":{"content":"ab"}}"#,
        r#"{"text":"ab"}"#,
        r#"{"delta":{}}],"choices":["#,
    ];
    for case in cases {
        let mut meter = afresh("ab");
        assert_eq!(choice(&mut meter, case), Verdict::Diverged, "{case}");
        assert!(meter.text().is_empty() && !meter.semantic() && !meter.complete(), "{case}");
    }
    let mut meter = afresh("ab");
    delta(&mut meter, r#"{"content":"a"}"#);
    assert_eq!(event(&mut meter, "[DONE]"), Verdict::Diverged);
    assert!(!meter.done());
    assert_eq!(prefilled("").body(b"data: {"), Verdict::Diverged);
    assert_eq!(choice(&mut prefilled(""), r#"{"index":2,"delta":{}}"#), Verdict::Diverged);
    let many = "\"id\":1,".repeat(9);
    assert_eq!(event(&mut prefilled(""), &format!("{{{many}\"choices\":[]}}")), Verdict::Diverged);
    // U+FFFD is no half of a character.
    let mut meter = afresh("\u{fffd}");
    assert_eq!(delta(&mut meter, r#"{"content":"\ud83d"}"#), Verdict::Drop);
    assert_eq!(delta(&mut meter, r#"{"content":"x"}"#), Verdict::Diverged);
}

#[test]
fn usage_counts_one_prompt_and_all_of_the_output() {
    let report = |usage: &str| format!(r#"{{"choices":[],"id":"b","usage":{usage}}}"#);
    let told = |usage: &str| replaced(&format!(r#"{{"choices":[],"id":"a-1","usage":{usage}}}"#));
    let given = r#"{"prompt_tokens":14,"completion_tokens":3,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":5}}"#;
    // Four parts of ten are what it was given of the answer.
    let sum = r#"{"prompt_tokens":8,"completion_tokens":9,"total_tokens":17}"#;
    let mut meter = prefilled("");
    assert_eq!(event(&mut meter, &report("null")), Verdict::Drop);
    assert_eq!(event(&mut meter, &report(given)), told(sum));
    assert!(meter.usage_passed() && !meter.semantic());
    let reported = Usage { input: 9, input_cache_read: 5, output: 3, ..Usage::default() };
    assert_eq!(meter.usage(), Some(reported));
    let small = event(&mut prefilled(""), &report(r#"{"prompt_tokens":1,"completion_tokens":1}"#));
    assert_eq!(small, told(r#"{"prompt_tokens":0,"completion_tokens":2,"total_tokens":2}"#));

    let mut meter = afresh("a");
    assert_eq!(event(&mut meter, &report(given)), Verdict::Drop);
    assert!(!meter.usage_passed());
    delta(&mut meter, r#"{"content":"ab"}"#);
    assert_eq!(event(&mut meter, &report(given)), told(given));

    let start = Start::Prefilled { trimmed: String::new() };
    let mut meter = Meter::new(Options { strip_usage: true, ..options(start) });
    assert_eq!(event(&mut meter, &report(given)), Verdict::Drop);
    let said = r#"{"usage":null,"choices":[{"delta":{"content":"b"},"usage":null}]}"#;
    let kept = r#"{"choices":[{"delta":{"content":"b"},"usage":null}]}"#;
    assert_eq!(event(&mut meter, said), replaced(kept));
    assert!(!meter.usage_passed() && meter.usage() == Some(reported));
}

#[test]
fn a_stream_that_lacks_its_end_is_given_one() {
    let usage = Usage { input: 2, input_cache_read: 1, output: 4, ..Usage::default() };
    let done = "data: [DONE]\n\n";
    let report = |named: &str| {
        format!(
            "data: {{{named}\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}}}\n\n{done}"
        )
    };
    let asked = Options { strip_usage: false, client_usage: true, ..OPTIONS };
    let mut meter = Meter::new(asked.clone());
    assert_eq!(meter.closing(Some(&usage)), report(""));
    event(&mut meter, &format!("{{{OURS},\"choices\":[{{\"delta\":{{}}}}],\"usage\":null}}"));
    assert_eq!(meter.closing(Some(&usage)), report(&format!("{OURS},")));
    assert_eq!(meter.closing(None), done);
    let given = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    event(&mut meter, given);
    assert!(meter.usage_passed());
    assert_eq!(meter.closing(Some(&usage)), done);
    let mut meter = Meter::new(OPTIONS);
    event(&mut meter, given);
    assert!(!meter.usage_passed());
    assert_eq!(meter.closing(Some(&usage)), done);
    assert_eq!(afresh("a").closing(Some(&usage)), report(&format!("{OURS},")));
}

#[test]
fn malformed_events_in_a_row_are_counted() {
    let mut meter = Meter::new(OPTIONS);
    for (data, run) in [("x", 1), ("{", 2), ("", 2), ("7", 0), ("y", 1), ("[DONE]", 1)] {
        event(&mut meter, data);
        assert_eq!(meter.malformed_run(), run, "{data}");
    }
    assert_eq!(meter.malformed(), 3);
}

#[test]
fn an_event_that_breaks_off_with_the_stream_is_no_news() {
    let unterminated = |stream: &str| {
        let mut scanner = Scanner::new();
        scanner.feed(Bytes::copy_from_slice(stream.as_bytes()));
        let block = scanner.finish().unwrap();
        let mut meter = Meter::new(OPTIONS);
        let pieces: Vec<_> = block.pieces().collect();
        let [Piece::Event(event)] = &pieces[..] else { panic!("no single event: {stream:?}") };
        assert!(event.unterminated());
        (meter.event(event), meter.malformed())
    };
    let content = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}";
    for (stream, verdict) in [
        (content.to_owned(), Verdict::Pass),
        (format!("{content}\n"), Verdict::Pass),
        (format!("{content}\r\n\r"), Verdict::Pass),
        (content.strip_suffix('}').unwrap().to_owned(), Verdict::Drop),
        ("data: [DON".to_owned(), Verdict::Drop),
        ("data: [DONE]".to_owned(), Verdict::End),
    ] {
        assert_eq!(unterminated(&stream), (verdict, 0), "{stream:?}");
    }
    let block = Scanner::new().feed(Bytes::from_static(b"data: x\n\n"));
    let Some(Piece::Event(event)) = block.pieces().next() else { panic!("no event") };
    assert!(!event.unterminated());
}
