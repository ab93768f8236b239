//! What drawing a token costs, from the logits of a vocabulary as large as the shipped model's and as Qwen2.5-Coder's, that are as
//! sharp as a model's on code or flat: `cargo bench -p pie-model --bench sampling`.

use criterion::{Criterion, criterion_group, criterion_main};
use pie_model::sample;
use pie_words::SamplingParameters;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// Some tokens stand out by so much, and each of the others has a little noise.
fn logits(vocabulary: usize, stand_out: f32) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut logits: Vec<f32> = (0..vocabulary).map(|_| random.random_range(-2.0..2.0)).collect();
    (0..20).for_each(|rank| logits[random.random_range(0..vocabulary)] += stand_out - 0.5 * rank as f32);
    logits
}

fn sampling(criterion: &mut Criterion) {
    let greedy = SamplingParameters::greedy(0);
    let warm = SamplingParameters { temperature: 0.8, seed: 1, ..greedy.clone() };
    let cases = [
        ("greedy", greedy.clone()),
        ("greedy, 20 told", SamplingParameters::greedy(20)),
        ("temperature", warm.clone()),
        ("top-k 40", SamplingParameters { top_k: 40, ..warm.clone() }),
        ("top-p 0.95", SamplingParameters { top_p: 0.95, ..warm }),
    ];
    for (vocabulary, shape, stand_out) in
        [(8192, "sharp", 16.0), (151_936, "sharp", 16.0), (151_936, "flat", 0.0)]
    {
        let logits = logits(vocabulary, stand_out);
        let mut group = criterion.benchmark_group(format!("{vocabulary}, {shape}"));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        for (name, parameters) in &cases {
            let mut step = 0;
            group.bench_function(*name, |bench| {
                bench.iter(|| {
                    step += 1;
                    sample(&logits, parameters, step).expect("they are numbers")
                })
            });
        }
    }
}

criterion_group!(benches, sampling);
criterion_main!(benches);
