//! A group has one owner at a time, also when the leases of two routers say something else: whoever is not sure says nothing, and
//! documents go where the group goes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

#[allow(dead_code, reason = "each test file uses its part")]
#[path = "../../pie-group/tests/common/mod.rs"]
mod common;

use common::{Ranks, SETTINGS, facts};
use pie_placement::{
    Admission, Campaign, Embedded, Forgotten, GroupId, GroupRecord, Hold, LeaseKeeper, LossReason, Moved,
    Owner, OwnerWatch, Ownership, Placed, Placement, PlacementError, RankRecord, RankWatch, Registration,
    RouterId, RouterRecord, SessionKey, Ttl,
};
use pie_plan::Group;
use pie_proto::plan::Step;
use pie_proto::reason::reason_of;
use pie_proto::v1::pool_client::PoolClient;
use pie_proto::worker_v1::worker_server::{Worker, WorkerServer};
use pie_proto::{Reason, v1, worker_v1 as wire};
use pie_router::{InternalApi, PublicApi, RunningRouter, ServeOptions};
use pie_text::Tokenizer;
use pie_transport::{Acceptor, Connector};
use pie_words::Epoch;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(30);
const GROUP: &str = "g";

fn tokenizer() -> Arc<Tokenizer> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-code");
    Arc::new(Tokenizer::open(std::path::Path::new(folder)).unwrap())
}

fn group() -> GroupId {
    GroupId::new(GROUP).unwrap()
}

/// What a router sees of the placement that all share: its own leases are as the test says.
struct Seen {
    store: Embedded,
    lease: Mutex<Option<FakeLease>>,
}

/// Of an ownership: what the store has, and what the router is told.
struct FakeLease {
    ownership: Arc<Mutex<Option<Ownership>>>,
    keeper: Arc<LeaseKeeper>,
}

impl Seen {
    fn keeper(&self) -> Arc<LeaseKeeper> {
        self.lease.lock().unwrap().as_ref().unwrap().keeper.clone()
    }

    /// The store lets the lease run out. The router is told nothing.
    fn run_out(&self) {
        drop(self.lease.lock().unwrap().as_ref().unwrap().ownership.lock().unwrap().take());
    }
}

#[tonic::async_trait]
impl Placement for Seen {
    async fn campaign(
        &self,
        group: &GroupId,
        router: &RouterRecord,
        ttl: Ttl,
    ) -> Result<Campaign, PlacementError> {
        let Campaign::Won(won) = self.store.campaign(group, router, ttl).await? else {
            return self.store.campaign(group, router, ttl).await;
        };
        let (epoch, id) = (won.epoch(), won.lease_id());
        let (keeper, ownership) = (Arc::new(LeaseKeeper::new()), Arc::new(Mutex::new(Some(won))));
        let (ended, told) = (ownership.clone(), keeper.clone());
        let hold = Hold::new(id, keeper.watch(), move |_| {
            drop(ended.lock().unwrap().take());
            told.lose(LossReason::Released);
            Box::pin(std::future::ready(Ok(())))
        });
        *self.lease.lock().unwrap() = Some(FakeLease { ownership, keeper });
        Ok(Campaign::Won(Ownership::new(group.clone(), epoch, hold)))
    }

    async fn advance(&self, ownership: &mut Ownership) -> Result<(), PlacementError> {
        self.store.advance(ownership).await
    }

    async fn register_rank(&self, rank: RankRecord, ttl: Ttl) -> Result<Registration, PlacementError> {
        self.store.register_rank(rank, ttl).await
    }

    async fn ranks(&self, group: &GroupId) -> Result<Vec<RankRecord>, PlacementError> {
        self.store.ranks(group).await
    }

    async fn watch_ranks(&self, group: &GroupId) -> Result<RankWatch, PlacementError> {
        self.store.watch_ranks(group).await
    }

    async fn depose(&self, group: &GroupId, router: &RouterId) -> Result<(), PlacementError> {
        self.store.depose(group, router).await
    }

    async fn owner(&self, group: &GroupId) -> Result<Option<Owner>, PlacementError> {
        self.store.owner(group).await
    }

