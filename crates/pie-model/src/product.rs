//! x W^T for activations of any number of rows, with W packed once for the kernel.
//!
//! A general matrix product packs W again on every call, which for the few rows of a small edit costs as much as the
//! product. Here W lies ready in panels of [`PANEL`] outputs, `[panel][input][output in panel]`: one row streams it once,
//! as it lies in memory; many rows keep a part of a panel in cache (Goto and van de Geijn 2008, with packing moved to
//! the loader).

use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Outputs of a panel: two AVX-512 vectors, four AVX2 ones.
pub(crate) const PANEL: usize = 32;
/// Inputs of a part of a panel that stays in the second-level cache while all rows pass over it.
const DEPTH: usize = 1024;
/// Multiply-adds below which handing work to other threads costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 17;
/// Rows from which on threads share rows instead of panels.
const MANY: usize = 48;

/// W, `[outputs, inputs]`, packed.
pub(crate) struct Packed {
    panels: Vec<f32>,
    outputs: usize,
    inputs: usize,
}

impl Packed {
    /// Packs the matrix whose rows `fill` writes: `fill(output, row)`, called once for each output.
    pub fn new(outputs: usize, inputs: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        let mut panels = vec![0.0; outputs.div_ceil(PANEL) * PANEL * inputs];
        let row_buffer = || vec![0.0_f32; inputs];
        panels.par_chunks_mut(PANEL * inputs).enumerate().for_each_init(
            row_buffer,
            |row, (number, panel)| {
                for output in 0..PANEL.min(outputs - number * PANEL) {
                    fill(number * PANEL + output, row);
                    for (to, from) in panel.chunks_exact_mut(PANEL).zip(row.iter()) {
                        to[output] = *from;
                    }
                }
            },
        );
        Self { panels, outputs, inputs }
    }

    /// Columns of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the activations.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        4 * self.panels.len() as u64
    }

    /// `[rows][inputs]` times W^T: `[rows][outputs]`.
    pub fn multiply(&self, rows: &[f32]) -> Vec<f32> {
        let count = rows.len() / self.inputs.max(1);
        debug_assert_eq!(count * self.inputs, rows.len(), "whole rows");
        if count == 0 || self.outputs == 0 {
            return Vec::new();
        }
        let threads =
            if count * self.panels.len() < WORTH_A_THREAD { 1 } else { rayon::current_num_threads() };
        let blocks = Blocks::new(rows, self.inputs, threads);
        if threads > 1 && count >= MANY.max(threads * MANY / 2) {
            self.by_rows(&blocks, threads)
        } else {
            self.by_panels(&blocks, threads)
        }
    }

    /// Each thread has some rows and passes over all panels.
    fn by_rows(&self, blocks: &Blocks<'_>, threads: usize) -> Vec<f32> {
        let mut out = vec![0.0; blocks.rows * self.outputs];
        let share = blocks.count().div_ceil(2 * threads);
        out.par_chunks_mut(share * blocks.height * self.outputs).enumerate().for_each(|(index, out)| {
            let first = index * share;
            let panels = 0..self.panels.len() / (PANEL * self.inputs);
            let own = first..blocks.count().min(first + share);
            run(Product { weights: self, blocks, own, panels, out, stride: self.outputs });
        });
        out
    }

    /// Each thread has some panels and passes all rows over them.
    fn by_panels(&self, blocks: &Blocks<'_>, threads: usize) -> Vec<f32> {
        let panels = self.panels.len() / (PANEL * self.inputs);
        let share =
            panels.div_ceil(4 * threads).max(WORTH_A_THREAD.div_ceil(blocks.rows * PANEL * self.inputs));
        if share >= panels || threads == 1 {
            let mut out = vec![0.0; blocks.rows * self.outputs];
            let (own, out_slice) = (0..blocks.count(), out.as_mut_slice());
            run(Product {
                weights: self,
                blocks,
                own,
                panels: 0..panels,
                out: out_slice,
                stride: self.outputs,
            });
            return out;
        }
        let part = |first: usize| {
            let range = first..panels.min(first + share);
            let stride = self.outputs.min(range.end * PANEL) - range.start * PANEL;
            let mut out = vec![0.0; blocks.rows * stride];
            run(Product {
                weights: self,
                blocks,
                own: 0..blocks.count(),
                panels: range,
                out: &mut out,
                stride,
            });
            (out, stride)
        };
        let starts: Vec<usize> = (0..panels).step_by(share).collect();
        let parts: Vec<(Vec<f32>, usize)> = starts.into_par_iter().with_max_len(1).map(part).collect();
        let mut out = Vec::with_capacity(blocks.rows * self.outputs);
        for row in 0..blocks.rows {
            for (part, stride) in &parts {
                out.extend_from_slice(&part[row * stride..(row + 1) * stride]);
            }
        }
        out
    }
}

/// The activations, in blocks of as many rows as the kernel takes at once, `[block][input][row in block]`.
struct Blocks<'a> {
    data: std::borrow::Cow<'a, [f32]>,
    rows: usize,
    inputs: usize,
    height: usize,
}

impl<'a> Blocks<'a> {
    fn new(rows: &'a [f32], inputs: usize, threads: usize) -> Self {
        let count = rows.len() / inputs;
        let height = run(Height);
        if count == 1 {
            return Self { data: rows.into(), rows: 1, inputs, height };
        }
        let mut data = vec![0.0; rows.len()];
        let pack = |(to, from): (&mut [f32], &[f32])| {
            let height = from.len() / inputs;
            for (row, from) in from.chunks_exact(inputs).enumerate() {
                for (to, from) in to.chunks_exact_mut(height).zip(from) {
                    to[row] = *from;
                }
            }
        };
        let block = height * inputs;
        if threads > 1 && rows.len() >= WORTH_A_THREAD {
            data.par_chunks_mut(block).zip(rows.par_chunks(block)).for_each(pack);
        } else {
            data.chunks_mut(block).zip(rows.chunks(block)).for_each(pack);
        }
        Self { data: data.into(), rows: count, inputs, height }
    }

