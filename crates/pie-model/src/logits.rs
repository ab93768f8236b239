//! What a forward pass says about the next token.

/// For each row that was asked for a number for each token of the vocabulary, in f32: the greater, the likelier.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    /// `[rows][vocabulary]`.
    numbers: Vec<f32>,
    vocabulary: usize,
}

impl Logits {
    /// Of whole rows, one behind the other.
    pub(crate) fn new(numbers: Vec<f32>, vocabulary: usize) -> Self {
        debug_assert!(numbers.len().is_multiple_of(vocabulary), "a row is as long as the vocabulary");
        Self { numbers, vocabulary }
    }

    /// Row by row, in the order of [`crate::Batch::logits_of`].
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.numbers.chunks_exact(self.vocabulary)
    }
}
