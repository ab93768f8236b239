//! The gRPC shell of a rank: `pie.worker.v1`.

use crate::engine::{Engine, Formation, RankFacts};
use crate::rank::{SampledToken, StepReport};
use pie_comm::Member;
use pie_plan::{Epoch, Seq, SessionId};
use pie_proto::plan::Step;
use pie_proto::worker_v1 as wire;
use pie_proto::worker_v1::worker_server::Worker;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Reports that may wait for the owner; it has one plan in flight.
const REPORTS: usize = 4;

/// The service of one rank.
pub struct RankService {
    engine: Engine,
    facts: RankFacts,
    member: Member,
    collective_address: String,
}

impl RankService {
    /// A shell around an engine; peers reach the rank's collectives at `collective_address` (host:port).
    pub fn new(engine: Engine, facts: RankFacts, member: Member, collective_address: String) -> Self {
        Self { engine, facts, member, collective_address }
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
        };
        tracing::info!(epoch = request.epoch, peers = formation.peers.len(), "forming the group");
        self.engine.form(formation).await?;
        Ok(Response::new(wire::FormResponse {}))
    }

    type DriveStream = ReceiverStream<Result<wire::Report, Status>>;

    async fn drive(
        &self,
        request: Request<Streaming<wire::Plan>>,
    ) -> Result<Response<Self::DriveStream>, Status> {
        let (reports, stream) = mpsc::channel(REPORTS);
        let drive = Drive { engine: self.engine.clone(), member: self.member };
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

/// One owner's stream of plans.
struct Drive {
    engine: Engine,
    member: Member,
}

impl Drive {
    async fn run(
        self,
        mut plans: Streaming<wire::Plan>,
        reports: mpsc::Sender<Result<wire::Report, Status>>,
    ) {
        let mut epoch = None;
        while let Ok(Some(plan)) = plans.message().await {
            epoch = Some(Epoch(plan.epoch));
            let answer = self.step(plan).await;
            if let Err(status) = &answer {
                tracing::error!(rank = self.member.rank().0, %status, "the epoch is over on this rank");
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

    async fn step(&self, plan: wire::Plan) -> Result<wire::Report, Status> {
        let step = Step::try_from(plan)?;
        let (epoch, seq) = (step.plan.epoch, step.plan.seq);
        let report = self.engine.step(step).await?;
        Ok(self.report(epoch, seq, report))
    }

    fn report(&self, epoch: Epoch, seq: Seq, report: StepReport) -> wire::Report {
        let reports_tokens = self.member.rank().0 == 0;
        let passes = if reports_tokens { report.passes.into_iter().map(pass).collect() } else { Vec::new() };
        wire::Report {
            epoch: epoch.0,
            seq: seq.0,
            passes,
            digest: report.digest,
            sampled_digest: report.sampled_digest,
            compute_us: micros(report.compute),
            collective_us: micros(report.collective),
        }
    }
}

fn pass(sampled: Vec<SampledToken>) -> wire::Pass {
    let candidate = |(token, logprob): (pie_plan::TokenId, f32)| wire::Candidate { token: token.0, logprob };
    let one = |sampled: SampledToken| wire::Sampled {
        session: sampled.session.0,
        token: sampled.token.0,
        logprob: sampled.logprob,
        top: sampled.top.into_iter().map(candidate).collect(),
    };
    wire::Pass { sampled: sampled.into_iter().map(one).collect() }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
