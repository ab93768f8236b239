//! x W^T for activations of any number of rows, with W packed once for the kernel.
//!
//! A general matrix product packs W again on every call, which for the few rows of a small edit costs as much as the
//! product. Here W lies ready in panels of [`PANEL`] outputs, `[panel][input][output in panel]`: one row streams it once,
//! as it lies in memory; many rows keep a part of a panel in cache (Goto and van de Geijn 2008, with packing moved to
//! the loader).
//!
//! Weights that the checkpoint has in bf16 stay in bf16: half the memory to stream, and the same numbers, since they are
//! widened, exactly, on their way into a register. Quantized ones stay quantized ([`levels`]). Arithmetic is in f32; with quantized
//! weights it is in whole numbers of 24 bits where the processor multiplies bytes (`whole`).

mod blocks;
mod floats;
mod kernel;
mod levels;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_whole.rs")]
mod whole;

use blocks::Blocks;
use floats::LevelProduct;
use kernel::{Product, run};
use levels::{LevelFormat, LevelPanels};
use pie_gguf::{GROUP, QuantizedGroup, Storage};
use pie_kv::simd::with_scratch;
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;
use whole::{RoundedRows, Vnni, WholeRows};

/// Outputs of a panel: two AVX-512 vectors, four AVX2 ones.
pub(crate) const PANEL: usize = 32;
const HALF: usize = PANEL / 2;
/// Multiply-adds below which handing work to other threads costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 17;
/// Multiply-adds of a piece of work, at least: taking it takes a hundredth of the time that it takes.
const WORTH_A_PIECE: usize = 1 << 16;
/// Rows from which on threads share rows instead of panels: with fewer, each thread would wait for the whole of W.
const MANY: usize = 192;

/// Rows up to which levels are multiplied in whole numbers: with more, making numbers of levels is little beside the products.
const WHOLE: usize = 32;

/// How the numbers of a row of W are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// As they are computed with.
    F32,
    /// All are bf16 numbers.
    Bf16,
    /// Quantized.
    Levels(LevelFormat),
}

impl Numbers {
    /// How numbers are kept without changing them. Levels are kept in whole groups.
    pub fn of(storage: Storage, columns: &Range<usize>) -> Self {
        let whole = columns.start.is_multiple_of(GROUP) && columns.len().is_multiple_of(GROUP);
        match (storage, LevelFormat::of(storage, columns)) {
            (Storage::BF16, _) => Self::Bf16,
            (_, Some(form)) if whole => Self::Levels(form),
            _ => Self::F32,
        }
    }

    /// Bytes of so many numbers.
    pub fn bytes(self, numbers: u64) -> u64 {
        match self {
            Self::F32 => 4 * numbers,
            Self::Bf16 => 2 * numbers,
            Self::Levels(form) => numbers / GROUP as u64 * form.bits_of_group() / 8,
        }
    }
}

/// Where the rows of W come from.
pub(crate) trait WeightSource: Sync {
    /// How a row's numbers are kept.
    fn numbers(&self, output: usize) -> Numbers;

    /// The row in f32; where its numbers are [`Numbers::Bf16`] the lower half of each is 0.
    fn fill(&self, output: usize, row: &mut [f32]);

    /// A group of the row, where its numbers are [`Numbers::Levels`].
    fn group(&self, output: usize, index: usize) -> QuantizedGroup;
}

/// W, `[outputs, inputs]`, packed.
pub(crate) struct Packed {
    /// From the first panel on.
    parts: Vec<PanelSection>,
    outputs: usize,
    inputs: usize,
}

/// Panels, one beside the other, whose numbers are kept in one way.
struct PanelSection {
    /// The first of them.
    first: usize,
    panels: Panels,
}

/// [panel][input], the outputs of one panel to one input together; none straddles more lines of the cache than it must.
enum Panels {
    F32(Vec<Singles>),
    Bf16(Vec<Pairs>),
    Levels(LevelPanels),
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Singles([f32; PANEL]);

/// The number of output i in the lower half of word i, that of output i + 16 in the upper.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Pairs([u32; HALF]);

impl Packed {
    /// Packs the matrix whose rows a source has.
    pub fn new(outputs: usize, inputs: usize, source: &impl WeightSource) -> Self {
        // What the outputs of a panel do not share is widened.
        let of_panel = |panel: usize| {
            let mut numbers =
                (panel * PANEL..outputs.min((panel + 1) * PANEL)).map(|output| source.numbers(output));
            let first = numbers.next().unwrap_or(Numbers::F32);
            if numbers.all(|other| other == first) { first } else { Numbers::F32 }
        };
        let kinds: Vec<Numbers> = (0..outputs.div_ceil(PANEL)).map(of_panel).collect();
        let mut first = 0;
        let part = |alike: &[Numbers]| {
            let outputs = first * PANEL..outputs.min((first + alike.len()) * PANEL);
            let part = PanelSection { first, panels: Panels::pack(alike[0], outputs, inputs, source) };
            first += alike.len();
            part
        };
        let parts = kinds.chunk_by(PartialEq::eq).map(part).collect();
        Self { parts, outputs, inputs }
    }

