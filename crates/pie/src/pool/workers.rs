//! The worker processes of a pool on this machine: started, minded, ended.

use crate::budget::MemoryBudget;
use crate::cli::{PoolArgs, RankArgs};
use crate::observe::{LogArgs, TraceArgs};
use crate::{Failure, device, progress};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pie_placement::GroupId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;

/// A worker loads its slice of the weights in this time.
const START_LIMIT: Duration = Duration::from_secs(300);
/// What is wrong with one worker is wrong with others, which say so within this time.
const OTHERS: Duration = Duration::from_secs(1);
/// A worker that is to end in order does so in this time.
const GRACE: Duration = Duration::from_secs(5);

/// The one line that a supervised worker prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerSays {
    /// It answers.
    Ready(WorkerReady),
    /// It ends, and why.
    Failed(String),
}

/// What a worker is.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerReady {
    /// The group that it is a rank of.
    pub group: String,
    /// Its index in that.
    pub rank: u32,
    /// The process's id.
    pub pid: u32,
    /// The address of its gRPC port, which the router calls.
    pub control: String,
    /// Of the model: equal on ranks that hold slices of one.
    pub fingerprint: String,
    /// What its memory is for.
    pub budget: MemoryBudget,
}

/// What a worker is told. When nobody can tell it anything any more it ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It is ended, whatever it does.
    EndNow,
}

/// Workers that were started. They end when this is dropped, in order while this process runs, and with it at once.
pub struct Workers {
    starting: Vec<WorkerStartTask>,
    /// Who died, and how.
    pub deaths: mpsc::Receiver<String>,
    /// One of each worker.
    pub lifelines: Vec<mpsc::Sender<Order>>,
}

type WorkerStartTask = tokio::task::JoinHandle<Result<WorkerReady, NotStarted>>;

/// A worker that does not start.
#[derive(Debug)]
struct NotStarted {
    rank: u32,
    /// Its own words, if it had time for any.
    why: Option<String>,
}

impl Workers {
    /// Starts them all.
    pub fn start(
        arguments: &PoolArgs,
        groups: &[GroupId],
        model: &Path,
        log: &LogArgs,
    ) -> Result<Self, Failure> {
        let world_size = arguments.group.ranks();
        let ranks = world_size * u32::try_from(groups.len())?;
        let spawn = Spawn { arguments, ranks, model, log };
        let (told, deaths) = mpsc::channel(ranks as usize);
        let mut started = Self { starting: Vec::new(), deaths, lifelines: Vec::new() };
        for (number, group) in (0..).zip(groups) {
            for rank in 0..world_size {
                let place = Assignment { group, rank, machine: number * world_size + rank };
                let (lifeline, ready) = spawn.worker(&place, told.clone())?;
                started.lifelines.push(lifeline);
                started.starting.push(ready);
            }
        }
        Ok(started)
    }

    /// Waits until all answer.
    ///
    /// # Errors
    /// Why some do not: once, where it is the same for all.
    pub async fn ready(&mut self) -> Result<Vec<WorkerReady>, Failure> {
        let count = self.starting.len();
        let bar = progress::count("loading the ranks", count);
        let mut starting: FuturesUnordered<WorkerStartTask> =
            std::mem::take(&mut self.starting).into_iter().collect();
        let (mut workers, mut failed) = (Vec::new(), Vec::new());
        while let Some(ready) = starting.next().await {
            match ready? {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    failed.push(error);
                    break;
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if failed.is_empty() {
            workers.sort_by(|a, b| (&a.group, a.rank).cmp(&(&b.group, b.rank)));
            return Ok(workers);
        }
        let others = async {
            while let Some(ready) = starting.next().await {
                failed.extend(ready.ok().and_then(Result::err));
            }
        };
        // Whoever is slower has nothing else to say.
        let _ = tokio::time::timeout(OTHERS, others).await;
        match reasons(count, &failed) {
            Some(reasons) => Err(reasons.into()),
            None => Err(self.death().await.into()),
        }
    }

    /// Of one that ended without a word.
    async fn death(&mut self) -> String {
        let death = tokio::time::timeout(OTHERS, self.deaths.recv()).await.ok().flatten();
        death.unwrap_or_else(|| "a worker ended before it was ready".to_owned())
    }
}

/// Why workers do not start: each reason once.
fn reasons(count: usize, failed: &[NotStarted]) -> Option<String> {
    let mut ranks: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for NotStarted { rank, why } in failed {
        if let Some(why) = why {
            ranks.entry(why).or_default().push(*rank);
        }
    }
    let said = ranks.into_iter().map(|(why, ranks)| match ranks.as_slice() {
        [rank] => format!("rank {rank} does not start: {why}"),
        all if all.len() == count => format!("none of the {count} ranks starts: {why}"),
        some => {
            let some = some.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            format!("ranks {some} do not start: {why}")
        }
    });
    let said = said.collect::<Vec<_>>().join("; ");
    (!said.is_empty()).then_some(said)
}

/// Which rank a worker is to be.
struct Assignment<'a> {
    group: &'a GroupId,
    rank: u32,
    /// Its index among all ranks of this machine: of its GPU.
    machine: u32,
}

struct Spawn<'a> {
    arguments: &'a PoolArgs,
    /// Workers of all groups together.
    ranks: u32,
    model: &'a Path,
    log: &'a LogArgs,
}

