//! Keys that live as long as their holder: a lease, a task that renews it, and what the holder is told.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Error, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::calls::{Backoff, Calls};
use crate::hold::{End, Hold};
use crate::{LeaseState, LossReason, PlacementError, Ttl};

/// The outcome of a claim of a key.
pub(super) enum Claim {
    /// The key was free; it lives as long as the hold. The revision is that of the key.
    Won { revision: u64, hold: Hold },
    /// The key exists already.
    Held(KeyValue),
}

/// Writes `key` if it does not exist, under a new lease.
pub(super) async fn claim(
    calls: &Calls,
    operation: &'static str,
    key: &str,
    value: Vec<u8>,
    ttl: Ttl,
) -> Result<Claim, PlacementError> {
    let asked = Instant::now();
    let seconds = i64::try_from(ttl.duration().as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
    let mut client = calls.client.clone();
    let lease = calls.call(operation, client.lease_grant(seconds, None)).await?;
    let keeper = Keeper {
        calls: calls.clone(),
        lease: lease.id(),
        ttl: Duration::from_secs(lease.ttl().unsigned_abs()),
        confirmed: asked,
        state: watch::Sender::new(LeaseState::Held),
    };

    let txn = Txn::new()
        .when([Compare::create_revision(key, CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease.id())))])
        .or_else([TxnOp::get(key, None)]);
    match calls.call(operation, client.txn(txn)).await {
        Ok(response) if response.succeeded() => {
            let revision = response.header().map_or(0, |header| header.revision().unsigned_abs());
            Ok(Claim::Won { revision, hold: keeper.start() })
        }
        lost => {
            // An unanswered transaction may have written the key: its lease must go in any case.
            tokio::spawn(keeper.revoke_until_gone(None));
            let response = lost?;
            let held = response.op_responses().into_iter().find_map(|response| match response {
                TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
                _ => None,
            });
            held.map(Claim::Held)
                .ok_or_else(|| calls.unavailable(operation, "the answer to a transaction lacks its read"))
        }
    }
}

/// How the holder ends its keeper; a dropped sender means [`End::Revoke`] without anybody waiting.
struct Stop {
    end: End,
    done: oneshot::Sender<Result<(), PlacementError>>,
}

struct Keeper {
    calls: Calls,
    lease: i64,
    /// As etcd granted it, which may be longer than what was asked.
    ttl: Duration,
    /// When the last renewal that was answered was sent: the lease lives at least a `ttl` from then.
    confirmed: Instant,
    state: watch::Sender<LeaseState>,
}

enum Renewal {
    Renewed { asked: Instant },
    Gone,
    Unanswered(PlacementError),
}

enum Waited {
    Stopped(Option<Stop>),
    Answered(Renewal),
}

impl Keeper {
    fn start(self) -> Hold {
        let (stop, stopped) = oneshot::channel();
        let state = self.state.subscribe();
        tokio::spawn(self.run(stopped));
        Hold::new(state, move |end| {
            let (done, confirmed) = oneshot::channel();
            // The keeper is gone if the lease is lost already: then there is nothing to end.
            let _ = stop.send(Stop { end, done });
            Box::pin(async move { confirmed.await.unwrap_or(Ok(())) })
        })
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<Stop>) {
        let third = self.ttl / 3;
        let mut backoff = Backoff::up_to(third);
        let mut pause = third;
        loop {
            let renewal = match self.wait(&mut stopped, pause).await {
                Waited::Stopped(stop) => return self.stop(stop).await,
                Waited::Answered(renewal) => renewal,
            };
            match renewal {
                Renewal::Renewed { asked } => {
                    self.confirmed = asked;
                    if self.set(LeaseState::Held) {
                        tracing::info!(lease = self.lease, "the lease is confirmed again");
                    }
                    backoff = Backoff::up_to(third);
                    pause = third;
                }
                Renewal::Gone => {
                    tracing::warn!(lease = self.lease, "the lease is gone");
                    self.set(LeaseState::Lost(LossReason::Expired));
                    return;
                }
                Renewal::Unanswered(error) => {
                    if pause == third {
                        tracing::warn!(lease = self.lease, code = error.code(), %error, "a renewal failed; trying again");
                    }
                    pause = backoff.pause();
                }
            }
        }
    }

