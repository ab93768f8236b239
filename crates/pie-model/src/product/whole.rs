//! Products with levels in whole numbers, on processors that multiply bytes (AVX-512 with VNNI).
//!
//! A group's part of a product is scale * (sum of level * x) + offset * (sum of x). Here x is step * q, with whole numbers q of 24
//! bits and a step for each group of a row, so that the first sum is one of whole numbers: as exact as f32, whose numbers have 24
//! bits too. With q = 65,536 * upper + 256 * middle + lower, all signed bytes, one instruction multiplies four levels of each of 16
//! outputs by four bytes and adds them up. Three of them do what four multiply-adds do in f32; what is spared is to make numbers
//! of levels, which for a few rows is most of the work.

use super::PANEL;
use super::kernel::Destination;
use super::levels::{BLOCK_MIDDLE, Factors, LevelPanels, Panel, PanelLine, by_form, factors, spread};
use pie_gguf::GROUP;
use pulp::x86::V4;
use std::arch::x86_64::{__m512, __m512i, _CMP_UNORD_Q, _mm512_dpbusd_epi32};
use std::ops::Range;

/// Numbers of a vector.
const LANES: usize = 16;
/// Vectors of a panel's outputs.
const VECTORS: usize = PANEL / LANES;
/// Words of four levels, or of four bytes of x, that a group has.
const QUADS: usize = GROUP / 4;
/// Groups whose levels are spread to bytes at a time where there are several rows: they stay in the first-level cache.
const DEPTH: usize = 8;
/// Bytes of a q.
const PLANES: usize = 3;
/// The largest q, about: up to 0x7f_7f7f no byte is above 127, and a quotient may be rounded up.
const LARGEST: f32 = 0x7f_7000 as f32;
/// A group of smaller numbers is one of zeros: the inverse of its step would not be a number.
const LEAST: f32 = 1e-30;

/// Proof that this processor multiplies bytes.
#[derive(Clone, Copy)]
pub(super) struct Vnni(V4);

impl Vnni {
    /// On this processor.
    pub fn detected() -> Option<Self> {
        if is_x86_feature_detected!("avx512vnni") { V4::try_new().map(Self) } else { None }
    }

    /// Adds to each sum the products of four levels, which are unsigned, and four bytes of x, which are signed.
    #[inline(always)]
    fn add_products(self, sums: __m512i, levels: __m512i, x: __m512i) -> __m512i {
        // SAFETY: a `Vnni` exists only where the processor has the instruction.
        unsafe { _mm512_dpbusd_epi32(sums, levels, x) }
    }
}

/// Rows of x in whole numbers, `[row][group]`.
#[derive(Clone, Copy)]
pub(super) struct WholeRows<'a> {
    simd: Vnni,
    bytes: &'a [Bytes],
    steps: &'a [Rounding],
    groups: usize,
}

/// A group of a row of x: the bytes of word i are of the inputs whose levels are in word i ([`spread`]).
#[derive(Clone, Copy, Default)]
#[repr(C, align(32))]
struct Bytes {
    /// Upper, middle, lower.
    planes: [[i32; QUADS]; PLANES],
}

/// What makes numbers of them.
#[derive(Clone, Copy, Default)]
struct Rounding {
    step: f32,
    /// The sums of the two halves, and of both, as rounded.
    halves: [f32; 2],
    whole: f32,
}

/// Memory of [`WholeRows`], kept for the next product.
#[derive(Default)]
pub(super) struct RoundedRows {
    bytes: Vec<Bytes>,
    steps: Vec<Rounding>,
}

/// A group of a panel as it is multiplied.
#[derive(Clone, Copy)]
struct Spread {
    /// `[vector][quad]`.
    levels: [[__m512i; QUADS]; VECTORS],
    factors: [Factors<__m512>; VECTORS],
}

impl Spread {
    const LEVEL: __m512i = pulp::cast([0_u32; LANES]);
    const NUMBER: __m512 = pulp::cast([0.0_f32; LANES]);
    const ZERO: Self = Self {
        levels: [[Self::LEVEL; QUADS]; VECTORS],
        factors: [Factors { scale: [Self::NUMBER; 2], offset: [Self::NUMBER; 2] }; VECTORS],
    };
}

/// Sums of a row.
type Totals = [__m512; VECTORS];

impl<'a> WholeRows<'a> {
    /// Rounds rows of x, which are whole groups.
    pub fn new(simd: Vnni, rows: &[f32], inputs: usize, scratch: &'a mut RoundedRows) -> Self {
        let all = rows.len() / GROUP;
        if scratch.bytes.len() < all {
            scratch.bytes.resize(all, Bytes::default());
            scratch.steps.resize(all, Rounding::default());
        }
        let (bytes, steps) = (&mut scratch.bytes[..all], &mut scratch.steps[..all]);
        // SAFETY: a `Vnni` exists only where the processor has what the function is compiled for.
        unsafe { round(simd, rows, bytes, steps) }
        Self { simd, bytes, steps, groups: inputs / GROUP }
    }

