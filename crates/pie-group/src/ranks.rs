//! The owner's side of the ranks: forming a group, one ordered stream of plans to each, and telling which rank is to
//! blame when it breaks.

mod found;

use crate::call::ModelFacts;
use crate::owner::{Event, KeeperCandidate};
pub use found::{DocumentTokenizer, RecoveredState, TableRetention};
use pie_placement::{LeaseState, Ownership};
use pie_proto::plan::Step;
use pie_proto::reason::rank_code_of;
use pie_proto::v1;
use pie_proto::worker_v1 as wire;
use pie_proto::worker_v1::worker_client::WorkerClient;
use pie_transport::Connector;
use pie_words::{Epoch, Seq, TokenId};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A rank that does not even answer pings is lost after about [`PING`] + [`PING_TIMEOUT`], however idle it is.
const PING: Duration = Duration::from_millis(1000);
const PING_TIMEOUT: Duration = Duration::from_millis(3000);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Forming waits for the slowest peer's connections.
const FORM_TIMEOUT: Duration = Duration::from_secs(20);
/// Plans of one token list of 64k and reports of keys must pass.
const MESSAGE_LIMIT: usize = 256 << 20;

/// A way to an owner that does not keep it alive: the owner ends with its last handle, whatever the ranks do.
#[derive(Clone)]
pub struct Events(pub mpsc::WeakSender<Event>);

/// The owner has ended.
#[derive(Debug)]
pub struct OwnerGone;

impl Events {
    /// Sends an event.
    ///
    /// # Errors
    /// [`OwnerGone`].
    pub async fn send(&self, event: Event) -> Result<(), OwnerGone> {
        let events = self.0.upgrade().ok_or(OwnerGone)?;
        events.send(event).await.map_err(|_| OwnerGone)
    }
}

/// Why a group could not be formed.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// A rank cannot be reached, or refuses.
    #[error("rank {rank} at {address}: {why}")]
    Rank {
        /// Which.
        rank: u32,
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// The ranks do not belong together.
    #[error("the ranks do not make a group: {0}")]
    Mismatch(String),
    /// The ownership may have gone to another router meanwhile, whose group must not be ended.
    #[error("the group may have another owner by now: nothing was formed")]
    Unsure,
}

/// A formed group, as its owner has it.
pub struct Formed {
    /// Its ranks.
    pub streams: RankStreams,
    /// What they held.
    pub found: RecoveredState,
    /// They can keep the documents.
    pub keepers: Vec<KeeperCandidate>,
    /// Held as long as the group is served, and while it is formed again.
    pub ownership: Ownership,
}

impl std::ops::Deref for Formed {
    type Target = RankStreams;

    fn deref(&self) -> &RankStreams {
        &self.streams
    }
}

/// The ranks of a group that was just formed.
pub struct Ranks {
    /// The way to them.
    pub streams: RankStreams,
    /// What they held.
    pub found: RecoveredState,
    /// They can keep the documents.
    pub keepers: Vec<KeeperCandidate>,
}

/// The streams to the ranks of a formed group.
pub struct RankStreams {
    /// Of the group.
    pub epoch: Epoch,
    /// Slots: the fewest of any rank.
    pub slots: u32,
    /// What the ranks run.
    pub model: ModelFacts,
    /// For DescribePool.
    pub ranks: Vec<v1::Rank>,
    orders: Vec<mpsc::Sender<wire::Order>>,
}

impl Formed {
    /// A group without ranks.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn alone(ownership: Ownership, model: ModelFacts) -> Self {
        let epoch = ownership.epoch();
        let streams = RankStreams { epoch, slots: 100, model, ranks: Vec::new(), orders: Vec::new() };
        Self { streams, found: RecoveredState::default(), keepers: Vec::new(), ownership }
    }
}

impl RankStreams {
    /// Sends a step to all ranks, with its trace, if it is recorded. A rank whose stream is gone is reported by its reader.
    pub fn broadcast(&self, step: &Step, trace: Option<wire::TraceContext>) {
        self.order(wire::order::Kind::Plan(wire::Plan { trace, ..wire::Plan::from(step) }));
    }

    /// Ends a plan after the pass that runs.
    pub fn interrupt(&self, seq: Seq) {
        self.order(wire::order::Kind::Interrupt(wire::Interrupt { seq: seq.0 }));
    }

    fn order(&self, kind: wire::order::Kind) {
        for rank in &self.orders {
            // One plan is in flight and the channel holds more: it is full or closed only when the stream is dead.
            let _ = rank.try_send(wire::Order { kind: Some(kind.clone()) });
        }
    }

    /// The world size.
    pub fn world_size(&self) -> usize {
        self.orders.len()
    }
}