/// A value as the command line has it.
fn name_of(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Spawn<'_> {
    /// Starts one worker and the task that minds it.
    fn worker(
        &self,
        place: &Assignment<'_>,
        deaths: mpsc::Sender<String>,
    ) -> Result<(mpsc::Sender<Order>, WorkerStartTask), Failure> {
        let rank = place.rank;
        let mut child =
            self.command(place)?.spawn().map_err(|error| format!("cannot start rank {rank}: {error}"))?;
        let stdout = child.stdout.take().ok_or("the worker's standard output is not piped")?;
        let (lifeline, orders) = mpsc::channel(1);
        let ready = tokio::spawn(async move {
            let failed = |why| NotStarted { rank, why };
            match tokio::time::timeout(START_LIMIT, first_line(stdout)).await {
                Err(_) => {
                    let limit = humantime::format_duration(START_LIMIT);
                    Err(failed(Some(format!("it was not ready within {limit}"))))
                }
                Ok(None) => Err(failed(None)),
                Ok(Some(line)) => match serde_json::from_str(&line) {
                    Ok(WorkerSays::Ready(worker)) => Ok(worker),
                    Ok(WorkerSays::Failed(why)) => Err(failed(Some(why))),
                    Err(error) => Err(failed(Some(format!("it said `{line}`: {error}")))),
                },
            }
        });
        tokio::spawn(mind(rank, child, orders, deaths));
        Ok((lifeline, ready))
    }

    fn command(&self, place: &Assignment<'_>) -> Result<Command, Failure> {
        let PoolArgs { group, rank: arguments, serve, .. } = self.arguments;
        let RankArgs { device, dtype, kv_dtype, collectives, kv_memory, kv_spill, kv_spill_size, threads } =
            device::of_rank(place.machine, self.ranks, arguments)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { (cores / self.ranks as usize).max(1) } else { threads };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(self.log.flags())
            .args(["worker", "--supervised"])
            .args(["--rank", &place.rank.to_string(), "--world-size", &group.ranks().to_string()])
            .args(["--group", place.group.as_str(), "--device", &device.to_string()])
            .args(["--dtype", &name_of(dtype), "--kv-dtype", &name_of(kv_dtype)])
            .args(["--collectives", &name_of(collectives)])
            .args(["--threads", &threads.to_string()])
            .arg("--model")
            .arg(self.model)
            // The matrix products size their thread pool by this.
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env_remove("PIE_CONFIG")
            // Of the pool; a worker has one group, and one address is for one process.
            .env_remove("PIE_GROUP")
            .env_remove("PIE_METRICS_LISTEN")
            .env_remove("PIE_INTERNAL_CERT")
            .env_remove("PIE_INTERNAL_KEY")
            .env_remove("PIE_INTERNAL_CA")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C is for the pool, which then stops its workers in order.
            .process_group(0);
        let TraceArgs { otlp, trace_sample } = &serve.platform.traces;
        if let Some(otlp) = otlp {
            command.args(["--otlp", otlp, "--trace-sample", &trace_sample.to_string()]);
        }
        if let Some(kv_memory) = kv_memory {
            command.args(["--kv-memory", &kv_memory.to_string()]);
        }
        if let Some(kv_spill) = kv_spill {
            command.arg("--kv-spill").arg(kv_spill).args(["--kv-spill-size", &kv_spill_size.to_string()]);
        }
        command.args(group.placement.flags());
        Ok(command)
    }
}

async fn first_line(stdout: ChildStdout) -> Option<String> {
    BufReader::new(stdout).lines().next_line().await.ok().flatten()
}

/// Waits for a worker's end, or ends it when that is ordered, or when its lifeline is dropped.
async fn mind(rank: u32, mut child: Child, mut orders: mpsc::Receiver<Order>, deaths: mpsc::Sender<String>) {
    let pid = child.id().unwrap_or(0);
    // Taken out, since waiting for a child closes the input that it still holds.
    let input = child.stdin.take();
    tokio::select! {
        status = child.wait() => {
            let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            let _ = deaths.send(format!("rank {rank} (process {pid}) died: {how}")).await;
        }
        order = orders.recv() => {
            drop(input);
            let grace = if order == Some(Order::EndNow) { Duration::ZERO } else { GRACE };
            if tokio::time::timeout(grace, child.wait()).await.is_err() {
                // Stopped or stuck: it had its chance.
                let _ = child.kill().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once() {
        let failed = |rank, why: &str| NotStarted { rank, why: Some(why.to_owned()) };
        let full = "the disk is full";
        let cases = [
            (
                vec![failed(0, full), failed(1, full), failed(2, full)],
                Some("none of the 3 ranks starts: the disk is full"),
            ),
            (vec![failed(2, full), failed(0, full)], Some("ranks 2, 0 do not start: the disk is full")),
            (
                vec![failed(1, full), failed(0, "a typo")],
                Some("rank 0 does not start: a typo; rank 1 does not start: the disk is full"),
            ),
            (
                vec![failed(1, full), NotStarted { rank: 0, why: None }],
                Some("rank 1 does not start: the disk is full"),
            ),
            (vec![NotStarted { rank: 0, why: None }], None),
        ];
        for (failures, says) in cases {
            assert_eq!(reasons(3, &failures).as_deref(), says, "{failures:?}");
        }
    }
}
