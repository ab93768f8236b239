//! Loops that the compiler vectorizes for the machine at hand, and the exponential.

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

/// e^x for x <= 0, to 2e-7 relative; 0 far below. 2^n by the exponent's bits, 2^f by a polynomial on [-0.5, 0.5].
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.max(-87.0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_the_last_digits() {
        for i in 0..200_000 {
            let x = -(i as f32) * 4e-4;
            let (got, expected) = (f64::from(wide(|| exp(x))), f64::from(x).exp());
            assert!((got - expected).abs() <= 2e-7 * expected, "{x}: {got} {expected}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }
}
