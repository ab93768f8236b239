//! What a rank computes with: its slice of a model and its KV rows, on one device.

use crate::batch::Batch;
use crate::config::Config;
use crate::error::ModelError;
use crate::model::Model;
use crate::sampling::{Sampled, sample_if_numbers};
use pie_comm::{Collective, Member};
use pie_kv::{KvCache, KvShape, Precision};
use pie_words::{SamplingParameters, Slot};
use rayon::prelude::*;

/// How the token behind a row is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// Temperature, cuts, seed.
    pub parameters: SamplingParameters,
    /// Tokens that the session drew before; with the seed it determines the draw.
    pub step: u64,
}

/// Rows of some slots in one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KvRows {
    /// `[slots][kv heads of this rank][head dimension]`, as rotated now.
    pub keys: Vec<f32>,
    /// Likewise.
    pub values: Vec<f32>,
}

/// A rank's slice of a model with its KV rows, on a CPU or a GPU. Every call that changes rows is refused before anything is
/// changed, or fails for good: the rank then leaves its group.
pub trait Compute: Send {
    /// The model's sizes.
    fn config(&self) -> &Config;

    /// Whose slice it is.
    fn member(&self) -> Member;

    /// The sizes of the cache.
    fn kv_shape(&self) -> KvShape;

    /// See [`KvCache::copy`].
    ///
    /// # Errors
    /// Slots that do not fit; the device.
    fn copy(&mut self, from: &[Slot], to: &[Slot]) -> Result<(), ModelError>;

    /// See [`KvCache::turn`].
    ///
    /// # Errors
    /// Slots that do not fit; the device.
    fn turn(&mut self, slots: &[Slot], deltas: &[i32]) -> Result<(), ModelError>;

    /// Encodes the rows of a batch ([`Model::forward`]) and draws a token from the logits of each of `batch.logits_of`, as
    /// `draws` say, in that order. The same tokens on every rank (P3).
    ///
    /// # Errors
    /// As [`Model::forward`] and [`sample`].
    fn forward(
        &mut self,
        batch: &Batch<'_>,
        draws: &[Draw],
        comm: &mut dyn Collective,
    ) -> Result<Vec<Sampled>, ModelError>;

    /// The rows of slots in one layer.
    ///
    /// # Errors
    /// A layer or slot out of range; the device.
    fn rows(&self, layer: usize, slots: &[Slot]) -> Result<KvRows, ModelError>;

    /// Writes rows back, number for number.
    ///
    /// # Errors
    /// A layer or slot out of range, too few numbers; the device.
    fn set_rows(&mut self, layer: usize, slots: &[Slot], rows: &KvRows) -> Result<(), ModelError>;
}

/// [`Compute`] on the CPU, in f32.
pub struct OnCpu {
    model: Model,
    cache: KvCache,
}

impl OnCpu {
    /// A model with its cache.
    pub fn new(model: Model, cache: KvCache) -> Self {
        Self { model, cache }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Empties the cache, and gives its rows another precision.
    ///
    /// # Errors
    /// Memory.
    pub fn renew_cache(&mut self, precision: Precision) -> Result<(), ModelError> {
        let shape = self.cache.shape();
        // The old one goes before the new one comes.
        self.cache = KvCache::new(KvShape { slots: 0, ..shape })?;
        self.cache = KvCache::with_precision(shape, precision)?;
        Ok(())
    }
}

impl Compute for OnCpu {
    fn config(&self) -> &Config {
        self.model.config()
    }

    fn member(&self) -> Member {
        self.model.member()
    }

    fn kv_shape(&self) -> KvShape {
        self.cache.shape()
    }

    fn copy(&mut self, from: &[Slot], to: &[Slot]) -> Result<(), ModelError> {
        Ok(self.cache.copy(from, to)?)
    }

    fn turn(&mut self, slots: &[Slot], deltas: &[i32]) -> Result<(), ModelError> {
        Ok(self.cache.turn(self.model.rope(), slots, deltas)?)
    }

    fn forward(
        &mut self,
        batch: &Batch<'_>,
        draws: &[Draw],
        comm: &mut dyn Collective,
    ) -> Result<Vec<Sampled>, ModelError> {
        check_draws(batch, draws)?;
        let logits = self.model.forward(batch, &mut self.cache, comm)?;
        let rows: Vec<&[f32]> = logits.rows().collect();
        rows.par_iter()
            .zip(draws)
            .map(|(row, draw)| sample_if_numbers(row, &draw.parameters, draw.step))
            .collect()
    }

    fn rows(&self, layer: usize, slots: &[Slot]) -> Result<KvRows, ModelError> {
        Ok(KvRows { keys: self.cache.keys(layer, slots)?, values: self.cache.values(layer, slots)? })
    }

    fn set_rows(&mut self, layer: usize, slots: &[Slot], rows: &KvRows) -> Result<(), ModelError> {
        let KvShape { kv_heads, head_dim, .. } = self.cache.shape();
        let all = |numbers| pie_kv::Strided { numbers, first: 0, stride: kv_heads * head_dim };
        Ok(self.cache.write(layer, slots, all(&rows.keys), all(&rows.values))?)
    }
}

pub(crate) fn check_draws(batch: &Batch<'_>, draws: &[Draw]) -> Result<(), ModelError> {
    if batch.logits_of.len() == draws.len() {
        return Ok(());
    }
    let (rows, draws) = (batch.logits_of.len(), draws.len());
    Err(ModelError::BatchInvalid(format!("logits of {rows} rows, and {draws} draws from them")))
}
