//! x W^T for activations of any number of rows, with W packed once for the kernel.
//!
//! A general matrix product packs W again on every call, which for the few rows of a small edit costs as much as the
//! product. Here W lies ready in panels of [`PANEL`] outputs, `[panel][input][output in panel]`: one row streams it once,
//! as it lies in memory; many rows keep a part of a panel in cache (Goto and van de Geijn 2008, with packing moved to
//! the loader).
//!
//! Weights that the checkpoint has in bf16 stay in bf16: half the memory to stream, and the same numbers, since they are
//! widened, exactly, on their way into a register. All arithmetic is in f32.

use pie_kv::simd::with_scratch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Outputs of a panel: two AVX-512 vectors, four AVX2 ones.
pub(crate) const PANEL: usize = 32;
const HALF: usize = PANEL / 2;
/// Inputs of a part of a panel that stays in the second-level cache while all rows pass over it.
const DEPTH: usize = 1024;
/// Multiply-adds below which handing work to other threads costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 17;
/// Rows from which on threads share rows instead of panels: with fewer, each thread would wait for the whole of W.
const MANY: usize = 192;

/// How the numbers of W are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// As they are computed with.
    F32,
    /// All are bf16 numbers.
    Bf16,
}

/// W, `[outputs, inputs]`, packed.
pub(crate) struct Packed {
    panels: Panels,
    outputs: usize,
    inputs: usize,
}

/// [panel][input], the outputs of one panel to one input together; none straddles more lines of the cache than it must.
enum Panels {
    F32(Vec<Singles>),
    Bf16(Vec<Pairs>),
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Singles([f32; PANEL]);

/// The number of output i in the lower half of word i, that of output i + 16 in the upper.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Pairs([u32; HALF]);

impl Packed {
    /// Packs the matrix whose rows `fill` writes: `fill(output, row)`, called once for each output. With
    /// [`Numbers::Bf16`] the lower half of each number must be 0.
    pub fn new(
        outputs: usize,
        inputs: usize,
        numbers: Numbers,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let count = outputs.div_ceil(PANEL) * inputs;
        let each = |number: usize, row: &mut Vec<f32>, put: Put<'_>| {
            row.resize(inputs, 0.0);
            for output in 0..PANEL.min(outputs - number * PANEL) {
                fill(number * PANEL + output, row);
                row.iter().enumerate().for_each(|(input, weight)| put(input, output, *weight));
            }
        };
        let panels = match numbers {
            Numbers::F32 => {
                let mut panels = vec![Singles([0.0; PANEL]); count];
                panels.par_chunks_mut(inputs).enumerate().for_each_init(Vec::new, |row, (number, panel)| {
                    each(number, row, &mut |input, output, weight| panel[input].0[output] = weight);
                });
                Panels::F32(panels)
            }
            Numbers::Bf16 => {
                let mut panels = vec![Pairs([0; HALF]); count];
                panels.par_chunks_mut(inputs).enumerate().for_each_init(Vec::new, |row, (number, panel)| {
                    each(number, row, &mut |input, output, weight| {
                        let (word, upper) = (output % HALF, output >= HALF);
                        panel[input].0[word] |= weight.to_bits() >> if upper { 0 } else { 16 };
                    });
                });
                Panels::Bf16(panels)
            }
        };
        Self { panels, outputs, inputs }
    }

