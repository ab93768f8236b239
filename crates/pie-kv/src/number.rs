//! What a number of a row is kept as: f32, or the bits of bf16. K5: all arithmetic is in f32, and what it gives is rounded once.

/// A number as it is kept.
pub(crate) trait Number: Copy + Send + Sync {
    /// Rounds a number to the nearest that is kept, of two the even one.
    fn narrow(number: f32) -> Self;

    /// The number, exactly.
    fn widen(self) -> f32;

    /// Rounds as many as there are.
    #[inline(always)]
    fn narrow_into(numbers: &[f32], kept: &mut [Self]) {
        kept.iter_mut().zip(numbers).for_each(|(kept, number)| *kept = Self::narrow(*number));
    }

    /// As many as there are, exactly.
    #[inline(always)]
    fn widen_into(kept: &[Self], numbers: &mut [f32]) {
        numbers.iter_mut().zip(kept).for_each(|(number, kept)| *number = kept.widen());
    }

    /// Some numbers in f32: as they lie, or put into `space`, which is as long.
    fn widened<'a>(kept: &'a [Self], space: &'a mut [f32]) -> &'a [f32];
}

impl Number for f32 {
    #[inline(always)]
    fn narrow(number: f32) -> Self {
        number
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow_into(numbers: &[f32], kept: &mut [Self]) {
        kept.copy_from_slice(numbers);
    }

    #[inline(always)]
    fn widen_into(kept: &[Self], numbers: &mut [f32]) {
        numbers.copy_from_slice(kept);
    }

    #[inline(always)]
    fn widened<'a>(kept: &'a [Self], _space: &'a mut [f32]) -> &'a [f32] {
        kept
    }
}

/// The upper half of an f32. Plain bits: zeros of a type of our own would not come untouched from the system.
pub(crate) type Bf16 = u16;

impl Number for Bf16 {
    #[inline(always)]
    fn narrow(number: f32) -> Self {
        let bits = number.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // Rounding must not make infinity of a NaN whose last bits alone say so.
        let kept = if number.is_nan() { (bits >> 16) | 0x40 } else { rounded };
        kept as Self
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[inline(always)]
    fn widened<'a>(kept: &'a [Self], space: &'a mut [f32]) -> &'a [f32] {
        Self::widen_into(kept, space);
        space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_bf16() {
        let step = 65_521;
        for bits in
            (0..=u32::MAX - step).step_by(step as usize).chain([0x7f80_0000, 0xff80_0000, 0x7f80_0001])
        {
            let number = f32::from_bits(bits);
            let expected = half::bf16::from_f32(number);
            assert_eq!(Bf16::narrow(number), expected.to_bits(), "{bits:08x}");
            let (got, expected) = (Bf16::narrow(number).widen(), expected.to_f32());
            assert_eq!(got.to_bits(), expected.to_bits(), "{bits:08x}");
        }
    }
}
