//! What a new owner finds with its ranks: it fences them, asks what they hold, levels them, and takes over what is whole.
//! What that means is decided by [`pie_plan::takeover`].

use super::FormError;
use crate::call::ImportedSession;
use crate::carrying;
use crate::core::{Recalled, Recollection};
use pie_plan::Group;
use pie_plan::image::TableImage;
use pie_plan::ledger::Position;
use pie_plan::takeover::{Activity, Caches, RankSurvey, best_ledger, caches};
use pie_proto::worker_v1 as wire;
use pie_proto::worker_v1::worker_client::WorkerClient;
use pie_proto::{Fault, memo};
use pie_text::Tokenizer;
use pie_words::{Epoch, SessionId};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

/// A rank that lives says what it holds in this time.
const SURVEY: Duration = Duration::from_secs(3);
/// Between two looks at ranks that are at work.
const LOOK: Duration = Duration::from_millis(20);
/// A rank that lives gives what it holds in this time.
const READ: Duration = Duration::from_secs(60);
/// Beyond the deadline of the ranks' collectives, in which a plan that some lack ends everywhere.
const SLACK: Duration = Duration::from_secs(1);

/// What the ranks hold.
#[derive(Default)]
pub struct RecoveredState {
    /// Documents, where the ranks have them and this router has not.
    pub recollection: Option<Recollection>,
    /// The tables that all ranks have.
    pub group: Option<Group>,
    /// The epoch that those are of.
    pub goes_on_from: Option<Epoch>,
    /// Where each rank's ledger is.
    pub ledgers: Vec<Option<Position>>,
}

/// What becomes of the tables that ranks hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableRetention {
    /// They go on where all ranks have the same.
    #[default]
    GoOn,
    /// They are forgotten: an owner has panicked, perhaps over them.
    Forgotten,
}

/// How documents are read.
#[derive(Clone)]
pub struct DocumentTokenizer {
    /// Of the group's model.
    pub tokenizer: Arc<Tokenizer>,
    /// Bytes of the largest document.
    pub limit: usize,
}

/// The ranks of a group, on their way into a new epoch.
pub(super) struct Fenced<'a> {
    /// One for each rank, in their order.
    pub clients: &'a [WorkerClient<Channel>],
    /// Where each listens.
    pub addresses: &'a [String],
    /// The epoch that begins: older ones are refused from now on.
    pub epoch: Epoch,
}

