//! A rank's metrics.

use super::out::Out;
use pie_placement::Announcing;
use pie_worker::{BlockCounts, RankFacts, RankStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A rank that serves.
#[derive(Clone, Debug)]
pub struct RankSource {
    /// The group that it is a rank of.
    pub group: String,
    /// Its index in that.
    pub index: u32,
    /// Slots, device and model, which never change.
    pub facts: RankFacts,
    /// What the engine counts as it goes.
    pub stats: Arc<RankStats>,
    /// What became of rows on disk, where they go there.
    pub blocks: Option<Arc<BlockCounts>>,
    /// Whether routers find it, where it announces itself.
    pub standing: Option<Announcing>,
}

impl RankSource {
    /// It listens only when it has loaded; then it serves as long as routers find it.
    pub(super) fn readiness(&self) -> Result<(), String> {
        self.standing.as_ref().map_or(Ok(()), Announcing::now)
    }
}

impl Collector for RankSource {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let (mut out, facts, stats) = (Out(encoder), &self.facts, &self.stats);
        let info = [("device", facts.device.as_str()), ("model", facts.model.as_str())];
        out.gauges("pie_rank_info", "What the rank computes on, and which model; always 1.", [(info, 1)])?;
        out.counter("pie_rank_steps", "Plans that the rank applied.", stats.steps())?;
        out.seconds(
            "pie_rank_compute_seconds",
            "The rank's own work in them, without collectives.",
            stats.compute().as_secs_f64(),
        )?;
        out.seconds(
            "pie_rank_collective_seconds",
            "Its time in collectives, waiting for slower ranks included.",
            stats.collective().as_secs_f64(),
        )?;
        out.counter(
            "pie_rank_failures",
            "Plans that failed: each ended an epoch on this rank.",
            stats.failures(),
        )?;
        out.gauge("pie_rank_kv_slots", "KV slots that the rank has.", facts.slots.into())?;
        out.gauge("pie_rank_kv_slots_used", "KV slots that are not free.", stats.slots_used())?;
        out.gauge("pie_rank_epoch", "The epoch that the rank serves; 0 in no group.", stats.epoch())?;
        out.gauge("pie_rank_weight_bytes", "Memory of the rank's slice of the weights.", facts.weight_bytes)?;
        out.gauge("pie_rank_kv_bytes", "Memory of the rank's KV cache.", facts.kv_bytes)?;
        let Some(blocks) = &self.blocks else { return Ok(()) };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        out.counter(
            "pie_rank_blocks_written",
            "Blocks of 256 tokens' rows written to disk.",
            count(&blocks.written),
        )?;
        out.counter("pie_rank_blocks_read", "Blocks that were read back.", count(&blocks.read))?;
        out.counter(
            "pie_rank_blocks_torn",
            "Files that were not what their names say.",
            count(&blocks.torn),
        )?;
        out.counter(
            "pie_rank_blocks_failed",
            "Blocks that were not written, since the disk failed or was too slow.",
            count(&blocks.failed),
        )
    }
}
