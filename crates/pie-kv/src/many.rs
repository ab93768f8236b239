//! Attention of many query vectors: a tile of K and V is gathered through the table once for all of them, scored,
//! weighed and summed while it lies in the first-level cache (Dao et al. 2022).
//!
//! Everything is transposed: a vector register holds one number of each of several *query vectors*. So K and V are read as
//! they lie, one number at a time for all queries, and largest scores, exponentials and sums go along registers without
//! ever crossing them.

use crate::attention::{Attention, LayerRows, Queries};
use crate::number::Number;
use crate::simd::{CacheLine, exp2, greater, with_scratch};
use pie_words::Slot;
use pulp::{Simd, WithSimd};
use std::cell::Cell;
use std::ops::Range;

/// Query vectors of a panel.
const PANEL: usize = 16;
/// Slots of a tile: K, V and scores of heads of 32 numbers fit the first-level cache. A multiple of the rows at once.
const TILE: usize = 72;
/// Panels that share the gathering of a tile, at most: their queries and results stay in the second-level cache.
const PANELS: usize = 16;

/// The query vectors of a task, if some tasks want about so many.
pub(crate) fn block(vectors: usize) -> usize {
    vectors.div_ceil(PANEL).clamp(1, PANELS) * PANEL
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::new()) };
}

/// Some vectors, [rows][group], of one KV head over all that they see, to `out` [vectors][dim].
pub(crate) fn attend<N: Number>(
    rows: &LayerRows<'_, N>,
    queries: &Queries<'_>,
    sequence: &Attention<'_>,
    kv_head: usize,
    vectors: Range<usize>,
    out: &mut [f32],
) {
    with_scratch(&SCRATCH, |scratch| {
        pulp::Arch::new().dispatch(AttendMany { rows, queries, sequence, kv_head, vectors, out, scratch });
    });
}

struct Scratch {
    panels: Vec<QueryPanel>,
    tile: KeyTile,
    scores: Vec<CacheLine>,
    /// The slots of a tile that a document and a branch have parts of.
    joined: Vec<Slot>,
}

impl Scratch {
    const fn new() -> Self {
        let tile = KeyTile { keys: Vec::new(), values: Vec::new(), start: 0, length: 0 };
        Self { panels: Vec::new(), tile, scores: Vec::new(), joined: Vec::new() }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

struct AttendMany<'a, N> {
    rows: &'a LayerRows<'a, N>,
    queries: &'a Queries<'a>,
    sequence: &'a Attention<'a>,
    kv_head: usize,
    vectors: Range<usize>,
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl<N: Number> WithSimd for AttendMany<'_, N> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // The usual lengths as constants: loops over them need no checks.
        macro_rules! with_dim {
            ($($dim:literal)*) => {
                match (S::F32_LANES, self.rows.dim) {
                    $((8, $dim) => self.over::<S, 2>(simd, $dim),)*
                    (16, dim) => self.over::<S, 1>(simd, dim),
                    (8, dim) => self.over::<S, 2>(simd, dim),
                    (4, dim) => self.over::<S, 4>(simd, dim),
                    (_, dim) => self.over::<S, PANEL>(simd, dim),
                }
            };
        }
        with_dim!(32 64 128)
    }
}

impl<N: Number> AttendMany<'_, N> {
    #[inline(always)]
    fn over<S: Simd, const VECTORS: usize>(self, simd: S, dim: usize) {
        let Self { rows, queries, sequence, kv_head, vectors, out, scratch } = self;
        let Scratch { panels, tile, scores, joined } = scratch;
        let count = vectors.len().div_ceil(PANEL);
        panels.resize_with(count.max(panels.len()), QueryPanel::default);
        let panels = &mut panels[..count];
        for (panel, first) in panels.iter_mut().zip(vectors.clone().step_by(PANEL)) {
            panel.start(queries, sequence, kv_head, first..vectors.end.min(first + PANEL), dim);
        }
        tile.keys.resize(TILE * dim, 0.0);
        tile.values.resize(TILE * dim, 0.0);
        scores.resize(TILE, CacheLine::default());
        let seen = panels.last().map_or(0, |panel| panel.most_visible());
        for start in (0..seen).step_by(TILE) {
            let slots = sequence.view.part(start..seen.min(start + TILE), joined);
            (tile.start, tile.length) = (start, slots.len());
            tile.gather(rows, slots, kv_head * dim, dim);
            // Rows are in ascending visibility: panels that end before this tile are done.
            for panel in panels.iter_mut().filter(|panel| panel.most_visible() > tile.start) {
                let scores = &mut scores[..tile.length];
                score::<S, VECTORS>(
                    simd,
                    &panel.queries[..dim],
                    &tile.keys[..tile.length * dim],
                    scores,
                    dim,
                );
                // M1. Only tiles in which a vector's sight ends have something to hide.
                let hides = (panel.visible[0] as usize) < tile.start + tile.length;
                let rescale = if hides {
                    weigh::<true>(panel, scores, tile.start)
                } else {
                    weigh::<false>(panel, scores, tile.start)
                };
                let values = &tile.values[..tile.length * dim];
                sum::<S, VECTORS>(simd, scores, values, &mut panel.out[..dim], &rescale, dim);
            }
        }
        for (panel, out) in panels.iter_mut().zip(out.chunks_mut(PANEL * dim)) {
            panel.finish(out, dim);
        }
    }
}

