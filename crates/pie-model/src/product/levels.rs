//! Panels of quantized weights: levels of a few bits, how they lie, and what makes numbers of them.
//!
//! A panel has no more bits than its rows have in the file. It is made of lines, which have a word for each of its outputs:
//!
//! ```text
//! words    of each group as many lines as levels have bits
//!            4 bits   8 levels in each of four words: in the lower half of byte i that of input 2 i, in the upper that of 2 i + 1
//!            5        the same, and in a fifth word the fifth bits of all: those of word w in bits 2 w (lower) and 2 w + 1 of each byte
//!            6        the same, and in each of two words the upper two bits of two of the four, likewise
//!            8        8 levels in two words: even inputs, odd inputs
//!            so that a shift and a mask leave four levels of a word in four bytes
//! scales   Middle             a half (of 16 bits) for each group, two groups in a word
//!          Offset             two halves for each group: scale, offset
//!          BlockOffset        two bytes for each group, two groups in a word: scale, offset
//!          BlockMiddle        two bytes for each group, two groups in a word: scales of its halves, moved up by 128
//! blocks   of the last two:   two halves for each block of groups: of scales, of offsets
//! ```

use super::PANEL;
use pie_gguf::{BLOCK, GROUP, QuantizationScale, QuantizedGroup, Storage};
use pulp::Simd;
use rayon::prelude::*;
use std::ops::Range;

/// Inputs with one scale at least.
pub(crate) const HALF_GROUP: usize = GROUP / 2;
/// Bits of a number behind its exponent.
pub(super) const MANTISSA: u32 = 23;

/// How levels are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LevelFormat {
    pub(super) bits: u8,
    pub(super) kind: ScaleKind,
    /// Groups that share a word of `blocks`: eight, unless a row begins or ends within a block of its file.
    block: u8,
}

/// What makes numbers of levels; see [`QuantizationScale`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScaleKind {
    Middle,
    Offset,
    BlockOffset,
    BlockMiddle,
}

pub(super) const MIDDLE: u8 = ScaleKind::Middle as u8;
pub(super) const OFFSET: u8 = ScaleKind::Offset as u8;
pub(super) const BLOCK_OFFSET: u8 = ScaleKind::BlockOffset as u8;
pub(super) const BLOCK_MIDDLE: u8 = ScaleKind::BlockMiddle as u8;

impl LevelFormat {
    /// The form that holds all that a storage says of some columns, which are whole groups; none where numbers are stored as they are.
    pub fn of(storage: Storage, columns: &Range<usize>) -> Option<Self> {
        let kind = match storage {
            Storage::F32 | Storage::F16 | Storage::BF16 => return None,
            Storage::Q4_0 | Storage::Q5_0 | Storage::Q8_0 => ScaleKind::Middle,
            Storage::Q4_1 | Storage::Q5_1 => ScaleKind::Offset,
            Storage::Q4_K | Storage::Q5_K => ScaleKind::BlockOffset,
            Storage::Q6_K => ScaleKind::BlockMiddle,
        };
        let has_whole_blocks = columns.start.is_multiple_of(BLOCK) && columns.len().is_multiple_of(BLOCK);
        let block = if has_whole_blocks { BLOCK / GROUP } else { 1 };
        Some(Self { bits: u8::try_from(storage.level_bits()?).ok()?, kind, block: block as u8 })
    }

    fn bits(self) -> usize {
        usize::from(self.bits)
    }

    /// Lines of scales, and of blocks.
    fn lines(self, groups: usize) -> [usize; 2] {
        let pairs = groups.div_ceil(2);
        match self.kind {
            ScaleKind::Middle => [pairs, 0],
            ScaleKind::Offset => [groups, 0],
            ScaleKind::BlockOffset | ScaleKind::BlockMiddle => {
                [pairs, groups.div_ceil(usize::from(self.block))]
            }
        }
    }

    /// Lines of a panel.
    fn all_lines(self, groups: usize) -> usize {
        groups * self.bits() + self.lines(groups).iter().sum::<usize>()
    }

    /// Bits of a group of one output, about.
    pub fn bits_of_group(self) -> u64 {
        (32 * self.all_lines(BLOCK / GROUP) / (BLOCK / GROUP)) as u64
    }
}

/// A number, or several of few bits, for each output of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct PanelLine([u32; PANEL]);

/// Panels of one form.
pub(crate) struct LevelPanels {
    form: LevelFormat,
    lines: Vec<PanelLine>,
    /// Groups of a panel.
    groups: usize,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// Levels, group after group.
    pub words: &'a [PanelLine],
    scales: &'a [PanelLine],
    blocks: &'a [PanelLine],
    /// Groups of a line of `blocks`.
    block: usize,
}

