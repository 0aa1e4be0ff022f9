//! How long the reading of an answer takes, for each event of a stream as providers send it.

use std::hint::black_box;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use tokenroute_domain::record::Endpoint;
use tokenroute_wire::meter::{Meter, Options, Reasoning};
use tokenroute_wire::sse::{Block, Piece, Scanner};

/// Events of a stream: enough that the first and the last don't matter.
const EVENTS: usize = 1000;

/// A chunk as OpenAI sends it, about 250 bytes.
fn chunk(token: usize, usage: &str) -> String {
    let head = r#""id":"chatcmpl-CQk0vVPZ3JX8","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini-2024-07-18""#;
    let choices = format!(
        r#""choices":[{{"index":0,"delta":{{"content":" word{token}"}},"logprobs":null,"finish_reason":null}}]"#
    );
    format!("data: {{{head},\"system_fingerprint\":\"fp_51e1070cf2\",{choices}{usage}}}\n\n")
}

fn chunks(usage: &str) -> Vec<Bytes> {
    (0..EVENTS).map(|token| Bytes::from(chunk(token, usage))).collect()
}

fn meter(strip_usage: bool) -> Meter {
    Meter::new(Options {
        endpoint: Endpoint::ChatCompletions,
        strip_usage,
        client_usage: !strip_usage,
        reasoning: Reasoning::Inside,
        text_bytes_max: 1024 * 1024,
        resume: None,
    })
}

fn judge(meter: &mut Meter, block: &Block) {
    for piece in block.pieces() {
        if let Piece::Event(event) = piece {
            black_box(meter.event(&event));
        }
    }
}

/// Feeds frames to a scanner, and what comes out to a meter, if there is one.
fn run(frames: &[Bytes], mut meter: Option<Meter>) -> Option<Meter> {
    let mut scanner = Scanner::new();
    for frame in frames {
        let block = black_box(scanner.feed(frame.clone()));
        if let Some(meter) = &mut meter {
            judge(meter, &block);
        }
    }
    meter
}

fn joined(events: &[Bytes], frame_bytes: usize) -> Vec<Bytes> {
    let all = Bytes::from(events.concat());
    let frame = |at: usize| all.slice(at..all.len().min(at.saturating_add(frame_bytes)));
    (0..all.len()).step_by(frame_bytes).map(frame).collect()
}

fn measure_stream(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.throughput(Throughput::Elements(u64::try_from(EVENTS).unwrap_or(0)));
    let (plain, with_null) = (chunks(""), chunks(",\"usage\":null"));
    let full = joined(&plain, 16 * 1024);
    let split = joined(&plain, 100);
    let mut bench = |name: &str, frames: &[Bytes], meter: &dyn Fn() -> Option<Meter>| {
        group.bench_function(name, |bencher| bencher.iter(|| run(black_box(frames), meter())));
    };
    bench("scan, a frame an event", &plain, &|| None);
    bench("scan, 16 KB frames", &full, &|| None);
    bench("scan, 100 byte frames", &split, &|| None);
    bench("scan and meter", &plain, &|| Some(meter(false)));
    bench("scan, meter and strip", &with_null, &|| Some(meter(true)));
}

/// An answer of embeddings, too large to keep.
fn measure_body(criterion: &mut Criterion) {
    let vector = "-0.012345678,".repeat(1536);
    let item = format!("{{\"object\":\"embedding\",\"index\":0,\"embedding\":[{vector}0]}},");
    let body = format!(
        "{{\"object\":\"list\",\"data\":[{}1],\"usage\":{{\"prompt_tokens\":8,\"total_tokens\":8}}}}",
        item.repeat(100)
    );
    let mut group = criterion.benchmark_group("body");
    group.throughput(Throughput::Bytes(u64::try_from(body.len()).unwrap_or(0)));
    group.bench_function("2 MB of embeddings", |bencher| {
        bencher.iter(|| {
            let mut meter = meter(false);
            body.as_bytes().chunks(64 * 1024).for_each(|part| drop(meter.body(black_box(part))));
            meter.finish();
            meter.usage()
        });
    });
    group.finish();
}

fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    measure_stream(&mut group);
    group.finish();
    measure_body(criterion);
}

criterion_group!(benches, measure);
criterion_main!(benches);