    fn count(&self) -> usize {
        self.rows.div_ceil(self.height)
    }

    /// A block, and its number of rows.
    fn block(&self, index: usize) -> (&[f32], usize) {
        let rows = self.height.min(self.rows - index * self.height);
        (&self.data[index * self.height * self.inputs..][..rows * self.inputs], rows)
    }
}

fn run<T: WithSimd>(task: T) -> T::Output {
    pulp::Arch::new().dispatch(task)
}

/// Rows that the kernel takes at once: with two vectors of outputs for each they fill the registers.
struct Height;

impl WithSimd for Height {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        if S::F32_LANES >= 16 { 12 } else { 6 }
    }
}

/// Some blocks of rows times some panels, into `out`, whose rows start with the first of the panels and block rows.
struct Product<'a> {
    weights: &'a Packed,
    blocks: &'a Blocks<'a>,
    own: Range<usize>,
    panels: Range<usize>,
    out: &'a mut [f32],
    stride: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { weights, blocks, own, panels, out, stride } = self;
        let inputs = weights.inputs;
        for (column, number) in panels.clone().enumerate() {
            let panel = &weights.panels[number * PANEL * inputs..][..PANEL * inputs];
            let width = PANEL.min(weights.outputs - number * PANEL);
            for start in (0..inputs).step_by(DEPTH) {
                let end = inputs.min(start + DEPTH);
                let panel = &panel[start * PANEL..end * PANEL];
                for (index, block) in own.clone().enumerate() {
                    let (data, rows) = blocks.block(block);
                    let from = index * blocks.height * stride + column * PANEL;
                    let target = Target { out: &mut out[from..], stride, width, first: start == 0 };
                    block_by_panel(simd, rows, &data[start * rows..end * rows], panel, target);
                }
            }
        }
    }
}

/// Where a block's products with a panel go.
struct Target<'a> {
    out: &'a mut [f32],
    stride: usize,
    /// Outputs that are not padding.
    width: usize,
    /// Whether this is the first part of the inputs: later ones are added.
    first: bool,
}

#[inline(always)]
fn block_by_panel<S: Simd>(simd: S, rows: usize, x: &[f32], panel: &[f32], mut target: Target<'_>) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match (S::F32_LANES, rows) {
                $((16.., $rows) => tile::<S, $rows, 2>(simd, x, panel, &mut target),)*
                // With few rows, more vectors of outputs hide the latency of the multiply-adds.
                (8.., 1) => tile::<S, 1, 4>(simd, x, panel, &mut target),
                (8.., 2) => tile::<S, 2, 4>(simd, x, panel, &mut target),
                (8.., 3) => tile::<S, 3, 4>(simd, x, panel, &mut target),
                $((_, $rows) => tile::<S, $rows, 2>(simd, x, panel, &mut target),)*
                _ => unreachable!("a block has at most `Height` rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// The products of a block of ROWS rows with a panel, VECTORS vectors of outputs at a time.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    x: &[f32],
    panel: &[f32],
    target: &mut Target<'_>,
) {
    let step = VECTORS * S::F32_LANES;
    for offset in (0..target.width).step_by(step.max(1)) {
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        for (x, weights) in x.as_chunks::<ROWS>().0.iter().zip(panel.as_chunks::<PANEL>().0) {
            let (weights, _) = S::as_simd_f32s(&weights[offset..]);
            let weights: &[S::f32s; VECTORS] =
                weights.first_chunk().expect("a panel is a multiple of a step");
            for row in 0..ROWS {
                let x = simd.splat_f32s(x[row]);
                for vector in 0..VECTORS {
                    sums[row][vector] = simd.mul_add_e_f32s(x, weights[vector], sums[row][vector]);
                }
            }
        }
        let mut buffer = [0.0_f32; PANEL];
        let width = step.min(target.width - offset);
        for (row, sums) in sums.iter().enumerate() {
            let (vectors, _) = S::as_mut_simd_f32s(&mut buffer);
            vectors[..VECTORS].copy_from_slice(sums);
            let out = &mut target.out[row * target.stride + offset..][..width];
            if target.first {
                out.copy_from_slice(&buffer[..width]);
            } else {
                out.iter_mut().zip(&buffer).for_each(|(out, sum)| *out += sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn product_equals_the_sum_in_f64() {
        // Rows around the blocks' heights and both ways of sharing; outputs and inputs around panels and depths.
        for rows in [1, 2, 3, 5, 6, 7, 12, 13, 16, 65, 100] {
            for (outputs, inputs) in [(1, 1), (31, 7), (32, 64), (33, 65), (200, 300), (96, 2100)] {
                let (x, w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
                let packed = Packed::new(outputs, inputs, |output, row| {
                    row.copy_from_slice(&w[output * inputs..][..inputs]);
                });
                let got = packed.multiply(&x);
                assert_eq!(got.len(), rows * outputs);
                for (index, got) in got.iter().enumerate() {
                    let (row, output) = (&x[index / outputs * inputs..], &w[index % outputs * inputs..]);
                    let terms = row[..inputs].iter().zip(&output[..inputs]);
                    let sum: f64 = terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let bound = 1e-6 * (inputs as f64).max(8.0);
                    assert!(
                        (f64::from(*got) - sum).abs() < bound,
                        "{rows} {outputs} {inputs} {index}: {got} {sum}"
                    );
                }
            }
        }
    }
}