    /// Columns of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        match &self.panels {
            Panels::F32(panels) => size_of_val(panels.as_slice()) as u64,
            Panels::Bf16(panels) => size_of_val(panels.as_slice()) as u64,
        }
    }

    /// `[rows][inputs]` times W^T, to `out`, `[rows][outputs]`.
    pub fn multiply(&self, rows: &[f32], out: &mut [f32]) {
        let count = rows.len() / self.inputs.max(1);
        assert!(
            count * self.inputs == rows.len() && count * self.outputs == out.len(),
            "{} numbers times [{}, {}] to {}",
            rows.len(),
            self.outputs,
            self.inputs,
            out.len()
        );
        if count == 0 || self.outputs == 0 {
            return;
        }
        let products = count * self.outputs * self.inputs;
        let threads = if products < WORTH_A_THREAD { 1 } else { rayon::current_num_threads() };
        with_scratch(&BLOCKS, |scratch| {
            let blocks = Blocks::new(rows, self.inputs, threads, scratch);
            if count == 1 {
                self.panels_by_threads(&blocks, threads, out);
            } else if threads == 1 {
                let own = 0..blocks.count();
                self.run(&blocks, own, 0..self.panel_count(), out, self.outputs);
            } else if count >= MANY {
                self.by_rows(&blocks, threads, out);
            } else {
                self.by_panels(&blocks, threads, out);
            }
        });
    }

    fn panel_count(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Each thread has some rows and passes over all panels.
    fn by_rows(&self, blocks: &Blocks<'_>, threads: usize, out: &mut [f32]) {
        let share = blocks.count().div_ceil(2 * threads);
        out.par_chunks_mut(share * blocks.height * self.outputs).enumerate().for_each(|(index, out)| {
            let first = index * share;
            let own = first..blocks.count().min(first + share);
            self.run(blocks, own, 0..self.panel_count(), out, self.outputs);
        });
    }

    /// Each thread has some panels and passes all rows over them.
    fn by_panels(&self, blocks: &Blocks<'_>, threads: usize, out: &mut [f32]) {
        with_scratch(&PANEL_MAJOR, |parts| {
            let length = self.panel_count() * PANEL * blocks.rows;
            if parts.len() < length {
                parts.resize(length, 0.0);
            }
            let parts = &mut parts[..length];
            self.panels_by_threads(blocks, threads, parts);
            // Back from [panel][row][output of the panel].
            for (panel, part) in parts.chunks_exact(PANEL * blocks.rows).enumerate() {
                let first = panel * PANEL;
                let width = PANEL.min(self.outputs - first);
                for (row, part) in part.chunks_exact(PANEL).enumerate() {
                    out[row * self.outputs + first..][..width].copy_from_slice(&part[..width]);
                }
            }
        });
    }

    /// To `[panel][row][output of the panel]`, which for one row is the result.
    fn panels_by_threads(&self, blocks: &Blocks<'_>, threads: usize, out: &mut [f32]) {
        let panels = self.panel_count();
        let least = WORTH_A_THREAD.div_ceil(blocks.rows * PANEL * self.inputs);
        let share = panels.div_ceil(4 * threads).max(least);
        let some = |first: usize, out: &mut [f32]| {
            for (panel, out) in (first..panels).zip(out.chunks_mut(PANEL * blocks.rows)) {
                let stride = if blocks.rows == 1 { out.len() } else { PANEL };
                self.run(blocks, 0..blocks.count(), panel..panel + 1, out, stride);
            }
        };
        if share >= panels || threads == 1 {
            some(0, out);
        } else {
            let parts = out.par_chunks_mut(share * PANEL * blocks.rows).enumerate().with_max_len(1);
            parts.for_each(|(index, out)| some(index * share, out));
        }
    }

    fn run(
        &self,
        blocks: &Blocks<'_>,
        own: Range<usize>,
        panels: Range<usize>,
        out: &mut [f32],
        stride: usize,
    ) {
        let (outputs, inputs) = (self.outputs, self.inputs);
        match &self.panels {
            Panels::F32(rows) => run(Product { rows, outputs, inputs, blocks, own, panels, out, stride }),
            Panels::Bf16(rows) => run(Product { rows, outputs, inputs, blocks, own, panels, out, stride }),
        }
    }
}

/// Puts a weight to its place: (input, output in panel, weight).
type Put<'a> = &'a mut dyn FnMut(usize, usize, f32);

thread_local! {
    static BLOCKS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static PANEL_MAJOR: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The activations, in blocks of as many rows as the kernel takes at once, `[block][input][row in block]`.
struct Blocks<'a> {
    data: &'a [f32],
    rows: usize,
    inputs: usize,
    height: usize,
}

