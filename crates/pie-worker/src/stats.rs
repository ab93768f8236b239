//! What a rank counts: plain atomics, written by the engine's thread alone.

use crate::rank::StepReport;
use pie_words::Epoch;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a rank has done, and holds.
#[derive(Debug, Default)]
pub struct RankStats {
    steps: AtomicU64,
    step_us: AtomicU64,
    collective_us: AtomicU64,
    failures: AtomicU64,
    slots_used: AtomicU64,
    epoch: AtomicU64,
    latest: AtomicU64,
}

impl RankStats {
    /// Plans that were applied.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// The whole time of those plans, without collectives.
    pub fn compute(&self) -> Duration {
        let collective = self.collective_us.load(Ordering::Relaxed);
        Duration::from_micros(self.step_us.load(Ordering::Relaxed).saturating_sub(collective))
    }

    /// In collectives, waiting for other ranks included.
    pub fn collective(&self) -> Duration {
        Duration::from_micros(self.collective_us.load(Ordering::Relaxed))
    }

    /// Plans that failed: each ended an epoch on this rank.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Slots that are not free.
    pub fn slots_used(&self) -> u64 {
        self.slots_used.load(Ordering::Relaxed)
    }

    /// The epoch that it serves; 0 in no group.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The latest epoch that it was asked to form and took, or that fenced it: older ones are refused from then on. 0 if there was none.
    pub fn latest_epoch(&self) -> u64 {
        self.latest.load(Ordering::Relaxed)
    }

    pub(crate) fn heard_of(&self, epoch: Epoch) {
        self.latest.fetch_max(epoch.0, Ordering::Relaxed);
    }

    pub(crate) fn done(&self, report: &StepReport, slots_used: usize) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.steps.fetch_add(1, Ordering::Relaxed);
        // In this order, so that nobody sees more collectives than steps.
        self.step_us.fetch_add(micros(report.compute), Ordering::Relaxed);
        self.collective_us.fetch_add(micros(report.collective), Ordering::Relaxed);
        self.slots_used.store(slots_used as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn joined(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    pub(crate) fn left(&self) {
        self.epoch.store(0, Ordering::Relaxed);
        self.slots_used.store(0, Ordering::Relaxed);
    }
}
