//! A collective that counts the time spent in it, waiting for slower ranks included.

use pie_comm::{Collective, CommError, Member};
use std::time::{Duration, Instant};

pub(crate) struct Timed {
    inner: Box<dyn Collective>,
    spent: Duration,
}

impl Timed {
    /// Counts the time of the calls that go through it.
    pub fn new(inner: Box<dyn Collective>) -> Self {
        Self { inner, spent: Duration::ZERO }
    }

    /// The time since the last call of this function.
    pub fn take_spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    fn time<T>(&mut self, call: impl FnOnce(&mut dyn Collective) -> T) -> T {
        let start = Instant::now();
        let result = call(self.inner.as_mut());
        self.spent += start.elapsed();
        result
    }
}

impl Collective for Timed {
    fn member(&self) -> Member {
        self.inner.member()
    }

    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError> {
        self.time(|comm| comm.all_reduce_sum(data))
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError> {
        self.time(|comm| comm.all_gather(part, whole))
    }

    #[cfg(feature = "cuda")]
    fn on_device(&mut self) -> Option<&mut dyn pie_comm::DeviceCollective> {
        // Sums inside a stream take no time of the host's.
        self.inner.on_device()
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        self.time(|comm| comm.barrier())
    }
}
