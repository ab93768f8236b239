//! The ranks as keepers of the documents: a stream to each, on which it gets what happens and says how far it is. Streams outlive
//! the epoch: when one rank is lost, the others keep what happens until the group is formed again.

use super::{Event, Task};
use crate::call::ImportedSession;
use crate::core::JournalBatch;
use crate::desk::Witnesses;
use crate::ranks::Events;
use pie_plan::ledger::{Entry, Position};
use pie_proto::held::entry_to_wire;
use pie_proto::memo;
use pie_proto::worker_v1 as wire;
use pie_proto::worker_v1::worker_client::WorkerClient;
use pie_words::{Epoch, SessionId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use wire::keep_request::{Begin, Beginning, Complete, Copies, Entries, Kind};

/// Messages that may wait for a rank. One that takes nothing for so long keeps nothing.
const QUEUE: usize = 1024;
/// Changes wait so long for the group to be formed again, whose ranks were all lost.
const AWAITED: Duration = Duration::from_secs(5);
/// Bytes of documents in one message.
const MESSAGE_BYTES: usize = 1 << 20;

/// A rank that could keep the documents of an epoch.
pub struct KeeperCandidate {
    /// Which.
    pub rank: u32,
    /// The way to it.
    pub client: WorkerClient<Channel>,
    /// Where its ledger was when it was fenced.
    pub held: Option<Position>,
}

/// What happened to a keeper.
#[derive(Debug)]
pub struct KeeperNews {
    /// Of which epoch.
    pub epoch: Epoch,
    /// Which rank.
    pub rank: u32,
    /// What.
    pub what: Keeping,
}

/// How a keeper is.
#[derive(Debug)]
pub enum Keeping {
    /// It has all entries up to this one.
    Has(u64),
    /// Its stream ended, and why.
    Ended(String),
}

/// The ranks that keep the documents.
#[derive(Default)]
pub(super) struct Keepers(Vec<Keeper>);

struct Keeper {
    epoch: Epoch,
    rank: u32,
    messages: mpsc::Sender<wire::KeepRequest>,
    /// All up to this one; none before its ledger is complete.
    has: Option<u64>,
}

impl Keepers {
    /// What all of them have. E1: one whose ledger is not complete has nothing yet, and is waited for: were it left out, it would
    /// count from the moment when it is complete, and lack what was confirmed without it.
    fn confirmed(&self) -> Option<u64> {
        self.0.iter().map(|keeper| keeper.has).min().flatten()
    }

    /// Sends what happened to all.
    fn send(&mut self, JournalBatch { first, entries }: JournalBatch) {
        let entries: Vec<_> =
            entries.into_iter().map(|(session, entry)| entry_to_wire(session, entry)).collect();
        self.0.retain(|keeper| {
            let kind = Kind::Entries(Entries { first, entries: entries.clone() });
            let sent =
                keeper.messages.try_send(wire::KeepRequest { epoch: keeper.epoch.0, kind: Some(kind) });
            if sent.is_err() {
                tracing::warn!(rank = keeper.rank, "a rank keeps no more of the documents: it takes nothing");
            }
            sent.is_ok()
        });
    }

    fn hear(&mut self, KeeperNews { epoch, rank, what }: KeeperNews) {
        let of = |keeper: &Keeper| keeper.epoch == epoch && keeper.rank == rank;
        match what {
            Keeping::Has(number) => {
                self.0.iter_mut().filter(|keeper| of(keeper)).for_each(|keeper| keeper.has = Some(number));
            }
            Keeping::Ended(why) if self.0.iter().any(of) => {
                tracing::warn!(rank, epoch = epoch.0, why, "a rank keeps no more of the documents");
                self.0.retain(|keeper| !of(keeper));
            }
            Keeping::Ended(_) => {}
        }
    }
}

impl Task {
    /// The ranks of a new epoch keep the documents from here on, in place of those before. Those whose ledger is not what is here
    /// get all of it.
    pub(super) fn keep_with(&mut self, epoch: Epoch, candidates: Vec<KeeperCandidate>) {
        self.write_down();
        let sessions = &self.desk.core().sessions;
        let (here, after) =
            (sessions.journal.position(self.common.knowledge.written()), sessions.journal.latest());
        let is_right = |candidate: &KeeperCandidate| candidate.held == Some(here);
        let documents: Arc<[(SessionId, ImportedSession)]> = if candidates.iter().all(is_right) {
            Arc::new([])
        } else {
            sessions.iter().map(|session| (session.id, session.snapshot())).collect()
        };
        let keepers = candidates.into_iter().map(|candidate| {
            let beginning = if is_right(&candidate) { Beginning::GoOn } else { Beginning::Anew };
            let (messages, waiting) = mpsc::channel(QUEUE);
            let rank = candidate.rank;
            let run = KeeperTask { epoch, rank, events: self.common.events.clone() };
            let preamble = Preamble { beginning, after, documents: documents.clone(), at: Stage::Begin };
            tokio::spawn(run.run(candidate.client, preamble, waiting));
            Keeper { epoch, rank, messages, has: None }
        });
        self.keepers = Keepers(keepers.collect());
        self.count_witnesses();
    }

    /// Nobody keeps what happens here any more: the group is another router's.
    pub(super) fn keep_nothing(&mut self) {
        self.keepers = Keepers::default();
        self.count_witnesses();
    }

    /// What happened since the last time goes to the ranks.
    pub(super) fn write_down(&mut self) {
        if let Some(written) = self.desk.written() {
            self.keepers.send(written);
            self.count_witnesses();
        }
    }

    pub(super) fn kept(&mut self, news: KeeperNews) {
        self.keepers.hear(news);
        self.count_witnesses();
    }

    /// Answers wait for the ranks that are there. Where none is, they wait for a moment: the group may be formed again in it.
    fn count_witnesses(&mut self) {
        match (self.keepers.0.is_empty(), self.desk.witnesses()) {
            (false, _) => self.desk.witnessed(Witnesses::Ranks),
            (true, Witnesses::Ranks) => {
                self.desk.witnessed(Witnesses::Awaited);
                let events = self.common.events.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(AWAITED).await;
                    let _ = events.send(Event::NobodyKeeps).await;
                });
            }
            (true, Witnesses::Awaited | Witnesses::Nobody) => {}
        }
        if let Some(number) = self.keepers.confirmed() {
            self.desk.confirm(number);
        }
    }

    /// The moment is over.
    pub(super) fn give_up_waiting(&mut self) {
        if self.keepers.0.is_empty() {
            self.desk.witnessed(Witnesses::Nobody);
        }
    }
}

