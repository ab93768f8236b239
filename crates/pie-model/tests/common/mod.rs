//! A model on ranks in threads, driven by a script of batches.

#[allow(dead_code, reason = "not every test file has goldens")]
pub mod golden;

use pie_comm::{Collective, ThreadGroup};
use pie_kv::{KvCache, View};
use pie_model::{Batch, Model, ModelError, Sequence};
use pie_words::{Slot, TokenId, TokenIndex};
use std::ops::Range;
use std::path::Path;

/// What a test does with a rank: its model, its cache, its collective.
#[allow(dead_code, reason = "on a GPU there are others")]
pub struct ModelUnderTest<'a> {
    pub model: &'a Model,
    pub cache: &'a mut KvCache,
    pub comm: &'a mut dyn Collective,
}

#[allow(dead_code, reason = "on a GPU there are others")]
impl ModelUnderTest<'_> {
    pub fn forward(&mut self, batch: &Batch<'_>) -> Result<Vec<Vec<f32>>, ModelError> {
        let logits = self.model.forward(batch, self.cache, self.comm)?;
        Ok(logits.rows().map(<[f32]>::to_vec).collect())
    }
}

/// Does the same on every rank of a group, and returns what came of it, by rank.
#[allow(dead_code, reason = "on a GPU there are others")]
pub fn on_ranks<T: Send>(
    folder: &Path,
    world_size: u32,
    slots: usize,
    test: impl Fn(&mut ModelUnderTest<'_>) -> T + Sync,
) -> Vec<T> {
    let members = ThreadGroup::new(world_size).expect("a world size");
    std::thread::scope(|scope| {
        let ranks: Vec<_> = members
            .into_iter()
            .map(|mut comm| {
                let test = &test;
                scope.spawn(move || {
                    let model = Model::load(folder, comm.member(), &mut |_, _| {}).expect("it loads");
                    let mut cache = KvCache::new(model.kv_shape(slots)).expect("it fits");
                    test(&mut ModelUnderTest { model: &model, cache: &mut cache, comm: &mut comm })
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
    })
}

/// A session as a test sees it: its tokens, and the slot of each.
#[derive(Clone)]
pub struct TestSession {
    pub tokens: Vec<TokenId>,
    pub slots: Vec<Slot>,
}

impl TestSession {
    /// Slots in order from `first`.
    pub fn new(tokens: &[u32], first: u32) -> Self {
        let slots = (first..first + tokens.len() as u32).map(Slot).collect();
        Self { tokens: tokens.iter().copied().map(TokenId).collect(), slots }
    }

    /// Adds rows of this document to a batch, all of one sequence, each seeing everything before it.
    pub fn add<'a>(
        &'a self,
        batch: &mut Batch<'a>,
        indices: impl IntoIterator<Item = usize>,
        logits: Logits,
    ) {
        let start = batch.tokens.len();
        let mut visible = Vec::new();
        for index in indices {
            batch.tokens.push(self.tokens[index]);
            batch.positions.push(TokenIndex(index as u32));
            batch.slots.push(self.slots[index]);
            visible.push(index as u32 + 1);
        }
        let rows = start..batch.tokens.len();
        batch.logits_of.extend(match logits {
            Logits::All => rows.clone(),
            Logits::Last => rows.end - 1..rows.end,
            Logits::None => 0..0,
        });
        batch.sequences.push(Sequence { rows, view: View::from(&self.slots[..]), visible });
    }

    pub fn batch(&self, indices: Range<usize>, logits: Logits) -> Batch<'_> {
        let mut batch = Batch::default();
        self.add(&mut batch, indices, logits);
        batch
    }
}

/// Whose logits a test wants.
#[allow(dead_code, reason = "not every test file wants all kinds")]
#[derive(Clone, Copy)]
pub enum Logits {
    All,
    Last,
    None,
}

/// Index of the greatest.
#[allow(dead_code, reason = "not every test file is greedy")]
pub fn greedy(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    best.expect("there are logits") as u32
}

/// The largest difference, as a part of the largest number expected.
pub fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    assert!(got.iter().all(|number| number.is_finite()));
    let scale = expected.iter().fold(0.0_f32, |most, number| most.max(number.abs()));
    got.iter().zip(expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / scale
}