impl Fenced<'_> {
    /// Fences them, and reads what they hold. The documents are read unless this router was the last to write them, in the epoch
    /// `written`, and has them still.
    ///
    /// # Errors
    /// [`FormError::Rank`] where one does not answer, or was fenced by somebody else since.
    pub async fn find(
        &self,
        written: Epoch,
        deadline: Duration,
        tables: TableRetention,
        reading: &DocumentTokenizer,
    ) -> Result<RecoveredState, FormError> {
        let mut standings = self.survey(wire::SurveyRequest { epoch: self.epoch.0, again: false }).await?;
        let ledgers = standings.iter().map(|standing| standing.ledger).collect();
        let best = best_ledger(&standings);
        let recollection = match best.and_then(|rank| Some((rank, standings[rank].ledger?))) {
            Some((rank, position)) if position.epoch != written => {
                Some(self.recall(rank, position, reading).await?)
            }
            _ => None,
        };
        let end = Instant::now() + deadline + SLACK;
        let goes_on_from = loop {
            match caches(&standings) {
                _ if tables == TableRetention::Forgotten => break None,
                Caches::GoOn(from) => break Some(from),
                Caches::Empty(why) => {
                    tracing::info!(epoch = self.epoch.0, why, "the group begins with empty caches");
                    break None;
                }
                Caches::Wait | Caches::Level { .. } if Instant::now() >= end => {
                    tracing::warn!(
                        epoch = self.epoch.0,
                        "the ranks do not end their plan: the group begins with empty caches"
                    );
                    break None;
                }
                Caches::Wait => tokio::time::sleep(LOOK).await,
                Caches::Level { from, to } => self.level(from, &to, end).await?,
            }
            standings = self.survey(wire::SurveyRequest { epoch: self.epoch.0, again: true }).await?;
        };
        let group = if goes_on_from.is_some() { self.tables(&standings).await? } else { None };
        Ok(RecoveredState {
            recollection,
            goes_on_from: goes_on_from.filter(|_| group.is_some()),
            group,
            ledgers,
        })
    }

    fn failed(&self, rank: usize, why: impl ToString) -> FormError {
        let address = self.addresses.get(rank).cloned().unwrap_or_default();
        FormError::Rank { rank: u32::try_from(rank).unwrap_or(u32::MAX), address, why: why.to_string() }
    }

    /// All are asked at once.
    async fn survey(&self, request: wire::SurveyRequest) -> Result<Vec<RankSurvey>, FormError> {
        let mut asked = JoinSet::new();
        for (rank, client) in self.clients.iter().enumerate() {
            let mut client = client.clone();
            asked.spawn(async move {
                let answer = tokio::time::timeout(SURVEY, client.survey(request)).await;
                (rank, answer.unwrap_or_else(|_| Err(late())))
            });
        }
        let mut standings = vec![RankSurvey::default(); self.clients.len()];
        while let Some(answer) = asked.join_next().await {
            let (rank, answer) = answer.map_err(|error| FormError::Mismatch(error.to_string()))?;
            let answer = answer.map_err(|status| self.failed(rank, status.message()))?;
            standings[rank] = answer.into_inner().into();
        }
        Ok(standings)
    }

    /// The documents of a rank's ledger. One that cannot be read is lost to its client, who opens it again; the others are not.
    async fn recall(
        &self,
        rank: usize,
        position: Position,
        reading: &DocumentTokenizer,
    ) -> Result<Recollection, FormError> {
        let mut client = self.clients[rank].clone();
        let read = async {
            let mut messages = client.recall(wire::RecallRequest { epoch: self.epoch.0 }).await?.into_inner();
            let mut sessions = Vec::new();
            while let Some(message) = messages.message().await? {
                for memo in message.memos {
                    match taken(&memo.pieces, reading).await {
                        Ok(taken) => sessions.push(Recalled { id: SessionId(memo.session), taken }),
                        Err(fault) => {
                            tracing::error!(session = memo.session, %fault, "a document that the ranks kept cannot be opened")
                        }
                    }
                }
            }
            Ok::<_, Status>(sessions)
        };
        let sessions = tokio::time::timeout(READ, read).await.unwrap_or_else(|_| Err(late()));
        let sessions = sessions.map_err(|status| self.failed(rank, status.message()))?;
        tracing::info!(
            epoch = self.epoch.0,
            rank,
            sessions = sessions.len(),
            "documents that the ranks kept are here"
        );
        Ok(Recollection { position, sessions })
    }

    /// A plan that some ranks have goes to those that lack it. It may fail there, as it would have with its owner: then the ranks say so
    /// when they are asked again.
    async fn level(&self, from: usize, to: &[usize], end: Instant) -> Result<(), FormError> {
        let mut client = self.clients[from].clone();
        let plan = client.latest_plan(wire::LatestPlanRequest { epoch: self.epoch.0 }).await;
        let plan = plan.map_err(|status| self.failed(from, status.message()))?.into_inner();
        tracing::info!(epoch = self.epoch.0, seq = plan.seq, of = plan.epoch, ranks = ?to, "ranks are given a plan that others have");
        let mut levelled = JoinSet::new();
        for rank in to {
            let mut client = self.clients[*rank].clone();
            let request = wire::LevelRequest { epoch: self.epoch.0, plan: Some(plan.clone()) };
            let patience = end.saturating_duration_since(Instant::now());
            levelled.spawn(async move { tokio::time::timeout(patience, client.level(request)).await });
        }
        while levelled.join_next().await.is_some() {}
        Ok(())
    }

    /// The tables that all ranks have, from the first. `None` where they are no tables of one group, which is a bug that costs the caches.
    async fn tables(&self, standings: &[RankSurvey]) -> Result<Option<Group>, FormError> {
        let mut client = self.clients[0].clone();
        let read = async {
            let mut messages = client.tables(wire::TablesRequest { epoch: self.epoch.0 }).await?.into_inner();
            let mut images = Vec::new();
            while let Some(table) = messages.message().await? {
                images.push(TableImage::try_from(table).map_err(Status::from)?);
            }
            Ok::<_, Status>(images)
        };
        let images = tokio::time::timeout(READ, read).await.unwrap_or_else(|_| Err(late()));
        let images = images.map_err(|status| self.failed(0, status.message()))?;
        let Some(at) = standings.first().and_then(|first| first.tables) else { return Ok(None) };
        let group = Group::of_images(at.epoch, at.applied, at.slots, images);
        let is_same = |group: &Group| at.activity == Activity::Idle { digest: group.digest() };
        match group {
            Ok(mut group) if is_same(&group) => {
                group.renew(self.epoch);
                Ok(Some(group))
            }
            Ok(_) => {
                tracing::error!(
                    "the tables that rank 0 gives have another digest than its own (invariant P4): caches begin empty"
                );
                Ok(None)
            }
            Err(error) => {
                tracing::error!(%error, "the tables of the ranks cannot be taken over: caches begin empty");
                Ok(None)
            }
        }
    }
}

fn late() -> Status {
    Status::deadline_exceeded("it does not answer in time")
}

async fn taken(pieces: &[Vec<u8>], reading: &DocumentTokenizer) -> Result<ImportedSession, Fault> {
    carrying::recall(memo::session(pieces)?, reading.tokenizer.clone(), reading.limit).await
}
