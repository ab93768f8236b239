//! Keys that live as long as their holder: a lease, a task that renews it, and what the holder is told.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::calls::{CallLimits, EtcdCalls};
use crate::pauses::Backoff;
use crate::{End, Hold, LeaseKeeper, LossReason, PlacementError, Ttl};

/// The longest pause between two attempts to renew a lease: what it protects is wanted, and may run out.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A lease is in doubt this part of its time to live before it can run out: two machines' clocks differ a little, and what was
/// begun in time takes a while.
const MARGIN: u32 = 10;

/// The outcome of a claim of a key.
pub(super) enum KeyClaim {
    /// The key was free; it lives as long as the hold. The revision is that of the key.
    Won { revision: u64, hold: Hold },
    /// The key exists already.
    Held(KeyValue),
}

/// Writes `key` if it does not exist, under a new lease.
pub(super) async fn claim(
    calls: &EtcdCalls,
    operation: &'static str,
    key: &str,
    value: Vec<u8>,
    ttl: Ttl,
) -> Result<KeyClaim, PlacementError> {
    let asked = Instant::now();
    let seconds = i64::try_from(ttl.duration().as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
    // An answer that is lost leaves a lease without a key, which runs out.
    let grant = |mut client: Client| async move { client.lease_grant(seconds, None).await };
    let lease = calls.call(operation, grant).await?;
    let ttl = Duration::from_secs(lease.ttl().unsigned_abs());
    let state = LeaseKeeper::new();
    let keeper = LeaseRenewer {
        calls: calls.clone(),
        key: key.to_owned(),
        lease: lease.id(),
        ttl,
        confirmed: asked,
        state,
    };
    keeper.confirm();

    let txn = Txn::new()
        .when([Compare::create_revision(key, CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease.id())))])
        .or_else([TxnOp::get(key, None)]);
    let claimed = calls.call(operation, |mut client: Client| {
        let txn = txn.clone();
        async move { client.txn(txn).await }
    });
    let refused = match claimed.await {
        Ok(response) if response.succeeded() => {
            let revision = response.header().map_or(0, |header| header.revision().unsigned_abs());
            return Ok(KeyClaim::Won { revision, hold: keeper.start() });
        }
        Ok(response) => match read(&response) {
            // The answer to the first attempt was lost, and the second found what the first had written.
            Some(found) if found.lease() == lease.id() => {
                let revision = found.mod_revision().unsigned_abs();
                return Ok(KeyClaim::Won { revision, hold: keeper.start() });
            }
            found => found.map(KeyClaim::Held).ok_or_else(|| lacks_its_read(calls, operation)),
        },
        Err(error) => Err(error),
    };
    // An unanswered transaction may have written the key: its lease must go in any case.
    tokio::spawn(keeper.revoke_until_gone(None));
    refused
}

/// Writes a key that a lease protects once more, as it is. Returns its new revision, or nothing if the lease protects it no longer.
pub(super) async fn touch(
    calls: &EtcdCalls,
    operation: &'static str,
    key: &str,
    lease: i64,
) -> Result<Option<u64>, PlacementError> {
    let touched = calls.call(operation, |mut client: Client| async move {
        let options = PutOptions::new().with_lease(lease).with_ignore_value();
        let txn = Txn::new().when([Compare::lease(key, CompareOp::Equal, lease)]).and_then([TxnOp::put(
            key,
            "",
            Some(options),
        )]);
        client.txn(txn).await
    });
    let response = touched.await?;
    Ok(response.succeeded().then(|| response.header().map_or(0, |header| header.revision().unsigned_abs())))
}

fn read(response: &TxnResponse) -> Option<KeyValue> {
    response.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
        _ => None,
    })
}

fn lacks_its_read(calls: &EtcdCalls, operation: &'static str) -> PlacementError {
    calls.unavailable(operation, "the answer to a transaction lacks its read")
}

/// How the holder ends its keeper; a dropped sender means [`End::Revoke`] without anybody waiting.
struct KeeperEnd {
    end: End,
    done: oneshot::Sender<Result<(), PlacementError>>,
}

struct LeaseRenewer {
    calls: EtcdCalls,
    /// What the lease protects.
    key: String,
    lease: i64,
    /// As etcd granted it, which may be longer than what was asked.
    ttl: Duration,
    /// When the last renewal that was answered was sent: the lease lives at least a `ttl` from then.
    confirmed: Instant,
    state: LeaseKeeper,
}

enum Renewal {
    Renewed { asked: Instant },
    Gone,
    Unanswered(PlacementError),
}

enum Waited {
    Stopped(Option<KeeperEnd>),
    Answered(Renewal),
}

impl LeaseRenewer {
    fn start(self) -> Hold {
        let (stop, stopped) = oneshot::channel();
        let state = self.state.watch();
        let id = self.lease.cast_unsigned();
        tokio::spawn(self.run(stopped));
        Hold::new(id, state, move |end| {
            let (done, confirmed) = oneshot::channel();
            // The keeper is gone if the lease is lost already: then there is nothing to end.
            let _ = stop.send(KeeperEnd { end, done });
            Box::pin(async move { confirmed.await.unwrap_or(Ok(())) })
        })
    }