/// How a rank failed, the likelier culprit first: a broken connection is a death, a missed deadline names who hangs,
/// and other errors may only echo those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The connection broke: the process is gone, or does not answer pings.
    Connection,
    /// The rank itself reports a missed deadline.
    Deadline,
    /// The rank itself reports something else.
    Reported,
    /// The rank reports that it lost a peer: an echo of the peer's failure.
    Echo,
}

/// A rank's failure, as one of its streams shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankFailure {
    /// How.
    pub kind: FailureKind,
    /// Which.
    pub rank: u32,
    /// In words.
    pub why: String,
}

impl RankFailure {
    fn of(rank: u32, status: Option<&Status>) -> Self {
        let Some(status) = status else {
            return Self { kind: FailureKind::Connection, rank, why: "it closed its stream".to_owned() };
        };
        let kind = match rank_code_of(status).as_deref() {
            None => FailureKind::Connection,
            Some("COMM_DEADLINE") => FailureKind::Deadline,
            Some("COMM_PEER_LOST") => FailureKind::Echo,
            Some(_) => FailureKind::Reported,
        };
        let why = match kind {
            FailureKind::Connection => format!("the connection broke ({})", status.message()),
            _ => status.message().to_owned(),
        };
        Self { kind, rank, why }
    }

    /// The most telling of several failures of one epoch.
    pub fn culprit(failures: &[Self]) -> Option<&Self> {
        failures.iter().min_by_key(|failure| (failure.kind, failure.rank))
    }
}

impl std::fmt::Display for RankFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            FailureKind::Connection => write!(f, "rank {} is lost: {}", self.rank, self.why),
            _ => write!(f, "rank {} reports: {}", self.rank, self.why),
        }
    }
}

/// How a group is formed.
pub struct GroupFormation<'a> {
    /// What the right to do so rests on.
    pub ownership: &'a Ownership,
    /// The latest epoch that this router has served.
    pub served: Epoch,
    /// The epoch whose ledgers hold no document that is not here.
    pub written: Epoch,
    /// Of the ranks, in their order.
    pub addresses: &'a [String],
    /// The way to them.
    pub connector: &'a Connector,
    /// C2: of every collective.
    pub deadline: Duration,
    /// What becomes of the tables that the ranks hold.
    pub tables: TableRetention,
    /// How the documents are read that the ranks hold.
    pub reading: DocumentTokenizer,
    /// Where reports and failures go.
    pub events: Events,
}

impl GroupFormation<'_> {
    /// Forms a group, in an epoch that is later than all that this router and the ranks have taken part in. What the ranks hold goes
    /// on, where they agree.
    ///
    /// A1: whatever the store that counts ownerships has lost, epochs grow. No two owners get the same one: a rank is fenced once by
    /// an epoch, and a group needs all ranks.
    ///
    /// # Errors
    /// [`FormError`] names the rank.
    pub async fn form(self) -> Result<Ranks, FormError> {
        let mut clients = Vec::new();
        let mut described = Vec::new();
        for (rank, address) in (0u32..).zip(self.addresses) {
            let failed = |why: String| FormError::Rank { rank, address: address.clone(), why };
            let mut client = connect(address, self.connector).await.map_err(&failed)?;
            let answer = client.describe(wire::DescribeRequest {}).await;
            described.push(answer.map_err(|status| failed(status.message().to_owned()))?.into_inner());
            clients.push(client);
        }
        check(&described)?;
        let latest = described.iter().map(|rank| rank.latest_epoch).fold(self.served.0, u64::max);
        let epoch = Epoch(self.ownership.epoch().0.max(latest.saturating_add(1)));
        // A process that was frozen until here must not end the epoch of its successor.
        if self.ownership.lease().state() != LeaseState::Held {
            return Err(FormError::Unsure);
        }
        let ranks = found::Fenced { clients: &clients, addresses: self.addresses, epoch };
        let found = ranks.find(self.written, self.deadline, self.tables, &self.reading).await?;
        let slots = match &found.group {
            Some(group) => u32::try_from(group.capacity()).unwrap_or(u32::MAX),
            None => described.iter().map(|rank| rank.slots).min().unwrap_or(0),
        };
        let request = wire::FormRequest {
            epoch: epoch.0,
            peers: described.iter().map(|rank| rank.collective_address.clone()).collect(),
            deadline_ms: u32::try_from(self.deadline.as_millis()).unwrap_or(u32::MAX),
            slots,
            goes_on_from: found.goes_on_from.unwrap_or_default().0,
        };
        join(&mut clients, self.addresses, &request).await?;
        let (mut orders, mut keepers) = (Vec::new(), Vec::new());
        for ((rank, client), held) in (0u32..).zip(clients).zip(&found.ledgers) {
            keepers.push(KeeperCandidate { rank, client: client.clone(), held: *held });
            orders.push(drive(epoch, rank, client, self.events.clone()));
        }
        let ranks =
            described.iter().zip(self.addresses).map(|(rank, address)| describe(rank, address)).collect();
        let streams = RankStreams { epoch, slots, model: facts(&described), ranks, orders };
        Ok(Ranks { streams, found, keepers })
    }
}