    /// Columns of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.panels.bytes()).sum()
    }

    /// `[rows][inputs]` times W^T, to `out`, `[rows][outputs]`.
    pub fn multiply(&self, rows: &[f32], out: &mut [f32]) {
        let whole = Vnni::detected().filter(|_| rows.len() <= WHOLE * self.inputs);
        self.multiply_with(whole, rows, out);
    }

    /// The same, with levels in whole numbers if so.
    fn multiply_with(&self, whole: Option<Vnni>, rows: &[f32], out: &mut [f32]) {
        let count = rows.len() / self.inputs.max(1);
        assert!(
            count * self.inputs == rows.len() && count * self.outputs == out.len(),
            "{} numbers times [{}, {}] to {}",
            rows.len(),
            self.outputs,
            self.inputs,
            out.len()
        );
        if count == 0 || self.outputs == 0 {
            return;
        }
        let products = count * self.outputs * self.inputs;
        let threads = if products < WORTH_A_THREAD { 1 } else { rayon::current_num_threads() };
        let levels = self.parts.iter().filter(|part| matches!(part.panels, Panels::Levels(_))).count();
        let whole = whole.filter(|_| levels > 0);
        with_scratch(&BLOCKS, |scratch| {
            with_scratch(&BYTES, |bytes| {
                let mut blocks = if whole.is_some() && levels == self.parts.len() {
                    Blocks::unpacked(count, self.inputs)
                } else {
                    Blocks::new(rows, self.inputs, threads, &mut scratch.0, &mut scratch.1)
                };
                blocks.whole = whole.map(|simd| WholeRows::new(simd, rows, self.inputs, bytes));
                self.multiply_blocks(&blocks, threads, out);
            });
        });
    }

    fn multiply_blocks(&self, blocks: &Blocks<'_>, threads: usize, out: &mut [f32]) {
        if blocks.rows == 1 {
            self.panels_by_threads(blocks, threads, out);
        } else if threads == 1 {
            let own = 0..blocks.count();
            self.run(blocks, own, 0..self.panel_count(), out, self.outputs);
        } else if blocks.rows >= MANY {
            self.by_rows(blocks, threads, out);
        } else {
            self.by_panels(blocks, threads, out);
        }
    }

