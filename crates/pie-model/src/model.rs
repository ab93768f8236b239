//! A rank's slice of a model: how it is read from the checkpoint.

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::ModelError;
use crate::folder::Folder;
use crate::layers::{ColumnParallel, RmsNorm, RowParallel};
use crate::matrix::Matrix;
use crate::product::{Numbers, Packed, WeightSource};
use crate::shard::Shard;
use crate::tensors::{LayerTensors, NORM};
use pie_comm::Member;
use pie_gguf::{GROUP, QuantizedGroup};
use pie_kv::{KvShape, Rope};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// One member's slice of a model of the Llama family, in f32, ready for [`Model::forward`].
pub struct Model {
    pub(crate) config: Config,
    fingerprint: String,
    pub(crate) member: Member,
    pub(crate) shard: Shard,
    pub(crate) rope: Rope,
    /// Stays in its file, whole: a lookup touches only the rows that it needs, the ranks of a machine share the pages, and
    /// no collective is needed.
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: RmsNorm,
    pub(crate) head: ColumnParallel,
}

/// Norms of each head of the queries and of the keys.
pub(crate) struct QueryKeyNorms {
    /// The norm of each head of the queries.
    pub query: RmsNorm,
    /// The norm of each head of the keys.
    pub key: RmsNorm,
}

/// One decoder layer.
pub(crate) struct Layer {
    /// The norm before attention.
    pub attention_norm: RmsNorm,
    /// Rows of all own query heads, then of the key heads, then of the value heads.
    pub qkv: ColumnParallel,
    /// Added to a row of `qkv`.
    pub bias: Option<Vec<f32>>,
    /// Norms of queries and keys before they are rotated, in models that have them.
    pub head_norms: Option<QueryKeyNorms>,
    /// From the rank's own heads to its part of the residual's sum.
    pub output: RowParallel,
    /// The norm before the MLP.
    pub mlp_norm: RmsNorm,
    /// Rows of the gate, then of up.
    pub gate_up: ColumnParallel,
    /// From the rank's part of the MLP to its part of the residual's sum.
    pub down: RowParallel,
}