    /// The products of some rows with some panels, to `out`, which begins with the first of both.
    pub fn multiply(
        self,
        panels: &LevelPanels,
        some: Range<usize>,
        rows: Range<usize>,
        outputs: usize,
        out: &mut [f32],
        stride: usize,
    ) {
        for (column, number) in some.enumerate() {
            let width = PANEL.min(outputs - number * PANEL);
            let target = Destination { out: &mut out[column * PANEL..], stride, width, first: true };
            // SAFETY: a `Vnni` exists only where the processor has what the function is compiled for.
            unsafe { multiply(self, panels, number, rows.clone(), target) }
        }
    }

    /// A group of some rows.
    #[inline(always)]
    fn group<const ROWS: usize>(&self, row: usize, group: usize) -> [(&Bytes, &Rounding); ROWS] {
        std::array::from_fn(|index| {
            let at = (row + index) * self.groups + group;
            (&self.bytes[at], &self.steps[at])
        })
    }
}

/// Rounds groups of x.
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni")]
fn round(simd: Vnni, x: &[f32], bytes: &mut [Bytes], steps: &mut [Rounding]) {
    let simd = simd.0.avx512f;
    for ((x, bytes), to) in x.as_chunks::<GROUP>().0.iter().zip(bytes).zip(steps) {
        let halves: [__m512; 2] = pulp::cast(*x);
        let [first, second] = [simd._mm512_abs_ps(halves[0]), simd._mm512_abs_ps(halves[1])];
        let most = simd._mm512_reduce_max_ps(simd._mm512_max_ps(first, second));
        // What is no number would be passed over by the comparison, or rounded.
        let is_none = simd._mm512_cmp_ps_mask::<_CMP_UNORD_Q>(halves[0], halves[1]) != 0;
        let inverse = if most < LEAST { 0.0 } else { LARGEST / most };
        let step = if is_none { f32::NAN } else { most / LARGEST };
        let mut sums = [0.0; 2];
        let mut planes = [[0_u128; 2]; PLANES];
        for (half, numbers) in halves.into_iter().enumerate() {
            let q = simd._mm512_cvtps_epi32(simd._mm512_mul_ps(numbers, simd._mm512_set1_ps(inverse)));
            sums[half] = step * simd._mm512_reduce_add_epi32(q) as f32;
            let round = simd._mm512_set1_epi32(128);
            let rest = simd._mm512_srai_epi32::<8>(simd._mm512_add_epi32(q, round));
            let upper = simd._mm512_srai_epi32::<8>(simd._mm512_add_epi32(rest, round));
            for (plane, q) in planes.iter_mut().zip([upper, rest, q]) {
                plane[half] = pulp::cast(simd._mm512_cvtepi32_epi8(q));
            }
        }
        bytes.planes = planes.map(|plane| by_quads(&pulp::cast(plane)));
        *to = Rounding { step, halves: sums, whole: sums[0] + sums[1] };
    }
}

/// From inputs in their order: of each eight, those with even numbers are a word, and those with odd ones.
#[inline(always)]
fn by_quads(bytes: &[u8; GROUP]) -> [i32; QUADS] {
    let mut words = [0; QUADS];
    for (words, eight) in words.as_chunks_mut::<2>().0.iter_mut().zip(bytes.as_chunks::<8>().0) {
        let [a, b, c, d, e, f, g, h] = *eight;
        *words = [i32::from_le_bytes([a, c, e, g]), i32::from_le_bytes([b, d, f, h])];
    }
    words
}

/// The products of some rows with a panel.
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni")]
fn multiply(
    x: WholeRows<'_>,
    panels: &LevelPanels,
    number: usize,
    rows: Range<usize>,
    mut target: Destination<'_>,
) {
    let (form, panel, first) = (panels.form(), panels.panel(number), rows.start);
    match rows.len() {
        1 => by_form!(form, few_rows::<1>(x, panel, first, &mut target)),
        2 => by_form!(form, few_rows::<2>(x, panel, first, &mut target)),
        3 => by_form!(form, few_rows::<3>(x, panel, first, &mut target)),
        4 => by_form!(form, few_rows::<4>(x, panel, first, &mut target)),
        _ => by_form!(form, some_rows(x, panel, rows, &mut target)),
    }
}

/// A few rows: each group is read once, and multiplied as it is spread.
#[inline(always)]
fn few_rows<const ROWS: usize, const BITS: usize, const KIND: u8>(
    x: WholeRows<'_>,
    panel: Panel<'_>,
    first: usize,
    target: &mut Destination<'_>,
) {
    let mut totals = [[Spread::NUMBER; VECTORS]; ROWS];
    for group in 0..x.groups {
        let spread = spread_group::<BITS, KIND>(x.simd.0, panel, group);
        for (row, totals) in totals.iter_mut().enumerate() {
            add::<KIND, 1>(x.simd, &spread, x.group(first + row, group), std::array::from_mut(totals));
        }
    }
    store(&totals, target);
}

