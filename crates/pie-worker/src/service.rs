//! The gRPC shell of a rank: `pie.worker.v1`.

use crate::engine::{Engine, Formation, RankFacts};
use crate::error::WorkerError;
use crate::keeper::{Answers, FenceAttempt, SharedLedger};
use crate::rank::StepReport;
use crate::span::StepSpan;
use pie_comm::Member;
use pie_plan::takeover::{Activity, RankSurvey, TablesAt};
use pie_proto::plan::{Report, Step};
use pie_proto::worker_v1 as wire;
use pie_proto::worker_v1::worker_server::Worker;
use pie_words::{Epoch, Seq, SessionId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

/// Reports that may wait for the owner; it has one plan in flight.
const REPORTS: usize = 64;

/// Passes that may wait to be reported, at most.
const TOKENS: usize = 65_536;

/// Who surveys a rank waits so long for a plan to end; a longer one waits for something itself.
const PLAN_ENDS: Duration = Duration::from_millis(300);

/// The service of one rank.
pub struct RankService {
    engine: Engine,
    facts: RankFacts,
    member: Member,
    collective_address: String,
    keeper: SharedLedger,
    latest: LatestPlan,
}

impl RankService {
    /// A shell around an engine; peers reach the rank's collectives at `collective_address` (host:port).
    pub fn new(engine: Engine, facts: RankFacts, member: Member, collective_address: String) -> Self {
        let (keeper, latest) = (SharedLedger::default(), LatestPlan::default());
        Self { engine, facts, member, collective_address, keeper, latest }
    }
}

#[tonic::async_trait]
impl Worker for RankService {
    async fn describe(
        &self,
        _request: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeResponse>, Status> {
        let facts = self.facts.clone();
        Ok(Response::new(wire::DescribeResponse {
            rank: self.member.rank().0,
            world_size: self.member.world_size().get(),
            collective_address: self.collective_address.clone(),
            slots: facts.slots,
            weight_bytes: facts.weight_bytes,
            kv_bytes: facts.kv_bytes,
            device: facts.device,
            model_fingerprint: facts.fingerprint,
            model: facts.model,
            parameters: facts.parameters,
            context_limit: facts.context_limit,
            vocabulary: facts.vocabulary,
            end_of_text: facts.end_of_text,
            pid: std::process::id(),
            latest_epoch: self.engine.stats().latest_epoch(),
            spills: self.engine.blocks().is_some(),
        }))
    }

    async fn form(
        &self,
        request: Request<wire::FormRequest>,
    ) -> Result<Response<wire::FormResponse>, Status> {
        let request = request.into_inner();
        let formation = Formation {
            epoch: Epoch(request.epoch),
            peers: request.peers,
            deadline: Duration::from_millis(u64::from(request.deadline_ms)),
            slots: request.slots.min(self.facts.slots),
            goes_on_from: Some(Epoch(request.goes_on_from)).filter(|epoch| epoch.0 > 0),
        };
        let rank = self.member.rank().0;
        tracing::info!(rank, epoch = request.epoch, peers = formation.peers.len(), "forming the group");
        self.engine.form(formation).await?;
        Ok(Response::new(wire::FormResponse {}))
    }

    async fn survey(
        &self,
        request: Request<wire::SurveyRequest>,
    ) -> Result<Response<wire::SurveyResponse>, Status> {
        let request = request.into_inner();
        let epoch = Epoch(request.epoch);
        let look = if request.again { FenceAttempt::Again } else { FenceAttempt::First };
        let ledger = self.keeper.fence(epoch, look)?;
        self.engine.fence(epoch);
        let tables = match tokio::time::timeout(PLAN_ENDS, self.engine.stand()).await {
            Ok(standing) => standing?,
            Err(_) => self.latest.busy(self.facts.slots),
        };
        let answer = RankSurvey { ledger, tables };
        tracing::info!(
            rank = self.member.rank().0,
            epoch = epoch.0,
            ?answer,
            "a new owner asks what there is"
        );
        Ok(Response::new(answer.into()))
    }

    async fn latest_plan(
        &self,
        request: Request<wire::LatestPlanRequest>,
    ) -> Result<Response<wire::Plan>, Status> {
        self.keeper.check(Epoch(request.into_inner().epoch))?;
        let plan = self.latest.plan().ok_or(WorkerError::NotFormed)?;
        Ok(Response::new(plan.as_ref().clone()))
    }

    async fn level(
        &self,
        request: Request<wire::LevelRequest>,
    ) -> Result<Response<wire::LevelResponse>, Status> {
        let request = request.into_inner();
        let epoch = Epoch(request.epoch);
        self.keeper.check(epoch)?;
        let plan = request.plan.ok_or_else(|| Status::invalid_argument("no plan"))?;
        self.latest.begins(&plan);
        let step = Step::try_from(plan)?;
        let (of, seq) = (step.plan.epoch.0, step.plan.seq.0);
        tracing::info!(
            rank = self.member.rank().0,
            epoch = of,
            seq,
            "a plan that other ranks have is caught up with"
        );
        let report = self.engine.level(step, epoch).await;
        self.latest.ended();
        report?;
        Ok(Response::new(wire::LevelResponse {}))
    }

    type TablesStream = ReceiverStream<Result<wire::Table, Status>>;

    async fn tables(
        &self,
        request: Request<wire::TablesRequest>,
    ) -> Result<Response<Self::TablesStream>, Status> {
        self.keeper.check(Epoch(request.into_inner().epoch))?;
        let tables = self.engine.tables().await?;
        Ok(Response::new(streamed(tables.into_iter().map(|table| Ok(table.into())))))
    }

    type RecallStream = ReceiverStream<Result<wire::RecallResponse, Status>>;

    async fn recall(
        &self,
        request: Request<wire::RecallRequest>,
    ) -> Result<Response<Self::RecallStream>, Status> {
        let memos = self.keeper.recall(Epoch(request.into_inner().epoch))?;
        Ok(Response::new(streamed(memos)))
    }

    type KeepStream = Answers;

    async fn keep(
        &self,
        request: Request<Streaming<wire::KeepRequest>>,
    ) -> Result<Response<Self::KeepStream>, Status> {
        Ok(Response::new(self.keeper.clone().follow(request.into_inner())))
    }

    type DriveStream = ReceiverStream<Result<wire::Report, Status>>;

    async fn drive(
        &self,
        request: Request<Streaming<wire::Order>>,
    ) -> Result<Response<Self::DriveStream>, Status> {
        let (reports, stream) = mpsc::channel(REPORTS);
        let drive = Drive { engine: self.engine.clone(), member: self.member, latest: self.latest.clone() };
        tokio::spawn(drive.run(request.into_inner(), reports));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn read_keys(
        &self,
        request: Request<wire::ReadKeysRequest>,
    ) -> Result<Response<wire::ReadKeysResponse>, Status> {
        let request = request.into_inner();
        let rows = self.engine.read(SessionId(request.session), request.layer as usize).await?;
        Ok(Response::new(wire::ReadKeysResponse {
            keys: rows.keys,
            values: if request.values { rows.values } else { Vec::new() },
            rotated_for: rows.rotated_for.into_iter().map(|position| position.unwrap_or(u32::MAX)).collect(),
        }))
    }
}

type ReportSender = mpsc::Sender<Result<wire::Report, Status>>;

/// Sends messages one by one, as fast as they are read.
fn streamed<T: Send + 'static>(
    messages: impl Iterator<Item = Result<T, Status>> + Send + 'static,
) -> ReceiverStream<Result<T, Status>> {
    let (sender, stream) = mpsc::channel(REPORTS);
    tokio::spawn(async move {
        for message in messages {
            // Whoever asked has gone.
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

/// The plan that the rank was given last: another one may lack it when its owner dies. Shared by those who give plans and those
/// who ask.
#[derive(Clone, Default)]
struct LatestPlan(Arc<Mutex<PlanStatus>>);

#[derive(Default)]
struct PlanStatus {
    plan: Option<Arc<wire::Plan>>,
    is_running: bool,
}

impl LatestPlan {
    fn begins(&self, plan: &wire::Plan) {
        let given = PlanStatus { plan: Some(Arc::new(plan.clone())), is_running: true };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = given;
    }

    fn ended(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_running = false;
    }

    fn plan(&self) -> Option<Arc<wire::Plan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).plan.clone()
    }

    /// Where a rank stands that is at work on a plan.
    fn busy(&self, slots: u32) -> Option<TablesAt> {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = given.plan.as_ref().filter(|_| given.is_running)?;
        let applied = Seq(plan.seq.saturating_sub(1));
        Some(TablesAt { epoch: Epoch(plan.epoch), applied, slots, activity: Activity::Busy })
    }
}

/// One owner's stream of plans.
struct Drive {
    engine: Engine,
    member: Member,
    latest: LatestPlan,
}

impl Drive {
    async fn run(self, mut orders: Streaming<wire::Order>, reports: ReportSender) {
        let (mut epoch, mut early) = (None, VecDeque::new());
        loop {
            let plan = match early.pop_front() {
                Some(plan) => plan,
                None => match orders.message().await {
                    Ok(Some(wire::Order { kind: Some(wire::order::Kind::Plan(plan)) })) => plan,
                    // An interrupt that comes after its plan's end is late, and no matter.
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => break,
                },
            };
            epoch = Some(Epoch(plan.epoch));
            let (number, seq) = (plan.epoch, plan.seq);
            let answer = self.step(plan, &mut orders, &mut early, &reports).await;
            if let Err(status) = &answer {
                let rank = self.member.rank().0;
                match status.code() {
                    // Its sender does not know yet that another owner came after it.
                    Code::FailedPrecondition => {
                        tracing::warn!(rank, epoch = number, seq, %status, "a plan of another epoch is refused");
                    }
                    _ => {
                        tracing::error!(rank, epoch = number, seq, %status, "the epoch is over on this rank")
                    }
                }
            }
            let failed = answer.is_err();
            if reports.send(answer).await.is_err() || failed {
                break;
            }
        }
        if let Some(epoch) = epoch {
            self.engine.leave(epoch).await;
        }
    }

    /// One plan: passes are reported as they come, and the owner may end it early. The owner goes by rank 0, so the next plan
    /// may come before this rank is done with the one in hand.
    async fn step(
        &self,
        mut plan: wire::Plan,
        orders: &mut Streaming<wire::Order>,
        early: &mut VecDeque<wire::Plan>,
        reports: &ReportSender,
    ) -> Result<wire::Report, Status> {
        let span = StepSpan::begin(self.member.rank(), &mut plan);
        self.latest.begins(&plan);
        let step = Step::try_from(plan)?;
        let (epoch, seq) = (step.plan.epoch, step.plan.seq);
        // A pass each, if each token that is drawn came in one of its own.
        let tokens = (step.plan.passes.max(1) as usize).saturating_mul(step.sampling.len().max(1));
        let (sender, mut passes) = mpsc::channel(tokens.min(TOKENS));
        let running = self.engine.step(step, sender);
        tokio::pin!(running);
        let (mut reported, mut listening) = (0, true);
        let report = loop {
            tokio::select! {
                biased;
                order = orders.message(), if listening => match order {
                    Ok(Some(wire::Order { kind: Some(wire::order::Kind::Interrupt(interrupt)) })) => {
                        self.engine.interrupt(epoch, Seq(interrupt.seq));
                    }
                    Ok(Some(wire::Order { kind: Some(wire::order::Kind::Plan(plan)) })) => early.push_back(plan),
                    Ok(Some(wire::Order { kind: None })) => {}
                    // The owner is gone: the loop of `run` will see it too.
                    Ok(None) | Err(_) => {
                        self.engine.interrupt(epoch, seq);
                        listening = false;
                    }
                },
                Some(sampled) = passes.recv() => if self.reports_tokens() {
                    reported += 1;
                    let report = Report { seq, passes: vec![sampled], ..Report::default() };
                    // Whoever does not listen any more is seen when the last report is sent.
                    let _ = reports.send(Ok(wire::Report { epoch: epoch.0, ..report.into() })).await;
                },
                report = &mut running => break report,
            }
        };
        self.latest.ended();
        if let Some(span) = span {
            span.end(&report);
        }
        let report = report?;
        Ok(self.report(epoch, seq, report, reported))
    }

    fn reports_tokens(&self) -> bool {
        self.member.rank().0 == 0
    }

    /// The last report of a plan, with the passes that are not reported yet.
    fn report(&self, epoch: Epoch, seq: Seq, report: StepReport, reported: usize) -> wire::Report {
        let passes = report.passes.into_iter().skip(reported);
        let report = Report {
            seq,
            passes: if self.reports_tokens() { passes.collect() } else { Vec::new() },
            digest: report.digest,
            sampled_digest: report.sampled_digest,
            compute_us: micros(report.compute),
            collective_us: micros(report.collective),
            is_done: true,
            refused: report.refused,
            is_given_up: report.is_given_up,
            forwards: report.forwards,
            speculated: report.speculated,
            reloaded: report.reloaded,
        };
        wire::Report { epoch: epoch.0, ..report.into() }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
