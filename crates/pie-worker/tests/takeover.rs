//! A new owner takes true ranks over in the middle of a plan that one of them never got: it levels them, and goes on with their rows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Do, Out, SLOTS, Script, compute, drive, model_folder};
use pie_comm::{Collective, CommError, Member, ThreadGroup, ThreadMember, WorldSize};
use pie_plan::Group;
use pie_plan::image::TableImage;
use pie_plan::ledger::Position;
use pie_plan::takeover::{Activity, Caches, RankSurvey, best_ledger, caches};
use pie_proto::reason::rank_code_of;
use pie_proto::worker_v1 as wire;
use pie_proto::worker_v1::worker_client::WorkerClient;
use pie_proto::worker_v1::worker_server::WorkerServer;
use pie_words::{Epoch, Seq, SessionId, Strategy};
use pie_worker::service::RankService;
use pie_worker::{Engine, FormGroup, RankFacts};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::keep_request::{Begin, Beginning, Complete, Copies, Entries, Kind};
use wire::order::Kind as Order;

const SESSION: SessionId = SessionId(3);

/// A rank whose group is there already, once.
struct Once(Option<ThreadMember>);

impl FormGroup for Once {
    fn form(&mut self, _: Epoch, _: &[String], _: Duration) -> Result<Box<dyn Collective>, CommError> {
        Ok(Box::new(self.0.take().expect("connections to peers outlive their owner")))
    }
}

async fn serve(folder: &Path, member: Member, comm: ThreadMember) -> WorkerClient<Channel> {
    let engine = Engine::start(compute(folder, member, SLOTS), Box::new(Once(Some(comm))), None).unwrap();
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
    let service = WorkerServer::new(RankService::new(engine, facts, member, String::new()));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    WorkerClient::connect(address).await.unwrap()
}

/// One owner's streams to all ranks.
struct OwnerStreams {
    orders: Vec<mpsc::Sender<wire::Order>>,
    reports: Vec<Streaming<wire::Report>>,
}

impl OwnerStreams {
    async fn of(clients: &mut [WorkerClient<Channel>]) -> Self {
        let (mut orders, mut reports) = (Vec::new(), Vec::new());
        for client in clients {
            let (sender, stream) = mpsc::channel(8);
            orders.push(sender);
            reports.push(client.drive(ReceiverStream::new(stream)).await.unwrap().into_inner());
        }
        Self { orders, reports }
    }

    async fn send(&self, rank: usize, plan: &wire::Plan) {
        self.orders[rank].send(wire::Order { kind: Some(Order::Plan(plan.clone())) }).await.unwrap();
    }

    async fn step(&mut self, plan: &wire::Plan) {
        for rank in 0..self.orders.len() {
            self.send(rank, plan).await;
        }
        for reports in &mut self.reports {
            let report = tokio::time::timeout(Duration::from_secs(30), reports.message());
            assert_eq!(report.await.expect("in time").unwrap().unwrap().seq, plan.seq);
        }
    }
}

/// What is asked of a group that nothing happens to: a document, an edit, another one.
fn script() -> Script {
    let mut script = Script::new(5);
    let tokens = script.tokens(40);
    script.open(SESSION, tokens);
    for _ in 0..2 {
        let splices = script.random_splices(SESSION);
        script.edit(SESSION, splices, Strategy::Pie);
    }
    for layer in 0..2 {
        script.read(SESSION, layer);
    }
    script
}

