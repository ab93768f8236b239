//! Passes that were seen before, as CUDA graphs: a decode step of a large model is some hundred launches, and on eight GPUs
//! launching them takes longer than they run.

use super::pass::LaunchPlan;
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use pie_kv::cuda::{Gpu, GpuError};
use std::collections::HashMap;
use std::num::NonZeroU64;

/// Graphs by what was launched: equal plans are equal launches, of equal addresses.
#[derive(Default)]
pub(super) struct Graphs {
    known: HashMap<LaunchPlan, GraphState>,
    /// The group whose sums they hold; none if they hold no sums.
    group: Option<NonZeroU64>,
    replays: u64,
    off: bool,
}

enum GraphState {
    Once,
    Captured(Captured),
}

/// What to do with a pass.
pub(super) enum Launching {
    /// Enqueue it.
    Launch,
    /// Enqueue it between [`begin`] and [`Graphs::end`], or [`abandon`].
    Capture,
    /// It was enqueued already, by a graph.
    Replayed,
}

struct Captured(CudaGraph);

// SAFETY: the driver asks that a graph is not used from two threads at once; it has one owner, and no other handle to it.
unsafe impl Send for Captured {}

/// More kinds of passes than a pool has at once; beyond, all are forgotten.
const KINDS: usize = 64;

impl Graphs {
    /// None is ever captured.
    pub fn off() -> Self {
        Self { off: true, ..Self::default() }
    }

    /// Passes that were a replay of a graph.
    pub fn replays(&self) -> u64 {
        self.replays
    }

    /// Addresses have changed.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Replays a pass with sums of this group, or says what to do with it.
    pub fn way(&mut self, plan: &LaunchPlan, group: Option<NonZeroU64>) -> Result<Launching, GpuError> {
        if self.off {
            return Ok(Launching::Launch);
        }
        if group != self.group {
            self.forget();
            self.group = group;
        }
        match self.known.get(plan) {
            Some(GraphState::Captured(graph)) => {
                graph.0.launch().map_err(GpuError::failed("replaying a pass"))?;
                self.replays += 1;
                Ok(Launching::Replayed)
            }
            Some(GraphState::Once) => Ok(Launching::Capture),
            None => {
                if self.known.len() >= KINDS {
                    self.known.clear();
                }
                self.known.insert(plan.clone(), GraphState::Once);
                Ok(Launching::Launch)
            }
        }
    }

    /// Ends a capture, and launches what was captured. False if the pass has to be enqueued after all: then no pass is
    /// captured any more.
    pub fn end(&mut self, gpu: &Gpu, plan: LaunchPlan) -> bool {
        let graph = gpu.stream().end_capture(CUgraphInstantiate_flags(0));
        let launched = match graph {
            Ok(Some(graph)) => graph.launch().map(|()| graph).map_err(|error| format!("{error:?}")),
            Ok(None) => Err("nothing was captured".to_owned()),
            Err(error) => Err(format!("{error:?}")),
        };
        match launched {
            Ok(graph) => {
                self.known.insert(plan, GraphState::Captured(Captured(graph)));
                true
            }
            Err(problem) => {
                tracing::warn!(problem, "passes are not replayed as graphs");
                *self = Self { replays: self.replays, ..Self::off() };
                false
            }
        }
    }
}

/// Ends a capture whose pass could not be enqueued: the stream computes again.
pub(super) fn abandon(gpu: &Gpu) {
    if let Err(error) = gpu.stream().end_capture(CUgraphInstantiate_flags(0)) {
        tracing::debug!(?error, "a capture had ended already");
    }
}

/// From here on what is enqueued is captured.
pub(super) fn begin(gpu: &Gpu) -> Result<(), GpuError> {
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    gpu.stream().begin_capture(mode).map_err(GpuError::failed("capturing a pass"))
}
