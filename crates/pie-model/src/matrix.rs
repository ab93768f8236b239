//! A matrix that stays in its file: any part of any row, widened to f32, or as it lies there.

use crate::checkpoint::Tensor;
use crate::error::ModelError;
use crate::product::Numbers;
#[cfg(feature = "cuda")]
use pie_gguf::Storage;
use pie_gguf::{GROUP, QuantizedGroup};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A matrix that stays in its file.
pub(crate) struct Matrix {
    tensor: Tensor,
    columns: usize,
    /// The place of the first number that was loaded and is none.
    wrong: AtomicUsize,
}

/// Nothing is wrong.
const NOTHING: usize = usize::MAX;

/// In which order a file has the rows of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// That of the model.
    AsIs,
    /// The two rows that are rotated as a pair lie side by side, where the model has them half a head apart: so llama.cpp keeps
    /// queries and keys of Llama's architecture.
    Pairs {
        /// Rows of a head.
        head_dim: usize,
    },
}

impl RowOrder {
    /// Where the file has a row of the model.
    fn stored(self, row: usize) -> usize {
        match self {
            Self::AsIs => row,
            Self::Pairs { head_dim } => {
                let (head, within, half) = (row / head_dim, row % head_dim, head_dim / 2);
                head * head_dim + 2 * (within % half) + within / half
            }
        }
    }
}

impl Matrix {
    pub(crate) fn new(tensor: Tensor, columns: usize) -> Self {
        Self { tensor, columns, wrong: AtomicUsize::new(NOTHING) }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.tensor.shape[0]
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How the numbers of some columns can be kept without changing them.
    pub fn numbers(&self, columns: &Range<usize>) -> Numbers {
        Numbers::of(self.tensor.storage, columns)
    }

    /// Some columns of a row as they lie in the file, if the numbers there are of this type: `f32`, `f16` or `bf16`.
    #[cfg(feature = "cuda")]
    pub fn bytes(&self, row: usize, columns: Range<usize>, dtype: &str) -> Option<&[u8]> {
        let name = match self.tensor.storage {
            Storage::F32 => "f32",
            Storage::F16 => "f16",
            Storage::BF16 => "bf16",
            _ => return None,
        };
        let size = self.tensor.storage.bytes();
        (name == dtype).then(|| &self.stored(row)[columns.start * size..columns.end * size])
    }

    /// A row as it lies in the file.
    fn stored(&self, row: usize) -> &[u8] {
        let storage = self.tensor.storage;
        let length = self.columns / storage.numbers() * storage.bytes();
        &self.tensor.data()[self.tensor.order.stored(row) * length..][..length]
    }

    /// As [`Matrix::row`], for weights that will be computed with: [`Matrix::check`] then says whether all are numbers.
    pub fn load(&self, row: usize, columns: Range<usize>, to: &mut [f32]) {
        let first = row * self.columns + columns.start;
        self.row(row, columns, to);
        // Without an early end it goes as fast as the row is read.
        if !to.iter().fold(true, |finite, number| finite & number.is_finite()) {
            let place = to.iter().position(|number| !number.is_finite()).unwrap_or(0);
            self.note(first + place);
        }
    }

    /// The number at this place of the tensor cannot be computed with.
    pub fn note(&self, place: usize) {
        self.wrong.fetch_min(place, Ordering::Relaxed);
    }

    /// A group of quantized numbers, from column `index` times [`GROUP`] on, which will be computed with.
    pub fn group(&self, row: usize, index: usize) -> QuantizedGroup {
        let storage = self.tensor.storage;
        let group = storage.group(self.stored(row), index);
        let group = group.expect("only numbers that are kept as levels are asked for in groups");
        if !group.scale.is_finite() {
            let column = group.numbers().iter().position(|number| !number.is_finite()).unwrap_or(0);
            self.note(row * self.columns + index * GROUP + column);
        }
        group
    }

    /// Refuses a matrix of which a number was loaded that is none.
    pub fn check(&self) -> Result<(), ModelError> {
        self.check_for("f32")
    }

    /// The same, where it is loaded as numbers of another type.
    pub fn check_for(&self, kind: &'static str) -> Result<(), ModelError> {
        let place = self.wrong.load(Ordering::Relaxed);
        if place == NOTHING {
            return Ok(());
        }
        let (row, column) = (place / self.columns, place % self.columns);
        let mut value = [0.0];
        self.row(row, column..column + 1, &mut value);
        Err(ModelError::TensorNotFinite {
            name: self.tensor.stored.clone(),
            place: self.tensor.file.0.clone(),
            index: if self.tensor.shape.len() == 1 { [column].into() } else { [row, column].into() },
            value: value[0],
            kind,
        })
    }

    /// Widens some columns of a row; `to` is as long as `columns`.
    pub fn row(&self, row: usize, columns: Range<usize>, to: &mut [f32]) {
        self.tensor.storage.widen(self.stored(row), columns.start, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_lie_half_a_head_apart_in_the_model() {
        let stored: Vec<usize> = (0..16).map(|row| RowOrder::Pairs { head_dim: 8 }.stored(row)).collect();
        assert_eq!(stored, [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]);
    }
}