    /// Renews after a pause, unless the holder stops it, and raises doubts when they are due.
    async fn wait(&self, stopped: &mut oneshot::Receiver<Stop>, pause: Duration) -> Waited {
        let doubt_at = self.confirmed + self.ttl;
        let timeout = (self.ttl / 3).max(Duration::from_millis(500));
        let renewal = renew_after(&self.calls, self.lease, pause, timeout);
        tokio::pin!(renewal);
        loop {
            let held = *self.state.borrow() == LeaseState::Held;
            tokio::select! {
                stop = &mut *stopped => return Waited::Stopped(stop.ok()),
                renewal = &mut renewal => return Waited::Answered(renewal),
                () = tokio::time::sleep_until(doubt_at), if held => {
                    tracing::warn!(lease = self.lease, "no renewal was answered for a whole time to live");
                    self.set(LeaseState::Doubtful);
                }
            }
        }
    }

    /// True if the state is new.
    fn set(&self, state: LeaseState) -> bool {
        self.state.send_if_modified(|present| std::mem::replace(present, state) != state)
    }

    async fn stop(self, stop: Option<Stop>) {
        match stop {
            Some(Stop { end: End::Abandon, .. }) => {
                tokio::time::sleep_until(self.confirmed + self.ttl).await;
                self.set(LeaseState::Lost(LossReason::Expired));
            }
            Some(Stop { end: End::Revoke, done }) => self.revoke_until_gone(Some(done)).await,
            None => self.revoke_until_gone(None).await,
        }
    }

    /// Tries until etcd confirms or the lease has run out by itself; `done` hears of the first attempt.
    async fn revoke_until_gone(self, mut done: Option<oneshot::Sender<Result<(), PlacementError>>>) {
        self.set(LeaseState::Lost(LossReason::Released));
        let gone_at = Instant::now() + self.ttl;
        let mut backoff = Backoff::up_to(Duration::from_secs(1));
        loop {
            let revoked = revoke(&self.calls, self.lease).await;
            let failed = revoked.is_err();
            if let Some(done) = done.take() {
                // Nobody may be waiting.
                let _ = done.send(revoked);
            }
            if !failed || Instant::now() >= gone_at {
                return;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// Ends a lease and removes its keys; one that is gone already is fine.
pub(super) async fn revoke(calls: &Calls, lease: i64) -> Result<(), PlacementError> {
    /// gRPC's NOT_FOUND.
    const NOT_FOUND: i32 = 5;
    let mut client = calls.client.clone();
    let revoke = async {
        match client.lease_revoke(lease).await {
            Err(Error::GRpcStatus(status)) if i32::from(status.code()) == NOT_FOUND => Ok(()),
            other => other.map(drop),
        }
    };
    calls.call("end a lease", revoke).await
}

/// Renews once. A stream for each renewal costs one round trip as any call does, and leaves nothing to repair when a
/// server goes away.
async fn renew_after(calls: &Calls, lease: i64, pause: Duration, timeout: Duration) -> Renewal {
    tokio::time::sleep(pause).await;
    let asked = Instant::now();
    let mut client = calls.client.clone();
    let renew = async {
        match client.lease_keep_alive(lease).await {
            Ok(_) => Ok(true),
            // Says "not found" in words only, so ask for the number: a negative time to live means that it is gone.
            Err(Error::LeaseKeepAliveError(_)) => Ok(client.lease_time_to_live(lease, None).await?.ttl() > 0),
            Err(error) => Err(error),
        }
    };
    match calls.call_within(timeout, "renew a lease", renew).await {
        Ok(true) => Renewal::Renewed { asked },
        Ok(false) => Renewal::Gone,
        Err(error) => Renewal::Unanswered(error),
    }
}
