//! What recovery needs of a body, and a body that carries the beginning of its answer.

use super::*;

const TEXT: &str = "Half \"an\\ answer\n\u{1}\u{e9}";
const JSON: &str = r#""Half \"an\\ answer\n\u0001\u00e9""#;

fn change(form: PrefillForm) -> Change<'static> {
    Change { model: "up/1", prefill: Some(Prefill { text: TEXT, form }), ..Change::default() }
}

/// The assistant's message as each form writes it, and the members beside the messages.
fn written(form: PrefillForm) -> (String, &'static str) {
    let text = JSON.replace("\\u00e9", "\u{e9}");
    let start = format!(r#"{{"role":"assistant","content":{text}"#);
    match form {
        PrefillForm::Message => (start + "}", ""),
        PrefillForm::Prefix => (start + r#","prefix":true}"#, ""),
        PrefillForm::Partial => (start + r#","partial":true}"#, ""),
        PrefillForm::ContinueFinalMessage => {
            (start + "}", r#","continue_final_message":true,"add_generation_prompt":false"#)
        }
    }
}

const FORMS: [PrefillForm; 4] = [
    PrefillForm::Message,
    PrefillForm::Prefix,
    PrefillForm::Partial,
    PrefillForm::ContinueFinalMessage,
];

#[test]
fn tells_what_recovery_needs() {
    let body = r#" {"max_tokens": 12 ,"x":{"messages":[1]},"messages" : [ {"role":"user","content":["messages"]} ] ,"prompt":"p"}"#;
    let found = facts(body);
    let text = |span: Span| {
        let (start, end) = (span.start.try_into().unwrap(), span.end.try_into().unwrap());
        body.get::<std::ops::Range<usize>>(start..end).unwrap()
    };
    let messages = found.messages.unwrap();
    assert!(!messages.empty);
    assert_eq!(text(messages.span), r#"[ {"role":"user","content":["messages"]} ]"#);
    assert_eq!(found.prompt_start, Some(messages.span.start));
    assert_eq!(text(found.max_tokens_span.unwrap()), "12");
    assert_eq!(found.max_completion_tokens_span, None);
    assert!(!found.tools && !found.logprobs);
    for (body, empty) in [(r#"{"messages":[ ]}"#, true), (r#"{"messages":[[]]}"#, false)] {
        assert_eq!(facts(body).messages.map(|messages| messages.empty), Some(empty), "{body}");
    }
    for body in [r#"{"messages":{"a":[1]}}"#, r#"{"messages":null}"#, r#"{"a":{"messages":[]}}"#] {
        assert_eq!(facts(body).messages, None, "{body}");
    }
    assert_eq!(facts(r#"{"input": "a","prompt":"b"}"#).prompt_start, Some(10));
    assert_eq!(facts(r#"{"prompt": [1],"messages":[]}"#).prompt_start, Some(11));
    assert_eq!(facts(r#"{"max_completion_tokens":null}"#).max_completion_tokens_span, {
        Some(Span { start: 25, end: 29 })
    });
}

#[test]
fn tells_whether_tools_and_log_probabilities_are_asked_for() {
    for (value, given) in
        [("null", false), ("[]", false), ("{ }", false), ("[null]", true), ("{\"a\":0}", true)]
    {
        for name in ["tools", "functions", "\\u0074ools"] {
            assert_eq!(facts(&format!("{{\"{name}\":{value}}}")).tools, given, "{name} {value}");
        }
    }
    assert!(facts(r#"{"tools":[1],"tools":[]}"#).tools);
    assert!(facts(r#"{"tools":[],"a":[1],"functions":[1]}"#).tools);
    assert!(!facts(r#"{"a":[1],"tools":[],"b":[1]}"#).tools);
    for (value, asked) in [("true", true), ("false", false), ("null", false), ("5", false)] {
        assert_eq!(facts(&format!("{{\"logprobs\":{value}}}")).logprobs, asked, "{value}");
    }
}

#[test]
fn a_whole_body_carries_the_beginning_of_its_answer() {
    for form in FORMS {
        let (message, members) = written(form);
        for (came, sent) in [
            (
                r#"{"model":"m","messages":[{"role":"user"}],"a":1}"#,
                format!(
                    r#"{{"model":"up/1","messages":[{{"role":"user"}},{message}],"a":1{members}}}"#
                ),
            ),
            (
                r#" { "messages" : [ ] , "model":"m" } "#,
                format!(r#" {{ "messages" : [ {message}] , "model":"up/1" {members}}} "#),
            ),
            (
                r#"{"messages":[[],[{}] ],"model":"m"}"#,
                format!(r#"{{"messages":[[],[{{}}] ,{message}],"model":"up/1"{members}}}"#),
            ),
            (r#"{"model":"m","prompt":"a"}"#, r#"{"model":"up/1","prompt":"a"}"#.into()),
            (r#"{"model":"m","messages":"a"}"#, r#"{"model":"up/1","messages":"a"}"#.into()),
        ] {
            assert_eq!(edit(came, &change(form)), sent);
        }
    }
}

#[test]
fn members_that_are_there_are_left_as_they_are() {
    let form = PrefillForm::ContinueFinalMessage;
    let (message, _) = written(form);
    for (given, added) in [
        (r#""continue_final_message":false"#, r#","add_generation_prompt":false"#),
        (r#""add_generation_prompt":null"#, r#","continue_final_message":true"#),
        (r#""add_generation_prompt":1,"continue_final_message":2"#, ""),
    ] {
        let came = format!(r#"{{"messages":[],{given}}}"#);
        let sent = format!(r#"{{"messages":[{message}],{given}{added}}}"#);
        assert_eq!(edit(&came, &change(form)), sent);
    }
}

#[test]
fn all_changes_go_together_in_any_order() {
    let change = Change {
        include_usage: true,
        output_tokens_max: Some(7),
        ..change(PrefillForm::ContinueFinalMessage)
    };
    let (message, members) = written(PrefillForm::ContinueFinalMessage);
    let usage = r#","stream_options":{"include_usage":true}"#;
    assert_eq!(
        edit(
            r#"{"max_tokens":4096,"messages":[],"max_completion_tokens": 9 ,"stream":true,"model":"m"}"#,
            &change
        ),
        format!(
            r#"{{"max_tokens":7,"messages":[{message}],"max_completion_tokens": 7 ,"stream":true,"model":"up/1"{usage}{members}}}"#
        )
    );
    assert_eq!(
        edit(
            r#"{"model":"m","stream_options":{},"max_tokens":null,"stream":true,"messages":[1],"max_completion_tokens":1.5}"#,
            &change
        ),
        format!(
            r#"{{"model":"up/1","stream_options":{{"include_usage":true}},"max_tokens":null,"stream":true,"messages":[1,{message}],"max_completion_tokens":1.5{members}}}"#
        )
    );
}

#[test]
fn a_body_that_goes_on_is_not_prefilled() {
    let body = r#"{"model":"m","messages":[1],"max_tokens":9,"z":[1,2,3]}"#;
    let change = Change { output_tokens_max: Some(7), ..change(PrefillForm::Message) };
    for size in [1, 5, 40] {
        let late = attempt(body.as_bytes(), &change, size, 20);
        assert_eq!(String::from_utf8(late.sent).unwrap(), body.replace("\"m\"", "\"up/1\""));
    }
    let mut scanner = Scanner::new();
    scanner.feed(body.as_bytes()).unwrap();
    assert!(scanner.closed());
    assert_eq!(Splicer::new(&change, &scanner).growth(), 3);
    scanner.finish().unwrap();
    assert!(Splicer::new(&change, &scanner).growth() > 3);
}

/// Frames of these sizes, over and over.
fn frame(body: &[u8], size: usize) -> Frames {
    let mut frames = Frames::new();
    body.chunks(size).for_each(|chunk| frames.push(Bytes::copy_from_slice(chunk)));
    frames
}

#[test]
fn equal_beginnings_have_one_hash() {
    let body: Vec<u8> = (0..500_u16).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let hash = |body: &[u8], size: usize, start: u64, max: usize| {
        prefix_hash(&frame(body, size), start, max)
    };
    let whole = hash(&body, 500, 3, 100);
    for size in 1..60 {
        assert_eq!(hash(&body, size, 3, 100), whole, "frames of {size}");
    }
    assert_eq!(hash(&body[..103], 7, 3, 100), whole);
    assert_eq!(hash(&body[3..], 7, 0, 100), whole);
    let mut other = body.clone();
    other[103] ^= 1;
    assert_eq!(hash(&other, 7, 3, 100), whole);
    for at in 3..103 {
        other.copy_from_slice(&body);
        other[at] ^= 1;
        assert_ne!(hash(&other, 7, 3, 100), whole, "byte {at}");
    }
    let mut hashes: Vec<_> = (0..100).map(|max| hash(&body, 9, 3, max)).collect();
    hashes.extend((0..9).map(|zeros| hash(&vec![0; zeros + 1], 9, 0, 100)));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 109);
}

#[test]
fn what_was_given_up_has_no_hash() {
    let mut frames = frame(b"0123456789abcdef", 4);
    frames.release_before(8);
    let none = prefix_hash(&Frames::new(), 0, 100);
    assert_eq!(prefix_hash(&frames, 7, 100), none);
    assert_eq!(prefix_hash(&frames, 16, 100), none);
    assert_eq!(prefix_hash(&frames, 9, 100), prefix_hash(&frame(b"9abcdef", 2), 0, 100));
}

#[test]
fn a_cap_is_put_where_none_is_and_never_raised() {
    let cap = |member| Change {
        output_tokens_max: Some(7),
        output_cap: Some(member),
        ..Change::default()
    };
    let edit = |came: &str, member| edit(came, &Change { model: "m", ..cap(member) });
    for (came, member, sent) in [
        (r#"{"model":"m"}"#, "max_tokens", r#"{"model":"m","max_tokens":7}"#),
        (r#"{"model":"m","max_tokens":null}"#, "max_tokens", r#"{"model":"m","max_tokens":7}"#),
        (
            r#"{"max_tokens":null,"model":"m"}"#,
            "max_completion_tokens",
            r#"{"max_tokens":null,"model":"m","max_completion_tokens":7}"#,
        ),
        (
            r#"{"model":"m","max_completion_tokens":3}"#,
            "max_tokens",
            r#"{"model":"m","max_completion_tokens":3}"#,
        ),
        (
            r#"{"model":"m","max_tokens":700}"#,
            "max_completion_tokens",
            r#"{"model":"m","max_tokens":7}"#,
        ),
    ] {
        assert_eq!(edit(came, member), sent, "{came}");
    }
}
