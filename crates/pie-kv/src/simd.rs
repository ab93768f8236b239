//! Loops that the compiler vectorizes for the machine at hand, and the exponential.

use std::cell::Cell;
use std::thread::LocalKey;

/// Runs a loop compiled for the widest vectors of this machine. The closure and all that it calls must be
/// `#[inline(always)]`: what stays a function of its own is compiled for the oldest machine, where a fused multiply-add is
/// a library call.
#[inline(always)]
pub fn wide<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Body<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}

/// e^x for x <= 0, to 2e-7 relative; next to 0 far below, and NaN of NaN. 2^n by the exponent's bits, 2^f by a polynomial on [-0.5, 0.5].
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = greater(-87.0, x);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let f = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(f, c);
    }
    let p = p.mul_add(f * f, f) + 1.0;
    // `shifted` ends in the integer n; as an exponent it is 2^n. n >= -126 because x >= -87.
    p * f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23)
}

/// 2^x for x <= 0, to 2e-7 relative; next to 0 far below, and NaN of NaN as arithmetic makes it. Softmax in base 2 spares the exact multiples of ln 2.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = greater(-125.0, x);
    let shifted = x + ROUND;
    let f = x - (shifted - ROUND);
    let mut p = 1.535_336_2e-4_f32;
    for c in [1.339_887_4e-3, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0] {
        p = p.mul_add(f, c);
    }
    // `shifted` ends in the integer n, to be added to the exponent.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// Asks for the lines of some numbers that are read soon. Rows lie where the table says, and the processor does not guess that.
#[inline(always)]
pub(crate) fn prefetch<N>(numbers: &[N]) {
    #[cfg(target_arch = "x86_64")]
    for line in numbers.chunks(LINE_BYTES / size_of::<N>()) {
        // SAFETY: a prefetch reads nothing that the program sees, and the address is that of a number.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast())
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = numbers;
}

/// Bytes that a processor reads at once.
pub(crate) const LINE_BYTES: usize = 64;

/// Numbers that loops below keep apart: the vectors of AVX2, half of those of AVX-512.
pub const LANES: usize = 8;

/// Sixteen numbers that never straddle two lines of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct CacheLine(pub [f32; 16]);

/// Lends what a thread kept for the next use: pages fresh from the system cost more than the arithmetic on them. A nested
/// use, by work that this thread takes on while it waits, finds a new one.
pub fn with_scratch<T: Default, R>(kept: &'static LocalKey<Cell<T>>, with: impl FnOnce(&mut T) -> R) -> R {
    let mut scratch = kept.take();
    let result = with(&mut scratch);
    kept.set(scratch);
    result
}

/// The largest number; negative infinity of none. NaN is passed over: what is computed against the largest is NaN then.
#[inline(always)]
pub fn largest(numbers: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = numbers.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = greater(chunk[i], lanes[i]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, number| greater(*number, most))
}

/// The greater of two, as the vector instruction has it: `f32::max` is three of them, for the sake of NaN. Where one is NaN it
/// is `b`.
#[inline(always)]
pub fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_the_last_digits() {
        for i in 0..200_000 {
            let x = -(i as f32) * 4e-4;
            let (got, expected) = (f64::from(wide(|| exp(x))), f64::from(x).exp());
            assert!((got - expected).abs() <= 2e-7 * expected, "{x}: {got} {expected}");
            let (got, expected) = (f64::from(wide(|| exp2(x))), f64::from(x).exp2());
            assert!((got - expected).abs() <= 2e-7 * expected, "{x}: {got} {expected}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp2(f32::NEG_INFINITY) < 3e-38);
        assert!(
            exp(f32::NAN).is_nan() && exp2(f32::NAN).is_nan() && exp2(f32::INFINITY - f32::INFINITY).is_nan()
        );
    }
}