/// Rows of K and V, [slots][dim].
#[derive(Default)]
struct KeyTile {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Index of its first slot in the table.
    start: usize,
    length: usize,
}

impl KeyTile {
    #[inline(always)]
    fn gather<N: Number>(&mut self, rows: &LayerRows<'_, N>, slots: &[Slot], offset: usize, dim: usize) {
        let to = self.keys.chunks_exact_mut(dim).zip(self.values.chunks_exact_mut(dim));
        for (slot, (keys, values)) in slots.iter().zip(to) {
            let from = slot.usize() * rows.stride() + offset;
            let (from_keys, from_values) = (&rows.keys[from..][..dim], &rows.values[from..][..dim]);
            N::widen_into(from_keys, keys);
            N::widen_into(from_values, values);
        }
    }
}

/// Sixteen query vectors on their way over the tiles; those that lack are zeros.
#[derive(Default)]
struct QueryPanel {
    /// [dim] of one number of each vector, scaled.
    queries: Vec<CacheLine>,
    /// [dim] of sums of weighted values.
    out: Vec<CacheLine>,
    most: CacheLine,
    sums: CacheLine,
    /// What each sees, ascending.
    visible: [u32; PANEL],
}

impl QueryPanel {
    #[inline(always)]
    fn start(
        &mut self,
        queries: &Queries<'_>,
        sequence: &Attention<'_>,
        kv_head: usize,
        vectors: Range<usize>,
        dim: usize,
    ) {
        let Queries { data, heads, group, scale, .. } = *queries;
        self.queries.clear();
        self.queries.resize(dim, CacheLine::default());
        self.out.clear();
        self.out.resize(dim, CacheLine::default());
        (self.most, self.sums) = (CacheLine([f32::NEG_INFINITY; PANEL]), CacheLine::default());
        // A lane without a vector sees what the last one sees: weights that are never read, but finite.
        self.visible = [sequence.visible[(vectors.end - 1) / group]; PANEL];
        for (lane, vector) in vectors.enumerate() {
            let (row, head) = (vector / group, kv_head * group + vector % group);
            let from = &data[((sequence.rows.start + row) * heads + head) * dim..][..dim];
            for (to, number) in self.queries.iter_mut().zip(from) {
                to.0[lane] = number * scale;
            }
            self.visible[lane] = sequence.visible[row];
        }
    }

    fn most_visible(&self) -> usize {
        self.visible[PANEL - 1] as usize
    }

    #[inline(always)]
    fn finish(&mut self, out: &mut [f32], dim: usize) {
        let shares: [f32; PANEL] = self.sums.0.map(|sum| 1.0 / sum);
        for (lane, out) in out.chunks_exact_mut(dim).enumerate() {
            for (out, sum) in out.iter_mut().zip(&self.out) {
                *out = sum.0[lane] * shares[lane];
            }
        }
    }
}

/// Scores of a tile, [slots] of one number for each vector.
#[inline(always)]
fn score<S: Simd, const VECTORS: usize>(
    simd: S,
    queries: &[CacheLine],
    keys: &[f32],
    scores: &mut [CacheLine],
    dim: usize,
) {
    macro_rules! at_once {
        ($rows:literal, $keys:expr, $scores:expr) => {{
            let mut keys: [&[f32]; $rows] = [&[]; $rows];
            for (to, from) in keys.iter_mut().zip($keys.chunks_exact(dim)) {
                *to = &from[..dim];
            }
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; $rows];
            for (i, query) in queries.iter().enumerate() {
                let query = vectors::<S, VECTORS>(query);
                for row in 0..$rows {
                    let key = simd.splat_f32s(keys[row][i]);
                    for vector in 0..VECTORS {
                        sums[row][vector] = simd.mul_add_e_f32s(key, query[vector], sums[row][vector]);
                    }
                }
            }
            for (to, sums) in $scores.iter_mut().zip(sums) {
                *vectors_mut::<S, VECTORS>(to) = sums;
            }
        }};
    }
    const ROWS: usize = 6;
    let whole = scores.len() / ROWS * ROWS;
    let (blocks, rest) = scores.split_at_mut(whole);
    for (scores, keys) in blocks.chunks_exact_mut(ROWS).zip(keys.chunks_exact(ROWS * dim)) {
        at_once!(6, keys, scores);
    }
    for (scores, keys) in rest.chunks_exact_mut(1).zip(keys[whole * dim..].chunks_exact(dim)) {
        at_once!(1, keys, scores);
    }
}

