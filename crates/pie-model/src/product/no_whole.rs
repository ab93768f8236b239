//! In place of `whole` where no processor has its instructions.

use super::levels::LevelPanels;
use std::marker::PhantomData;
use std::ops::Range;

/// There is none.
#[derive(Clone, Copy)]
pub(super) enum Vnni {}

impl Vnni {
    /// Never.
    pub fn detected() -> Option<Self> {
        None
    }
}

/// There are none.
#[derive(Clone, Copy)]
pub(super) struct WholeRows<'a>(Vnni, PhantomData<&'a ()>);

#[derive(Default)]
pub(super) struct RoundedRows;

impl<'a> WholeRows<'a> {
    /// Not called.
    pub fn new(simd: Vnni, _: &[f32], _: usize, _: &'a mut RoundedRows) -> Self {
        match simd {}
    }

    /// Not called.
    pub fn multiply(
        self,
        _: &LevelPanels,
        _: Range<usize>,
        _: Range<usize>,
        _: usize,
        _: &mut [f32],
        _: usize,
    ) {
        match self.0 {}
    }
}