impl LevelPanels {
    /// `group(output, index)` for all groups of all outputs that there are; the rest is 0.
    pub fn pack(
        form: LevelFormat,
        outputs: usize,
        inputs: usize,
        group: impl Fn(usize, usize) -> QuantizedGroup + Sync,
    ) -> Self {
        let groups = inputs / GROUP;
        let of_panel = form.all_lines(groups);
        let mut lines = vec![PanelLine([0; PANEL]); outputs.div_ceil(PANEL) * of_panel];
        lines.par_chunks_mut(of_panel).enumerate().for_each(|(panel, lines)| {
            let (words, rest) = lines.split_at_mut(groups * form.bits());
            let (scales, blocks) = rest.split_at_mut(form.lines(groups)[0]);
            for output in panel * PANEL..outputs.min((panel + 1) * PANEL) {
                for index in 0..groups {
                    let (group, output) = (group(output, index), output % PANEL);
                    form.put_levels(&group.levels, output, &mut words[index * form.bits()..]);
                    form.put_scale(group.scale, output, index, scales, blocks);
                }
            }
        });
        Self { form, lines, groups }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.lines.as_slice()) as u64
    }

    /// How its levels are kept.
    pub fn form(&self) -> LevelFormat {
        self.form
    }

    /// One of the panels.
    pub fn panel(&self, number: usize) -> Panel<'_> {
        let of_panel = self.form.all_lines(self.groups);
        let (words, rest) =
            self.lines[number * of_panel..][..of_panel].split_at(self.groups * self.form.bits());
        let (scales, blocks) = rest.split_at(self.form.lines(self.groups)[0]);
        Panel { words, scales, blocks, block: usize::from(self.form.block) }
    }
}

/// Which four levels an input's is one of, and which byte of their word.
pub(super) const fn place(input: usize) -> (usize, usize) {
    (2 * (input / 8) + input % 2, input % 8 / 2)
}

impl LevelFormat {
    /// Writes levels of a group, as those of one output.
    fn put_levels(self, levels: &[u8; GROUP], output: usize, words: &mut [PanelLine]) {
        for (input, level) in levels.iter().enumerate() {
            let (level, (quad, byte)) = (u32::from(*level), place(input));
            let mut put =
                |line: usize, at: usize, bits: u32| words[line].0[output] |= bits << (8 * byte + at);
            match self.bits {
                8 => put(quad, 0, level),
                _ => put(quad / 2, 4 * (quad % 2), level & 15),
            }
            match self.bits {
                5 => put(4, quad, level >> 4),
                6 => put(4 + quad / 4, 2 * (quad % 4), level >> 4),
                _ => {}
            }
        }
    }

    /// Writes what makes numbers of them. A group of zeros fits every form.
    fn put_scale(
        self,
        scale: QuantizationScale,
        output: usize,
        group: usize,
        scales: &mut [PanelLine],
        blocks: &mut [PanelLine],
    ) {
        let mut pair = |low: u32, high: u32| {
            scales[group / 2].0[output] |= (low | high << 8) << (16 * (group % 2));
        };
        let mut block = |of_scales: u16, of_offsets: u16| {
            blocks[group / usize::from(self.block)].0[output] =
                u32::from(of_scales) | u32::from(of_offsets) << 16;
        };
        match (self.kind, scale) {
            (ScaleKind::Middle, QuantizationScale::Middle { scale, .. }) => pair(u32::from(scale), 0),
            (ScaleKind::Offset, QuantizationScale::Offset { scale, offset }) => {
                scales[group].0[output] = u32::from(scale) | u32::from(offset) << 16;
            }
            (
                ScaleKind::BlockOffset,
                QuantizationScale::BlockOffset { block_scale, block_offset, scale, offset },
            ) => {
                pair(u32::from(scale), u32::from(offset));
                block(block_scale, block_offset);
            }
            (ScaleKind::BlockMiddle, QuantizationScale::BlockMiddle { block_scale, scales, .. }) => {
                let [first, second] = scales.map(|scale| u32::from((scale as u8) ^ 0x80));
                pair(first, second);
                block(block_scale, 0);
            }
            _ => {}
        }
    }
}

/// Calls a function with the constants of a form: bits, and what makes numbers of levels.
macro_rules! by_form {
    ($form:expr, $function:ident $(::<$simd:tt>)? ($($argument:expr),*)) => {{
        use $crate::product::levels::{BLOCK_MIDDLE, BLOCK_OFFSET, ScaleKind, MIDDLE, OFFSET};
        match ($form.bits, $form.kind) {
            (4, ScaleKind::Middle) => $function::<$($simd,)? 4, MIDDLE>($($argument),*),
            (4, ScaleKind::Offset) => $function::<$($simd,)? 4, OFFSET>($($argument),*),
            (4, _) => $function::<$($simd,)? 4, BLOCK_OFFSET>($($argument),*),
            (5, ScaleKind::Middle) => $function::<$($simd,)? 5, MIDDLE>($($argument),*),
            (5, ScaleKind::Offset) => $function::<$($simd,)? 5, OFFSET>($($argument),*),
            (5, _) => $function::<$($simd,)? 5, BLOCK_OFFSET>($($argument),*),
            (6, _) => $function::<$($simd,)? 6, BLOCK_MIDDLE>($($argument),*),
            _ => $function::<$($simd,)? 8, MIDDLE>($($argument),*),
        }
    }};
}
pub(super) use by_form;