impl<'a> Blocks<'a> {
    fn new(rows: &'a [f32], inputs: usize, threads: usize, scratch: &'a mut Vec<f32>) -> Self {
        let count = rows.len() / inputs;
        let height = run(Height);
        if count == 1 {
            return Self { data: rows, rows: 1, inputs, height };
        }
        if scratch.len() < rows.len() {
            scratch.resize(rows.len(), 0.0);
        }
        let data = &mut scratch[..rows.len()];
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
        Self { data, rows: count, inputs, height }
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

/// The weights from one input to the outputs of a panel.
trait WeightRow: Sync {
    /// Vectors of outputs from `offset` on. `UPPER`: the offset is in the upper half of the panel.
    fn load<S: Simd, const VECTORS: usize, const UPPER: bool>(
        &self,
        simd: S,
        offset: usize,
    ) -> [S::f32s; VECTORS];
}

impl WeightRow for Singles {
    #[inline(always)]
    fn load<S: Simd, const VECTORS: usize, const UPPER: bool>(
        &self,
        _: S,
        offset: usize,
    ) -> [S::f32s; VECTORS] {
        *S::as_simd_f32s(&self.0[offset..]).0.first_chunk().expect("a panel is a multiple of a step")
    }
}

impl WeightRow for Pairs {
    #[inline(always)]
    fn load<S: Simd, const VECTORS: usize, const UPPER: bool>(
        &self,
        simd: S,
        offset: usize,
    ) -> [S::f32s; VECTORS] {
        let (shift, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        let mut vectors = [simd.splat_f32s(0.0); VECTORS];
        for (index, vector) in vectors.iter_mut().enumerate() {
            let word = (offset + index * S::F32_LANES) % HALF;
            let words = S::as_simd_u32s(&self.0[word..]).0[0];
            let upper = UPPER || index * S::F32_LANES >= HALF;
            let bits =
                if upper { simd.and_u32s(words, mask) } else { simd.wrapping_dyn_shl_u32s(words, shift) };
            *vector = simd.transmute_f32s_u32s(bits);
        }
        vectors
    }
}

/// Some blocks of rows times some panels, into `out`, whose rows start with the first of the panels and block rows.
struct Product<'a, R> {
    rows: &'a [R],
    outputs: usize,
    inputs: usize,
    blocks: &'a Blocks<'a>,
    own: Range<usize>,
    panels: Range<usize>,
    out: &'a mut [f32],
    stride: usize,
}

impl<R: WeightRow> WithSimd for Product<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { rows, outputs, inputs, blocks, own, panels, out, stride } = self;
        for (column, number) in panels.enumerate() {
            let panel = &rows[number * inputs..][..inputs];
            let width = PANEL.min(outputs - number * PANEL);
            for start in (0..inputs).step_by(DEPTH) {
                let end = inputs.min(start + DEPTH);
                for (index, block) in own.clone().enumerate() {
                    let (data, rows) = blocks.block(block);
                    let from = index * blocks.height * stride + column * PANEL;
                    let target = Destination { out: &mut out[from..], stride, width, first: start == 0 };
                    block_by_panel(simd, rows, &data[start * rows..end * rows], &panel[start..end], target);
                }
            }
        }
    }
}

/// Where a block's products with a panel go.
struct Destination<'a> {
    out: &'a mut [f32],
    stride: usize,
    /// Outputs that are not padding.
    width: usize,
    /// Whether this is the first part of the inputs: later ones are added.
    first: bool,
}

