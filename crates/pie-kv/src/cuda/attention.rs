//! Attention on the GPU: which kernel takes which sequences, and what is sent to it.

use super::device::{Dtype, Gpu, Kernels};
use super::error::GpuError;
use super::memory::{Memory, Upload, UploadOffset};
use super::tiles::{Shape, Tiles};
use crate::attention::Attention;
use crate::cache::KvShape;
use cudarc::driver::{CudaFunction, LaunchConfig, PushKernelArg};

/// Up to this many query vectors of a KV head a sequence is for the kernel of few.
const FEW: usize = 16;
/// Blocks of a kernel that keep a multiprocessor busy.
const BLOCKS: u32 = 4;
/// Head dimensions that tensor cores multiply.
const DIMENSIONS: [usize; 3] = [32, 64, 128];
/// Of the plain kernel.
const LARGEST_DIMENSION: usize = 256;
/// Tiles, merges and slots come in multiples of these, so that captured graphs fit more steps.
const TILES: usize = 64;
const SLOTS: usize = 1024;

/// The kernels of one cache.
pub(super) struct Attend {
    few: Kernel,
    many: Option<Kernel>,
    merge: CudaFunction,
    partial: Memory,
    statistics: Memory,
}

struct Kernel {
    function: CudaFunction,
    shape: Shape,
    threads: u32,
    shared: u32,
    /// The plain kernel is told the head dimension; the others are compiled for one.
    told: Option<u32>,
}

/// What sequences were sent, ready for every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SentSequences {
    tables: UploadOffset,
    visible: UploadOffset,
    few: AttentionLaunch,
    many: AttentionLaunch,
}

/// The work of one kernel. `tiles` and `merges` are how many blocks are launched; those beyond the counts return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AttentionLaunch {
    tiles: u32,
    merges: u32,
    counts: UploadOffset,
    tile_list: UploadOffset,
    merge_list: UploadOffset,
}

/// Rows of one layer, and what is asked of them; addresses of device memory.
pub(super) struct LayerQuery {
    /// Keys, [slots][kv_heads][dim].
    pub keys: u64,
    /// Values, [slots][kv_heads][dim].
    pub values: u64,
    /// Queries, [rows][heads][dim].
    pub queries: u64,
    /// Where the mixed values go, [rows][heads][dim].
    pub out: u64,
    /// Query heads of a row on this rank.
    pub heads: u32,
}

impl Attend {
    /// Loads the kernels of a type of numbers and a head dimension.
    pub fn new(gpu: &Gpu, dtype: Dtype, shape: &KvShape) -> Result<Self, GpuError> {
        let kernels = gpu.load(include_bytes!("../../kernels/attention.ptx.gz"))?;
        let (suffix, dim) = (dtype.suffix(), shape.head_dim);
        if dim > LARGEST_DIMENSION {
            return Err(GpuError::Unsupported(format!(
                "heads of {dim} numbers; {LARGEST_DIMENSION} at most"
            )));
        }
        let tensor_cores = dtype != Dtype::F32 && DIMENSIONS.contains(&dim);
        let (few, many) = if tensor_cores {
            let few = format!("attend_{suffix}_{dim}_few");
            let many = format!("attend_{suffix}_{dim}_many");
            (
                Kernel::tensor_cores(&kernels, &few, dim, FEW_SHAPE)?,
                Some(Kernel::tensor_cores(&kernels, &many, dim, MANY_SHAPE)?),
            )
        } else {
            (Kernel::plain(&kernels, &format!("attend_plain_{suffix}"), dim)?, None)
        };
        let merge = kernels.get(&format!("merge_{suffix}"))?;
        let (partial, statistics) = partials(gpu, 0)?;
        Ok(Self { few, many, merge, partial, statistics })
    }

