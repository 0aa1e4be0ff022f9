//! What the edge writes, read by `serde_json`, and what it reads of providers' errors.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenroute_domain::money::{LongContext, NanoUsd, Price, Rate, TierFactors};

use super::*;

const NO_KEY: Envelope<'_> = Envelope {
    message: "The key \"x\"\nis unknown.",
    kind: "authentication_error",
    code: 401,
    param: None,
    reason: "key_unknown",
    request_id: None,
    can_afford_tokens: None,
};

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn an_error_has_the_contract_s_shape() {
    let expected = json!({"error": {
        "message": NO_KEY.message, "type": "authentication_error", "code": 401, "param": null,
        "metadata": {"reason": "key_unknown"},
    }});
    assert_eq!(read(&NO_KEY.body()), expected);
    let full = Envelope { param: Some("model"), request_id: Some("01\\J"), ..NO_KEY };
    let error = &read(&full.body())["error"];
    assert_eq!(error["param"], "model");
    assert_eq!(error["metadata"], json!({"reason": "key_unknown", "request_id": "01\\J"}));
}

#[test]
fn an_error_in_a_stream_is_one_event_that_ends_its_choice() {
    let event = NO_KEY.event();
    let data = event.strip_prefix(b"data: ").unwrap().strip_suffix(b"\n\n").unwrap();
    assert!(!data.contains(&b'\n'));
    let chunk = read(data);
    assert_eq!(chunk["error"], read(&NO_KEY.body())["error"]);
    assert_eq!(chunk["choices"], json!([{"index": 0, "delta": {}, "finish_reason": "error"}]));
}

#[test]
fn models_are_listed() {
    let entry = json!({"id": "a/b:c", "object": "model", "created": 7, "owned_by": "me \"&\" co"});
    let one = Model { id: "a/b:c", created: 7, owner: "me \"&\" co", price: None };
    assert_eq!(read(&model(one)), entry);
    assert_eq!(read(&models([one; 2])), json!({"object": "list", "data": [entry, entry]}));
    assert_eq!(read(&models([])), json!({"object": "list", "data": []}));
}

#[test]
fn a_price_is_listed_in_decimal_strings() {
    let pricing = |price: &Price| {
        let one = Model { id: "m", created: 0, owner: "o", price: Some(price) };
        read(&model(one))["pricing"].clone()
    };
    let flat = Price::flat(Rate(150_000_000), Rate(0));
    assert_eq!(
        pricing(&flat),
        json!({"input": "0.15", "output": "0.00", "version": &*flat.version})
    );
    let all = Price {
        input_cache_read: Rate(75_000_001),
        output_audio: Rate(2_000_000_000),
        request: NanoUsd(1),
        long_context: Some(LongContext {
            above_tokens: 200_000,
            input_permille: 2_000,
            output_permille: 1_500,
        }),
        service_tiers: TierFactors { flex: 500, ..TierFactors::default() },
        ..flat
    };
    assert_eq!(
        pricing(&all),
        json!({
            "input": "0.15", "input_cache_read": "0.075000001",
            "output": "0.00", "output_audio": "2.00", "request": "0.000000001",
            "long_context": {"above_tokens": 200_000, "input": "2.00", "output": "1.50"},
            "service_tiers": {"flex": "0.50"},
            "version": &*all.version,
        })
    );
}

#[test]
fn a_provider_s_error_is_read_as_written() {
    let body = br#"{"object":"error","error":{"message":"too \u0061 \"long\"","type":"invalid_request_error",
        "param":null,"code":"context_length_exceeded","inner":{"code":"x"}}}"#;
    let expected = ProviderError {
        message: Some(r#""too \u0061 \"long\"""#),
        kind: Some("\"invalid_request_error\""),
        code: Some("\"context_length_exceeded\""),
    };
    assert_eq!(read_error(body), Some(expected));
    let text = ProviderError { message: Some("\"no\""), ..ProviderError::default() };
    assert_eq!(read_error(br#"{"error":"no"}"#), Some(text));
    let number = ProviderError { code: Some("503"), ..ProviderError::default() };
    assert_eq!(read_error(br#"{"\u0065rror":{"code":503}}"#), Some(number));
}

#[test]
fn what_is_no_error_is_not_taken_for_one() {
    let long = format!("{{\"error\":\"{}\"}}", "x".repeat(ERROR_BYTES_MAX));
    let bodies: [&[u8]; 9] = [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"{\"error\":null}",
        b"{\"error\":true}",
        b"{\"error\":\"x\"",
        b"{\"a\":{\"error\":{}}}",
        long.as_bytes(),
    ];
    for body in bodies {
        assert_eq!(read_error(body), None, "{:?}", String::from_utf8_lossy(body));
    }
}

proptest! {
    #[test]
    fn any_text_is_a_sound_string(text: String) {
        let mut out = Vec::new();
        push_json_string(&mut out, &text);
        prop_assert_eq!(read(&out), Value::String(text));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = read_error(&bytes);
    }
}

#[test]
fn complaints_are_told_apart_by_code_or_words() {
    let context = [
        r#"{"error":{"message":"This model's maximum context length is 4097 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
        r#"{"error":{"message":"Invalid 'messages[0].content': string too long.","type":"invalid_request_error","code":"string_above_max_length"}}"#,
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
        r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000","type":"BadRequestError","param":null,"code":400}"#,
        r#"[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]"#,
        r#"{"object":"error","message":"Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length","type":"invalid_request_error","code":"3051"}"#,
        r#"{"error":{"message":"<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]","code":"invalid_parameter_error"}}"#,
        r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#,
        r#"{"error":{"message":"PROMPT IS TOO LO\u004eG"}}"#,
        r#"{"error":"Input is too long for requested model."}"#,
        r#"{"detail":[{"msg":"context length exceeded"}]}"#,
    ];
    let policy = [
        r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
        r#"{"error":{"inner_error":{"code":"ResponsibleAIPolicyViolation"},"code":null,"message":"no"}}"#,
        r#"{"error":{"code":"data_inspection_failed","message":"Input data may contain something","type":"data_inspection_failed"}}"#,
        r#"{"error":{"code":"content_policy_violation","message":"x"}}"#,
        r#"{"error":{"message":"Your request was rejected as a result of our safety system."}}"#,
        r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error","code":"invalid_request_error"}}"#,
        r#"{"base_resp":{"status_code":1026,"status_msg":"input new_sensitive"}}"#,
    ];
    let other = [
        r#"{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded","type":"tokens"}}"#,
        r#"{"error":{"message":"Unknown parameter: safety_identifier","param":"safety_identifier"}}"#,
        r#"{"error":{"param":"prompt is too long","metadata":{"quoted":"content_filter"}}}"#,
        r#"{"error":{"message":"prompt is too long"}"#,
        "prompt is too long",
        "",
    ];
    for (bodies, expected) in [
        (&context[..], Complaint::ContextLength),
        (&policy[..], Complaint::ContentPolicy),
        (&other[..], Complaint::Other),
    ] {
        for body in bodies {
            assert_eq!(complaint(body.as_bytes()), expected, "{body}");
        }
    }
    let long = format!(r#"{{"pad":"{}","code":"content_filter"}}"#, "x".repeat(ERROR_BYTES_MAX));
    assert_eq!(complaint(long.as_bytes()), Complaint::Other);
}
