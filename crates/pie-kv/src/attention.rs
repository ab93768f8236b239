//! Causal attention through slot tables: what to compute for whom; how is in `few` and `many`.

use crate::error::KvError;
use crate::few::Partial;
use crate::number::Number;
use crate::simd::with_scratch;
use crate::view::View;
use crate::{few, many};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Up to this many query vectors a KV head's rows are read by dot products; more are multiplied as matrices.
const FEW: usize = 8;
/// Slots below which a sequence of few rows is not shared out.
const WORTH_SPLITTING: usize = 256;

/// One sequence of a ragged step.
#[derive(Clone, Debug)]
pub struct Attention<'a> {
    /// Its rows in the batch.
    pub rows: Range<usize>,
    /// The slots of its context.
    pub view: View<'a>,
    /// For each row how many leading slots of the view it sees (M1), ascending.
    pub visible: &'a [u32],
}

/// One layer's rows.
#[derive(Clone, Copy)]
pub(crate) struct LayerRows<'a, N> {
    /// Rotated keys, [slots][kv_heads][dim].
    pub keys: &'a [N],
    /// Values, [slots][kv_heads][dim].
    pub values: &'a [N],
    /// Heads of a row on this rank.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub dim: usize,
}

impl<N> LayerRows<'_, N> {
    /// Numbers from one slot to the next.
    #[inline(always)]
    pub fn stride(&self) -> usize {
        self.kv_heads * self.dim
    }
}

/// The queries of a batch, [rows][heads][dim], and how they share KV heads.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    /// The rotated queries, row after row.
    pub data: &'a [f32],
    /// Query heads of a row on this rank.
    pub heads: usize,
    /// Query heads for each KV head.
    pub group: usize,
    /// What scores are multiplied by: 1 / sqrt(dim), and what makes e^x of a score 2^x.
    pub scale: f32,
}

/// Some of the work.
enum Portion<'a> {
    /// All heads of few rows, over a part of what they see.
    Few { sequence: &'a Attention<'a>, part: Range<usize> },
    /// One KV head of many query vectors, over all that they see.
    Many { sequence: &'a Attention<'a>, kv_head: usize, vectors: Range<usize> },
}

impl Portion<'_> {
    /// Numbers of its result, beside a [`Partial`].
    fn numbers(&self, dim: usize) -> usize {
        match self {
            Self::Few { .. } => 0,
            Self::Many { vectors, .. } => vectors.len() * dim,
        }
    }
}