    /// Adds sequences to an upload. True beside the result: memory that graphs know has moved.
    pub fn prepare(
        &mut self,
        gpu: &Gpu,
        upload: &mut Upload,
        shape: &KvShape,
        heads: usize,
        sequences: &[Attention<'_>],
    ) -> Result<(SentSequences, bool), GpuError> {
        let group = heads / shape.kv_heads;
        let mut tables = Vec::new();
        let mut visible = Vec::new();
        let mut starts = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            starts.push(tables.len() as u32);
            tables.extend(sequence.view.slots().map(|slot| slot.0));
            visible.extend_from_slice(sequence.visible);
        }
        let plan = |kernel: &Kernel, wanted: &dyn Fn(&Attention<'_>) -> bool| {
            let own = sequences.iter().zip(starts.iter().copied()).filter(|(sequence, _)| wanted(sequence));
            let heads = (group as u32, shape.kv_heads as u32);
            Tiles::new(own, heads, kernel.shape, BLOCKS * gpu.multiprocessors())
        };
        let is_few = |sequence: &Attention<'_>| sequence.rows.len() * group <= FEW;
        let (few, many) = match &self.many {
            Some(kernel) => (plan(&self.few, &is_few), plan(kernel, &|sequence| !is_few(sequence))),
            None => (plan(&self.few, &|_| true), Tiles::default()),
        };
        let numbers = |tiles: &Tiles, vectors: u32| tiles.parts as usize * shape.kv_heads * vectors as usize;
        let vectors = numbers(&few, self.few.shape.vectors)
            .max(self.many.as_ref().map_or(0, |kernel| numbers(&many, kernel.shape.vectors)));
        let moved = self.make_room(gpu, vectors, shape.head_dim)?;
        let slots = tables.len().next_multiple_of(SLOTS);
        let prepared = SentSequences {
            tables: upload.put_padded(&tables, slots),
            visible: upload.put(&visible),
            few: put(upload, &few),
            many: put(upload, &many),
        };
        Ok((prepared, moved))
    }

    /// Room for the partial results of so many vectors.
    fn make_room(&mut self, gpu: &Gpu, vectors: usize, dim: usize) -> Result<bool, GpuError> {
        let moved = self.partial.len() < 4 * vectors * dim || self.statistics.len() < 8 * vectors;
        if moved {
            gpu.synchronize()?;
            let numbers = (vectors * dim).next_power_of_two();
            (self.partial, self.statistics) = partials(gpu, numbers.max(2 * vectors.next_power_of_two()))?;
        }
        Ok(moved)
    }

