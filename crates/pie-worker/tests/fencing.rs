//! A rank serves one epoch at a time: what comes from another is refused to its sender, and the present one goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Do, SLOTS, Script, compute, model_folder};
use pie_comm::{Collective, CommError, Member, Solo};
use pie_plan::Change;
use pie_proto::reason::rank_code_of;
use pie_proto::worker_v1 as wire;
use pie_proto::worker_v1::worker_client::WorkerClient;
use pie_proto::worker_v1::worker_server::WorkerServer;
use pie_words::{Epoch, SessionId};
use pie_worker::service::RankService;
use pie_worker::{Engine, FormGroup, RankFacts};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// A rank without peers.
struct Alone;

impl FormGroup for Alone {
    fn form(&mut self, _: Epoch, _: &[String], _: Duration) -> Result<Box<dyn Collective>, CommError> {
        Ok(Box::new(Solo))
    }
}

/// An owner's stream of plans.
struct PlanStream {
    epoch: u64,
    plans: std::vec::IntoIter<wire::Plan>,
    orders: mpsc::Sender<wire::Order>,
    reports: Streaming<wire::Report>,
}

impl PlanStream {
    async fn of(epoch: u64, client: &mut WorkerClient<Channel>) -> Self {
        let mut script = Script::new(epoch);
        for session in 1..=4 {
            let changes = vec![Change::Open { session: SessionId(session) }];
            script.plan(changes, Vec::new(), 1);
        }
        let plans: Vec<_> = script
            .instructions
            .iter()
            .filter_map(|instruction| match instruction {
                Do::Step(step) => Some(wire::Plan { epoch, ..wire::Plan::from(step) }),
                Do::Read(..) => None,
            })
            .collect();
        let (orders, stream) = mpsc::channel(8);
        let reports = client.drive(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { epoch, plans: plans.into_iter(), orders, reports }
    }

    async fn next_plan(&mut self) -> Result<u64, Status> {
        let kind = Some(wire::order::Kind::Plan(self.plans.next().unwrap()));
        self.orders.send(wire::Order { kind }).await.unwrap();
        let report = tokio::time::timeout(Duration::from_secs(30), self.reports.message());
        let report = report.await.expect("an answer")?.expect("a report");
        assert_eq!((report.epoch, report.done), (self.epoch, true));
        Ok(report.seq)
    }
}

async fn form(client: &mut WorkerClient<Channel>, epoch: u64) -> Result<(), Status> {
    let request =
        wire::FormRequest { epoch, peers: Vec::new(), deadline_ms: 1000, slots: SLOTS, goes_on_from: 0 };
    client.form(request).await.map(drop)
}

fn code(refused: Result<impl std::fmt::Debug, Status>) -> (Code, String) {
    let status = refused.unwrap_err();
    (status.code(), rank_code_of(&status).unwrap())
}

async fn serve(folder: &std::path::Path) -> WorkerClient<Channel> {
    let engine = Engine::start(compute(folder, Member::solo(), SLOTS), Box::new(Alone), None).unwrap();
    let facts = RankFacts {
        slots: SLOTS,
        weight_bytes: 0,
        kv_bytes: 0,
        device: "cpu".into(),
        model: "test".into(),
        parameters: 0,
        fingerprint: "test".into(),
        context_limit: 100,
        vocabulary: 500,
        end_of_text: Vec::new(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let service = WorkerServer::new(RankService::new(engine, facts, Member::solo(), String::new()));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    WorkerClient::connect(address).await.unwrap()
}

/// An owner that was frozen with a plan in hand wakes up while its successor serves: it is told so, and nobody else is harmed.
#[tokio::test]
async fn a_plan_of_an_older_epoch_is_refused_to_its_sender_alone() {
    let fenced = (Code::FailedPrecondition, "EPOCH_FENCED".to_owned());
    let (_guard, folder) = model_folder();
    let mut client = serve(&folder).await;
    form(&mut client, 3).await.unwrap();
    let mut former = PlanStream::of(3, &mut client).await;
    assert_eq!(former.next_plan().await.unwrap(), 1);

    form(&mut client, 7).await.unwrap();
    let described = client.describe(wire::DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!(described.latest_epoch, 7, "whoever forms the group next goes above it");
    let mut present = PlanStream::of(7, &mut client).await;
    assert_eq!(present.next_plan().await.unwrap(), 1);

    assert_eq!(code(former.next_plan().await), fenced);
    assert_eq!(present.next_plan().await.unwrap(), 2, "the present epoch goes on");
    for epoch in [3, 6, 7] {
        assert_eq!(code(form(&mut client, epoch).await), fenced, "epoch {epoch}");
    }
    assert_eq!(present.next_plan().await.unwrap(), 3);
    // Nor may somebody drive an epoch that was never formed.
    let mut early = PlanStream::of(8, &mut client).await;
    assert_eq!(code(early.next_plan().await).1, "RANK_NOT_FORMED");
    drop((former, early));
    assert_eq!(present.next_plan().await.unwrap(), 4, "streams of other epochs end without it");

    // An epoch that has ended stays known.
    drop(present);
    let mut late = PlanStream::of(3, &mut client).await;
    assert_eq!(code(late.next_plan().await), fenced);
    form(&mut client, 8).await.unwrap();
}
