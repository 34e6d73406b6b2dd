//! The decoder alone: one recorded `XRANGE` reply, pushed in as a socket would.
//!
//! Bytes a second are of RESP, elements a second are entries. `drain` is the
//! same bytes merely copied, as a lower bound. The allocator keeps the pages of
//! one round for the next, as Polars' own does, so that what is measured is
//! the decoder and not the kernel that hands out pages.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use polars_redis::IdRange;
use polars_redis::decode::{
    ChunkBuilder, Decoder, Field, FieldType, Fields, IdColumns, OnMisfit, Plan, Shape,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: usize = 65_536;
/// What one read from a socket gives.
const PIECE: usize = 256 * 1024;

/// Two strings, an integer and a float, as in the other benchmarks.
fn recorded_reply() -> Vec<u8> {
    const ACTIONS: [&str; 6] = ["click", "view", "purchase", "search", "login", "logout"];
    let mut reply = format!("*{ENTRIES}\r\n").into_bytes();
    for n in 0..ENTRIES {
        let id = format!("{}-{}", 1_704_067_200_000 + n / 3, n % 3);
        let user = format!("user_{}", n * 7919 % 100_000);
        let quantity = (n * 31 % 1000).to_string();
        let value = format!("{}.{:02}", n * 17 % 500, n % 100);
        let fields = [
            "user_id",
            &user,
            "action",
            ACTIONS[n % 6],
            "quantity",
            &quantity,
            "value",
            &value,
        ];
        reply.extend(format!("*2\r\n${}\r\n{id}\r\n*8\r\n", id.len()).bytes());
        for text in fields {
            reply.extend(format!("${}\r\n{text}\r\n", text.len()).bytes());
        }
    }
    reply
}

fn ids() -> IdColumns {
    IdColumns {
        key: None,
        id: Some("_id".into()),
        timestamp: Some("_ts".into()),
        sequence: None,
        deliveries: None,
    }
}

fn plan(fields: Fields, ids: IdColumns) -> Arc<Plan> {
    Arc::new(Plan::new(ids, fields, OnMisfit::Raise).expect("names differ"))
}

fn schema(wanted: &[&str]) -> Fields {
    let all = [
        ("user_id", FieldType::String),
        ("action", FieldType::String),
        ("quantity", FieldType::Int64),
        ("value", FieldType::Float64),
    ];
    let field = |(name, dtype): (&str, FieldType)| Field {
        name: name.into(),
        dtype,
    };
    Fields::Schema(
        all.into_iter()
            .filter(|(name, _)| wanted.contains(name))
            .map(field)
            .collect(),
    )
}

/// One run of entries, as in the middle of a long read: the run before it says
/// how much room it will take.
fn decode(reply: &[u8], plan: &Arc<Plan>, before: &ChunkBuilder) -> ChunkBuilder {
    let mut decoder = Decoder::new(plan.clone());
    let mut chunk = ChunkBuilder::with_room(plan, ENTRIES);
    chunk.make_room_like(before);
    decoder.begin_reply(Shape::Entries, IdRange::ALL, usize::MAX);
    for piece in reply.chunks(PIECE) {
        let mut input = piece;
        decoder
            .decode(&mut input, &mut chunk)
            .expect("a valid reply");
    }
    chunk
}

fn benchmark(criterion: &mut Criterion) {
    let reply = recorded_reply();
    let four = ["user_id", "action", "quantity", "value"];
    let mut group = criterion.benchmark_group("decoder");
    group.throughput(Throughput::ElementsAndBytes {
        elements: ENTRIES as u64,
        bytes: reply.len() as u64,
    });
    group.bench_function("drain", |bencher| {
        let mut buffer = vec![0; PIECE];
        bencher.iter(|| {
            for piece in reply.chunks(PIECE) {
                buffer[..piece.len()].copy_from_slice(piece);
                black_box(&mut buffer);
            }
        });
    });
    let plans = [
        ("typed schema", plan(schema(&four), ids())),
        ("no schema", plan(Fields::Discover, ids())),
        (
            "1 field of 4",
            plan(schema(&["value"]), IdColumns::default()),
        ),
    ];
    for (name, plan) in plans {
        let before = decode(&reply, &plan, &ChunkBuilder::with_room(&plan, 0));
        assert_eq!(before.rows(), ENTRIES);
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(decode(&reply, &plan, &before).finish()));
        });
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
