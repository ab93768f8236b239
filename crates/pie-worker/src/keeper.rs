//! The rank's ledger behind the wire: an owner's stream of entries, and what is read of it by the next.

use crate::error::WorkerError;
use pie_plan::ledger::{Beginning, Ledger, LedgerError, Position};
use pie_proto::held::entry;
use pie_proto::worker_v1 as wire;
use pie_words::{Epoch, SessionId};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

/// Bytes of memos in one message.
const MESSAGE_BYTES: usize = 1 << 20;

/// Whether a new owner looks for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FenceAttempt {
    /// It fences the rank.
    First,
    /// It has, and nobody after it.
    Again,
}

/// The rank's ledger, shared by all calls.
#[derive(Clone, Default)]
pub(crate) struct SharedLedger(Arc<Mutex<Ledger>>);

/// What a rank says of what it keeps.
pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<wire::KeepResponse, Status>> + Send>>;

impl SharedLedger {
    /// Nobody of an older epoch writes from here on.
    pub fn fence(&self, epoch: Epoch, look: FenceAttempt) -> Result<Option<Position>, WorkerError> {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match look {
            FenceAttempt::First => Ok(ledger.fence(epoch)?),
            FenceAttempt::Again => {
                check(&ledger, epoch)?;
                Ok(ledger.position())
            }
        }
    }

    /// Whether an epoch has fenced the rank, and none after it.
    pub fn check(&self, epoch: Epoch) -> Result<(), WorkerError> {
        check(&self.0.lock().unwrap_or_else(PoisonError::into_inner), epoch)
    }

    /// All that is kept, in messages of bounded size, each copied when it is asked for.
    pub fn recall(&self, epoch: Epoch) -> Result<Recall, WorkerError> {
        self.check(epoch)?;
        Ok(Recall { keeper: self.clone(), epoch, next: Some(SessionId::default()) })
    }

    /// Takes an owner's entries, and says how far it is, until the owner ends the stream or another one has come: an error is the
    /// last answer.
    pub fn follow(self, entries: Streaming<wire::KeepRequest>) -> Answers {
        let answers = entries.filter_map(move |request| {
            let taken = request.and_then(|request| self.take(request)).transpose()?;
            Some(taken.map(|number| wire::KeepResponse { number }))
        });
        Box::pin(answers)
    }

    /// What is to be confirmed: nothing while the ledger is not complete.
    fn take(&self, request: wire::KeepRequest) -> Result<Option<u64>, Status> {
        use wire::keep_request::Kind;
        let epoch = Epoch(request.epoch);
        let kind = request.kind.ok_or_else(|| Status::invalid_argument("nothing to keep"))?;
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = |error: LedgerError| Status::from(WorkerError::from(error));
        match kind {
            Kind::Begin(begin) => {
                let goes_on = begin.beginning() == wire::keep_request::Beginning::GoOn;
                let beginning = if goes_on { Beginning::GoOn } else { Beginning::Anew };
                ledger.begin(epoch, beginning, begin.after).map_err(refused)?;
                return Ok(goes_on.then_some(begin.after));
            }
            Kind::Copies(copies) => {
                for copy in copies.entries {
                    let (session, copied) = entry(copy)?;
                    ledger.copy(epoch, session, copied).map_err(refused)?;
                }
                return Ok(None);
            }
            Kind::Complete(_) => ledger.complete(epoch).map_err(refused)?,
            Kind::Entries(entries) => {
                for (number, added) in (entries.first..).zip(entries.entries) {
                    let (session, added) = entry(added)?;
                    ledger.add(epoch, number, session, added).map_err(refused)?;
                }
            }
        }
        Ok(ledger.position().map(|position| position.number))
    }
}

/// A ledger on its way to the next owner.
pub(crate) struct Recall {
    keeper: SharedLedger,
    epoch: Epoch,
    /// The sessions from this one on are still to be told.
    next: Option<SessionId>,
}

impl Iterator for Recall {
    type Item = Result<wire::RecallResponse, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.next.take()?;
        let ledger = self.keeper.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another owner may have come since.
        if let Err(error) = check(&ledger, self.epoch) {
            return Some(Err(error.into()));
        }
        let (mut memos, mut bytes) = (Vec::new(), 0);
        for (session, pieces) in ledger.memos().range(first..) {
            if bytes >= MESSAGE_BYTES {
                self.next = Some(*session);
                break;
            }
            bytes += pieces.iter().map(Vec::len).sum::<usize>();
            memos.push(wire::LedgerMemo { session: session.0, pieces: pieces.clone() });
        }
        Some(Ok(wire::RecallResponse { memos }))
    }
}

fn check(ledger: &Ledger, epoch: Epoch) -> Result<(), WorkerError> {
    if epoch == ledger.fenced() {
        return Ok(());
    }
    Err(WorkerError::Fenced { asked: epoch, served: ledger.fenced() })
}
