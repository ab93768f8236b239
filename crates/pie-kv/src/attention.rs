//! Causal attention through slot tables: what to compute for whom; how is in `few` and `many`.

use crate::cache::{KvShape, with_rows};
use crate::error::KvError;
use crate::{few, many};
use candle_core::{Device, Tensor};
use pie_plan::Slot;
use rayon::prelude::*;
use std::ops::Range;

/// Rows of one task of many rows: their scores of a tile stay in the second-level cache.
const BLOCK: usize = 64;
/// Up to this many query vectors a KV head's rows are read by dot products; more are multiplied as matrices.
const FEW: usize = 8;

/// One sequence of a ragged step.
#[derive(Clone, Debug)]
pub struct Attention<'a> {
    /// Its rows in the batch.
    pub rows: Range<usize>,
    /// Its slots, in token order.
    pub table: &'a [Slot],
    /// For each row how many leading slots of the table it sees (M1), ascending.
    pub visible: &'a [u32],
}

/// One layer's rows, and where one KV head lies in them.
pub(crate) struct Head<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    /// Numbers from one slot to the next.
    pub stride: usize,
    /// Where this head starts in a slot's row.
    pub offset: usize,
    pub dim: usize,
}

/// The query vectors of one task: some rows of a sequence, all query heads of one KV head.
pub(crate) struct Queries<'a> {
    /// [rows * group][dim], scaled.
    pub vectors: Vec<f32>,
    /// For each row what it sees, ascending.
    pub visible: &'a [u32],
    /// Query heads for each KV head.
    pub group: usize,
}

struct Task<'a> {
    rows: Range<usize>,
    table: &'a [Slot],
    visible: &'a [u32],
    kv_head: usize,
}

pub(crate) fn attend(
    shape: &KvShape,
    keys: &[f32],
    values: &[f32],
    queries: &Tensor,
    sequences: &[Attention<'_>],
) -> Result<Tensor, KvError> {
    let (rows, heads, dim) = queries.dims3()?;
    if dim != shape.head_dim || shape.kv_heads == 0 || !heads.is_multiple_of(shape.kv_heads) {
        let expected = vec![rows, shape.kv_heads, shape.head_dim];
        return Err(KvError::Shape { what: "queries", got: queries.dims().to_vec(), expected });
    }
    sequences.iter().try_for_each(|sequence| check(sequence, rows))?;
    let group = heads / shape.kv_heads;
    let tasks = tasks(sequences, shape.kv_heads);
    let scale = 1.0 / (dim as f32).sqrt();
    let results: Vec<Vec<f32>> = with_rows(queries, |data| {
        let compute = |task: &Task<'_>| {
            let head = Head { keys, values, stride: shape.row(), offset: task.kv_head * dim, dim };
            let vectors = gather(data, task, heads, group, dim, scale);
            let queries = Queries { vectors, visible: task.visible, group };
            if task.rows.len() * group <= FEW {
                few::attend(&head, task.table, &queries)
            } else {
                many::attend(&head, task.table, &queries)
            }
        };
        tasks.par_iter().with_max_len(1).map(compute).collect()
    })?;
    let mut out = vec![0.0; rows * heads * dim];
    for (task, result) in tasks.iter().zip(results) {
        scatter(&mut out, task, &result, heads, group * dim, dim);
    }
    Ok(Tensor::from_vec(out, (rows, heads, dim), &Device::Cpu)?)
}

fn check(sequence: &Attention<'_>, rows: usize) -> Result<(), KvError> {
    let Attention { rows: own, table, visible } = sequence;
    let wrong = |what: String| Err(KvError::Mismatch(what));
    if own.end > rows || own.len() != visible.len() {
        return wrong(format!("rows {own:?} of {rows} with {} visibilities", visible.len()));
    }
    if visible.iter().any(|visible| *visible == 0 || *visible as usize > table.len()) {
        return wrong(format!("a row sees nothing, or more than the {} slots of its table", table.len()));
    }
    if !visible.is_sorted() {
        return wrong("rows of a sequence must come in ascending visibility".to_owned());
    }
    Ok(())
}

/// Row blocks times KV heads, the heaviest (latest) rows first so that threads end together.
fn tasks<'a>(sequences: &[Attention<'a>], kv_heads: usize) -> Vec<Task<'a>> {
    let mut tasks = Vec::new();
    for sequence in sequences {
        let blocks = sequence.rows.len().div_ceil(BLOCK);
        for block in (0..blocks).rev() {
            let (start, end) = (block * BLOCK, ((block + 1) * BLOCK).min(sequence.rows.len()));
            let rows = sequence.rows.start + start..sequence.rows.start + end;
            let visible = &sequence.visible[start..end];
            let of_head = |kv_head| Task { rows: rows.clone(), table: sequence.table, visible, kv_head };
            tasks.extend((0..kv_heads).map(of_head));
        }
    }
    tasks
}

fn gather(data: &[f32], task: &Task<'_>, heads: usize, group: usize, dim: usize, scale: f32) -> Vec<f32> {
    let width = group * dim;
    let mut vectors = Vec::with_capacity(task.rows.len() * width);
    for row in task.rows.clone() {
        let start = row * heads * dim + task.kv_head * width;
        vectors.extend(data[start..start + width].iter().map(|number| number * scale));
    }
    vectors
}

fn scatter(out: &mut [f32], task: &Task<'_>, result: &[f32], heads: usize, width: usize, dim: usize) {
    for (row, from) in task.rows.clone().zip(result.chunks_exact(width)) {
        let start = row * heads * dim + task.kv_head * width;
        out[start..start + width].copy_from_slice(from);
    }
}
