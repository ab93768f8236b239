//! The forward pass on a rank of world size 1: `cargo bench -p pie-model -- bench-14m`; of a real model's folder or GGUF file:
//! `PIE_BENCH_MODEL=$PWD/.cache/models/qwen2.5-coder-0.5b.gguf cargo bench -p pie-model -- given`.
//!
//! Prefill of 4,096 tokens in chunks of 512; an edit's step at that depth: 64 inserted tokens in the middle and the
//! last token; decoding at depth 0 and 4,096.

use criterion::{BatchSize, Criterion, SamplingMode, criterion_group, criterion_main};
use pie_comm::{Collective, Solo};
use pie_kv::{KvCache, View};
use pie_model::{Batch, Config, Model, Sequence, seeded};
use pie_words::{Slot, TokenId, TokenIndex};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

const DEPTH: usize = 4096;
const CHUNK: usize = 512;

/// Rows of one sequence that sees the first slots, its positions; the last row's logits if wanted.
fn rows(indices: impl Iterator<Item = usize>, seen: &[Slot], logits: Range<usize>) -> Batch<'_> {
    let indices: Vec<u32> = indices.map(|index| index as u32).collect();
    let visible = indices.iter().map(|index| index + 1).collect();
    Batch {
        tokens: indices.iter().map(|index| TokenId(index * 7919 % 8192)).collect(),
        positions: indices.iter().copied().map(TokenIndex).collect(),
        slots: indices.iter().copied().map(Slot).collect(),
        sequences: vec![Sequence { rows: 0..indices.len(), view: View::from(seen), visible }],
        logits_of: logits.collect(),
        interrupt: None,
    }
}

fn forward(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let slots: Vec<Slot> = (0..=DEPTH as u32).map(Slot).collect();
    let given = std::env::var_os("PIE_BENCH_MODEL").map(PathBuf::from);
    for preset in ["bench-14m", "bench-90m", "bench-116m"].into_iter().chain(given.as_ref().map(|_| "given"))
    {
        let path = given.clone().filter(|_| preset == "given").unwrap_or_else(|| folder.path().join(preset));
        let mut group = criterion.benchmark_group(preset);
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        let load = || {
            if !path.exists() {
                let config = Config::preset(preset).expect("a preset");
                seeded::write_model(&path, &config, 1, &mut |_, _| {}).expect("room for a model");
            }
            let model = Model::load(&path, Solo::new().member(), &mut |_, _| {}).expect("it loads");
            let cache = KvCache::new(model.kv_shape(DEPTH + 1)).expect("it fits");
            (model, cache)
        };
        // Only when one of the group is to run.
        let machine = std::cell::OnceCell::new();
        let run = |batches: &[Batch<'_>]| {
            let machine = machine.get_or_init(|| std::cell::RefCell::new(load()));
            let (model, cache) = &mut *machine.borrow_mut();
            for batch in batches {
                model.forward(batch, cache, &mut Solo::new()).expect("it runs");
            }
        };
        let chunks = |_: usize| {
            let chunk = |start: usize| rows(start..start + CHUNK, &slots[..start + CHUNK], 0..0);
            (0..DEPTH).step_by(CHUNK).map(chunk).collect::<Vec<_>>()
        };
        let edit = |inserted: usize| {
            let middle = DEPTH / 2..DEPTH / 2 + inserted;
            vec![rows(middle.chain([DEPTH - 1]), &slots[..DEPTH], inserted..inserted + 1)]
        };
        let decode = |depth: usize| vec![rows(depth..depth + 1, &slots[..=depth], 0..1)];
        type Batches<'a> = &'a dyn Fn(usize) -> Vec<Batch<'a>>;
        let cases: [(&str, Batches<'_>, usize); 6] = [
            ("prefill 4096", &chunks, 0),
            ("65 rows at 4096", &edit, 64),
            ("9 rows at 4096", &edit, 8),
            ("3 rows at 4096", &edit, 2),
            ("decode at 4096", &decode, DEPTH),
            ("decode at 0", &decode, 0),
        ];
        for (name, make, argument) in cases {
            let batches = make(argument);
            group.bench_function(name, |bench| {
                bench.iter_batched(|| (), |()| run(&batches), BatchSize::PerIteration)
            });
        }
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
