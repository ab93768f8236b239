//! Keeps the view of a range of keys up to date: a snapshot, then etcd's watch, and a new snapshot whenever the watch
//! breaks for whatever reason (lost connection, compacted history, another server). Followers see the difference.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, KeyValue, WatchOptions, WatchResponse};
use tokio::sync::watch;

use super::calls::EtcdCalls;
use super::keys::malformed;
use crate::PlacementError;
use crate::pauses::Backoff;
use crate::view::{Feeder, KnownState, StoredValue};

const OPERATION: &str = "follow keys";

/// Reads a value, given the number in its key (0 for a single key), the key and the value.
pub(super) type Decode<T> = Box<dyn Fn(u32, &str, &[u8]) -> Result<T, PlacementError> + Send + Sync>;

/// Which keys, and how to read them.
pub(super) struct Range<T> {
    /// The key, or the prefix of all of them.
    pub(super) start: String,
    pub(super) extent: Extent,
    pub(super) decode: Decode<T>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    OneKey,
    Prefix,
}

type Entries<T> = BTreeMap<u32, StoredValue<T>>;

impl<T> Range<T> {
    fn number<'k>(&self, kv: &'k KeyValue) -> Result<(u32, &'k str), PlacementError> {
        let lossy = || String::from_utf8_lossy(kv.key()).into_owned();
        let key = kv.key_str().map_err(|error| malformed(&lossy(), error))?;
        match self.extent {
            Extent::OneKey => Ok((0, key)),
            Extent::Prefix => key
                .strip_prefix(&self.start)
                .and_then(|number| number.parse().ok())
                .map(|number| (number, key))
                .ok_or_else(|| malformed(key, "its last part is not a number")),
        }
    }

    fn put(&self, entries: &mut Entries<T>, kv: &KeyValue) -> Result<(), PlacementError> {
        let (number, key) = self.number(kv)?;
        let value = (self.decode)(number, key, kv.value())?;
        entries.insert(number, StoredValue { revision: kv.mod_revision().unsigned_abs(), value });
        Ok(())
    }

    /// The entries now, and the revision of the store that they belong to.
    pub(super) async fn snapshot(&self, calls: &EtcdCalls) -> Result<(Entries<T>, i64), PlacementError> {
        let options = (self.extent == Extent::Prefix).then(|| GetOptions::new().with_prefix());
        let get = |mut client: Client| {
            let options = options.clone();
            async move { client.get(self.start.as_str(), options).await }
        };
        let response = calls.call(OPERATION, get).await?;
        let mut entries = Entries::new();
        for kv in response.kvs() {
            self.put(&mut entries, kv)?;
        }
        let revision = response.header().map_or(0, |header| header.revision());
        Ok((entries, revision))
    }

    fn apply(
        &self,
        response: &WatchResponse,
        view: &watch::Sender<KnownState<T>>,
    ) -> Result<(), PlacementError>
    where
        T: Clone,
    {
        if response.events().is_empty() {
            return Ok(());
        }
        // Built aside, so that followers never see half of a transaction.
        let mut entries = view.borrow().entries.clone();
        for event in response.events() {
            let Some(kv) = event.kv() else { continue };
            match event.event_type() {
                EventType::Put => self.put(&mut entries, kv)?,
                EventType::Delete => {
                    entries.remove(&self.number(kv)?.0);
                }
            }
        }
        view.send_modify(|view| view.entries = entries);
        Ok(())
    }
}

/// Starts to follow a range. The receiver holds its present state at once.
pub(super) async fn follow<T: Clone + Send + Sync + 'static>(
    calls: &EtcdCalls,
    range: Range<T>,
) -> Result<(watch::Receiver<KnownState<T>>, Feeder), PlacementError> {
    let (entries, revision) = range.snapshot(calls).await?;
    let view = watch::Sender::new(KnownState { entries, stale: None });
    let receiver = view.subscribe();
    let task = tokio::spawn(feed(calls.clone(), range, view, revision));
    Ok((receiver, Feeder(task.abort_handle())))
}

async fn feed<T: Clone>(
    calls: EtcdCalls,
    range: Range<T>,
    view: watch::Sender<KnownState<T>>,
    mut revision: i64,
) {
    let mut backoff = Backoff::up_to(Duration::from_secs(2));
    loop {
        let mut reason = follow_once(&calls, &range, &view, revision).await;
        tracing::warn!(key = range.start, code = reason.code(), error = %reason, "a watch broke");
        loop {
            view.send_modify(|view| view.stale = Some(reason.to_string().into()));
            tokio::time::sleep(backoff.pause()).await;
            match range.snapshot(&calls).await {
                Ok((entries, now)) => {
                    view.send_modify(|view| *view = KnownState { entries, stale: None });
                    revision = now;
                    backoff = Backoff::up_to(Duration::from_secs(2));
                    tracing::info!(key = range.start, "the watch goes on");
                    break;
                }
                Err(error) => reason = error,
            }
        }
    }
}

/// Applies what happens after `revision` until something breaks; says what.
async fn follow_once<T: Clone>(
    calls: &EtcdCalls,
    range: &Range<T>,
    view: &watch::Sender<KnownState<T>>,
    revision: i64,
) -> PlacementError {
    let mut options = WatchOptions::new().with_start_revision(revision + 1);
    if range.extent == Extent::Prefix {
        options = options.with_prefix();
    }
    let watch = |mut client: Client| {
        let options = options.clone();
        async move { client.watch(range.start.as_str(), Some(options)).await }
    };
    let mut stream = match calls.call(OPERATION, watch).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    // A silent server is asked for a sign of life: a watch that merely waits cannot tell quiet from dead.
    let mut asked = false;
    loop {
        match tokio::time::timeout(calls.timeout, stream.message()).await {
            Ok(Ok(Some(response))) if response.canceled() => {
                return calls.unavailable(
                    OPERATION,
                    format!(
                        "the watch was cancelled (compacted up to {}): {}",
                        response.compact_revision(),
                        response.cancel_reason()
                    ),
                );
            }
            Ok(Ok(Some(response))) => {
                asked = false;
                if let Err(error) = range.apply(&response, view) {
                    return error;
                }
            }
            Ok(Ok(None)) => return calls.unavailable(OPERATION, "the watch was closed"),
            Ok(Err(error)) => return calls.error(OPERATION, &error),
            Err(_) if asked => return calls.unavailable(OPERATION, "no sign of life on the watch"),
            Err(_) => {
                asked = true;
                match tokio::time::timeout(calls.timeout, stream.request_progress()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return calls.error(OPERATION, &error),
                    Err(_) => return calls.unavailable(OPERATION, "the watch takes no questions"),
                }
            }
        }
    }
}
