//! Turning keys beside a plain copy of the same bytes, and attention through the slot table.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pie_kv::{Attention, KvCache, KvShape, Precision, Rope, RopeScaling, Strided, View};
use pie_words::Slot;
use rayon::prelude::*;
use std::hint::black_box;

/// 12 layers of 8 KV heads of 64.
const SHAPE: KvShape = KvShape { layers: 12, kv_heads: 8, head_dim: 64, slots: 16_640 };
/// Its query heads.
const HEADS: usize = 16;

fn rope() -> Rope {
    Rope::new(SHAPE.head_dim, 1e5, &RopeScaling::Linear { factor: 4.0 }).expect("an even dimension")
}

fn turning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keys");
    group.sample_size(20);
    let (rope, row) = (rope(), SHAPE.kv_heads * SHAPE.head_dim);
    for tokens in [1024_usize, 4096, 16_384] {
        let slots: Vec<Slot> = (0..tokens as u32).map(Slot).collect();
        for precision in [Precision::F32, Precision::Bf16] {
            // Bytes of the keys: each is read once and written once, as in a copy.
            group.throughput(Throughput::Bytes((SHAPE.layers * tokens * row) as u64 * precision.bytes()));
            let mut cache = filled(KvShape { slots: tokens, ..SHAPE }, precision);
            let mut by = 64;
            group.bench_function(BenchmarkId::new(format!("turn {precision:?}"), tokens), |bencher| {
                bencher.iter(|| {
                    by = -by;
                    cache.turn(&rope, &slots, &vec![by; tokens]).expect("slots exist");
                });
            });
        }
        group.throughput(Throughput::Bytes((SHAPE.layers * tokens * row * 4) as u64));
        let from = vec![vec![1.0_f32; tokens * row]; SHAPE.layers];
        let mut to = vec![vec![0.0_f32; tokens * row]; SHAPE.layers];
        group.bench_function(BenchmarkId::new("copy", tokens), |bencher| {
            bencher.iter(|| {
                to.par_iter_mut().zip(&from).for_each(|(to, from)| to.copy_from_slice(black_box(from)));
            });
        });
    }
    group.finish();
}

/// A cache whose rows are all written: pages that nothing was written to are one and the same.
fn filled(shape: KvShape, precision: Precision) -> KvCache {
    let mut cache = KvCache::with_precision(shape, precision).expect("it fits");
    let slots: Vec<Slot> = (0..shape.slots as u32).map(Slot).collect();
    let numbers: Vec<f32> =
        (0..shape.slots * shape.numbers()).map(|index| (index % 1000) as f32 / 1000.0).collect();
    let rows = Strided { numbers: &numbers, first: 0, stride: shape.numbers() };
    (0..shape.layers).for_each(|layer| cache.write(layer, &slots, rows, rows).expect("slots exist"));
    cache
}

/// All layers in turn, as a pass reads them: none is in a processor's cache when its turn comes again.
fn attending(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(20);
    for (rows, context) in [(1_usize, 4096_usize), (1, 16_384), (65, 4096), (512, 4096)] {
        let table: Vec<Slot> = (0..context as u32).map(Slot).collect();
        let visible: Vec<u32> = (context - rows + 1..=context).map(|seen| seen as u32).collect();
        let queries = vec![1.0; rows * HEADS * SHAPE.head_dim];
        let mut out = vec![0.0; queries.len()];
        for precision in [Precision::F32, Precision::Bf16] {
            let shape = KvShape { slots: context, ..SHAPE };
            let (cache, mut layer) = (filled(shape, precision), 0);
            group.throughput(Throughput::Bytes(shape.bytes(precision) / shape.layers as u64));
            group.bench_function(
                BenchmarkId::new(format!("{rows} rows {precision:?}"), context),
                |bencher| {
                    bencher.iter(|| {
                        layer = (layer + 1) % shape.layers;
                        let batch =
                            [Attention { rows: 0..rows, view: View::from(&table[..]), visible: &visible }];
                        cache.attend(layer, (&queries, HEADS), &batch, &mut out).expect("a right batch");
                        black_box(&out);
                    });
                },
            );
        }
    }
    group.finish();
}

criterion_group!(benches, turning, attending);
criterion_main!(benches);
