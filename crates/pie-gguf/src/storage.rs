//! How numbers are stored: as they are, or in blocks of levels with a scale.
//!
//! All quantized storages are seen in groups of [`GROUP`] numbers: levels of up to eight bits, and what makes numbers of them
//! ([`QuantizationScale`]). Blocks of 256 ("K") store the scales of their eight groups quantized themselves.

use half::{bf16, f16};

/// Numbers of a group: those of the small blocks, and an eighth of the large ones.
pub const GROUP: usize = 32;
/// Numbers that share a scale at least.
const HALF: usize = GROUP / 2;
/// Numbers of a large block.
pub const BLOCK: usize = 256;

/// How the numbers of a tensor are stored; the names are ggml's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the names that everybody knows these by")]
pub enum Storage {
    /// 32 bits each.
    F32,
    /// 16 bits each.
    F16,
    /// 16 bits each, with the range of 32.
    BF16,
    /// Levels of 4 bits around 8, a scale for 32.
    Q4_0,
    /// Levels of 4 bits, a scale and an offset for 32.
    Q4_1,
    /// Levels of 5 bits around 16, a scale for 32.
    Q5_0,
    /// Levels of 5 bits, a scale and an offset for 32.
    Q5_1,
    /// Levels of 8 bits around 0, a scale for 32.
    Q8_0,
    /// Levels of 4 bits, a scale and an offset for 32, each of 6 bits times a number for 256.
    Q4_K,
    /// Levels of 5 bits, otherwise as `Q4_K`.
    Q5_K,
    /// Levels of 6 bits around 32, a scale for 16, of 8 bits times a number for 256.
    Q6_K,
}

/// Thirty-two numbers that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizedGroup {
    /// From 0 to below two to the power of [`Storage::level_bits`].
    pub levels: [u8; GROUP],
    /// What makes numbers of them.
    pub scale: QuantizationScale,
}

/// What makes numbers of levels, as it is stored: numbers of sixteen bits are halves, by their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantizationScale {
    /// `scale * (level - middle)`.
    Middle {
        /// A half.
        scale: u16,
        /// The middle of the levels' range.
        middle: u8,
    },
    /// `scale * level + offset`.
    Offset {
        /// A half.
        scale: u16,
        /// A half.
        offset: u16,
    },
    /// `block_scale * scale * level - block_offset * offset`.
    BlockOffset {
        /// A half, of 256 numbers.
        block_scale: u16,
        /// A half, of 256 numbers.
        block_offset: u16,
        /// Of the group.
        scale: u8,
        /// Of the group.
        offset: u8,
    },
    /// `block_scale * scales[i / 16] * (level - middle)` for number `i`.
    BlockMiddle {
        /// A half, of 256 numbers.
        block_scale: u16,
        /// Of the two halves of the group.
        scales: [i8; 2],
        /// The middle of the levels' range.
        middle: u8,
    },
}