/// The products of a block with a panel. The block's rows, and how many vectors of outputs go at a time, become constants here,
/// so that all sums of a tile stay in registers:
///
/// ```text
/// numbers of a vector   rows of the block   vectors of outputs   sums at most
/// 16 (AVX-512)          1 to 12             2                    24 of 32 registers
/// 8 (AVX2)              1 to 3              4, so that few sums  12 of 16
///                                           do not wait for the
///                                           latency of each other
/// 8 (AVX2)              4 to 6              2                    12 of 16
/// others                1 to 6              2                    12
/// ```
#[inline(always)]
fn block_by_panel<S: Simd, R: WeightRow>(
    simd: S,
    rows: usize,
    x: &[f32],
    panel: &[R],
    mut target: Destination<'_>,
) {
    macro_rules! by_rows {
        ($($rows:literal)*) => {
            match (S::F32_LANES, rows) {
                $((16.., $rows) => tiles::<S, R, $rows, 2>(simd, x, panel, &mut target),)*
                (8.., 1) => tiles::<S, R, 1, 4>(simd, x, panel, &mut target),
                (8.., 2) => tiles::<S, R, 2, 4>(simd, x, panel, &mut target),
                (8.., 3) => tiles::<S, R, 3, 4>(simd, x, panel, &mut target),
                $((_, $rows) => tiles::<S, R, $rows, 2>(simd, x, panel, &mut target),)*
                _ => unreachable!("a block has at most `Height` rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// The products of a block of ROWS rows with a panel, VECTORS vectors of outputs at a time.
#[inline(always)]
fn tiles<S: Simd, R: WeightRow, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    x: &[f32],
    panel: &[R],
    target: &mut Destination<'_>,
) {
    let step = VECTORS * S::F32_LANES;
    for offset in (0..target.width).step_by(step.max(1)) {
        if offset < HALF {
            tile::<S, R, ROWS, VECTORS, false>(simd, x, panel, offset, target);
        } else {
            tile::<S, R, ROWS, VECTORS, true>(simd, x, panel, offset, target);
        }
    }
}

#[inline(always)]
fn tile<S: Simd, R: WeightRow, const ROWS: usize, const VECTORS: usize, const UPPER: bool>(
    simd: S,
    x: &[f32],
    panel: &[R],
    offset: usize,
    target: &mut Destination<'_>,
) {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (x, weights) in x.as_chunks::<ROWS>().0.iter().zip(panel) {
        let weights = weights.load::<S, VECTORS, UPPER>(simd, offset);
        for row in 0..ROWS {
            let x = simd.splat_f32s(x[row]);
            for vector in 0..VECTORS {
                sums[row][vector] = simd.mul_add_e_f32s(x, weights[vector], sums[row][vector]);
            }
        }
    }
    let mut buffer = [0.0_f32; PANEL];
    let width = (VECTORS * S::F32_LANES).min(target.width - offset);
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
        let sizes = [1, 2, 3, 5, 6, 7, 12, 13, 16, 65, 100, 200];
        for (rows, numbers) in
            sizes.into_iter().flat_map(|rows| [(rows, Numbers::F32), (rows, Numbers::Bf16)])
        {
            for (outputs, inputs) in [(1, 1), (31, 7), (32, 64), (33, 65), (200, 300), (96, 2100)] {
                let (x, mut w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
                if numbers == Numbers::Bf16 {
                    w.iter_mut().for_each(|weight| *weight = half::bf16::from_f32(*weight).to_f32());
                }
                let packed = Packed::new(outputs, inputs, numbers, |output, row| {
                    row.copy_from_slice(&w[output * inputs..][..inputs]);
                });
                let mut got = vec![f32::NAN; rows * outputs];
                packed.multiply(&x, &mut got);
                for (index, got) in got.iter().enumerate() {
                    let (row, output) = (&x[index / outputs * inputs..], &w[index % outputs * inputs..]);
                    let terms = row[..inputs].iter().zip(&output[..inputs]);
                    let sum: f64 = terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let bound = 1e-6 * (inputs as f64).max(8.0);
                    assert!(
                        (f64::from(*got) - sum).abs() < bound,
                        "{numbers:?} {rows} {outputs} {inputs} {index}: {got} {sum}"
                    );
                }
            }
        }
    }
}
