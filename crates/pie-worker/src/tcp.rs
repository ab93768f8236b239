//! Groups over TCP, and over NCCL on top of it.

use crate::engine::FormGroup;
use pie_comm::{Collective, CommError, Deadlines, Member, TcpGroup, TcpListening};
use pie_words::Epoch;
use std::time::Duration;

/// Forming waits for ranks that are still busy with the epoch before.
const FORM_DEADLINE: Duration = Duration::from_secs(15);

/// Forms groups over a listener that stays the same from epoch to epoch.
pub struct TcpPeers {
    member: Member,
    listening: TcpListening,
}

impl TcpPeers {
    /// A rank that its peers reach at `listening`.
    pub fn new(member: Member, listening: TcpListening) -> Self {
        Self { member, listening }
    }

    fn group(&self, epoch: Epoch, peers: &[String], deadline: Duration) -> Result<TcpGroup, CommError> {
        let options = Deadlines { deadline, form_deadline: FORM_DEADLINE };
        self.listening.form(self.member, peers, epoch.0, options)
    }
}

impl FormGroup for TcpPeers {
    fn form(
        &mut self,
        epoch: Epoch,
        peers: &[String],
        deadline: Duration,
    ) -> Result<Box<dyn Collective>, CommError> {
        Ok(Box::new(self.group(epoch, peers, deadline)?))
    }
}

/// Forms groups whose sums run on the GPUs, over NCCL.
#[cfg(feature = "cuda")]
pub struct NcclPeers {
    tcp: TcpPeers,
    gpu: pie_kv::cuda::Gpu,
}

#[cfg(feature = "cuda")]
impl NcclPeers {
    /// A rank on a GPU of its own, that its peers reach at `listening`.
    pub fn new(member: Member, listening: TcpListening, gpu: pie_kv::cuda::Gpu) -> Self {
        Self { tcp: TcpPeers::new(member, listening), gpu }
    }
}

#[cfg(feature = "cuda")]
impl FormGroup for NcclPeers {
    fn form(
        &mut self,
        epoch: Epoch,
        peers: &[String],
        deadline: Duration,
    ) -> Result<Box<dyn Collective>, CommError> {
        let group = self.tcp.group(epoch, peers, deadline)?;
        Ok(Box::new(pie_comm::NcclGroup::form(group, self.gpu.stream().clone(), deadline)?))
    }
}
