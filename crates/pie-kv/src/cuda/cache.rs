//! The rows of a rank in device memory: written by slot, turned in place.

use super::attention::{Attend, LayerQuery, SentSequences};
use super::device::{Dtype, Gpu};
use super::error::GpuError;
use super::memory::{Memory, Upload, UploadOffset};
use crate::attention::{Attention, check};
use crate::cache::KvShape;
use crate::error::KvError;
use crate::rope::{Rope, Turn};
use cudarc::driver::{CudaFunction, LaunchConfig, PushKernelArg};
use half::{bf16, f16};
use pie_words::{Slot, TokenIndex};
use std::collections::{BTreeMap, BTreeSet};

/// K and V of all layers in device memory, each `[layers][slots][kv heads][head dimension]`.
pub struct GpuCache {
    gpu: Gpu,
    shape: KvShape,
    dtype: Dtype,
    keys: Memory,
    values: Memory,
    kernels: RowKernels,
    attend: Attend,
    /// What turns and copies need; a pass has an upload of its own.
    upload: Upload,
}

struct RowKernels {
    turn: CudaFunction,
    copy: CudaFunction,
    gather: CudaFunction,
    scatter: CudaFunction,
    place: CudaFunction,
}

/// Where a pass has the rows that it writes to the cache.
#[derive(Clone, Copy, Debug)]
pub struct Placing {
    /// Address of `[rows][(heads + 2 kv heads) * head dimension]`.
    pub qkv: u64,
    /// Address of `[rows][heads][head dimension]`, to be written.
    pub queries: u64,
    /// Address of `[rows][head dimension / 2]` of (cos, sin).
    pub angles: u64,
    /// Address of `[rows]` slots.
    pub slots: u64,
    /// Rows.
    pub rows: u32,
    /// Query heads of this rank.
    pub heads: u32,
}

const THREADS: u32 = 256;
/// Bytes that a thread moves at once.
const WORD: usize = 16;

impl GpuCache {
    /// Bytes of K and V of all layers.
    pub fn bytes(shape: &KvShape, dtype: Dtype) -> u64 {
        shape.bytes_by(dtype.size() as u64)
    }

    /// Takes the memory. The capacity is fixed from here on.
    ///
    /// # Errors
    /// [`GpuError::OutOfMemory`]; rows that are no multiple of 16 bytes; a head dimension above 256.
    pub fn new(gpu: &Gpu, shape: KvShape, dtype: Dtype) -> Result<Self, GpuError> {
        let row = shape.numbers() * dtype.size();
        if !row.is_multiple_of(WORD) {
            let what = format!("KV rows of {row} bytes, which are no multiple of {WORD}");
            return Err(GpuError::Unsupported(what));
        }
        let half = (Self::bytes(&shape, dtype) / 2) as usize;
        let kernels = gpu.load(include_bytes!("../../kernels/rows.ptx.gz"))?;
        let typed = |name: &str| kernels.get(&format!("{name}_{}", dtype.suffix()));
        let kernels = RowKernels {
            turn: typed("turn")?,
            copy: kernels.get("copy_rows")?,
            gather: kernels.get("gather_rows")?,
            scatter: kernels.get("scatter_rows")?,
            place: typed("place")?,
        };
        Ok(Self {
            keys: Memory::zeros(gpu, half, "the KV cache")?,
            values: Memory::zeros(gpu, half, "the KV cache")?,
            attend: Attend::new(gpu, dtype, &shape)?,
            upload: Upload::new(gpu, 1 << 20)?,
            gpu: gpu.clone(),
            shape,
            dtype,
            kernels,
        })
    }