    fn panel_count(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Each thread has some rows and passes over all panels.
    fn by_rows(&self, blocks: &Blocks<'_>, threads: usize, out: &mut [f32]) {
        let share = blocks.count().div_ceil(2 * threads);
        out.par_chunks_mut(share * blocks.height * self.outputs).enumerate().for_each(|(index, out)| {
            let first = index * share;
            let own = first..blocks.count().min(first + share);
            self.run(blocks, own, 0..self.panel_count(), out, self.outputs);
        });
    }

    /// Each thread has some panels and passes all rows over them.
    fn by_panels(&self, blocks: &Blocks<'_>, threads: usize, out: &mut [f32]) {
        with_scratch(&PANEL_MAJOR, |parts| {
            let length = self.panel_count() * PANEL * blocks.rows;
            if parts.len() < length {
                parts.resize(length, 0.0);
            }
            let parts = &mut parts[..length];
            self.panels_by_threads(blocks, threads, parts);
            // Back from [panel][row][output of the panel].
            for (panel, part) in parts.chunks_exact(PANEL * blocks.rows).enumerate() {
                let first = panel * PANEL;
                let width = PANEL.min(self.outputs - first);
                for (row, part) in part.chunks_exact(PANEL).enumerate() {
                    out[row * self.outputs + first..][..width].copy_from_slice(&part[..width]);
                }
            }
        });
    }

    /// To `[panel][row][output of the panel]`, which for one row is the result.
    fn panels_by_threads(&self, blocks: &Blocks<'_>, threads: usize, out: &mut [f32]) {
        let panels = self.panel_count();
        let least = WORTH_A_PIECE.div_ceil(blocks.rows * PANEL * self.inputs);
        // So many pieces that no thread waits long for the last one of another.
        let share = panels.div_ceil(16 * threads).max(least);
        let some = |first: usize, out: &mut [f32]| {
            for (panel, out) in (first..panels).zip(out.chunks_mut(PANEL * blocks.rows)) {
                let stride = if blocks.rows == 1 { out.len() } else { PANEL };
                self.run(blocks, 0..blocks.count(), panel..panel + 1, out, stride);
            }
        };
        if share >= panels || threads == 1 {
            some(0, out);
        } else {
            let parts = out.par_chunks_mut(share * PANEL * blocks.rows).enumerate().with_max_len(1);
            parts.for_each(|(index, out)| some(index * share, out));
        }
    }

    fn run(
        &self,
        blocks: &Blocks<'_>,
        own: Range<usize>,
        panels: Range<usize>,
        out: &mut [f32],
        stride: usize,
    ) {
        for (index, part) in self.parts.iter().enumerate() {
            let behind = self.parts.get(index + 1).map_or(usize::MAX, |next| next.first);
            let some = panels.start.max(part.first)..panels.end.min(behind);
            if some.is_empty() {
                continue;
            }
            let out = &mut out[(some.start - panels.start) * PANEL..];
            let (own, panels) = (own.clone(), some.start - part.first..some.end - part.first);
            let (outputs, inputs) = (self.outputs - part.first * PANEL, self.inputs);
            match (&part.panels, blocks.whole) {
                (Panels::F32(rows), _) => {
                    run(Product { rows: rows.as_slice(), outputs, inputs, blocks, own, panels, out, stride });
                }
                (Panels::Bf16(rows), _) => {
                    run(Product { rows: rows.as_slice(), outputs, inputs, blocks, own, panels, out, stride });
                }
                (Panels::Levels(levels), Some(rows)) => {
                    rows.multiply(levels, panels, blocks.rows_of(&own), outputs, out, stride);
                }
                (Panels::Levels(rows), None) => {
                    let product = Product { rows, outputs, inputs, blocks, own, panels, out, stride };
                    run(LevelProduct { product });
                }
            }
        }
    }
}

impl Panels {
    fn pack(numbers: Numbers, outputs: Range<usize>, inputs: usize, source: &impl WeightSource) -> Self {
        let count = outputs.len().div_ceil(PANEL) * inputs;
        let each = |panel: usize, row: &mut Vec<f32>, put: Put<'_>| {
            row.resize(inputs, 0.0);
            let first = outputs.start + panel * PANEL;
            for output in first..outputs.end.min(first + PANEL) {
                source.fill(output, row);
                row.iter().enumerate().for_each(|(input, weight)| put(input, output - first, *weight));
            }
        };
        match numbers {
            Numbers::F32 => {
                let mut panels = vec![Singles([0.0; PANEL]); count];
                panels.par_chunks_mut(inputs).enumerate().for_each_init(Vec::new, |row, (number, panel)| {
                    each(number, row, &mut |input, output, weight| panel[input].0[output] = weight);
                });
                Self::F32(panels)
            }
            Numbers::Bf16 => {
                let mut panels = vec![Pairs([0; HALF]); count];
                panels.par_chunks_mut(inputs).enumerate().for_each_init(Vec::new, |row, (number, panel)| {
                    each(number, row, &mut |input, output, weight| {
                        let (word, upper) = (output % HALF, output >= HALF);
                        panel[input].0[word] |= weight.to_bits() >> if upper { 0 } else { 16 };
                    });
                });
                Self::Bf16(panels)
            }
            Numbers::Levels(form) => {
                let group = |output: usize, index: usize| source.group(outputs.start + output, index);
                Self::Levels(LevelPanels::pack(form, outputs.len(), inputs, group))
            }
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::F32(panels) => size_of_val(panels.as_slice()) as u64,
            Self::Bf16(panels) => size_of_val(panels.as_slice()) as u64,
            Self::Levels(panels) => panels.bytes(),
        }
    }
}

/// Puts a weight to its place: (input, output in panel, weight).
type Put<'a> = &'a mut dyn FnMut(usize, usize, f32);

thread_local! {
    /// Packed rows of x, and their sums.
    static BLOCKS: Cell<(Vec<f32>, Vec<f32>)> = const { Cell::new((Vec::new(), Vec::new())) };
    static BYTES: Cell<RoundedRows> = Cell::default();
    static PANEL_MAJOR: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

#[cfg(test)]
mod tests;
