//! Numbers that begin at a cache line. The widest vectors are as long as a line: one that straddles two takes two loads, and memory
//! that comes fresh from the system begins 16 bytes behind a page.

use crate::simd::LINE_BYTES;
use std::ops::{Deref, DerefMut};

/// A fixed number of numbers.
pub(crate) struct Aligned<N> {
    /// With as many more as it may take to reach a line.
    numbers: Vec<N>,
    /// The first at a line.
    start: usize,
    length: usize,
}

impl<N: Copy> Aligned<N> {
    /// So many of one number. Zeros come untouched from the system, if they are many.
    pub fn of(number: N, length: usize) -> Self {
        let numbers = vec![number; length + Self::most_before()];
        // The offset may be unknown, by its contract: then they are right, and slower.
        let start = numbers.as_ptr().align_offset(LINE_BYTES).min(Self::most_before());
        Self { numbers, start, length }
    }

    /// Numbers by which a line may be missed.
    pub const fn most_before() -> usize {
        LINE_BYTES / size_of::<N>()
    }
}

impl<N> Deref for Aligned<N> {
    type Target = [N];

    #[inline(always)]
    fn deref(&self) -> &[N] {
        &self.numbers[self.start..self.start + self.length]
    }
}

impl<N> DerefMut for Aligned<N> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [N] {
        &mut self.numbers[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_at_a_line_whatever_the_length() {
        for length in [0, 1, 15, 16, 1000, 1 << 20] {
            let (wide, narrow) = (Aligned::of(0.0_f32, length), Aligned::of(0_u16, length));
            assert_eq!((wide.len(), narrow.len()), (length, length));
            assert!(wide.as_ptr().addr().is_multiple_of(LINE_BYTES), "{length}");
            assert!(narrow.as_ptr().addr().is_multiple_of(LINE_BYTES), "{length}");
        }
    }
}