    /// The sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// What the rows are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Positional Integrity Encoding (paper, equation 3): enqueues the rotation of the keys of `slots[i]` by R(`deltas[i]`)
    /// in all layers, in place, in one launch. V stays (K4); angles in f64, rotation in f32 (K5). Slots must be distinct.
    ///
    /// # Errors
    /// Arrays of different lengths, a slot out of range, a rotation of another head dimension; the driver.
    pub fn turn(&mut self, rope: &Rope, slots: &[Slot], deltas: &[i32]) -> Result<(), KvError> {
        if slots.len() != deltas.len() {
            let (slots, deltas) = (slots.len(), deltas.len());
            return Err(KvError::Mismatch(format!("{slots} slots to turn by {deltas} deltas")));
        }
        self.shape.check(0, slots)?;
        let half = self.shape.head_dim / 2;
        if rope.inverse_frequencies().len() != half {
            return Err(KvError::Mismatch("the rotation is for another head dimension".to_owned()));
        }
        let turned: Vec<(u32, i32)> = slots
            .iter()
            .zip(deltas)
            .filter(|(_, delta)| **delta != 0)
            .map(|(slot, delta)| (slot.0, *delta))
            .collect();
        if turned.is_empty() {
            return Ok(());
        }
        let (angle_of, angles) = angles_of(rope, &turned);
        let slots: Vec<u32> = turned.iter().map(|(slot, _)| *slot).collect();
        self.upload.begin();
        let places = (self.upload.put(&slots), self.upload.put(&angle_of), self.upload.put(&angles));
        self.upload.send()?;
        let (slots, angle_of, angles) =
            (self.upload.at(places.0), self.upload.at(places.1), self.upload.at(places.2));
        let (count, kv_heads, dim) =
            (turned.len() as u32, self.shape.kv_heads as u32, self.shape.head_dim as u32);
        let threads = turned.len() * self.shape.kv_heads * (half / self.together() as usize);
        let (keys, stride) = (self.keys.at(0), self.layer_numbers());
        let mut launch = self.gpu.stream().launch_builder(&self.kernels.turn);
        launch.arg(&keys).arg(&stride).arg(&slots).arg(&angle_of).arg(&angles);
        launch.arg(&count).arg(&kv_heads).arg(&dim);
        // SAFETY: the arguments are those of `turn` in rows.cu. Slots lie in the cache (checked), and each has an angle; they
        // are distinct, as the plan that asked for the turns promises, so that no two threads write one number.
        unsafe { launch.launch(blocks(threads, self.shape.layers)) }
            .map_err(GpuError::failed("launching the rotation of keys"))?;
        Ok(())
    }

    /// As [`crate::KvCache::copy`], enqueued.
    ///
    /// # Errors
    /// Arrays of different lengths, or a slot out of range; the driver.
    pub fn copy(&mut self, from: &[Slot], to: &[Slot]) -> Result<(), KvError> {
        if from.len() != to.len() {
            let (from, to) = (from.len(), to.len());
            return Err(KvError::Mismatch(format!("{from} slots to copy to {to}")));
        }
        self.shape.check(0, from)?;
        self.shape.check(0, to)?;
        for wave in waves(from, to) {
            let numbers =
                |slots: &[Slot]| slots[wave.clone()].iter().map(|slot| slot.0).collect::<Vec<u32>>();
            self.upload.begin();
            let places = (self.upload.put(&numbers(from)), self.upload.put(&numbers(to)));
            self.upload.send()?;
            let (from, to) = (self.upload.at(places.0), self.upload.at(places.1));
            let (keys, values) = (self.keys.at(0), self.values.at(0));
            let (count, row) = (wave.len() as u32, self.row_words());
            let stride = self.layer_numbers() / (WORD / self.dtype.size()) as u64;
            let mut launch = self.gpu.stream().launch_builder(&self.kernels.copy);
            launch.arg(&keys).arg(&values).arg(&stride).arg(&from).arg(&to).arg(&count).arg(&row);
            // SAFETY: the arguments are those of `copy_rows`. Slots lie in the cache (checked), and no pair of a wave writes a
            // row that another reads or writes.
            unsafe { launch.launch(blocks(wave.len() * row as usize, self.shape.layers)) }
                .map_err(GpuError::failed("launching the copy of rows"))?;
        }
        Ok(())
    }

    /// Adds the rotations of positions to an upload: `[positions][head dimension / 2]` of (cos, sin).
    pub fn put_angles(upload: &mut Upload, rope: &Rope, positions: &[TokenIndex]) -> UploadOffset {
        let angles: Vec<[f32; 2]> =
            positions.iter().flat_map(|position| pairs(&rope.at(*position))).collect();
        upload.put(&angles)
    }