/// One rank's stream.
struct KeeperTask {
    epoch: Epoch,
    rank: u32,
    events: Events,
}

impl KeeperTask {
    async fn run(
        self,
        mut client: WorkerClient<Channel>,
        preamble: Preamble,
        waiting: mpsc::Receiver<wire::KeepRequest>,
    ) {
        let epoch = self.epoch.0;
        let preamble = preamble.map(move |kind| wire::KeepRequest { epoch, kind: Some(kind) });
        let messages = tokio_stream::iter(preamble).chain(ReceiverStream::new(waiting));
        let why = match client.keep(messages).await {
            Err(status) => status.message().to_owned(),
            Ok(answers) => self.read(answers.into_inner()).await,
        };
        self.tell(Keeping::Ended(why)).await;
    }

    async fn read(&self, mut answers: tonic::Streaming<wire::KeepResponse>) -> String {
        loop {
            match answers.message().await {
                Ok(Some(answer)) => self.tell(Keeping::Has(answer.number)).await,
                Ok(None) => return "it closed the stream".to_owned(),
                Err(status) => return status.message().to_owned(),
            }
        }
    }

    async fn tell(&self, what: Keeping) {
        // An owner that has gone needs no word.
        let _ = self.events.send(Event::Kept(KeeperNews { epoch: self.epoch, rank: self.rank, what })).await;
    }
}

/// What a stream begins with: all documents where the ledger is written anew, packed as they are asked for.
struct Preamble {
    beginning: Beginning,
    after: u64,
    documents: Arc<[(SessionId, ImportedSession)]>,
    at: Stage,
}

/// What comes next of a [`Preamble`].
enum Stage {
    Begin,
    /// The documents from here on.
    Copies(usize),
    Complete,
    Over,
}

impl Iterator for Preamble {
    type Item = Kind;

    fn next(&mut self) -> Option<Kind> {
        match self.at {
            Stage::Begin => {
                let is_anew = self.beginning == Beginning::Anew;
                self.at = if is_anew { Stage::Copies(0) } else { Stage::Over };
                Some(Kind::Begin(Begin { beginning: self.beginning.into(), after: self.after }))
            }
            Stage::Copies(first) => {
                let (mut entries, mut bytes) = (Vec::new(), 0);
                for (id, session) in &self.documents[first..] {
                    let memo = memo::whole(session.kept());
                    bytes += memo.len();
                    entries.push(entry_to_wire(*id, Entry::Whole(memo)));
                    if bytes >= MESSAGE_BYTES {
                        break;
                    }
                }
                let next = first + entries.len();
                self.at = if next < self.documents.len() { Stage::Copies(next) } else { Stage::Complete };
                Some(Kind::Copies(Copies { entries }))
            }
            Stage::Complete => {
                self.at = Stage::Over;
                Some(Kind::Complete(Complete {}))
            }
            Stage::Over => None,
        }
    }
}