    async fn watch_owner(&self, group: &GroupId) -> Result<OwnerWatch, PlacementError> {
        self.store.watch_owner(group).await
    }

    async fn place_session(&self, session: &SessionKey, group: &GroupId) -> Result<Placed, PlacementError> {
        self.store.place_session(session, group).await
    }

    async fn move_session(
        &self,
        session: &SessionKey,
        from: &GroupId,
        to: &GroupId,
    ) -> Result<Moved, PlacementError> {
        self.store.move_session(session, from, to).await
    }

    async fn session_home(&self, session: &SessionKey) -> Result<Option<GroupId>, PlacementError> {
        self.store.session_home(session).await
    }

    async fn forget_session(
        &self,
        session: &SessionKey,
        group: &GroupId,
    ) -> Result<Forgotten, PlacementError> {
        self.store.forget_session(session, group).await
    }

    async fn groups(&self) -> Result<Vec<GroupRecord>, PlacementError> {
        self.store.groups().await
    }

    async fn set_admission(&self, group: &GroupId, admission: Admission) -> Result<(), PlacementError> {
        self.store.set_admission(group, admission).await
    }
}

/// A rank that does as it is told, and refuses what is not of its latest epoch.
#[derive(Clone, Default)]
struct FakeRank {
    served: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl Worker for FakeRank {
    async fn describe(
        &self,
        _: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeResponse>, Status> {
        let facts = facts();
        Ok(Response::new(wire::DescribeResponse {
            world_size: 1,
            slots: 1000,
            context_limit: facts.context_limit,
            vocabulary: facts.vocabulary,
            latest_epoch: self.latest(),
            ..Default::default()
        }))
    }

    /// It keeps nothing for the next owner.
    async fn survey(
        &self,
        _: Request<wire::SurveyRequest>,
    ) -> Result<Response<wire::SurveyResponse>, Status> {
        Ok(Response::new(wire::SurveyResponse::default()))
    }

    async fn latest_plan(&self, _: Request<wire::LatestPlanRequest>) -> Result<Response<wire::Plan>, Status> {
        Err(nobody_asks())
    }

    async fn level(&self, _: Request<wire::LevelRequest>) -> Result<Response<wire::LevelResponse>, Status> {
        Err(nobody_asks())
    }

    type KeepStream = ReceiverStream<Result<wire::KeepResponse, Status>>;

    async fn keep(
        &self,
        _: Request<Streaming<wire::KeepRequest>>,
    ) -> Result<Response<Self::KeepStream>, Status> {
        Err(nobody_asks())
    }

    type RecallStream = ReceiverStream<Result<wire::RecallResponse, Status>>;

    async fn recall(&self, _: Request<wire::RecallRequest>) -> Result<Response<Self::RecallStream>, Status> {
        Err(nobody_asks())
    }

    type TablesStream = ReceiverStream<Result<wire::Table, Status>>;

    async fn tables(&self, _: Request<wire::TablesRequest>) -> Result<Response<Self::TablesStream>, Status> {
        Err(nobody_asks())
    }

    async fn form(
        &self,
        request: Request<wire::FormRequest>,
    ) -> Result<Response<wire::FormResponse>, Status> {
        let epoch = request.into_inner().epoch;
        if epoch <= self.latest() {
            return Err(Status::failed_precondition("it is over"));
        }
        self.served.lock().unwrap().push(epoch);
        Ok(Response::new(wire::FormResponse {}))
    }

    type DriveStream = ReceiverStream<Result<wire::Report, Status>>;

    async fn drive(
        &self,
        request: Request<Streaming<wire::Order>>,
    ) -> Result<Response<Self::DriveStream>, Status> {
        let (reports, stream) = mpsc::channel(8);
        let (rank, mut orders) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut ranks = None;
            while let Ok(Some(order)) = orders.message().await {
                let Some(wire::order::Kind::Plan(plan)) = order.kind else { continue };
                if plan.epoch != rank.latest() {
                    let _ = reports.send(Err(Status::failed_precondition("another epoch"))).await;
                    return;
                }
                let step = Step::try_from(plan).unwrap();
                let ranks = ranks.get_or_insert_with(|| Ranks {
                    gives_up: 0,
                    disk: Default::default(),
                    group: Group::new(step.plan.epoch, 1000),
                    model: facts(),
                    refuses: vec![],
                    writes: None,
                    reads: vec![],
                    encoded: 0,
                    passes: 0,
                });
                let mut report = ranks.step(&step);
                let wanted = step.plan.digest == pie_plan::DigestWanted::Report;
                report.digest = wanted.then(|| ranks.group.digest());
                let report = wire::Report { epoch: step.plan.epoch.0, ..report.into() };
                let _ = reports.send(Ok(report)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn read_keys(
        &self,
        _: Request<wire::ReadKeysRequest>,
    ) -> Result<Response<wire::ReadKeysResponse>, Status> {
        Err(nobody_asks())
    }
}

fn nobody_asks() -> Status {
    Status::unimplemented("nobody asks")
}

impl FakeRank {
    fn latest(&self) -> u64 {
        self.served.lock().unwrap().last().copied().unwrap_or(0)
    }
}

/// A router and what it sees.
struct Router {
    seen: Arc<Seen>,
    serving: RunningRouter,
    client: PoolClient<Channel>,
}

impl Router {
    async fn start(store: &Embedded) -> Self {
        let seen = Arc::new(Seen { store: store.clone(), lease: Mutex::new(None) });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = ServeOptions {
            public: PublicApi { listen: any, acceptor: Acceptor::new(None, 100), gate: None },
            internal: InternalApi { listen: any, advertise: None, acceptor: Acceptor::new(None, 100) },
            groups: vec![group()],
            world_size: 1,
            deadline: Duration::from_secs(5),
            settings: SETTINGS,
            document_limit: 1 << 20,
            ranks: Connector::default(),
            routers: Connector::default(),
        };
        let serving = pie_router::serve(options, seen.clone(), tokenizer()).await.unwrap();
        let client = PoolClient::connect(serving.url()).await.unwrap();
        Self { seen, serving, client }
    }

    async fn open(&self, text: &str) -> Result<v1::OpenSessionResponse, Status> {
        let content = Some(v1::open_session_request::Content::Text(text.into()));
        let request = v1::OpenSessionRequest { session: "s".into(), content, ..Default::default() };
        Ok(self.client.clone().open_session(request).await?.into_inner())
    }

    async fn edit(&self, base: u64, insert: &str) -> Result<u64, Status> {
        let range = Some(v1::text_edit::Range::Bytes(v1::ByteRange { start: 0, end: 0 }));
        let edit = v1::TextEdit { range, text: insert.into() };
        let edits = Some(v1::apply_edits_request::Edits::Text(v1::TextEdits {
            edits: vec![edit],
            ..Default::default()
        }));
        let request =
            v1::ApplyEditsRequest { session: "s".into(), base_revision: base, edits, ..Default::default() };
        Ok(self.client.clone().apply_edits(request).await?.into_inner().revision)
    }

    async fn get(&self) -> Result<String, Status> {
        let request = v1::GetSessionRequest { session: "s".into(), content: true, ..Default::default() };
        Ok(self.client.clone().get_session(request).await?.into_inner().text.unwrap_or_default())
    }

    async fn complete(&self) -> Result<(), Status> {
        let request = v1::CompleteRequest { session: "s".into(), max_tokens: 2, ..Default::default() };
        let mut stream = self.client.clone().complete(request).await?.into_inner();
        while stream.message().await?.is_some() {}
        Ok(())
    }

    /// Tries until it works, as a client does.
    async fn patiently<T>(&self, call: impl AsyncFn(&Self) -> Result<T, Status>) -> T {
        let trying = async {
            loop {
                match call(self).await {
                    Ok(done) => return done,
                    Err(status) if status.code() == tonic::Code::Unavailable => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(status) => panic!("{status}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, trying).await.expect("it works in time")
    }

    fn owns(&self) -> bool {
        self.serving.readiness().now().is_ok() && self.seen.lease.lock().unwrap().is_some()
    }
}

async fn start_rank(store: &Embedded) -> (FakeRank, Registration) {
    let rank = FakeRank::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(WorkerServer::new(rank.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let record =
        RankRecord { group: group(), rank: 0, world_size: 1, control, model_fingerprint: String::new() };
    let registration = store.register_rank(record, Ttl::DEFAULT).await.unwrap();
    (rank, registration)
}

fn is_unsure<T: std::fmt::Debug>(refused: Result<T, Status>) {
    let status = refused.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::OwnershipUnsure), "{status}");
}

/// From the moment at which its lease may have run out a router neither shows nor changes a document, until the lease is confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_in_doubt_says_nothing_and_goes_on_when_it_is_sure() {
    let store = Embedded::new();
    let (rank, _registration) = start_rank(&store).await;
    let router = Router::start(&store).await;
    let first = router.patiently(async |router| router.open("fn main() {}").await).await.revision;
    let revision = router.edit(first, "a").await.unwrap();
    router.complete().await.unwrap();

    let keeper = router.seen.keeper();
    // By the clock alone: nobody has noticed anything, as in a process that was frozen and goes on.
    keeper.confirm(Instant::now());
    is_unsure(router.edit(revision, "b").await);
    is_unsure(router.get().await);
    is_unsure(router.open("other").await);
    is_unsure(router.complete().await);
    let why = router.serving.readiness().now().unwrap_err();
    assert!(why.contains("has not confirmed"), "{why}");

    keeper.confirm(Instant::now() + Duration::from_secs(3600));
    let next = router.edit(revision, "b").await.unwrap();
    assert_eq!((next, router.get().await.unwrap().as_str()), (revision + 1, "bafn main() {}"));
    router.complete().await.unwrap();
    assert_eq!(rank.served.lock().unwrap().len(), 1, "the group was not formed again");
}

/// What a router that lost its lease knows when another one wins the group.
#[derive(Clone, Copy, Debug)]
enum Former {
    /// That it may have lost it.
    Doubts,
    /// Nothing: it is as sure as ever, for a while.
    IsSure,
}

/// The store gives the group to another router: the former owner's documents go there, with every edit that was acknowledged; the
/// ranks are left to the later epoch, and the former owner follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_takes_its_documents_along_to_its_next_owner() {
    for former in [Former::Doubts, Former::IsSure] {
        let store = Embedded::new();
        let (rank, _registration) = start_rank(&store).await;
        let one = Router::start(&store).await;
        let first = one.patiently(async |router| router.open("fn main() {}").await).await.revision;
        let two = Router::start(&store).await;
        // It must have seen the first one as the owner, as it has on any pool that lives.
        let revision = two.patiently(async |router| router.edit(first, "a").await).await;
        tokio::time::sleep(Duration::from_millis(700)).await;

        let keeper = one.seen.keeper();
        match former {
            Former::Doubts => drop(keeper.confirm(Instant::now())),
            Former::IsSure => {}
        }
        one.seen.run_out();
        let won = async {
            while !two.owns() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if matches!(former, Former::IsSure) && two.seen.lease.lock().unwrap().is_some() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    keeper.lose(LossReason::Expired);
                }
            }
        };
        tokio::time::timeout(PATIENCE, won).await.expect("the other router wins");
        keeper.lose(LossReason::Expired);
        let text = two.patiently(async |router| router.get().await).await;
        assert_eq!(text, "afn main() {}", "{former:?}");
        let next = one.patiently(async |router| router.edit(revision, "b").await).await;
        assert_eq!(next, revision + 1, "{former:?}: the first router passes it on");
        assert_eq!(two.get().await.unwrap(), "bafn main() {}", "{former:?}");
        two.patiently(async |router| router.complete().await).await;
        let served = rank.served.lock().unwrap().clone();
        assert!(served.is_sorted_by(|earlier, later| earlier < later), "{served:?}");
        assert!(one.seen.store.owner(&group()).await.unwrap().is_some());
    }
}

/// The ranks have served a later epoch than any that the store would give: the group forms above it, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_go_on_above_what_the_ranks_have_served() {
    let store = Embedded::new();
    let (rank, _registration) = start_rank(&store).await;
    let served = Epoch(u64::MAX / 2);
    rank.served.lock().unwrap().push(served.0);
    let router = Router::start(&store).await;
    router.patiently(async |router| router.open("x").await).await;
    assert_eq!(rank.served.lock().unwrap().clone(), [served.0, served.0 + 1]);
}
