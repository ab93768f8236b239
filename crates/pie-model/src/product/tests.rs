//! Products against sums in f64, with every way of keeping numbers, and in both kinds of arithmetic.

use super::*;

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Rows as they lie in files.
struct StoredRows {
    storage: Vec<Storage>,
    bytes: Vec<Vec<u8>>,
    inputs: usize,
}

impl StoredRows {
    /// Any levels, and scales that give numbers about as large as those of `noise`.
    fn new(inputs: usize, storage: Vec<Storage>) -> Self {
        let row = |(output, storage): (usize, &Storage)| -> Vec<u8> {
            let numbers = noise(inputs, output as u32);
            let small = |number: f32, to: f32| half::f16::from_f32(number * to).to_le_bytes();
            match storage {
                Storage::F32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
                Storage::BF16 => {
                    numbers.iter().flat_map(|number| half::bf16::from_f32(*number).to_le_bytes()).collect()
                }
                _ => {
                    let (blocks, size) = (inputs / storage.numbers(), storage.bytes());
                    let mut bytes: Vec<u8> = noise(blocks * size, output as u32)
                        .iter()
                        .map(|number| number.to_bits() as u8)
                        .collect();
                    for (block, number) in bytes.chunks_exact_mut(size).zip(&numbers) {
                        match storage {
                            Storage::Q6_K => block[208..].copy_from_slice(&small(*number, 3e-4)),
                            Storage::Q4_K | Storage::Q5_K => {
                                block[..2].copy_from_slice(&small(*number, 1e-3));
                                block[2..4].copy_from_slice(&small(*number, 1e-2));
                            }
                            _ => {
                                block[..2].copy_from_slice(&small(*number, 0.01));
                                if matches!(storage, Storage::Q4_1 | Storage::Q5_1) {
                                    block[2..4].copy_from_slice(&small(*number, 0.5));
                                }
                            }
                        }
                    }
                    bytes
                }
            }
        };
        let bytes = storage.iter().enumerate().map(row).collect();
        Self { storage, bytes, inputs }
    }
}

impl WeightSource for StoredRows {
    fn numbers(&self, output: usize) -> Numbers {
        Numbers::of(self.storage[output], &(0..self.inputs))
    }

    fn fill(&self, output: usize, row: &mut [f32]) {
        self.storage[output].widen(&self.bytes[output], 0, row);
    }

    fn group(&self, output: usize, index: usize) -> QuantizedGroup {
        self.storage[output].group(&self.bytes[output], index).expect("has groups")
    }
}

fn check(rows: usize, source: &StoredRows) {
    let (outputs, inputs) = (source.storage.len(), source.inputs);
    let x = noise(rows * inputs, 1);
    let packed = Packed::new(outputs, inputs, source);
    let mut weights = vec![0.0; outputs * inputs];
    for (output, row) in weights.chunks_exact_mut(inputs).enumerate() {
        source.fill(output, row);
    }
    // In f32, and, where this machine can, in whole numbers.
    for whole in [None].into_iter().chain(Vnni::detected().map(Some)) {
        let mut got = vec![f32::NAN; rows * outputs];
        packed.multiply_with(whole, &x, &mut got);
        for (index, got) in got.iter().enumerate() {
            let (row, output) = (index / outputs, index % outputs);
            let (x, weights) = (&x[row * inputs..][..inputs], &weights[output * inputs..][..inputs]);
            let products = x.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b));
            let (sum, bound) = (products.sum::<f64>(), 1e-6 * (inputs as f64).max(8.0));
            let (storage, whole) = (source.storage[output], whole.is_some());
            assert!(
                (f64::from(*got) - sum).abs() < bound,
                "{storage:?}, whole: {whole}, {rows} x {outputs} x {inputs}, {index}: {got} {sum}, bound {bound}",
            );
        }
    }
}

/// Rows around the blocks' heights and both ways of sharing.
const SIZES: [usize; 12] = [1, 2, 3, 5, 6, 7, 12, 13, 16, 65, 100, 200];

#[test]
fn product_equals_the_sum_in_f64() {
    for (rows, storage) in SIZES.into_iter().flat_map(|rows| [(rows, Storage::F32), (rows, Storage::BF16)]) {
        // Outputs and inputs around panels and depths.
        for (outputs, inputs) in [(1, 1), (31, 7), (32, 64), (33, 65), (200, 300), (96, 2100)] {
            check(rows, &StoredRows::new(inputs, vec![storage; outputs]));
        }
    }
}

