//! How a process's ports and its files of secrets fare, as metrics.

use super::out::Out;
use pie_transport::AcceptStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is read again when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The tokens file.
    Tokens,
    /// Certificates, keys and authorities.
    Certificates,
}

impl What {
    const ALL: [Self; 2] = [Self::Tokens, Self::Certificates];

    /// What it is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Certificates => "certificates",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The new ones hold.
    Taken,
    /// They cannot be used: the old ones hold.
    Refused,
}

impl Reload {
    const ALL: [(Self, &'static str); 2] = [(Self::Taken, "taken"), (Self::Refused, "refused")];
}

/// The counts of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Security(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    /// By what, then by what came of it.
    reloads: [[AtomicU64; Reload::ALL.len()]; What::ALL.len()],
    /// Ports by the plane that they serve.
    ports: Mutex<Vec<(&'static str, Arc<AcceptStats>)>>,
}

impl Security {
    /// Something was read again.
    pub fn reloaded(&self, what: What, outcome: Reload) {
        self.0.reloads[what as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// From now on tells how the connections of a plane's port fare.
    pub fn watch_port(&self, plane: &'static str, stats: Arc<AcceptStats>) {
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner).push((plane, stats));
    }
}

impl Collector for Security {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Out(encoder);
        let reloads = What::ALL.into_iter().flat_map(|what| {
            Reload::ALL.map(|(outcome, name)| {
                let count = self.0.reloads[what as usize][outcome as usize].load(Ordering::Relaxed);
                ([("what", what.as_str()), ("outcome", name)], count)
            })
        });
        out.counters(
            "pie_reloads",
            "Files of tokens or certificates that changed and were read again.",
            reloads,
        )?;
        let ports = self.0.ports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = ports.iter().flat_map(|(plane, stats)| {
            [("full", stats.full()), ("handshake", stats.handshakes_failed())]
                .map(|(cause, count)| ([("plane", *plane), ("cause", cause)], count))
        });
        out.counters("pie_connections_refused", "Connections that did not come about, by why.", refused)
    }
}
