//! A run against a pool that answers as slowly as a test wants, in memory and in paused time: what a slow server does to
//! the numbers, and what it does not.

use pie_client::Pool;
use pie_load::measure::Metric;
use pie_load::report::LoadReport;
use pie_load::run::{CompletionTrigger, EditStreamSource, Options, RunSnapshot, Stop, Tempo, run, run_until};
use pie_load::script::{compile, parse};
use pie_load::target::LoadTarget;
use pie_load::{LoadError, report};
use pie_proto::v1;
use pie_proto::v1::pool_server::{Pool as Service, PoolServer};
use pie_proto::{Fault, Reason};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

type RpcResult<T> = Result<Response<T>, Status>;

/// Documents of text and revision; edits and tokens take their time.
#[derive(Default)]
struct Fake {
    documents: Mutex<HashMap<String, watch::Sender<(u64, String)>>>,
    /// How long the edit with this number takes; the others take none.
    slow_edit: (usize, Duration),
    /// Refused.
    refused_edit: Option<usize>,
    /// Before the first token, and between the others.
    token: Duration,
    edits: Mutex<usize>,
    tenants: Mutex<Vec<String>>,
    leak: u32,
}

#[tonic::async_trait]
impl Service for Fake {
    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> RpcResult<v1::OpenSessionResponse> {
        let tenant =
            request.metadata().get("pie-tenant").map(|name| name.to_str().expect("ASCII").to_owned());
        self.tenants.lock().expect("no panic").extend(tenant);
        let v1::OpenSessionRequest { session, content, .. } = request.into_inner();
        let Some(v1::open_session_request::Content::Text(text)) = content else { panic!("no text") };
        let mut documents = self.documents.lock().expect("no panic");
        let document =
            documents.entry(session.clone()).or_insert_with(|| watch::channel((0, String::new())).0);
        document.send_modify(|held| *held = (held.0 + 1, text));
        let revision = document.borrow().0;
        Ok(Response::new(v1::OpenSessionResponse { session, revision, ..Default::default() }))
    }

    async fn apply_edits(
        &self,
        request: Request<v1::ApplyEditsRequest>,
    ) -> RpcResult<v1::ApplyEditsResponse> {
        let request = request.into_inner();
        let number = {
            let mut edits = self.edits.lock().expect("no panic");
            *edits += 1;
            *edits
        };
        if self.refused_edit == Some(number) {
            return Err(Fault::new(Reason::Overloaded, "the queue is full").into());
        }
        if number == self.slow_edit.0 {
            tokio::time::sleep(self.slow_edit.1).await;
        }
        let documents = self.documents.lock().expect("no panic");
        let document = documents.get(&request.session).expect("an open document");
        assert_eq!(document.borrow().0, request.base_revision, "edits come in order, each on the one before");
        let Some(v1::apply_edits_request::Edits::Text(edits)) = request.edits else { panic!("no text") };
        document.send_modify(|(revision, text)| {
            for edit in edits.edits.iter().rev() {
                let Some(v1::text_edit::Range::Bytes(range)) = &edit.range else { panic!("no bytes") };
                text.replace_range(range.start as usize..range.end as usize, &edit.text);
            }
            *revision += 1;
        });
        let revision = document.borrow().0;
        Ok(Response::new(v1::ApplyEditsResponse { revision, tokens_inserted: 1, ..Default::default() }))
    }

    type CompleteStream = Pin<Box<dyn Stream<Item = Result<v1::CompleteResponse, Status>> + Send>>;

