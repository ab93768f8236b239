//! The kernel: some rows of x times a panel of W, with all sums in registers.

use super::blocks::Blocks;
use super::{HALF, PANEL, Pairs, Singles};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Inputs of a part of a panel that stays in the second-level cache while all rows pass over it.
const DEPTH: usize = 1024;

/// Runs a task compiled for the widest vectors of this machine.
pub(super) fn run<T: WithSimd>(task: T) -> T::Output {
    pulp::Arch::new().dispatch(task)
}

/// Rows that the kernel takes at once: with two vectors of outputs for each they fill the registers.
pub(super) fn height() -> usize {
    run(Height)
}

struct Height;

impl WithSimd for Height {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        if S::F32_LANES >= 16 { 12 } else { 6 }
    }
}

/// The weights from one input to the outputs of a panel.
pub(super) trait WeightRow: Sync {
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
pub(super) struct Product<'a, R> {
    /// The weights.
    pub rows: R,
    /// Columns of all panels together.
    pub outputs: usize,
    /// Weights of a column: the length of a row that is multiplied.
    pub inputs: usize,
    /// The rows that are multiplied, as they are packed.
    pub blocks: &'a Blocks<'a>,
    /// Blocks that are multiplied.
    pub own: Range<usize>,
    /// Panels of weights that they are multiplied with.
    pub panels: Range<usize>,
    /// Where the sums go.
    pub out: &'a mut [f32],
    /// From one row of the result to the next.
    pub stride: usize,
}

impl<R: WeightRow> WithSimd for Product<'_, &[R]> {
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
pub(super) struct Destination<'a> {
    /// Begins with the block's first row, at the panel's first column.
    pub out: &'a mut [f32],
    /// From one row to the next.
    pub stride: usize,
    /// Outputs that are not padding.
    pub width: usize,
    /// Whether this is the first part of the inputs: later ones are added.
    pub first: bool,
}

impl Destination<'_> {
    /// The same from a row on.
    pub fn from(&mut self, row: usize) -> Destination<'_> {
        let Self { out, stride, width, first } = self;
        Destination { out: &mut out[row * *stride..], stride: *stride, width: *width, first: *first }
    }
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
pub(super) fn block_by_panel<S: Simd, R: WeightRow>(
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
