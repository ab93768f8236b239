//! Draws beside a plain one: sort everything, add up in f64, and look where the same random number points.

use pie_model::sample;
use pie_words::{SamplingParameters, TokenId};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The tokens that top-k and top-p leave with their share of the probability; most likely first, of equals the smaller id.
fn left(logits: &[f32], parameters: &SamplingParameters) -> Vec<(u32, f64)> {
    let SamplingParameters { temperature, top_k, top_p, .. } = *parameters;
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| ((f64::from(logit) - f64::from(greatest)) / f64::from(temperature)).exp();
    let mut all: Vec<(u32, f64)> =
        logits.iter().enumerate().map(|(id, logit)| (id as u32, weight(*logit))).collect();
    all.sort_by(|a, b| logits[b.0 as usize].total_cmp(&logits[a.0 as usize]).then(a.0.cmp(&b.0)));
    if top_k > 0 {
        all.truncate(top_k as usize);
    }
    let total: f64 = all.iter().map(|(_, weight)| weight).sum();
    if top_p < 1.0 {
        let mut sum = 0.0;
        let is_enough = |(_, weight): &(u32, f64)| {
            sum += weight;
            sum >= f64::from(top_p) * total * (1.0 - 1e-5)
        };
        let most = all.iter().position(is_enough).map_or(all.len(), |last| last + 1);
        all.truncate(most);
    }
    let total: f64 = all.iter().map(|(_, weight)| weight).sum();
    all.iter().map(|(id, weight)| (*id, weight / total)).collect()
}

/// Logits on a grid, so that some are equal.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let of = |length| prop::collection::vec((-40_i32..40).prop_map(|step| step as f32 / 4.0), length);
    prop_oneof![of(1..20), of(50..300), of(1000..3000)]
}

fn parameters() -> impl Strategy<Value = SamplingParameters> {
    let temperature = prop_oneof![Just(1e-3_f32), 0.1..2.0_f32, Just(100.0)];
    let top_p = prop_oneof![Just(1.0_f32), 0.01..1.0_f32];
    (temperature, prop_oneof![Just(0), 1..100_u32], top_p, any::<u64>(), 0..25_u32).prop_map(
        |(temperature, top_k, top_p, seed, top_logprobs)| SamplingParameters {
            temperature,
            top_k,
            top_p,
            seed,
            top_logprobs,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(3), ..ProptestConfig::with_cases(400) })]

    /// Each token is drawn where the plain draw finds it, or next to it where rounding decides.
    #[test]
    fn draws_are_those_of_a_plain_sampler(logits in logits(), parameters in parameters(), step in any::<u64>()) {
        let drawn = sample(&logits, &parameters, step).expect("they are numbers");
        let mut random = ChaCha8Rng::seed_from_u64(parameters.seed);
        random.set_stream(step);
        let point: f64 = random.random();
        let mut left = left(&logits, &parameters);
        // Where nothing is cut the tokens stand side by side as they are numbered.
        let cuts_none = parameters.top_k == 0 || parameters.top_k as usize >= logits.len();
        if cuts_none && parameters.top_p == 1.0 {
            left.sort_by_key(|(id, _)| *id);
        }
        let mut end = 0.0;
        let at = left.iter().find_map(|(id, share)| {
            let begin = end;
            end += share;
            (*id == drawn.token.0).then_some((begin, end))
        });
        let (begin, end) = at.expect("it is one of those that are left");
        prop_assert!(begin - 2e-5 <= point && point <= end + 2e-5, "{point} is not in {begin}..{end}");

        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        let told: Vec<u32> = drawn.top.iter().map(|(id, _)| id.0).collect();
        prop_assert_eq!(&told[..], &order[..told.len()]);
        prop_assert_eq!(told.len(), (parameters.top_logprobs as usize).min(logits.len()));
        let greedy = sample(&logits, &SamplingParameters::greedy(0), step).expect("they are numbers");
        prop_assert_eq!(greedy.token, TokenId(order[0]));
    }
}

/// How often each token comes in many steps of one seed: chi-squared, which passes 27.9 once in a thousand times for 9 degrees of
/// freedom.
#[test]
fn tokens_come_as_often_as_their_probability_says() {
    const DRAWS: u32 = 20_000;
    let logits = [1.0, 0.0, 2.0, -1.0, 0.5, 1.5, -0.5, 0.25, 3.0, 2.5];
    let cuts = [(0, 1.0_f32), (5, 1.0), (0, 0.9), (7, 0.8)];
    for (top_k, top_p) in cuts {
        let parameters = SamplingParameters { temperature: 0.9, top_k, top_p, seed: 7, top_logprobs: 0 };
        let mut counts = [0_u32; 10];
        for step in 0..u64::from(DRAWS) {
            let drawn = sample(&logits, &parameters, step).expect("they are numbers");
            counts[drawn.token.0 as usize] += 1;
        }
        let left = left(&logits, &parameters);
        let distance = left.iter().map(|(id, share)| {
            let expected = share * f64::from(DRAWS);
            (f64::from(counts[*id as usize]) - expected).powi(2) / expected
        });
        let distance: f64 = distance.sum();
        assert!(distance < 27.9, "chi-squared {distance} with top-k {top_k}, top-p {top_p}: {counts:?}");
        let of_left: u32 = left.iter().map(|(id, _)| counts[*id as usize]).sum();
        assert_eq!(of_left, DRAWS, "nothing that was cut is drawn");
    }
}