/// Scores to weights, against the largest so far of each vector (online softmax, Milakov and Gimelshein 2018); returns by
/// how much earlier sums shrink. `HIDES`: some vector does not see all slots (M1).
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "loops over lanes by number become vectors; zipped iterators did not, at twice the time"
)]
fn weigh<const HIDES: bool>(panel: &mut QueryPanel, scores: &mut [CacheLine], start: usize) -> CacheLine {
    let visible = panel.visible;
    let unseen = |index: usize, lane: usize| HIDES && (start + index) as u32 >= visible[lane];
    let mut most = panel.most.0;
    for (index, score) in scores.iter_mut().enumerate() {
        for lane in 0..PANEL {
            if unseen(index, lane) {
                score.0[lane] = f32::NEG_INFINITY;
            }
            most[lane] = greater(score.0[lane], most[lane]);
        }
    }
    let mut rescale = CacheLine::default();
    for lane in 0..PANEL {
        let old = panel.most.0[lane];
        rescale.0[lane] = if old == f32::NEG_INFINITY { 0.0 } else { exp2(old - most[lane]) };
    }
    let mut sums = [0.0_f32; PANEL];
    for (index, score) in scores.iter_mut().enumerate() {
        for lane in 0..PANEL {
            let weight = exp2(score.0[lane] - most[lane]);
            let weight = if unseen(index, lane) { 0.0 } else { weight };
            score.0[lane] = weight;
            sums[lane] += weight;
        }
    }
    for lane in 0..PANEL {
        panel.sums.0[lane] = panel.sums.0[lane].mul_add(rescale.0[lane], sums[lane]);
    }
    panel.most = CacheLine(most);
    rescale
}

/// Adds the tile's values by weight to what the results were, rescaled. A row is one number of a value, for all vectors.
#[inline(always)]
fn sum<S: Simd, const VECTORS: usize>(
    simd: S,
    weights: &[CacheLine],
    values: &[f32],
    out: &mut [CacheLine],
    rescale: &CacheLine,
    dim: usize,
) {
    let mut first = 0;
    // Fewer than four rows would wait for one another's sums: 8 are two times 4, not 6 and 2.
    while first + 6 <= dim && first + 8 != dim {
        sum_rows::<S, VECTORS, 6>(simd, weights, values, out, rescale, dim, first);
        first += 6;
    }
    while first + 4 <= dim {
        sum_rows::<S, VECTORS, 4>(simd, weights, values, out, rescale, dim, first);
        first += 4;
    }
    while first + 2 <= dim {
        sum_rows::<S, VECTORS, 2>(simd, weights, values, out, rescale, dim, first);
        first += 2;
    }
}

/// The same for ROWS of the results' `dim` rows, from `first` on: row i is `rescale * out[i]`, and of each slot its weights
/// times its value's number i. As many sums as registers hold are kept over all slots of the tile.
#[inline(always)]
fn sum_rows<S: Simd, const VECTORS: usize, const ROWS: usize>(
    simd: S,
    weights: &[CacheLine],
    values: &[f32],
    out: &mut [CacheLine],
    rescale: &CacheLine,
    dim: usize,
    first: usize,
) {
    let rescale = vectors::<S, VECTORS>(rescale);
    let out: &mut [CacheLine; ROWS] =
        out[first..].first_chunk_mut().expect("rows were counted from the results");
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for (sums, out) in sums.iter_mut().zip(out.iter()) {
        let out = vectors::<S, VECTORS>(out);
        for vector in 0..VECTORS {
            sums[vector] = simd.mul_f32s(rescale[vector], out[vector]);
        }
    }
    for (weights, value) in weights.iter().zip(values.chunks_exact(dim)) {
        let weights = vectors::<S, VECTORS>(weights);
        let value: &[f32; ROWS] =
            value[first..].first_chunk().expect("rows were counted from a value's length");
        for row in 0..ROWS {
            let number = simd.splat_f32s(value[row]);
            for vector in 0..VECTORS {
                sums[row][vector] = simd.mul_add_e_f32s(number, weights[vector], sums[row][vector]);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        *vectors_mut::<S, VECTORS>(out) = sums;
    }
}

#[inline(always)]
fn vectors<S: Simd, const VECTORS: usize>(line: &CacheLine) -> &[S::f32s; VECTORS] {
    S::as_simd_f32s(&line.0).0.first_chunk().expect("a line is so many vectors")
}

#[inline(always)]
fn vectors_mut<S: Simd, const VECTORS: usize>(line: &mut CacheLine) -> &mut [S::f32s; VECTORS] {
    S::as_mut_simd_f32s(&mut line.0).0.first_chunk_mut().expect("a line is so many vectors")
}