async fn connect(address: &str, connector: &Connector) -> Result<WorkerClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let channel = connector.connect(endpoint).await.map_err(|error| format!("cannot connect: {error}"))?;
    Ok(WorkerClient::new(channel)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT))
}

/// Each rank waits for its peers, so all are asked at once.
async fn join(
    clients: &mut [WorkerClient<Channel>],
    addresses: &[String],
    request: &wire::FormRequest,
) -> Result<(), FormError> {
    let mut asked = tokio::task::JoinSet::new();
    for (rank, client) in (0u32..).zip(clients.iter()) {
        let (mut client, mut request) = (client.clone(), tonic::Request::new(request.clone()));
        request.set_timeout(FORM_TIMEOUT);
        asked.spawn(async move { (rank, client.form(request).await) });
    }
    let mut first_error = None;
    while let Some(answer) = asked.join_next().await {
        let (rank, why) = match answer {
            Ok((_, Ok(_))) => continue,
            Ok((rank, Err(status))) => (rank, status.message().to_owned()),
            Err(error) => return Err(FormError::Mismatch(error.to_string())),
        };
        let address = addresses.get(rank as usize).cloned().unwrap_or_default();
        first_error.get_or_insert(FormError::Rank { rank, address, why });
    }
    first_error.map_or(Ok(()), Err)
}

/// Starts the ordered stream of plans to one rank.
fn drive(
    epoch: Epoch,
    rank: u32,
    mut client: WorkerClient<Channel>,
    events: Events,
) -> mpsc::Sender<wire::Order> {
    let (orders, stream) = mpsc::channel(8);
    tokio::spawn(async move {
        let failure = match client.drive(ReceiverStream::new(stream)).await {
            Err(status) => RankFailure::of(rank, Some(&status)),
            Ok(reports) => read(epoch, rank, reports.into_inner(), &events).await,
        };
        // An owner that has gone needs no report.
        let _ = events.send(Event::RankFailed { epoch, failure }).await;
    });
    orders
}

async fn read(
    epoch: Epoch,
    rank: u32,
    mut reports: tonic::Streaming<wire::Report>,
    events: &Events,
) -> RankFailure {
    loop {
        match reports.message().await {
            Ok(Some(report)) => {
                if events.send(Event::Report { epoch, rank, report: report.into() }).await.is_err() {
                    return RankFailure::of(rank, None);
                }
            }
            Ok(None) => return RankFailure::of(rank, None),
            Err(status) => return RankFailure::of(rank, Some(&status)),
        }
    }
}

fn check(described: &[wire::DescribeResponse]) -> Result<(), FormError> {
    let world_size = described.len();
    let Some(first) = described.first() else { return Err(FormError::Mismatch("there are none".to_owned())) };
    for (rank, description) in described.iter().enumerate() {
        if description.rank as usize != rank || description.world_size as usize != world_size {
            let (says, of) = (description.rank, description.world_size);
            let what =
                format!("what answers as rank {rank} of {world_size} says that it is rank {says} of {of}");
            return Err(FormError::Mismatch(what));
        }
        if description.model_fingerprint != first.model_fingerprint {
            let what = format!(
                "rank {rank} has another model ({}) than rank 0 ({})",
                description.model, first.model
            );
            return Err(FormError::Mismatch(what));
        }
    }
    Ok(())
}

fn facts(described: &[wire::DescribeResponse]) -> ModelFacts {
    let Some(rank) = described.first() else { return ModelFacts::default() };
    ModelFacts {
        spills: described.iter().all(|rank| rank.spills),
        name: rank.model.clone(),
        parameters: rank.parameters,
        context_limit: rank.context_limit,
        vocabulary: rank.vocabulary,
        end_of_text: rank.end_of_text.iter().map(|token| TokenId(*token)).collect(),
    }
}

fn describe(rank: &wire::DescribeResponse, address: &str) -> v1::Rank {
    v1::Rank {
        rank: rank.rank,
        address: address.to_owned(),
        device: rank.device.clone(),
        weight_bytes: rank.weight_bytes,
        kv_bytes: rank.kv_bytes,
    }
}