/// More rows, some at a time for each group that is loaded, over one part of the panel after the other.
#[inline(always)]
fn some_rows<const BITS: usize, const KIND: u8>(
    x: WholeRows<'_>,
    panel: Panel<'_>,
    rows: Range<usize>,
    target: &mut Destination<'_>,
) {
    let mut part = [Spread::ZERO; DEPTH];
    for first in (0..x.groups).step_by(DEPTH) {
        let groups = first..x.groups.min(first + DEPTH);
        let part = &mut part[..groups.len()];
        for (group, to) in groups.clone().zip(part.iter_mut()) {
            *to = spread_group::<BITS, KIND>(x.simd.0, panel, group);
        }
        target.first = first == 0;
        for row in rows.clone().step_by(2) {
            let target = &mut target.from(row - rows.start);
            match rows.end - row {
                1 => tile::<KIND, 1>(part, x, first, row, target),
                _ => tile::<KIND, 2>(part, x, first, row, target),
            }
        }
    }
}

/// Some rows over a part of a panel.
#[inline(always)]
fn tile<const KIND: u8, const ROWS: usize>(
    part: &[Spread],
    x: WholeRows<'_>,
    first_group: usize,
    row: usize,
    target: &mut Destination<'_>,
) {
    let mut totals = begun(target);
    for (index, spread) in part.iter().enumerate() {
        add::<KIND, ROWS>(x.simd, spread, x.group(row, first_group + index), &mut totals);
    }
    store(&totals, target);
}

/// Adds the products of a group.
#[inline(always)]
fn add<const KIND: u8, const ROWS: usize>(
    vnni: Vnni,
    spread: &Spread,
    x: [(&Bytes, &Rounding); ROWS],
    totals: &mut [Totals; ROWS],
) {
    let simd = vnni.0.avx512f;
    // Halves have scales of their own in one kind only.
    let parts = if KIND == BLOCK_MIDDLE { 2 } else { 1 };
    for part in 0..parts {
        let mut sums = [[[Spread::LEVEL; VECTORS]; PLANES]; ROWS];
        let quads = QUADS / parts;
        for quad in part * quads..(part + 1) * quads {
            for row in 0..ROWS {
                for (sums, planes) in sums[row].iter_mut().zip(&x[row].0.planes) {
                    let x = simd._mm512_set1_epi32(planes[quad]);
                    for (sum, levels) in sums.iter_mut().zip(&spread.levels) {
                        *sum = vnni.add_products(*sum, levels[quad], x);
                    }
                }
            }
        }
        for row in 0..ROWS {
            let step = x[row].1;
            let sum = if parts == 1 { step.whole } else { step.halves[part] };
            let (step, sum) = (simd._mm512_set1_ps(step.step), simd._mm512_set1_ps(sum));
            for vector in 0..VECTORS {
                let Factors { scale, offset } = spread.factors[vector];
                let [upper, middle, lower] = sums[row].map(|plane| simd._mm512_cvtepi32_ps(plane[vector]));
                let byte = simd._mm512_set1_ps(256.0);
                let whole = simd._mm512_fmadd_ps(simd._mm512_fmadd_ps(upper, byte, middle), byte, lower);
                let product = simd._mm512_mul_ps(whole, step);
                let total = simd._mm512_fmadd_ps(scale[part], product, totals[row][vector]);
                totals[row][vector] = simd._mm512_fmadd_ps(offset[part], sum, total);
            }
        }
    }
}

/// Sums as the parts before left them: they go on in the same order whatever rows there are, so that a row gives the same numbers
/// among any others.
#[inline(always)]
fn begun<const ROWS: usize>(target: &Destination<'_>) -> [Totals; ROWS] {
    let mut totals = [[Spread::NUMBER; VECTORS]; ROWS];
    if !target.first {
        for (row, totals) in totals.iter_mut().enumerate() {
            let mut sums = [0.0_f32; PANEL];
            sums[..target.width].copy_from_slice(&target.out[row * target.stride..][..target.width]);
            *totals = pulp::cast(sums);
        }
    }
    totals
}

/// Puts sums to their place.
#[inline(always)]
fn store<const ROWS: usize>(totals: &[Totals; ROWS], target: &mut Destination<'_>) {
    for (row, totals) in totals.iter().enumerate() {
        let sums: [f32; PANEL] = pulp::cast(*totals);
        target.out[row * target.stride..][..target.width].copy_from_slice(&sums[..target.width]);
    }
}

/// A group of a panel, a byte for each level.
#[inline(always)]
fn spread_group<const BITS: usize, const KIND: u8>(simd: V4, panel: Panel<'_>, group: usize) -> Spread {
    let record: &[PanelLine] = &panel.words[group * BITS..][..BITS];
    let mut all = Spread::ZERO;
    for vector in 0..VECTORS {
        for quad in 0..QUADS {
            all.levels[vector][quad] = pulp::cast(spread::<V4, BITS>(simd, record, quad, vector * LANES));
        }
        let Factors { scale, offset } = factors::<V4, BITS, KIND>(simd, panel, group, vector * LANES);
        all.factors[vector] = Factors { scale: pulp::cast(scale), offset: pulp::cast(offset) };
    }
    all
}