/// A number that is none is not rounded away, and makes no other row wrong; numbers of any size are as exact as their group's largest.
#[test]
fn whole_numbers_of_any_size_and_what_is_none() {
    let (outputs, inputs) = (40, 64);
    let packed = Packed::new(outputs, inputs, &StoredRows::new(inputs, vec![Storage::Q8_0; outputs]));
    let product = |x: &[f32]| {
        let mut out = vec![0.0; x.len() / inputs * outputs];
        packed.multiply(x, &mut out);
        out
    };
    let whole = noise(inputs, 5);
    // Where processors have no products of whole numbers, three rows are rounded otherwise than one.
    let among_others = product(&[whole.clone(), whole.clone(), whole.clone()].concat());
    for none in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 15, 16, 40, 63] {
            let mut x = [whole.clone(), whole.clone(), whole.clone()].concat();
            x[inputs + place] = none;
            let got = product(&x);
            assert!(got[outputs..2 * outputs].iter().all(|number| !number.is_finite()), "{none} at {place}");
            for beside in [0..outputs, 2 * outputs..3 * outputs] {
                assert_eq!(got[beside.clone()], among_others[beside]);
            }
            assert!(product(&x[inputs..2 * inputs]).iter().all(|number| !number.is_finite()));
        }
    }
    let expected = product(&whole);
    for size in [1e-25_f32, 1e-3, 1e3, 1e25] {
        let sized: Vec<f32> = whole.iter().map(|number| number * size).collect();
        for (got, expected) in product(&sized).iter().zip(&expected) {
            assert!((got / size - expected).abs() < 1e-3, "{size}: {got} {expected}");
        }
    }
    assert!(product(&vec![1e-35; inputs]).iter().all(|number| number.abs() < 1e-30));
    assert!(product(&vec![0.0; inputs]).iter().all(|number| *number == 0.0));
}

#[test]
fn in_whole_numbers_a_row_gives_the_same_among_any_others() {
    let (outputs, inputs, rows) = (72, 1024, 203);
    for storage in [Storage::Q4_K, Storage::Q5_0, Storage::Q5_1, Storage::Q6_K, Storage::Q8_0] {
        let packed = Packed::new(outputs, inputs, &StoredRows::new(inputs, vec![storage; outputs]));
        let x = noise(rows * inputs, 3);
        let product = |rows: Range<usize>| {
            let mut out = vec![0.0; rows.len() * outputs];
            packed.multiply_with(Vnni::detected(), &x[rows.start * inputs..rows.end * inputs], &mut out);
            out
        };
        let all = product(0..rows);
        for some in [0..1, 5..6, 7..9, 20..23, 100..104, 30..37, 60..140] {
            let expected = &all[some.start * outputs..some.end * outputs];
            let same = product(some.clone()) == expected;
            assert!(same || Vnni::detected().is_none(), "{storage:?}: rows {some:?}");
        }
    }
}

#[test]
fn products_with_levels_equal_the_sum_in_f64() {
    use Storage::{BF16, F32, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
    let small = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0];
    for (rows, storage) in SIZES.into_iter().flat_map(|rows| small.map(|storage| (rows, storage))) {
        for (outputs, inputs) in [(1, 32), (33, 64), (200, 288), (96, 1056)] {
            check(rows, &StoredRows::new(inputs, vec![storage; outputs]));
        }
    }
    for (rows, storage) in
        SIZES.into_iter().flat_map(|rows| [Q4_K, Q5_K, Q6_K].map(|storage| (rows, storage)))
    {
        for (outputs, inputs) in [(7, 256), (64, 1280)] {
            check(rows, &StoredRows::new(inputs, vec![storage; outputs]));
        }
    }
    // As queries, keys and values have them: panels of several kinds, one of them mixed.
    let kinds = [(Q4_K, 64), (Q8_0, 32), (Q6_K, 40), (F32, 8), (BF16, 16), (Q5_0, 56)];
    let mixed: Vec<Storage> = kinds.iter().flat_map(|(storage, rows)| vec![*storage; *rows]).collect();
    for rows in SIZES {
        check(rows, &StoredRows::new(512, mixed.clone()));
    }
}