    /// Until when the lease is certain to live.
    fn sure_until(&self) -> Instant {
        self.confirmed + (self.ttl - self.ttl / MARGIN)
    }

    /// True if it was in doubt.
    fn confirm(&self) -> bool {
        self.state.confirm(self.sure_until())
    }

    /// At one server; one that is silent leaves time for the others, before the lease runs out.
    fn attempt(&self) -> Duration {
        (self.ttl / 6).max(Duration::from_millis(300))
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<KeeperEnd>) {
        let usual = self.ttl / 4;
        let longest = LONGEST_PAUSE.min(usual);
        let mut backoff = Backoff::up_to(longest);
        let (mut pause, mut failed) = (usual, false);
        loop {
            let renewal = match self.wait(&mut stopped, pause).await {
                Waited::Stopped(stop) => return self.stop(stop).await,
                Waited::Answered(renewal) => renewal,
            };
            match renewal {
                Renewal::Renewed { asked } => {
                    self.confirmed = asked;
                    if self.confirm() {
                        tracing::info!(key = self.key, lease = self.lease, "the lease is confirmed again");
                    }
                    backoff = Backoff::up_to(longest);
                    (pause, failed) = (usual, false);
                }
                Renewal::Gone => {
                    tracing::warn!(key = self.key, lease = self.lease, "the lease is gone");
                    // What is left of it protects nothing any more: should only the key have gone, the lease goes, too.
                    return self.revoke_until_gone_for(LossReason::Expired, None).await;
                }
                Renewal::Unanswered(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(key = self.key, lease = self.lease, code = error.code(), %error, "a renewal failed; trying again");
                    }
                    pause = backoff.pause();
                }
            }
        }
    }

    /// Renews after a pause, unless the holder stops it, and raises doubts when they are due.
    async fn wait(&self, stopped: &mut oneshot::Receiver<KeeperEnd>, pause: Duration) -> Waited {
        let limits = CallLimits { call: self.attempt() * self.calls.attempts(), attempt: self.attempt() };
        let renewal = renew_after(&self.calls, &self.key, self.lease, pause, limits);
        tokio::pin!(renewal);
        loop {
            let held = self.state.is_held();
            tokio::select! {
                stop = &mut *stopped => return Waited::Stopped(stop.ok()),
                renewal = &mut renewal => return Waited::Answered(renewal),
                () = tokio::time::sleep_until(self.sure_until()), if held => {
                    tracing::warn!(key = self.key, lease = self.lease, "no renewal was answered for nearly a whole time to live");
                    self.state.doubt();
                }
            }
        }
    }

    async fn stop(self, stop: Option<KeeperEnd>) {
        match stop {
            Some(KeeperEnd { end: End::Abandon, .. }) => {
                tokio::time::sleep_until(self.confirmed + self.ttl).await;
                self.state.lose(LossReason::Expired);
            }
            Some(KeeperEnd { end: End::Revoke, done }) => self.revoke_until_gone(Some(done)).await,
            None => self.revoke_until_gone(None).await,
        }
    }

    /// Tries until etcd confirms or the lease has run out by itself; `done` hears of the first attempt.
    async fn revoke_until_gone(self, done: Option<oneshot::Sender<Result<(), PlacementError>>>) {
        self.revoke_until_gone_for(LossReason::Released, done).await;
    }

    async fn revoke_until_gone_for(
        self,
        reason: LossReason,
        mut done: Option<oneshot::Sender<Result<(), PlacementError>>>,
    ) {
        self.state.lose(reason);
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
pub(super) async fn revoke(calls: &EtcdCalls, lease: i64) -> Result<(), PlacementError> {
    /// gRPC's NOT_FOUND.
    const NOT_FOUND: i32 = 5;
    let revoke = |mut client: Client| async move {
        match client.lease_revoke(lease).await {
            Err(Error::GRpcStatus(status)) if i32::from(status.code()) == NOT_FOUND => Ok(()),
            other => other.map(drop),
        }
    };
    calls.call("end a lease", revoke).await
}

/// Renews once. A stream for each renewal costs one round trip as any call does, and leaves nothing to repair when a
/// server goes away. The key is looked at, too: somebody may have deleted it, or brought an older copy of the store back.
async fn renew_after(
    calls: &EtcdCalls,
    key: &str,
    lease: i64,
    pause: Duration,
    limits: CallLimits,
) -> Renewal {
    tokio::time::sleep(pause).await;
    let renew = |mut client: Client| async move {
        let asked = Instant::now();
        match client.lease_keep_alive(lease).await {
            Ok(_) => {}
            // Says "not found" in words only, so ask for the number: a negative time to live means that it is gone.
            Err(Error::LeaseKeepAliveError(_)) => {
                if client.lease_time_to_live(lease, None).await?.ttl() <= 0 {
                    return Ok(Renewal::Gone);
                }
            }
            Err(error) => return Err(error),
        }
        let protects = client.get(key, None).await?.kvs().first().is_some_and(|found| found.lease() == lease);
        Ok(if protects { Renewal::Renewed { asked } } else { Renewal::Gone })
    };
    calls.call_within(limits, "renew a lease", renew).await.unwrap_or_else(Renewal::Unanswered)
}