thread_local! {
    /// Kept for the next call: pages fresh from the system cost more than the arithmetic on them.
    static RESULTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Writes the attention of `queries` to `out`, both [rows][heads][dim].
pub(crate) fn attend<N: Number>(
    rows: LayerRows<'_, N>,
    (queries, heads): (&[f32], usize),
    sequences: &[Attention<'_>],
    out: &mut [f32],
) -> Result<(), KvError> {
    let LayerRows { kv_heads, dim, .. } = rows;
    let count = queries.len().checked_div(heads * dim).unwrap_or(0);
    let whole = queries.len() == count * heads * dim && out.len() == queries.len();
    if !whole || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        let (got, expected) = (vec![queries.len(), heads, out.len()], vec![count, kv_heads, dim]);
        return Err(KvError::Shape { what: "queries", got, expected });
    }
    sequences.iter().try_for_each(|sequence| check(sequence, count))?;
    let scale = std::f32::consts::LOG2_E / (dim as f32).sqrt();
    let queries = Queries { data: queries, heads, group: heads / kv_heads, scale };
    let tasks = tasks(sequences, &queries, kv_heads, rayon::current_num_threads());
    with_scratch(&RESULTS, |results| {
        let needed = tasks.iter().map(|task| task.numbers(dim)).sum();
        results.resize(results.len().max(needed), 0.0);
        let places = share_out(results, &tasks, dim);
        let compute = |(task, result): (&Portion<'_>, &mut [f32])| match task {
            Portion::Few { sequence, part } => Some(few::attend(&rows, &queries, sequence, part.clone())),
            Portion::Many { sequence, kv_head, vectors } => {
                many::attend(&rows, &queries, sequence, *kv_head, vectors.clone(), result);
                None
            }
        };
        let work = tasks.par_iter().zip(places).with_max_len(1);
        let partials: Vec<Option<Partial>> = work.map(compute).collect();
        put_together(&tasks, partials, results, &queries, dim, out);
    });
    Ok(())
}

/// Each task's place for its result, one behind the other.
fn share_out<'a>(mut numbers: &'a mut [f32], tasks: &[Portion<'_>], dim: usize) -> Vec<&'a mut [f32]> {
    let place = |task: &Portion<'_>| {
        let (place, rest) = std::mem::take(&mut numbers).split_at_mut(task.numbers(dim));
        numbers = rest;
        place
    };
    tasks.iter().map(place).collect()
}

/// From results by task to `out`, [rows][heads][dim]. What tasks of few vectors made are partials, and of the others their
/// results' places, in the order of the tasks.
fn put_together(
    tasks: &[Portion<'_>],
    partials: Vec<Option<Partial>>,
    mut results: &[f32],
    queries: &Queries<'_>,
    dim: usize,
    out: &mut [f32],
) {
    let Queries { heads, group, .. } = *queries;
    let mut parts = Vec::new();
    for (task, partial) in tasks.iter().zip(partials) {
        match task {
            Portion::Few { sequence, part } => {
                // Parts of one sequence follow one another, from its end to its start.
                parts.extend(partial);
                if part.start == 0 {
                    few::merge(&parts, dim, &mut out[sequence.rows.start * heads * dim..]);
                    parts.clear();
                }
            }
            Portion::Many { sequence, kv_head, vectors } => {
                let (own, rest) = results.split_at(task.numbers(dim));
                for (vector, from) in vectors.clone().zip(own.chunks_exact(dim)) {
                    let (row, head) =
                        (sequence.rows.start + vector / group, kv_head * group + vector % group);
                    out[(row * heads + head) * dim..][..dim].copy_from_slice(from);
                }
                results = rest;
            }
        }
    }
}

pub(crate) fn check(sequence: &Attention<'_>, rows: usize) -> Result<(), KvError> {
    let Attention { rows: own, view, visible } = sequence;
    let wrong = |what: String| Err(KvError::Mismatch(what));
    if own.end > rows || own.len() != visible.len() {
        return wrong(format!("rows {own:?} of {rows} with {} visibilities", visible.len()));
    }
    if visible.iter().any(|visible| *visible == 0 || *visible as usize > view.len()) {
        return wrong(format!("a row sees nothing, or more than the {} slots of its table", view.len()));
    }
    if !visible.is_sorted() {
        return wrong("rows of a sequence must come in ascending visibility".to_owned());
    }
    Ok(())
}

/// Sequences of few rows are cut along what they see, others by KV heads and query vectors: pieces of a size, some for
/// each thread, the latest (heaviest) first, so that threads end together.
fn tasks<'a>(
    sequences: &'a [Attention<'a>],
    queries: &Queries<'_>,
    kv_heads: usize,
    threads: usize,
) -> Vec<Portion<'a>> {
    let seen = |sequence: &Attention<'_>| sequence.visible.last().map_or(0, |last| *last as usize);
    let is_few = |sequence: &Attention<'_>| sequence.rows.len() * queries.group <= FEW;
    let slots: usize = sequences.iter().filter(|one| is_few(one)).map(seen).sum();
    let part = slots.div_ceil(2 * threads).max(WORTH_SPLITTING);
    let vectors = |sequence: &Attention<'_>| sequence.rows.len() * queries.group;
    let all: usize = sequences.iter().filter(|one| !is_few(one)).map(vectors).sum();
    let block = many::block((all * kv_heads).div_ceil(4 * threads));
    let mut tasks = Vec::new();
    for sequence in sequences {
        if is_few(sequence) {
            let parts = seen(sequence).div_ceil(part);
            let even = seen(sequence).div_ceil(parts.max(1));
            let piece = |index: usize| index * even..((index + 1) * even).min(seen(sequence));
            tasks.extend((0..parts).rev().map(|index| Portion::Few { sequence, part: piece(index) }));
        } else {
            for start in (0..vectors(sequence)).step_by(block).rev() {
                let vectors = start..(start + block).min(vectors(sequence));
                let of_head = |kv_head| Portion::Many { sequence, kv_head, vectors: vectors.clone() };
                tasks.extend((0..kv_heads).map(of_head));
            }
        }
    }
    tasks
}
