//! The cache against its equations, computed plainly in f64.

use pie_kv::{Attention, KvCache, KvError, KvShape, Precision, Ramp, Rope, RopeScaling, Strided, View};
use pie_words::{Slot, TokenIndex};
use proptest::prelude::*;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn noise(random: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.random_range(-2.0..2.0)).collect()
}

/// Writes rows that lie one behind the other.
fn write(
    cache: &mut KvCache,
    layer: usize,
    slots: &[Slot],
    keys: &[f32],
    values: &[f32],
) -> Result<(), KvError> {
    let KvShape { kv_heads, head_dim, .. } = cache.shape();
    let rows = |numbers| Strided { numbers, first: 0, stride: kv_heads * head_dim };
    cache.write(layer, slots, rows(keys), rows(values))
}

/// Attention in layer 0.
fn attend(
    cache: &KvCache,
    queries: &[f32],
    heads: usize,
    batch: &[Attention<'_>],
) -> Result<Vec<f32>, KvError> {
    let mut out = vec![0.0; queries.len()];
    cache.attend(0, (queries, heads), batch, &mut out)?;
    Ok(out)
}

fn slots(list: impl IntoIterator<Item = u32>) -> Vec<Slot> {
    list.into_iter().map(Slot).collect()
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// A number as it is kept.
fn kept(number: f32, precision: Precision) -> f32 {
    match precision {
        Precision::F32 => number,
        Precision::Bf16 => half::bf16::from_f32(number).to_f32(),
    }
}

/// A cache whose slots all hold noise; K and V as they are kept, [slots][kv heads][head dimension].
fn noisy_cache(
    random: &mut ChaCha8Rng,
    shape: KvShape,
    precision: Precision,
) -> (KvCache, Vec<f32>, Vec<f32>) {
    let mut cache = KvCache::with_precision(shape, precision).expect("it fits");
    let count = shape.slots * shape.kv_heads * shape.head_dim;
    let (mut keys, mut values) = (noise(random, count), noise(random, count));
    let all = slots(0..shape.slots as u32);
    for layer in 0..shape.layers {
        write(&mut cache, layer, &all, &keys, &values).expect("slots exist");
    }
    keys.iter_mut().chain(&mut values).for_each(|number| *number = kept(*number, precision));
    (cache, keys, values)
}

/// softmax(q · K / √d) V of one query, over the first `visible` slots of a table.
fn definition(query: &[f32], keys: &[&[f32]], values: &[&[f32]]) -> Vec<f64> {
    let dot = |key: &&[f32]| query.iter().zip(*key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
    let scores: Vec<f64> = keys.iter().map(|key| dot(key) / (query.len() as f64).sqrt()).collect();
    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let part =
        |i: usize| values.iter().zip(&weights).map(move |(value, weight)| f64::from(value[i]) * weight);
    (0..query.len()).map(|i| part(i).sum::<f64>() / total).collect()
}

/// A sequence of a ragged step: how long its table is, and how many of its tokens are rows.
#[derive(Clone, Debug)]
struct Ragged {
    table: usize,
    rows: usize,
}

fn ragged() -> impl Strategy<Value = Ragged> {
    prop_oneof![
        // A decode, an edit in several places, a prefill that crosses blocks and tiles.
        (1_usize..300).prop_map(|table| Ragged { table, rows: 1 }),
        (20_usize..400, 1_usize..20).prop_map(|(table, rows)| Ragged { table, rows }),
        (130_usize..400).prop_map(|table| Ragged { table, rows: 130 }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// M1: each row sees its own leading slots, whatever the slots' order in memory, beside other sequences.
    #[test]
    fn attention_is_its_definition(
        seed in any::<u64>(),
        kv_heads in 1_usize..4,
        group in 1_usize..9,
        head_dim in prop::sample::select(vec![2, 6, 20, 24, 64, 80, 128]),
        precision in prop::sample::select(PRECISIONS.to_vec()),
        sequences in prop::collection::vec(ragged(), 1..4),
    ) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let shape = KvShape { layers: 1, kv_heads, head_dim, slots: 1300 };
        let (cache, keys, values) = noisy_cache(&mut random, shape, precision);
        let mut free: Vec<u32> = (0..shape.slots as u32).collect();
        free.shuffle(&mut random);
        let tables: Vec<Vec<Slot>> = sequences.iter().map(|one| slots(free.drain(..one.table))).collect();
        let visible: Vec<Vec<u32>> = sequences
            .iter()
            .map(|one| {
                let mut seen: Vec<u32> = (0..one.rows).map(|_| random.random_range(1..=one.table as u32)).collect();
                seen.sort_unstable();
                seen
            })
            .collect();
        let (mut batch, mut start) = (Vec::new(), 0);
        for (table, visible) in tables.iter().zip(&visible) {
            let (front, behind) = table.split_at(random.random_range(0..=table.len()));
            let view = View::of_table([front, behind], shape.slots);
            batch.push(Attention { rows: start..start + visible.len(), view, visible });
            start += visible.len();
        }
        let heads = kv_heads * group;
        let queries = noise(&mut random, start * heads * head_dim);
        let got = attend(&cache, &queries, heads, &batch).expect("a right batch");
        for sequence in &batch {
            for (row, visible) in sequence.rows.clone().zip(sequence.visible) {
                for head in 0..heads {
                    let of = |data: &[f32], slot: Slot| {
                        data[(slot.usize() * kv_heads + head / group) * head_dim..][..head_dim].to_vec()
                    };
                    let seen = sequence.view.slots().take(*visible as usize);
                    let (k, v): (Vec<_>, Vec<_>) =
                        seen.map(|slot| (of(&keys, slot), of(&values, slot))).unzip();
                    let (k, v): (Vec<_>, Vec<_>) =
                        (k.iter().map(Vec::as_slice).collect(), v.iter().map(Vec::as_slice).collect());
                    let at = (row * heads + head) * head_dim;
                    let wanted = definition(&queries[at..at + head_dim], &k, &v);
                    for (got, wanted) in got[at..at + head_dim].iter().zip(wanted) {
                        prop_assert!((f64::from(*got) - wanted).abs() < 2e-5, "{} {}", got, wanted);
                    }
                }
            }
        }
    }

    /// K3 and K4: keys turned from any positions to any others are keys rotated for the others; values and the slots
    /// that are not named keep their bits.
    #[test]
    fn a_turned_key_is_one_rotated_for_its_new_position(
        seed in any::<u64>(),
        kv_heads in 1_usize..3,
        head_dim in prop::sample::select(vec![2, 10, 24, 128]),
        precision in prop::sample::select(PRECISIONS.to_vec()),
        moves in prop::collection::vec((0_u32..16_000, 0_u32..16_000, 1_usize..5), 1..8),
    ) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let shape = KvShape { layers: 2, kv_heads, head_dim, slots: 40 };
        // YaRN stretches keys when they are encoded, and not again when they turn.
        let scaling = if seed % 2 == 0 { RopeScaling::Linear { factor: 4.0 } } else { yarn(1.25) };
        let rope = Rope::new(head_dim, 1e5, &scaling).expect("an even dimension");
        let (mut cache, keys, values) = noisy_cache(&mut random, shape, precision);
        // Numbers below 4 are rounded by 1/128 at most, both of a pair when they are written, and each when it is turned.
        let exact = match precision {
            Precision::F32 => 4e-6,
            Precision::Bf16 => (1.0 + 2.0_f32.sqrt()) / 128.0,
        };
        let mut free: Vec<u32> = (0..40).collect();
        free.shuffle(&mut random);
        let (mut named, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
        for (old, new, count) in moves {
            for _ in 0..count {
                named.push(free.pop().expect("at most 28 of 40"));
                from.push(TokenIndex(old));
                to.push(TokenIndex(new));
            }
        }
        let (named, untouched) = (slots(named), slots(free));
        let row = kv_heads * head_dim;
        let plain: Vec<f32> = named.iter().flat_map(|slot| &keys[slot.usize() * row..][..row]).copied().collect();
        let encoded = |positions: &[TokenIndex]| {
            let mut rows = plain.clone();
            rope.angles(positions).rotate(&mut rows, row, row);
            rows
        };
        let kept = cache.values(0, &named).expect("slots exist");
        for layer in 0..2 {
            write(&mut cache, layer, &named, &encoded(&from), &kept).expect("slots exist");
        }
        let deltas: Vec<i32> = from.iter().zip(&to).map(|(from, to)| to.0 as i32 - from.0 as i32).collect();
        cache.turn(&rope, &named, &deltas).expect("distinct slots");
        let wanted = encoded(&to);
        for layer in 0..2 {
            let got = cache.keys(layer, &named).expect("slots exist");
            for (got, wanted) in got.iter().zip(&wanted) {
                prop_assert!((got - wanted).abs() < exact, "{} {}", got, wanted);
            }
            let all = slots(0..40);
            prop_assert_eq!(&cache.values(layer, &all).expect("slots exist"), &values, "K4");
            for slot in &untouched {
                let one = cache.keys(layer, &[*slot]).expect("slots exist");
                prop_assert_eq!(&one[..], &keys[slot.usize() * row..][..row]);
            }
        }
    }
}

/// K5: a thousand turns there and back leave only f32 rounding behind: the drift that a long session gathers.
#[test]
fn a_thousand_turns_drift_by_rounding_only() {
    let shape = KvShape { layers: 1, kv_heads: 2, head_dim: 24, slots: 8 };
    let rope = Rope::new(24, 1e5, &RopeScaling::Linear { factor: 4.0 }).expect("an even dimension");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut cache, keys, _) = noisy_cache(&mut random, shape, Precision::F32);
    let all = slots(0..8);
    for _ in 0..500 {
        let by = random.random_range(1..9000);
        cache.turn(&rope, &all, &[by; 8]).expect("slots exist");
        cache.turn(&rope, &all, &[-by; 8]).expect("slots exist");
    }
    let got = cache.keys(0, &all).expect("slots exist");
    let drift = got.iter().zip(&keys).fold(0.0_f32, |far, (a, b)| far.max((a - b).abs()));
    assert!(drift < 1e-4, "{drift}");
}

/// A copy is of every layer, of K and of V, bit for bit, and in the order of its pairs.
#[test]
fn copied_rows_keep_their_bits_and_pairs_go_in_order() {
    let shape = KvShape { layers: 3, kv_heads: 2, head_dim: 6, slots: 12 };
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for precision in PRECISIONS {
        copies_in_order(&mut random, shape, precision);
    }
}

fn copies_in_order(random: &mut ChaCha8Rng, shape: KvShape, precision: Precision) {
    let (mut cache, _, _) = noisy_cache(random, shape, precision);
    for layer in 0..shape.layers {
        let (keys, values) = (noise(random, 12 * 12), noise(random, 12 * 12));
        write(&mut cache, layer, &slots(0..12), &keys, &values).expect("slots exist");
    }
    let all = slots(0..12);
    let read = |cache: &KvCache| -> Vec<[Vec<f32>; 2]> {
        let layer = |layer| [cache.keys(layer, &all), cache.values(layer, &all)];
        (0..shape.layers).map(|index| layer(index).map(|rows| rows.expect("slots exist"))).collect()
    };
    let mut wanted = read(&cache);
    // 5 is written and then read; 7 is read and then written; 2 is copied to itself.
    let (from, to) = (slots([3, 5, 7, 1, 2]), slots([5, 9, 0, 7, 2]));
    for rows in wanted.iter_mut().flatten() {
        for (from, to) in from.iter().zip(&to) {
            rows.copy_within(from.usize() * 12..(from.usize() + 1) * 12, to.usize() * 12);
        }
    }
    cache.copy(&from, &to).expect("slots exist");
    assert_eq!(read(&cache), wanted);
    cache.copy(&[], &[]).expect("nothing to do");
    assert_eq!(read(&cache), wanted);
}

/// A key that is no number must reach the logits, where it is refused: it must not become a weight of 0.
#[test]
fn keys_that_are_no_numbers_are_not_passed_over() {
    for (wrong, rows) in [(f32::NAN, 1), (f32::INFINITY, 1), (f32::NAN, 40), (f32::INFINITY, 40)] {
        // Few vectors and many; the wrong key in the middle of a tile, among the rest, and alone.
        let places =
            PRECISIONS.map(|precision| [(3, 100), (99, 100), (0, 1)].map(|place| (precision, place)));
        for (precision, (place, length)) in places.into_iter().flatten() {
            let shape = KvShape { layers: 1, kv_heads: 1, head_dim: 2, slots: 128 };
            let mut random = ChaCha8Rng::seed_from_u64(4);
            let (mut cache, mut keys, values) = noisy_cache(&mut random, shape, precision);
            keys[2 * place] = wrong;
            write(&mut cache, 0, &slots(0..128), &keys, &values).expect("slots exist");
            let (table, visible) = (slots(0..length), vec![length; rows]);
            let batch = [Attention { rows: 0..rows, view: View::from(&table[..]), visible: &visible }];
            let out = attend(&cache, &vec![1.0; 2 * rows], 1, &batch).expect("shapes fit");
            assert!(out.iter().all(|number| number.is_nan()), "{wrong} at {place} of {length}: {out:?}");
        }
    }
}

fn yarn(attention_factor: f64) -> RopeScaling {
    RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        ramp: Ramp::Whole,
        original_max_position: 4096.0,
        attention_factor,
    }
}

/// Frequencies at the ends of each scaling: theta^(-2i/d), divided by the factor where the scaling says so.
#[test]
fn scalings_divide_the_frequencies_that_they_should() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 8192.0,
    };
    let linear = RopeScaling::Linear { factor: 4.0 };
    for (scaling, first, last) in
        [(RopeScaling::None, 1.0, 1.0), (linear, 4.0, 4.0), (llama3, 1.0, 8.0), (yarn(1.25), 1.0, 4.0)]
    {
        let rope = Rope::new(128, 5e5, &scaling).expect("an even dimension");
        let frequencies = rope.inverse_frequencies();
        assert_eq!(frequencies.len(), 64);
        assert!(frequencies.is_sorted_by(|a, b| a > b), "{scaling:?}");
        for (i, divisor) in [(0, first), (63, last)] {
            let wanted = 5e5_f64.powf(-2.0 * f64::from(i) / 128.0) / divisor;
            let got = f64::from(frequencies[i as usize]);
            assert!((got - wanted).abs() < 1e-6 * wanted, "{scaling:?}: {got} {wanted}");
        }
    }
}