    async fn complete(&self, request: Request<v1::CompleteRequest>) -> RpcResult<Self::CompleteStream> {
        let request = request.into_inner();
        let mut held =
            self.documents.lock().expect("no panic").get(&request.session).expect("open").subscribe();
        let revision = held.borrow_and_update().0;
        assert_eq!(request.revision, Some(revision));
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let (time, tokens) = (self.token, request.max_tokens);
        tokio::spawn(async move {
            for index in 0..tokens {
                let edited = tokio::select! {
                    biased;
                    () = tokio::time::sleep(time) => false,
                    _ = held.changed() => true,
                };
                let mut message = v1::CompleteResponse { revision, ..Default::default() };
                if edited {
                    message.set_finish_reason(v1::FinishReason::Edited);
                } else {
                    message.text_delta = "ab".to_owned();
                    message.tokens = vec![v1::CompletedToken::default()];
                    let timings =
                        v1::Timings { first_token_us: 20_000, compute_us: 5_000, ..Default::default() };
                    message.timings = (index == 0).then_some(timings);
                    if index + 1 == tokens {
                        message.set_finish_reason(v1::FinishReason::Length);
                    }
                }
                if sender.send(Ok(message)).await.is_err() || edited {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> RpcResult<v1::GetSessionResponse> {
        let documents = self.documents.lock().expect("no panic");
        let text = documents.get(&request.into_inner().session).expect("open").borrow().1.clone();
        Ok(Response::new(v1::GetSessionResponse { text: Some(text), ..Default::default() }))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> RpcResult<v1::CloseSessionResponse> {
        self.documents.lock().expect("no panic").remove(&request.into_inner().session).expect("open");
        Ok(Response::new(v1::CloseSessionResponse {}))
    }

    async fn list_sessions(
        &self,
        _: Request<v1::ListSessionsRequest>,
    ) -> RpcResult<v1::ListSessionsResponse> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn describe_pool(
        &self,
        _: Request<v1::DescribePoolRequest>,
    ) -> RpcResult<v1::DescribePoolResponse> {
        let sessions = self.documents.lock().expect("no panic").len() as u32;
        let group =
            v1::Group { slots_total: 100, slots_free: 100 - self.leak, sessions, ..Default::default() };
        Ok(Response::new(v1::DescribePoolResponse { groups: vec![group], ..Default::default() }))
    }
}

/// A pool in memory: there is no socket that paused time would not wait for.
fn serve(fake: Arc<Fake>) -> Pool {
    let (ends, incoming) = tokio::sync::mpsc::channel::<Result<tokio::io::DuplexStream, std::io::Error>>(4);
    tokio::spawn(
        Server::builder()
            .add_service(PoolServer::from_arc(fake))
            .serve_with_incoming(ReceiverStream::new(incoming)),
    );
    let connect = tower::service_fn(move |_: Uri| {
        let ends = ends.clone();
        async move {
            let (mine, theirs) = tokio::io::duplex(1 << 16);
            ends.send(Ok(theirs)).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(mine))
        }
    });
    Pool::over(Endpoint::from_static("http://fake").connect_with_connector_lazy(connect))
}

fn options(millis: u64) -> Options {
    Options {
        sessions: 1,
        tempo: Tempo::Speed(1.0),
        warmup: Duration::ZERO,
        duration: Duration::from_millis(millis),
        drain: Duration::from_secs(10),
        tokens: 4,
        limit: Duration::from_millis(50),
        asking: CompletionTrigger::AsWritten,
        place: None,
        mode: None,
        strategy: v1::Strategy::Pie,
        compare: true,
        process: None,
    }
}

async fn played(fake: Arc<Fake>, options: &Options, script: &str) -> LoadReport {
    let lines = parse(&format!("{{\"pie_load_script\":1}}\n{script}")).expect("a script");
    let source = EditStreamSource::Script(Arc::new(compile(&lines).expect("it can be played")));
    let target = LoadTarget::Pool(vec![serve(fake).as_tenant("somebody").expect("a name")]);
    run(options, &source, &target, &mut |_| {}).await.expect("a run")
}

fn close(report: &LoadReport, metric: Metric, quantile: fn(&pie_load::report::Latency) -> f64, millis: f64) {
    let got = quantile(report.latency(metric).expect("it was measured"));
    assert!((got - millis).abs() <= 2.0 + millis * 0.002, "{}: {got} ms, not {millis}", metric.name());
}

/// Ten keys, 100 ms apart; the third takes 1050 ms.
const KEYS: &str = "{\"open\":{\"text\":\"x\"}}\n{\"type\":{\"text\":\"0123456789\",\"key_ms\":100}}\n{\"pause\":{\"ms\":5000}}\n";

#[tokio::test(start_paused = true)]
async fn a_server_that_stalls_is_measured_from_when_each_edit_was_due() {
    let fake = Fake { slow_edit: (3, Duration::from_millis(1050)), ..Default::default() };
    let report = played(Arc::new(fake), &options(2000), KEYS).await;
    assert_eq!((report.edits.sent, report.edits.acknowledged, report.edits.unsent), (10, 10, 0));
    // A client that waits before it measures would have seen one slow edit. Here those behind it are late too: by
    // 950, 850, … 350 ms; two came before it.
    close(&report, Metric::EditAck, |latency| latency.max, 1050.0);
    close(&report, Metric::EditAck, |latency| latency.p50, 550.0);
    close(&report, Metric::EditAck, |latency| latency.p90, 950.0);
    close(&report, Metric::SendDelay, |latency| latency.max, 950.0);
    close(
        &report,
        Metric::EditAck,
        |latency| latency.mean,
        (1050.0 + 950.0 + 850.0 + 750.0 + 650.0 + 550.0 + 450.0 + 350.0) / 10.0,
    );
    assert_eq!(report.faults(&[]), Vec::<String>::new());
    assert_eq!((report.compared.equal, report.facts.edits_offered_per_second), (1, 5.0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_ends_the_run_and_is_told() {
    let fake = Fake { slow_edit: (3, Duration::from_secs(1000)), ..Default::default() };
    let started = tokio::time::Instant::now();
    let options = Options { drain: Duration::from_secs(1), ..options(2000) };
    let report = played(Arc::new(fake), &options, KEYS).await;
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert_eq!((report.edits.acknowledged, report.edits.unsent), (2, 8));
    assert!(report.faults(&[]).iter().any(|fault| fault.contains("never sent")), "{:?}", report.faults(&[]));
}

#[tokio::test(start_paused = true)]
async fn completions_are_counted_by_how_they_end() {
    // Tokens come every 30 ms. The first ask is overtaken by an edit before its first token, the second after it, the
    // third ends; then two characters of it are typed, and the rest of it is taken whole.
    let script = r#"{"open":{"text":"x"}}
{"type":{"text":"a"}}
{"complete":{}}
{"at_ms":10,"type":{"text":"b"}}
{"complete":{}}
{"at_ms":60,"type":{"text":"c"}}
{"complete":{}}
{"at_ms":500,"accept":{"typed":{"chars":2,"key_ms":50}}}
{"accept":"whole"}
{"accept":"whole"}
{"pause":{"ms":5000}}
"#;
    let fake = Arc::new(Fake { token: Duration::from_millis(30), ..Default::default() });
    let report = played(fake.clone(), &options(650), script).await;
    let counts = &report.completions;
    assert_eq!((counts.asked, counts.answered, counts.finished), (3, 2, 1), "{counts:?}");
    assert_eq!(
        (counts.superseded_unanswered, counts.superseded_answered, counts.failed),
        (1, 1, 0),
        "{counts:?}"
    );
    assert_eq!((counts.accepted, counts.nothing_to_accept, counts.within_limit), (3, 1, 2), "{counts:?}");
    close(&report, Metric::EditToFirstToken, |latency| latency.p50, 30.0);
    close(&report, Metric::InterToken, |latency| latency.p50, 30.0);
    close(&report, Metric::EndToEnd, |latency| latency.max, 120.0);
    close(&report, Metric::OutsideServer, |latency| latency.p50, 10.0);
    close(&report, Metric::ServerBesideSteps, |latency| latency.p50, 15.0);
    assert_eq!((report.tokens.generated, report.edits.acknowledged, report.compared.equal), (5, 6, 1));
    assert_eq!(report.errors.len(), 0, "{:?}", report.errors);
    assert!(fake.tenants.lock().expect("no panic").iter().all(|tenant| tenant == "somebody"));
}

#[tokio::test(start_paused = true)]
async fn a_storm_drops_every_completion_but_the_last() {
    let fake = Fake { token: Duration::from_millis(150), ..Default::default() };
    let options = Options { asking: CompletionTrigger::EveryKeystroke, ..options(2000) };
    let report = played(Arc::new(fake), &options, KEYS).await;
    let counts = &report.completions;
    assert_eq!((counts.asked, counts.cancelled_unanswered, counts.answered), (10, 9, 1), "{counts:?}");
    // They had waited 100 ms, and 50 is the limit: none of it is good.
    assert_eq!((counts.given_up_late, counts.within_limit, counts.failed), (9, 0, 0), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_edit_is_an_error_and_the_next_one_brings_the_text_back() {
    let fake = Fake { refused_edit: Some(4), leak: 7, ..Default::default() };
    let report = played(Arc::new(fake), &options(2000), KEYS).await;
    assert_eq!((report.edits.sent, report.edits.acknowledged, report.edits.resynced), (10, 9, 1));
    assert_eq!((report.errors["OVERLOADED"].count, report.compared.equal), (1, 1));
    let faults = report.faults(&[]);
    assert!(
        faults.len() == 2 && faults[0].contains("1 times OVERLOADED") && faults[1].contains("7 KV slots"),
        "{faults:?}"
    );
    assert_eq!(report.faults(&["OVERLOADED".to_owned()]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cut_short_closes_what_it_opened_and_says_what_it_saw() {
    // Before anything is measured, in the middle of a call that takes a second, and between two keys.
    for (after, measured) in [(0, None), (250, Some(0.25)), (1900, Some(1.9))] {
        let fake =
            Arc::new(Fake { slow_edit: (3, Duration::from_millis(1050)), leak: 7, ..Default::default() });
        // Somebody else's: its slots are no business of the run.
        let other = watch::channel((0, String::new())).0;
        fake.documents.lock().expect("no panic").insert("another's".to_owned(), other);
        let lines = parse(&format!("{{\"pie_load_script\":1}}\n{KEYS}")).expect("a script");
        let source = EditStreamSource::Script(Arc::new(compile(&lines).expect("it can be played")));
        let target = LoadTarget::Pool(vec![serve(fake.clone())]);
        let (stopper, stop) = Stop::new();
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(after)).await;
            assert!(stopper.stop() && !stopper.stop(), "the first counts");
        };
        let (options, begun) = (Options { sessions: 3, ..options(5000) }, tokio::time::Instant::now());
        let mut watched = |_: &RunSnapshot| {};
        let (ended, ()) = tokio::join!(run_until(&options, &source, &target, &mut watched, stop), stopping);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let left: Vec<_> = fake.documents.lock().expect("no panic").keys().cloned().collect();
        assert_eq!(left, ["another's"], "stopped after {after} ms");
        match (ended, measured) {
            (Err(LoadError::Interrupted), None) => {}
            (Ok(report), Some(measured)) => {
                assert!(report.facts.interrupted && report.facts.duration_s <= measured + 0.01);
                assert_eq!(report.faults(&[]), Vec::<String>::new());
                assert!(report::text(&report).contains("cut short"));
            }
            (ended, _) => panic!("stopped after {after} ms: {ended:?}"),
        }
    }
}