    /// Enqueues the attention of one layer.
    pub fn run(
        &self,
        gpu: &Gpu,
        upload: &Upload,
        prepared: &SentSequences,
        shape: &KvShape,
        layer: &LayerQuery,
    ) -> Result<(), GpuError> {
        let kernels = [(Some(&self.few), &prepared.few), (self.many.as_ref(), &prepared.many)];
        for (kernel, sent) in kernels {
            let Some(kernel) = kernel.filter(|_| sent.tiles > 0) else { continue };
            let (tables, visible) = (upload.at(prepared.tables), upload.at(prepared.visible));
            self.launch(gpu, kernel, (tables, visible), sent, upload, shape, layer)?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "what a launch takes, in the order of its parts")]
    fn launch(
        &self,
        gpu: &Gpu,
        kernel: &Kernel,
        (tables, visible): (u64, u64),
        sent: &AttentionLaunch,
        upload: &Upload,
        shape: &KvShape,
        layer: &LayerQuery,
    ) -> Result<(), GpuError> {
        let (heads, kv_heads, dim) = (layer.heads, shape.kv_heads as u32, shape.head_dim as u32);
        let scale = std::f32::consts::LOG2_E / (dim as f32).sqrt();
        let (tiles, counts) = (upload.at(sent.tile_list), upload.at(sent.counts));
        let (partial, statistics) = (self.partial.at(0), self.statistics.at(0));
        let mut attend = gpu.stream().launch_builder(&kernel.function);
        attend.arg(&layer.queries).arg(&layer.keys).arg(&layer.values).arg(&tables).arg(&visible);
        attend.arg(&tiles).arg(&counts).arg(&layer.out).arg(&partial).arg(&statistics);
        attend.arg(&heads).arg(&kv_heads).arg(&scale);
        if let Some(dim) = &kernel.told {
            attend.arg(dim);
        }
        // SAFETY: the arguments are those of attention.cu, in its order. Slots lie in the cache, and visibilities in their
        // tables: both were checked. Queries and results have a place for each row of the batch, and the partial results were
        // given room for every part when the tiles were made.
        unsafe { attend.launch(config(sent.tiles, kv_heads, kernel.threads, kernel.shared)) }
            .map_err(GpuError::failed("launching attention"))?;
        if sent.merges == 0 {
            return Ok(());
        }
        let (merges, count, tile) = (upload.at(sent.merge_list), counts + 4, kernel.shape.vectors);
        let mut merge = gpu.stream().launch_builder(&self.merge);
        merge.arg(&partial).arg(&statistics).arg(&merges).arg(&count).arg(&layer.out);
        merge.arg(&heads).arg(&kv_heads).arg(&dim).arg(&tile);
        // SAFETY: as above; each part was written by a block of the launch before, on the same stream.
        unsafe { merge.launch(config(sent.merges, kv_heads, 128, 0)) }
            .map_err(GpuError::failed("merging attention"))?;
        Ok(())
    }
}

fn config(blocks: u32, kv_heads: u32, threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, kv_heads, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared }
}

/// Sends counts, tiles and merges. A kernel without work has no tile at all, so that it is not launched.
fn put(upload: &mut Upload, tiles: &Tiles) -> AttentionLaunch {
    let padded = |count: usize| count.next_multiple_of(TILES);
    let tile_words: Vec<[u32; 7]> = tiles.tiles.iter().map(|tile| tile.words()).collect();
    let merge_words: Vec<[u32; 5]> = tiles.merges.iter().map(|merge| merge.words()).collect();
    AttentionLaunch {
        tiles: padded(tile_words.len()) as u32,
        merges: padded(merge_words.len()) as u32,
        counts: upload.put(&[tile_words.len() as u32, merge_words.len() as u32]),
        tile_list: upload.put_padded(&tile_words, padded(tile_words.len())),
        merge_list: upload.put_padded(&merge_words, padded(merge_words.len())),
    }
}

fn partials(gpu: &Gpu, numbers: usize) -> Result<(Memory, Memory), GpuError> {
    let what = "partial results of attention";
    Ok((Memory::zeros(gpu, 4 * numbers, what)?, Memory::zeros(gpu, 4 * numbers, what)?))
}

const FEW_SHAPE: Shape = Shape { vectors: FEW as u32, keys: 128 };
const MANY_SHAPE: Shape = Shape { vectors: 64, keys: 256 };

impl Kernel {
    /// One warp for 16 query vectors, four for 64.
    fn tensor_cores(kernels: &Kernels, name: &str, dim: usize, shape: Shape) -> Result<Self, GpuError> {
        // Two buffers of keys and values, of 32 or 64 rows.
        let rows = if shape.vectors == FEW_SHAPE.vectors { 32 } else { 64 };
        let shared = 2 * 2 * rows * (2 * dim as u32);
        let function = kernels.get_with_shared(name, shared)?;
        Ok(Self { function, shape, threads: 2 * shape.vectors, shared, told: None })
    }

    fn plain(kernels: &Kernels, name: &str, dim: usize) -> Result<Self, GpuError> {
        let shared = 128 * dim as u32 + 2496;
        Ok(Self {
            function: kernels.get(name)?,
            shape: FEW_SHAPE,
            threads: 128,
            shared,
            told: Some(dim as u32),
        })
    }
}