/// A vector of a line, from an output on.
#[inline(always)]
pub(super) fn words<S: Simd>(line: &PanelLine, output: usize) -> S::u32s {
    S::as_simd_u32s(&line.0[output..]).0[0]
}

/// Some bits of words, moved to another place.
#[inline(always)]
pub(super) fn moved<S: Simd>(simd: S, words: S::u32s, from: usize, bits: usize, to: usize) -> S::u32s {
    simd.and_u32s(shifted(simd, words, from, to), simd.splat_u32s(((1 << bits) - 1) << to))
}

/// Words whose bit `from` is at `to`.
#[inline(always)]
fn shifted<S: Simd>(simd: S, words: S::u32s, from: usize, to: usize) -> S::u32s {
    if to >= from {
        simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s((to - from) as u32))
    } else {
        simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s((from - to) as u32))
    }
}

/// Four levels in the bytes of words, for a vector of outputs. After inlining, `quad` is a constant.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn spread<S: Simd, const BITS: usize>(
    simd: S,
    record: &[PanelLine],
    quad: usize,
    output: usize,
) -> S::u32s {
    let of_bytes = |words, from, bits: usize, to| {
        let moved = shifted(simd, words, from, to);
        simd.and_u32s(moved, simd.splat_u32s(0x0101_0101 * (((1 << bits) - 1) << to)))
    };
    let low = match BITS {
        8 => return words::<S>(&record[quad], output),
        _ => of_bytes(words::<S>(&record[quad / 2], output), 4 * (quad % 2), 4, 0),
    };
    match BITS {
        5 => simd.or_u32s(low, of_bytes(words::<S>(&record[4], output), quad, 1, 4)),
        6 => {
            let high = words::<S>(&record[4 + quad / 4], output);
            simd.or_u32s(low, of_bytes(high, 2 * (quad % 4), 2, 4))
        }
        _ => low,
    }
}

/// The numbers that halves stand for, in the lower bits of words.
#[inline(always)]
fn halves<S: Simd>(simd: S, words: S::u32s) -> S::f32s {
    // Exponent and mantissa, in the places that a number of 32 bits has them, are 2^112 times too small, even where there is no exponent.
    let number = moved(simd, words, 0, 15, 13);
    let sign = moved(simd, words, 15, 1, 31);
    let number = simd.transmute_f32s_u32s(simd.or_u32s(number, sign));
    simd.mul_f32s(number, simd.splat_f32s(f32::from_bits((127 + 112) << MANTISSA)))
}

/// The numbers of bytes, in some bits of words.
#[inline(always)]
fn bytes<S: Simd>(simd: S, words: S::u32s, from: usize) -> S::f32s {
    // 2^23 has its lowest bit where a byte has its own.
    const LARGE: f32 = 8_388_608.0;
    let byte = simd.or_u32s(moved(simd, words, from, 8, 0), simd.splat_u32s(LARGE.to_bits()));
    simd.sub_f32s(simd.transmute_f32s_u32s(byte), simd.splat_f32s(LARGE))
}

/// What makes numbers of the levels of the two halves of a group: scale * level + offset.
#[derive(Clone, Copy)]
pub(super) struct Factors<V> {
    /// Of the halves.
    pub scale: [V; 2],
    /// Likewise.
    pub offset: [V; 2],
}

#[inline(always)]
pub(super) fn factors<S: Simd, const BITS: usize, const KIND: u8>(
    simd: S,
    panel: Panel<'_>,
    group: usize,
    output: usize,
) -> Factors<S::f32s> {
    let middle = simd.splat_f32s(-((1_u32 << BITS) as f32) / 2.0);
    if KIND == OFFSET {
        let both = words::<S>(&panel.scales[group], output);
        let offset = halves(simd, moved(simd, both, 16, 16, 0));
        return Factors { scale: [halves(simd, both); 2], offset: [offset; 2] };
    }
    let odd = simd.splat_u32s(16 * (group as u32 % 2));
    let own = simd.wrapping_dyn_shr_u32s(words::<S>(&panel.scales[group / 2], output), odd);
    if KIND == MIDDLE {
        let scale = halves(simd, own);
        return Factors { scale: [scale; 2], offset: [simd.mul_f32s(middle, scale); 2] };
    }
    let block = words::<S>(&panel.blocks[group / panel.block], output);
    let of_scales = halves(simd, block);
    let (first, second) = (bytes(simd, own, 0), bytes(simd, own, 8));
    if KIND == BLOCK_OFFSET {
        let offset = simd.mul_f32s(halves(simd, moved(simd, block, 16, 16, 0)), second);
        return Factors { scale: [simd.mul_f32s(of_scales, first); 2], offset: [simd.neg_f32s(offset); 2] };
    }
    let up = simd.splat_f32s(128.0);
    let scale = [
        simd.mul_f32s(of_scales, simd.sub_f32s(first, up)),
        simd.mul_f32s(of_scales, simd.sub_f32s(second, up)),
    ];
    Factors { scale, offset: [simd.mul_f32s(middle, scale[0]), simd.mul_f32s(middle, scale[1])] }
}