async fn survey(clients: &mut [WorkerClient<Channel>], epoch: u64, again: bool) -> Vec<RankSurvey> {
    let mut standings = Vec::new();
    for client in clients {
        standings
            .push(client.survey(wire::SurveyRequest { epoch, again }).await.unwrap().into_inner().into());
    }
    standings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranks_are_levelled_and_go_on_with_what_they_hold() {
    let (_guard, folder) = model_folder();
    let script = script();
    let undisturbed = drive(&folder, 2, &script.instructions);
    let plans = script.instructions.iter().filter_map(|instruction| match instruction {
        Do::Step(step) => Some(wire::Plan::from(step)),
        Do::Read(..) => None,
    });
    let plans: Vec<_> = plans.collect();
    let mut clients = Vec::new();
    for (comm, member) in
        ThreadGroup::new(2).unwrap().into_iter().zip(Member::all(WorldSize::new(2).unwrap()))
    {
        clients.push(serve(&folder, member, comm).await);
    }
    let form = |epoch, goes_on_from| wire::FormRequest {
        epoch,
        peers: vec![],
        deadline_ms: 1000,
        slots: SLOTS,
        goes_on_from,
    };
    for client in &mut clients {
        client.form(form(1, 0)).await.unwrap();
    }
    let mut former = OwnerStreams::of(&mut clients).await;
    former.step(&plans[0]).await;
    // Its second plan reaches rank 0 alone, which waits for the other one in its first collective.
    former.send(0, &plans[1]).await;
    while survey_is_idle(&mut clients[0]).await {}
    let OwnerStreams { orders, .. } = former;

    let standings = survey(&mut clients, 7, false).await;
    assert_eq!(caches(&standings), Caches::Level { from: 0, to: vec![1] });
    assert!(
        clients[0].survey(wire::SurveyRequest { epoch: 7, again: false }).await.is_err(),
        "an epoch fences once"
    );
    // The former owner wakes up: rank 1 does not take the plan from it any more.
    let _ = orders[1].send(wire::Order { kind: Some(Order::Plan(plans[1].clone())) }).await;
    let given = clients[0].latest_plan(wire::LatestPlanRequest { epoch: 7 }).await.unwrap().into_inner();
    assert_eq!((given.epoch, given.seq), (1, 2));
    let fenced =
        clients[1].level(wire::LevelRequest { epoch: 6, plan: Some(given.clone()) }).await.unwrap_err();
    assert_eq!(rank_code_of(&fenced).as_deref(), Some("EPOCH_FENCED"));
    clients[1].level(wire::LevelRequest { epoch: 7, plan: Some(given) }).await.unwrap();
    let standings = loop {
        let standings = survey(&mut clients, 7, true).await;
        if caches(&standings) != Caches::Wait {
            break standings;
        }
    };
    assert_eq!(caches(&standings), Caches::GoOn(Epoch(1)), "both have done it");

    // The tables as they travel are those that the ranks have.
    let mut tables = clients[1].tables(wire::TablesRequest { epoch: 7 }).await.unwrap().into_inner();
    let mut images = Vec::new();
    while let Some(table) = tables.message().await.unwrap() {
        images.push(TableImage::try_from(table).unwrap());
    }
    let group = Group::of_images(Epoch(1), Seq(2), SLOTS, images).unwrap();
    assert_eq!(standings[0].tables.unwrap().activity, Activity::Idle { digest: group.digest() });

    for client in &mut clients {
        assert!(client.form(form(8, 5)).await.is_err(), "nobody has been in epoch 5");
        client.form(form(9, 1)).await.unwrap();
    }
    let mut next = OwnerStreams::of(&mut clients).await;
    next.step(&wire::Plan { epoch: 9, seq: 1, ..plans[2].clone() }).await;
    for (rank, client) in clients.iter_mut().enumerate() {
        for (layer, expected) in
            undisturbed[rank].iter().filter(|out| matches!(out, Out::Rows(..))).enumerate()
        {
            let request = wire::ReadKeysRequest { session: SESSION.0, layer: layer as u32, values: true };
            let read = client.read_keys(request).await.unwrap().into_inner();
            let (keys, values) = expected.rows();
            assert_eq!(
                (read.keys, read.values),
                (keys.concat(), values.concat()),
                "rank {rank}, layer {layer}"
            );
        }
    }
}

/// Whether a rank does nothing, without fencing it.
async fn survey_is_idle(client: &mut WorkerClient<Channel>) -> bool {
    let read = client.read_keys(wire::ReadKeysRequest { session: SESSION.0, layer: 0, values: false });
    tokio::time::timeout(Duration::from_millis(300), read).await.is_ok()
}

/// A stream of entries, as an owner writes it.
struct LedgerStream {
    epoch: u64,
    messages: mpsc::Sender<wire::KeepRequest>,
    answers: Streaming<wire::KeepResponse>,
}

impl LedgerStream {
    async fn of(epoch: u64, client: &mut WorkerClient<Channel>) -> Self {
        let (messages, stream) = mpsc::channel(8);
        let answers = client.keep(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { epoch, messages, answers }
    }

    async fn send(&self, kind: Kind) {
        let _ = self.messages.send(wire::KeepRequest { epoch: self.epoch, kind: Some(kind) }).await;
    }

    async fn answer(&mut self) -> Result<u64, Status> {
        let answer = tokio::time::timeout(Duration::from_secs(30), self.answers.message());
        Ok(answer.await.expect("in time")?.expect("an answer").number)
    }
}

fn entry(session: u64, kind: wire::ledger_entry::Kind) -> wire::LedgerEntry {
    wire::LedgerEntry { session, kind: Some(kind) }
}

#[tokio::test]
async fn a_rank_keeps_what_the_latest_owner_writes() {
    use wire::ledger_entry::Kind as Kept;
    let (_guard, folder) = model_folder();
    let comm = ThreadGroup::new(1).unwrap().remove(0);
    let mut client = serve(&folder, Member::solo(), comm).await;
    let ledger = |standings: Vec<RankSurvey>| standings[0].ledger;
    let ranks = std::slice::from_mut(&mut client);
    assert_eq!(ledger(survey(ranks, 2, false).await), None);
    let mut first = LedgerStream::of(2, &mut ranks[0]).await;
    first.send(Kind::Begin(Begin { beginning: Beginning::Anew.into(), after: 10 })).await;
    first.send(Kind::Copies(Copies { entries: vec![entry(1, Kept::Whole(b"one".to_vec()))] })).await;
    first.send(Kind::Complete(Complete {})).await;
    assert_eq!(first.answer().await.unwrap(), 10);
    let entries = vec![entry(1, Kept::More(b" more".to_vec())), entry(2, Kept::Whole(b"two".to_vec()))];
    first.send(Kind::Entries(Entries { first: 11, entries })).await;
    assert_eq!(first.answer().await.unwrap(), 12);

    // The next owner reads it, and begins anew; what is not complete counts for nothing.
    let position = Position { epoch: Epoch(2), number: 12 };
    let standings = survey(ranks, 5, false).await;
    assert_eq!((best_ledger(&standings), ledger(standings)), (Some(0), Some(position)));
    let mut recalled = ranks[0].recall(wire::RecallRequest { epoch: 5 }).await.unwrap().into_inner();
    let memos = recalled.message().await.unwrap().unwrap().memos;
    let pieces: Vec<_> = memos.iter().map(|memo| (memo.session, memo.pieces.concat())).collect();
    assert_eq!(pieces, [(1, b"one more".to_vec()), (2, b"two".to_vec())]);
    let second = LedgerStream::of(5, &mut ranks[0]).await;
    second.send(Kind::Begin(Begin { beginning: Beginning::Anew.into(), after: 0 })).await;
    second.send(Kind::Copies(Copies { entries: vec![entry(9, Kept::Whole(b"half".to_vec()))] })).await;

    // The one before writes on: it is told that it may not.
    first.send(Kind::Entries(Entries { first: 13, entries: vec![entry(1, Kept::Gone(true))] })).await;
    let fenced = first.answer().await.unwrap_err();
    assert_eq!(rank_code_of(&fenced).as_deref(), Some("EPOCH_FENCED"));
    assert_eq!(
        ledger(survey(ranks, 6, false).await),
        Some(position),
        "until it is complete what was there counts"
    );

    // One that goes on with it, and leaves a gap.
    let mut third = LedgerStream::of(6, &mut ranks[0]).await;
    third.send(Kind::Begin(Begin { beginning: Beginning::GoOn.into(), after: 100 })).await;
    assert_eq!(third.answer().await.unwrap(), 100);
    third.send(Kind::Entries(Entries { first: 102, entries: vec![entry(1, Kept::Gone(true))] })).await;
    assert_eq!(rank_code_of(&third.answer().await.unwrap_err()).as_deref(), Some("LEDGER_GAP"));
}
