//! Does one thing of the call path so many times, for `count.py` to count its instructions: `instructions CASE TIMES`.

use std::hint::black_box;
use std::io;

use bytes::Bytes;
use tokenroute_domain::record::Endpoint;
use tokenroute_wire::meter::{Meter, Options, Reasoning};
use tokenroute_wire::request::{Change, Frames, Scanner, Splicer};
use tokenroute_wire::sse::{self, Piece};

/// Events of a stream that are read as one frame.
const EVENTS: usize = 100;

fn chat(len: usize) -> Bytes {
    let sentence = "The quick brown fox jumps over the lazy dog, and it does so again. ";
    let text: String = sentence.chars().cycle().take(len.saturating_sub(160)).collect();
    Bytes::from(format!(
        r#"{{"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{text}"}}],"model":"openai/gpt-5-mini","stream":true,"max_tokens":512,"temperature":0.7}}"#
    ))
}

/// Reads a body and writes it anew for an upstream.
fn pass_on(body: &Bytes) -> io::Result<usize> {
    let (mut scanner, mut frames, mut out) = (Scanner::new(), Frames::new(), Vec::new());
    scanner.feed(body).map_err(io::Error::other)?;
    frames.push(body.clone());
    scanner.finish().map_err(io::Error::other)?;
    let change =
        Change { model: "gpt-5-mini-2025-08-07", include_usage: true, ..Change::default() };
    Splicer::new(&change, &scanner).advance(&scanner, &frames, &mut out);
    Ok(out.len())
}

fn meter() -> Meter {
    Meter::new(Options {
        endpoint: Endpoint::ChatCompletions,
        strip_usage: true,
        client_usage: false,
        reasoning: Reasoning::Inside,
        text_bytes_max: 1024 * 1024,
        resume: None,
    })
}

fn answer() -> Bytes {
    let text = "word ".repeat(60);
    Bytes::from(format!(
        r#"{{"id":"chatcmpl-CQk0vVPZ3JX8","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":200,"completion_tokens":60,"total_tokens":260,"prompt_tokens_details":{{"cached_tokens":0}}}}}}"#
    ))
}

fn events() -> Bytes {
    let head = r#""id":"chatcmpl-CQk0vVPZ3JX8","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini-2024-07-18""#;
    let event = |token| {
        format!(
            "data: {{{head},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{token}\"}},\"finish_reason\":null}}],\"usage\":null}}\n\n"
        )
    };
    Bytes::from((0..EVENTS).map(event).collect::<String>())
}

fn read_events(events: &Bytes) {
    let (mut scanner, mut meter) = (sse::Scanner::new(), meter());
    let block = scanner.feed(events.clone());
    for piece in block.pieces() {
        if let Piece::Event(event) = piece {
            black_box(meter.event(&event));
        }
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(case), Some(times)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: instructions CASE TIMES"));
    };
    let times: usize = times.parse().map_err(io::Error::other)?;
    let (small, large, answer, events) = (chat(1_000), chat(100_000), answer(), events());
    for _ in 0..times {
        match &*case {
            "body of 1 KB" => drop(black_box(pass_on(black_box(&small))?)),
            "body of 100 KB" => drop(black_box(pass_on(black_box(&large))?)),
            "answer" => {
                let mut meter = meter();
                black_box(meter.body(black_box(&answer)));
                meter.finish();
                black_box(meter.usage());
            }
            "100 events" => read_events(black_box(&events)),
            _ => return Err(io::Error::other("no such case")),
        }
    }
    Ok(())
}