    /// Enqueues: rotates queries and keys, and writes keys and values of a layer to their slots.
    ///
    /// # Errors
    /// The layer; the driver.
    ///
    /// # Safety
    /// The addresses are of device memory as large as [`Placing`] says, and slots are below the cache's, each once.
    pub unsafe fn place(&self, layer: usize, placing: &Placing) -> Result<(), KvError> {
        self.shape.check(layer, &[])?;
        let Placing { qkv, queries, angles, slots, rows, heads } = *placing;
        let (keys, values) = (self.layer(&self.keys, layer), self.layer(&self.values, layer));
        let (kv_heads, dim) = (self.shape.kv_heads as u32, self.shape.head_dim as u32);
        let mut launch = self.gpu.stream().launch_builder(&self.kernels.place);
        launch.arg(&qkv).arg(&angles).arg(&slots).arg(&queries).arg(&keys).arg(&values);
        launch.arg(&rows).arg(&heads).arg(&kv_heads).arg(&dim);
        let threads = (heads + 2 * kv_heads) * (dim / 2) / self.together();
        let config = LaunchConfig {
            grid_dim: (threads.div_ceil(128), rows, 1),
            block_dim: (128, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the arguments are those of `place` in rows.cu; the caller answers for the addresses.
        unsafe { launch.launch(config) }.map_err(GpuError::failed("launching the writing of rows"))?;
        Ok(())
    }

    /// Adds what sequences see to an upload, for [`GpuCache::attend`]. `rows` is the rows of the batch, `heads` the query
    /// heads of this rank. True beside the result: memory that captured graphs know has moved.
    ///
    /// # Errors
    /// Tables or visibilities that do not fit; memory.
    pub fn prepare(
        &mut self,
        upload: &mut Upload,
        sequences: &[Attention<'_>],
        rows: usize,
        heads: usize,
    ) -> Result<(SentSequences, bool), KvError> {
        for sequence in sequences {
            check(sequence, rows)?;
            // Kernels look at no slot before they use it, and each is copied here in any case.
            sequence.view.pieces().into_iter().try_for_each(|piece| self.shape.check(0, piece))?;
        }
        Ok(self.attend.prepare(&self.gpu, upload, &self.shape, heads, sequences)?)
    }

    /// Enqueues the attention of one layer: `queries` to `out`, addresses of `[rows][heads][head dimension]`.
    ///
    /// # Errors
    /// The layer; the driver.
    ///
    /// # Safety
    /// The addresses are of device memory of that size, for the rows and heads that were prepared; `upload` has been sent
    /// since.
    pub unsafe fn attend(
        &self,
        layer: usize,
        upload: &Upload,
        prepared: &SentSequences,
        (queries, out): (u64, u64),
        heads: usize,
    ) -> Result<(), KvError> {
        self.shape.check(layer, &[])?;
        let (keys, values) = (self.layer(&self.keys, layer), self.layer(&self.values, layer));
        let layer = LayerQuery { keys, values, queries, out, heads: heads as u32 };
        Ok(self.attend.run(&self.gpu, upload, prepared, &self.shape, &layer)?)
    }

    /// Keys and values of slots in one layer, as they are now, widened: each [slots, kv heads, head dimension].
    ///
    /// # Errors
    /// A layer or slot out of range; the driver.
    pub fn rows(&self, layer: usize, slots: &[Slot]) -> Result<(Vec<f32>, Vec<f32>), KvError> {
        self.shape.check(layer, slots)?;
        let read = |memory: &Memory| -> Result<Vec<f32>, GpuError> {
            let out = Memory::zeros(
                &self.gpu,
                slots.len() * self.shape.numbers() * self.dtype.size(),
                "rows to read",
            )?;
            self.move_rows(&self.kernels.gather, (self.layer(memory, layer), out.at(0)), slots)?;
            widened(&out, self.dtype, slots.len() * self.shape.numbers())
        };
        Ok((read(&self.keys)?, read(&self.values)?))
    }

    /// Writes keys and values of slots in one layer, rounded to the cache's type.
    ///
    /// # Errors
    /// A layer or slot out of range, too few numbers; the driver.
    pub fn set_rows(
        &mut self,
        layer: usize,
        slots: &[Slot],
        keys: &[f32],
        values: &[f32],
    ) -> Result<(), KvError> {
        self.shape.check(layer, slots)?;
        let numbers = slots.len() * self.shape.numbers();
        for (rows, what) in [(keys, "keys"), (values, "values")] {
            if rows.len() != numbers {
                let (got, expected) = (vec![rows.len()], vec![numbers]);
                return Err(KvError::Shape { what, got, expected });
            }
        }
        for (rows, memory) in [(keys, &self.keys), (values, &self.values)] {
            let mut from = Memory::zeros(&self.gpu, numbers * self.dtype.size(), "rows to write")?;
            write_narrowed(&mut from, self.dtype, rows)?;
            self.move_rows(&self.kernels.scatter, (self.layer(memory, layer), from.at(0)), slots)?;
            self.gpu.synchronize()?;
        }
        Ok(())
    }

    fn move_rows(
        &self,
        kernel: &CudaFunction,
        (rows, packed): (u64, u64),
        slots: &[Slot],
    ) -> Result<(), GpuError> {
        if slots.is_empty() {
            return Ok(());
        }
        let mut upload = Memory::zeros(&self.gpu, 4 * slots.len(), "slots")?;
        upload.write(0, &slots.iter().map(|slot| slot.0).collect::<Vec<u32>>())?;
        let (list, count, row) = (upload.at(0), slots.len() as u32, self.row_words());
        let mut launch = self.gpu.stream().launch_builder(kernel);
        launch.arg(&rows).arg(&packed).arg(&list).arg(&count).arg(&row);
        // SAFETY: the arguments are those of `gather_rows` and `scatter_rows`; slots were checked, and the packed rows are as
        // many as the slots.
        unsafe { launch.launch(blocks(slots.len() * row as usize, 1)) }
            .map_err(GpuError::failed("launching the move of rows"))?;
        self.gpu.synchronize()
    }

    /// Numbers of each half of a head that a thread rotates.
    fn together(&self) -> u32 {
        let wide = WORD / self.dtype.size();
        if (self.shape.head_dim / 2).is_multiple_of(wide) { wide as u32 } else { 1 }
    }

    /// Numbers from one layer to the next.
    fn layer_numbers(&self) -> u64 {
        (self.shape.slots * self.shape.numbers()) as u64
    }

    fn layer(&self, memory: &Memory, layer: usize) -> u64 {
        memory.at(layer * self.shape.slots * self.shape.numbers() * self.dtype.size())
    }

    fn row_words(&self) -> u32 {
        (self.shape.numbers() * self.dtype.size() / WORD) as u32
    }
}

fn blocks(threads: usize, layers: usize) -> LaunchConfig {
    let grid = (threads as u32).div_ceil(THREADS);
    LaunchConfig { grid_dim: (grid, layers as u32, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

fn pairs(turn: &Turn) -> Vec<[f32; 2]> {
    turn.cos.iter().zip(&turn.sin).map(|(cos, sin)| [*cos, *sin]).collect()
}

/// The rotation of each distinct delta, and for each turn which it is.
fn angles_of(rope: &Rope, turned: &[(u32, i32)]) -> (Vec<u32>, Vec<[f32; 2]>) {
    let (mut known, mut angles) = (BTreeMap::new(), Vec::new());
    let mut index = |delta: i32| {
        let next = known.len() as u32;
        *known.entry(delta).or_insert_with(|| {
            angles.extend(pairs(&rope.turn(i64::from(delta))));
            next
        })
    };
    let angle_of = turned.iter().map(|(_, delta)| index(*delta)).collect();
    (angle_of, angles)
}

/// Cuts pairs into runs that can be copied at once: within one nothing that is written is read or written by another pair.
fn waves(from: &[Slot], to: &[Slot]) -> Vec<std::ops::Range<usize>> {
    let (mut waves, mut start) = (Vec::new(), 0);
    let (mut read, mut written) = (BTreeSet::new(), BTreeSet::new());
    for (index, (from, to)) in from.iter().zip(to).enumerate() {
        if written.contains(from) || written.contains(to) || read.contains(to) {
            waves.push(start..index);
            start = index;
            read.clear();
            written.clear();
        }
        read.insert(*from);
        written.insert(*to);
    }
    if start < from.len() {
        waves.push(start..from.len());
    }
    waves
}

/// Reads `count` numbers of a type as f32.
///
/// # Errors
/// The driver.
fn widened(memory: &Memory, dtype: Dtype, count: usize) -> Result<Vec<f32>, GpuError> {
    Ok(match dtype {
        Dtype::F32 => memory.read::<f32>(0, count)?,
        Dtype::F16 => {
            memory.read::<u16>(0, count)?.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
        }
        Dtype::Bf16 => {
            memory.read::<u16>(0, count)?.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
        }
    })
}

/// Writes numbers, rounded to a type.
///
/// # Errors
/// The driver.
fn write_narrowed(memory: &mut Memory, dtype: Dtype, numbers: &[f32]) -> Result<(), GpuError> {
    match dtype {
        Dtype::F32 => memory.write(0, numbers),
        Dtype::F16 => memory
            .write(0, &numbers.iter().map(|number| f16::from_f32(*number).to_bits()).collect::<Vec<_>>()),
        Dtype::Bf16 => memory
            .write(0, &numbers.iter().map(|number| bf16::from_f32(*number).to_bits()).collect::<Vec<_>>()),
    }
}