impl Model {
    /// Reads a member's slice of a Hugging Face folder. `progress` hears (bytes done, bytes in all) of f32 weights.
    ///
    /// # Errors
    /// Configurations and world sizes that do not fit, files and tensors that are missing, cut off, of another shape, left
    /// over, or no numbers.
    pub fn load(
        folder: &Path,
        member: Member,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ModelError> {
        // What is wrong with the configuration alone is said first.
        let config = Config::read(folder)?;
        let shard = Shard::new(&config, member)?;
        let rope = Rope::new(config.head_dim, config.rope_theta, &config.rope_scaling)?;
        let Folder { config, checkpoint, tables } = Folder::open(folder)?;
        let total = 4 * slice_size(&config, &shard);
        progress(0, total);
        let mut loader = Loader { checkpoint, config: &config, shard: &shard, progress, done: 0, total };
        let layers = (0..config.layers).map(|index| loader.layer(index)).collect::<Result<_, _>>()?;
        let norm = loader.norm(loader.checkpoint.vector(NORM, config.hidden_size)?);
        let embedding = loader.checkpoint.matrix(tables.embedding, config.vocab_size, config.hidden_size)?;
        let head = loader.head(tables.head)?;
        if tables.head != tables.embedding {
            check_rows(&embedding, shard.vocabulary.clone())?;
        }
        let fingerprint = loader.checkpoint.fingerprint(&config);
        loader.checkpoint.release();
        Ok(Self { fingerprint, member, rope, embedding, layers, norm, head, shard, config })
    }

    /// The model's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sixteen hexadecimal digits, equal on ranks that hold slices of one model: of the configuration, and of every weight's
    /// name, shape, type and beginning.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Who this slice is for.
    pub fn member(&self) -> Member {
        self.member
    }

    /// What this slice has.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The rotation of the model's keys and queries.
    pub fn rope(&self) -> &Rope {
        &self.rope
    }

    /// The cache that this slice needs for so many tokens.
    pub fn kv_shape(&self, slots: usize) -> KvShape {
        let Config { layers, head_dim, .. } = self.config;
        KvShape { layers, kv_heads: self.shard.kv_heads.len(), head_dim, slots }
    }

    /// Bytes of this slice in memory; the embedding stays in its file.
    pub fn weight_bytes(&self) -> u64 {
        let of = |layer: &Layer| {
            layer.qkv.0.bytes() + layer.output.0.bytes() + layer.gate_up.0.bytes() + layer.down.0.bytes()
        };
        let norms = 4 * (2 * self.layers.len() + 1) * self.config.hidden_size;
        self.layers.iter().map(of).sum::<u64>() + self.head.0.bytes() + norms as u64
    }
}

/// Refuses weights that were loaded for another member than the collective's.
pub(crate) fn check_member(weights: Member, collective: Member) -> Result<(), ModelError> {
    if weights == collective {
        return Ok(());
    }
    let say = |member: Member| format!("rank {} of {}", member.rank(), member.world_size().get());
    Err(ModelError::MemberMismatch { weights: say(weights), collective: say(collective) })
}

/// Refuses rows of a matrix that are no numbers. Of the embedding each rank reads all, and checks what is its own: a group is
/// formed of all ranks or not at all.
fn check_rows(matrix: &Matrix, rows: Range<usize>) -> Result<(), ModelError> {
    let columns = matrix.columns();
    rows.into_par_iter()
        .for_each_init(|| vec![0.0; columns], |numbers, row| matrix.load(row, 0..columns, numbers));
    matrix.check()
}

/// Numbers of a slice's matrices.
fn slice_size(config: &Config, shard: &Shard) -> u64 {
    let heads = 2 * shard.heads.len() + 2 * shard.kv_heads.len();
    let layer = config.hidden_size * (heads * config.head_dim + 3 * shard.mlp.len());
    (config.layers * layer + shard.vocabulary.len() * config.hidden_size) as u64
}

struct Loader<'a> {
    checkpoint: Checkpoint,
    config: &'a Config,
    shard: &'a Shard,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl Loader<'_> {
    fn layer(&mut self, index: usize) -> Result<Layer, ModelError> {
        let of = LayerTensors::find(&self.checkpoint, self.config, index)?;
        let (own, own_kv) = self.shard.head_rows(self.config.head_dim);
        let own_mlp = self.shard.mlp.clone();
        let bias = of.biases.map(|[query, key, value]| {
            [&query[own.clone()], &key[own_kv.clone()], &value[own_kv.clone()]].concat()
        });
        let head_norms =
            of.head_norms.map(|[query, key]| QueryKeyNorms { query: self.norm(query), key: self.norm(key) });
        Ok(Layer {
            attention_norm: self.norm(of.attention_norm),
            bias,
            head_norms,
            qkv: self.rows(&[(&of.query, own.clone()), (&of.key, own_kv.clone()), (&of.value, own_kv)])?,
            output: self.columns(&of.output, own)?,
            mlp_norm: self.norm(of.mlp_norm),
            gate_up: self.rows(&[(&of.gate, own_mlp.clone()), (&of.up, own_mlp.clone())])?,
            down: self.columns(&of.down, own_mlp)?,
        })
    }

    fn head(&mut self, name: &str) -> Result<ColumnParallel, ModelError> {
        let matrix = self.checkpoint.matrix(name, self.config.vocab_size, self.config.hidden_size)?;
        let own = self.shard.vocabulary.clone();
        let part = self.packed(&[(&matrix, own)], 0..self.config.hidden_size, self.shard.vocabulary_part)?;
        Ok(ColumnParallel(part))
    }

    fn norm(&self, weight: Vec<f32>) -> RmsNorm {
        RmsNorm { weight, epsilon: self.config.rms_norm_eps as f32 }
    }

    /// Some rows of several matrices, one below the other.
    fn rows(&mut self, parts: &[(&Matrix, Range<usize>)]) -> Result<ColumnParallel, ModelError> {
        let rows = parts.iter().map(|(_, rows)| rows.len()).sum();
        Ok(ColumnParallel(self.packed(parts, 0..parts[0].0.columns(), rows)?))
    }

    /// Some columns of a matrix.
    fn columns(&mut self, matrix: &Matrix, columns: Range<usize>) -> Result<RowParallel, ModelError> {
        Ok(RowParallel(self.packed(&[(matrix, 0..matrix.rows())], columns, matrix.rows())?))
    }

    /// Some columns of some rows of several matrices, one below the other, and rows of zeros up to `outputs`.
    fn packed(
        &mut self,
        parts: &[(&Matrix, Range<usize>)],
        columns: Range<usize>,
        outputs: usize,
    ) -> Result<Packed, ModelError> {
        let rows = parts.iter().flat_map(|(matrix, rows)| rows.clone().map(move |row| (*matrix, row)));
        let slice = Slice { rows: rows.collect(), columns };
        let packed = Packed::new(outputs, slice.columns.len(), &slice);
        parts.iter().try_for_each(|(matrix, _)| matrix.check())?;
        self.count(slice.rows.len() * slice.columns.len());
        Ok(packed)
    }

    fn count(&mut self, numbers: usize) {
        self.done += 4 * numbers as u64;
        (self.progress)(self.done, self.total);
    }
}

/// Rows of matrices, as they are packed. Behind them there are rows of zeros.
struct Slice<'a> {
    rows: Vec<(&'a Matrix, usize)>,
    columns: Range<usize>,
}

impl WeightSource for Slice<'_> {
    fn numbers(&self, output: usize) -> Numbers {
        // Zeros are kept as whatever stands before them.
        let row = self.rows.get(output).or(self.rows.last());
        row.map_or(Numbers::F32, |(matrix, _)| matrix.numbers(&self.columns))
    }

    fn fill(&self, output: usize, to: &mut [f32]) {
        match self.rows.get(output) {
            Some((matrix, row)) => matrix.load(*row, self.columns.clone(), to),
            None => to.fill(0.0),
        }
    }

    fn group(&self, output: usize, index: usize) -> QuantizedGroup {
        match self.rows.get(output) {
            Some((matrix, row)) => matrix.group(*row, self.columns.start / GROUP + index),
            None => QuantizedGroup::ZEROS,
        }
    }
}
