//! Groups over TCP: the collectives of processes on CPUs.

use crate::engine::Peers;
use pie_comm::{Collective, CommError, Hosted, Member, Options, TcpListening};
use pie_plan::Epoch;
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
}

impl Peers for TcpPeers {
    fn form(
        &mut self,
        epoch: Epoch,
        peers: &[String],
        deadline: Duration,
    ) -> Result<Box<dyn Collective>, CommError> {
        let options = Options { deadline, form_deadline: FORM_DEADLINE };
        let group = self.listening.form(self.member, peers, epoch.0, options)?;
        Ok(Box::new(Hosted::new(group)))
    }
}