fn half_of(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

impl QuantizationScale {
    /// Whether all numbers of it are finite.
    pub fn is_finite(self) -> bool {
        let halves = match self {
            Self::Middle { scale, .. } => [scale, 0],
            Self::Offset { scale, offset } => [scale, offset],
            Self::BlockOffset { block_scale, block_offset, .. } => [block_scale, block_offset],
            Self::BlockMiddle { block_scale, .. } => [block_scale, 0],
        };
        halves.iter().all(|half| f16::from_bits(*half).is_finite())
    }
}

impl QuantizedGroup {
    /// Nothing but zeros.
    pub const ZEROS: Self =
        Self { levels: [0; GROUP], scale: QuantizationScale::Middle { scale: 0, middle: 0 } };

    /// The numbers that it stands for. Products of scales and levels are exact in f32, so that there is one rounding at most, as
    /// in the reference.
    pub fn numbers(&self) -> [f32; GROUP] {
        let numbers = |of: &dyn Fn(usize, f32) -> f32| {
            std::array::from_fn(|index| of(index / HALF, f32::from(self.levels[index])))
        };
        match self.scale {
            QuantizationScale::Middle { scale, middle } => {
                let (scale, middle) = (half_of(scale), f32::from(middle));
                numbers(&|_, level| scale * (level - middle))
            }
            QuantizationScale::Offset { scale, offset } => {
                let (scale, offset) = (half_of(scale), half_of(offset));
                numbers(&|_, level| scale * level + offset)
            }
            QuantizationScale::BlockOffset { block_scale, block_offset, scale, offset } => {
                let (scale, offset) =
                    (half_of(block_scale) * f32::from(scale), half_of(block_offset) * f32::from(offset));
                numbers(&|_, level| scale * level - offset)
            }
            QuantizationScale::BlockMiddle { block_scale, scales, middle } => {
                let (scales, middle) =
                    (scales.map(|scale| half_of(block_scale) * f32::from(scale)), f32::from(middle));
                numbers(&|half, level| scales[half] * (level - middle))
            }
        }
    }
}

impl Storage {
    /// By the number that files name it by.
    pub fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// What a storage is called that is not read.
    pub fn name_of(kind: u32) -> String {
        let names: &[(u32, &str)] = &[
            (9, "Q8_1"),
            (10, "Q2_K"),
            (11, "Q3_K"),
            (15, "Q8_K"),
            (16, "IQ2_XXS"),
            (17, "IQ2_XS"),
            (18, "IQ3_XXS"),
            (19, "IQ1_S"),
            (20, "IQ4_NL"),
            (21, "IQ3_S"),
            (22, "IQ2_S"),
            (23, "IQ4_XS"),
            (28, "F64"),
            (29, "IQ1_M"),
            (34, "TQ1_0"),
            (35, "TQ2_0"),
            (39, "MXFP4"),
        ];
        let known = names.iter().find(|(number, _)| *number == kind);
        known.map_or_else(|| format!("of type {kind}"), |(_, name)| (*name).to_owned())
    }

    /// Numbers of a block.
    pub fn numbers(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => GROUP,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => BLOCK,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bits of a level; none where numbers are stored as they are.
    pub fn level_bits(self) -> Option<u32> {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => None,
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => Some(4),
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => Some(5),
            Self::Q6_K => Some(6),
            Self::Q8_0 => Some(8),
        }
    }

    /// Group number `index` of a row that lies in `row`; none where numbers are stored as they are.
    ///
    /// # Panics
    /// If the row is shorter than that.
    pub fn group(self, row: &[u8], index: usize) -> Option<QuantizedGroup> {
        let bits = self.level_bits()?;
        let groups = self.numbers() / GROUP;
        let block = &row[index / groups * self.bytes()..][..self.bytes()];
        let within = index % groups;
        Some(match self {
            Self::Q4_K | Self::Q5_K => scaled(block, within, bits),
            Self::Q6_K => sixes(block, within),
            _ => small(block, self, bits),
        })
    }

    /// Widens numbers that are stored as they are, and groups of others: all of a row from column `first` on, for as many as
    /// there is room for.
    ///
    /// # Panics
    /// If the row is shorter than that.
    pub fn widen(self, row: &[u8], first: usize, to: &mut [f32]) {
        match self {
            Self::F32 => plain(row, first, to, f32::from_le_bytes),
            Self::F16 => plain(row, first, to, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Self::BF16 => plain(row, first, to, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            _ => {
                let (mut column, mut to) = (first, to);
                while !to.is_empty() {
                    let Some(group) = self.group(row, column / GROUP) else { return };
                    let numbers = &group.numbers()[column % GROUP..];
                    let count = numbers.len().min(to.len());
                    let (now, rest) = to.split_at_mut(count);
                    now.copy_from_slice(&numbers[..count]);
                    (column, to) = (column + count, rest);
                }
            }
        }
    }
}

fn plain<const SIZE: usize>(row: &[u8], first: usize, to: &mut [f32], number: impl Fn([u8; SIZE]) -> f32) {
    for (to, bytes) in to.iter_mut().zip(row[first * SIZE..].as_chunks::<SIZE>().0) {
        *to = number(*bytes);
    }
}

fn half_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Blocks of 32: the scale, perhaps an offset, perhaps a fifth bit of each level, and the levels.
fn small(block: &[u8], storage: Storage, bits: u32) -> QuantizedGroup {
    let scale = half_at(block, 0);
    if storage == Storage::Q8_0 {
        // Signed levels, moved up so that none is negative.
        let levels = std::array::from_fn(|index| block[2 + index] ^ 0x80);
        return QuantizedGroup { levels, scale: QuantizationScale::Middle { scale, middle: 128 } };
    }
    let (scale, behind) = match storage {
        Storage::Q4_1 | Storage::Q5_1 => (QuantizationScale::Offset { scale, offset: half_at(block, 2) }, 4),
        _ => (QuantizationScale::Middle { scale, middle: 1 << (bits - 1) }, 2),
    };
    let (fifth, behind) = match bits {
        5 => {
            let bits = [block[behind], block[behind + 1], block[behind + 2], block[behind + 3]];
            (u32::from_le_bytes(bits), behind + 4)
        }
        _ => (0, behind),
    };
    // The lower halves of the bytes are the first 16 levels.
    let levels = std::array::from_fn(|index| {
        let nibble = block[behind + index % HALF] >> (4 * (index / HALF)) & 15;
        nibble | u8::from(fifth >> index & 1 == 1) << 4
    });
    QuantizedGroup { levels, scale }
}

/// Blocks of 256 with six bits for each group's scale and offset: `Q4_K` and `Q5_K`.
fn scaled(block: &[u8], within: usize, bits: u32) -> QuantizedGroup {
    let packed = &block[4..16];
    // Of the first four groups the six bits lie in bytes of their own, whose upper two bits are those of the last four.
    let (scale, offset) = match within {
        0..4 => (packed[within] & 63, packed[within + 4] & 63),
        _ => {
            let low = packed[within + 4];
            (low & 15 | packed[within - 4] >> 6 << 4, low >> 4 | packed[within] >> 6 << 4)
        }
    };
    let (fifths, nibbles) = block[16..].split_at(if bits == 5 { GROUP } else { 0 });
    // Two groups share 32 bytes: the lower halves are the first.
    let nibbles = &nibbles[within / 2 * GROUP..][..GROUP];
    let levels = std::array::from_fn(|index| {
        let fifth = fifths.get(index).map_or(0, |fifths| fifths >> within & 1);
        nibbles[index] >> (4 * (within % 2)) & 15 | fifth << 4
    });
    let (block_scale, block_offset) = (half_at(block, 0), half_at(block, 2));
    QuantizedGroup {
        levels,
        scale: QuantizationScale::BlockOffset { block_scale, block_offset, scale, offset },
    }
}

/// Blocks of 256 with levels of six bits and eight bits for the scale of 16: `Q6_K`.
fn sixes(block: &[u8], within: usize) -> QuantizedGroup {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    // Each half of the block has 64 bytes of lower and 32 of upper bits for its four groups.
    let (half, quarter) = (within / 4, within % 4);
    let (low, high) = (&low[half * 64 + quarter % 2 * GROUP..], &high[half * GROUP..]);
    let levels = std::array::from_fn(|index| {
        low[index] >> (4 * (quarter / 2)) & 15 | (high[index] >> (2 * quarter) & 3) << 4
    });
    let scales = [0, 1].map(|part| scales[2 * within + part] as i8);
    QuantizedGroup {
        levels,
        scale: QuantizationScale::BlockMiddle { block_scale: half_at(block, 208), scales, middle: 32 },
    }
}