#[test]
fn refusals_have_codes_and_change_nothing() {
    let shape = KvShape { layers: 1, kv_heads: 2, head_dim: 4, slots: 8 };
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let (mut cache, keys, _) = noisy_cache(&mut random, shape, Precision::F32);
    let rope = Rope::new(4, 1e4, &RopeScaling::None).expect("an even dimension");
    let other = Rope::new(6, 1e4, &RopeScaling::None).expect("an even dimension");
    // Two rows of two heads, and two of half the width.
    let (rows, narrow) = ([0.0; 16], [0.0; 8]);
    let table = slots([3, 1]);
    let attend = |visible: &[u32], queries: &[f32]| {
        let batch = [Attention { rows: 0..2, view: View::from(&table[..]), visible }];
        cache.attend(0, (queries, 2), &batch, &mut [0.0; 16])
    };
    let huge = KvShape { slots: usize::MAX / 64, ..shape };
    let mut found = vec![
        (Rope::new(5, 1e4, &RopeScaling::None).map(drop), "KV_ROPE"),
        (Rope::new(4, 0.0, &RopeScaling::None).map(drop), "KV_ROPE"),
        (Rope::new(4, 1e4, &yarn(f64::MAX)).map(drop), "KV_ROPE"),
        (KvCache::new(huge).map(drop), "KV_OUT_OF_MEMORY"),
        (attend(&[1, 3], &rows), "KV_MISMATCH"),
        (attend(&[0, 1], &rows), "KV_MISMATCH"),
        (attend(&[2, 1], &rows), "KV_MISMATCH"),
        (attend(&[1], &rows), "KV_MISMATCH"),
        (attend(&[1, 2], &narrow), "KV_SHAPE"),
    ];
    found.extend([
        (write(&mut cache, 1, &table, &rows, &rows), "KV_LAYER_OUT_OF_RANGE"),
        (write(&mut cache, 0, &slots([3, 8]), &rows, &rows), "KV_SLOT_OUT_OF_RANGE"),
        (write(&mut cache, 0, &table, &narrow, &rows), "KV_SHAPE"),
        (cache.turn(&rope, &table, &[1]), "KV_MISMATCH"),
        (cache.copy(&table, &slots([1])), "KV_MISMATCH"),
        (cache.copy(&table, &slots([1, 8])), "KV_SLOT_OUT_OF_RANGE"),
        (cache.copy(&slots([1, 8]), &table), "KV_SLOT_OUT_OF_RANGE"),
        (cache.turn(&other, &table, &[1, 1]), "KV_MISMATCH"),
        (cache.turn(&rope, &slots([3, 9]), &[1, 1]), "KV_SLOT_OUT_OF_RANGE"),
    ]);
    for (index, (result, code)) in found.into_iter().enumerate() {
        assert_eq!(result.map_err(|error| error.code()), Err(code), "case {index}");
    }
    assert_eq!(cache.keys(0, &slots(0..8)).expect("slots exist"), keys);
}
