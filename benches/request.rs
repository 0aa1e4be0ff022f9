//! How long the request scanner and the splicer take, for bodies as clients send them.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokenroute_wire::request::{Change, Frames, Scanner, Splicer};

/// Bytes of a frame, as one read of a connection gives them.
const FRAME_BYTES: usize = 64 * 1024;

const CHANGE: Change<'_> = Change {
    model: "gpt-5-mini-2025-08-07",
    include_usage: true,
    prefill: None,
    output_tokens_max: None,
    output_cap: None,
};

/// A chat body of about `len` bytes, its model last as SDKs write it.
fn chat(sentence: &str, len: usize) -> Bytes {
    let text: String = sentence.chars().cycle().take(len.saturating_sub(160)).collect();
    let body = format!(
        r#"{{"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{text}"}}],"model":"openai/gpt-5-mini","stream":true,"max_tokens":512,"temperature":0.7}}"#
    );
    Bytes::from(body)
}

fn scan(frames: &[Bytes]) -> Scanner {
    let mut scanner = Scanner::new();
    for frame in frames {
        assert!(scanner.feed(frame).is_ok(), "the body is sound");
    }
    assert!(scanner.finish().is_ok(), "the body is whole");
    scanner
}

fn measure(criterion: &mut Criterion) {
    let plain = "The quick brown fox jumps over the lazy dog, and it does so again. ";
    let escaped = r#"let greeting = \"hello\";\n\tprint(greeting + \" world\");\n"#;
    let wide = "Übergrößenträger, 日本語のテキスト, и ещё немного 😀. ";
    for (name, sentence, len) in [
        ("1 KB", plain, 1_000),
        ("100 KB", plain, 100_000),
        ("100 KB escapes", escaped, 100_000),
        ("100 KB wide", wide, 50_000),
        ("5 MB", plain, 5_000_000),
    ] {
        let body = chat(sentence, len);
        let frames: Vec<Bytes> = (0..body.len())
            .step_by(FRAME_BYTES)
            .map(|at| body.slice(at..body.len().min(at.saturating_add(FRAME_BYTES))))
            .collect();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(u64::try_from(body.len()).unwrap_or(0)));
        group.bench_function("scan", |bencher| bencher.iter(|| scan(black_box(&frames))));
        let scanner = scan(&frames);
        let mut kept = Frames::new();
        for frame in &frames {
            kept.push(frame.clone());
        }
        group.bench_function("splice", |bencher| {
            bencher.iter_batched(
                || Vec::with_capacity(frames.len().saturating_add(4)),
                |mut out| {
                    Splicer::new(&CHANGE, &scanner).advance(&scanner, &kept, &mut out);
                    out
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, measure);
criterion_main!(benches);
