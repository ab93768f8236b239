//! A collective that counts the time spent in it, waiting for slower ranks included.

use candle_core::Tensor;
use pie_comm::{Collective, CommError, Member};
use std::time::{Duration, Instant};

pub(crate) struct Timed {
    inner: Box<dyn Collective>,
    spent: Duration,
}

impl Timed {
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

    fn all_reduce_sum(&mut self, tensor: &Tensor) -> Result<(), CommError> {
        self.time(|comm| comm.all_reduce_sum(tensor))
    }

    fn all_gather_last(&mut self, tensor: &Tensor) -> Result<Tensor, CommError> {
        self.time(|comm| comm.all_gather_last(tensor))
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        self.time(|comm| comm.barrier())
    }
}
