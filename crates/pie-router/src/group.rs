//! A group of the pool, as calls reach it: the owner in this router, or, over the internal plane, the one in another. What a call
//! does here and how it is sent elsewhere stand side by side ([`GroupCall`]); who makes it need not know which it will be.

use crate::directory::{Directory, Groups, Home, OwnerLocation};
use crate::elsewhere::Elsewhere;
use crate::faults;
use crate::server::Phase;
use pie_group::call::{Call, Reply};
use pie_group::owner::OwnerHandle;
use pie_group::stats::Stats;
use pie_group::tenants::Tenant;
use pie_placement::GroupId;
use pie_proto::Fault;
use pie_text::Tokenizer;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tonic::Status;

/// This router, as all its services share it.
pub(crate) struct Router {
    /// Who owns which group.
    pub groups: Arc<Groups>,
    /// Where sessions live.
    pub directory: Directory,
    /// The pool's: all groups have the same model.
    pub tokenizer: Arc<Tokenizer>,
    /// Bytes of the largest document.
    pub document_limit: usize,
    /// Whether it takes new work.
    pub phase: watch::Receiver<Phase>,
    /// Completions that are streamed.
    pub streams: watch::Sender<usize>,
    /// What is counted of calls that reach no owner.
    pub stats: Arc<Stats>,
}

/// A group that this router owns, or has the documents of.
#[derive(Clone)]
pub(crate) struct LocalGroup {
    /// Whose it is.
    pub router: Arc<Router>,
    /// Its name in the pool.
    pub id: GroupId,
    /// The one task that changes it.
    pub owner: OwnerHandle,
}

/// For whom a call is made, and when it came in.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// Whose sessions are meant.
    pub tenant: Tenant,
    /// What latencies count from.
    pub arrived: Instant,
}

/// A call that a group's owner answers.
pub(crate) trait GroupCall: Sized + Send {
    /// What the owner answers.
    type Answer: Send;

    /// Answers it for a group of this router's.
    fn here(
        self,
        group: LocalGroup,
        asker: Asker,
    ) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// Sends it to the router that owns the group, which answers it there.
    fn elsewhere(self, group: Elsewhere) -> impl Future<Output = Result<Self::Answer, Status>> + Send;
}

impl Router {
    /// Has a call answered by its group, wherever that is owned.
    pub async fn call<C: GroupCall>(
        self: &Arc<Self>,
        home: &Home,
        asker: Asker,
        call: C,
    ) -> Result<C::Answer, Status> {
        match &home.target {
            OwnerLocation::Local(owner) => call.here(self.local(&home.group, owner), asker).await,
            OwnerLocation::Remote(router) => {
                let elsewhere = Elsewhere::new(&self.groups.peers, router, &home.group, &asker.tenant);
                call.elsewhere(self.counted(elsewhere)?).await
            }
        }
    }

    fn local(self: &Arc<Self>, group: &GroupId, owner: &OwnerHandle) -> LocalGroup {
        LocalGroup { router: self.clone(), id: group.clone(), owner: owner.clone() }
    }

    /// The groups of this router, also those that are not served: they may have documents.
    pub fn locals(self: &Arc<Self>) -> Vec<LocalGroup> {
        self.groups.locals().map(|(group, owner)| self.local(group, owner)).collect()
    }

    /// A group of this router's that another one takes it to own.
    ///
    /// # Errors
    /// [`pie_proto::Reason::SessionElsewhere`].
    pub fn owned(self: &Arc<Self>, group: &GroupId) -> Result<LocalGroup, Fault> {
        let owner = self.groups.local(group).ok_or_else(|| faults::not_the_owner(group.as_str()))?;
        Ok(self.local(group, owner))
    }

    /// What is refused before an owner sees it is counted here; what an owner refuses, the owner counts.
    pub fn counted<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        result.inspect_err(|fault| self.stats.fault(fault))
    }

    fn change_streams(&self, change: impl FnOnce(usize) -> usize) {
        self.streams.send_modify(|streams| {
            *streams = change(*streams);
            self.stats.published.streams.set(*streams as u64);
        });
    }

    /// New work is taken until the router is drained.
    pub fn check_phase(&self) -> Result<(), Fault> {
        match *self.phase.borrow() {
            Phase::Serving => Ok(()),
            Phase::Draining => self.counted(Err(faults::draining())),
        }
    }
}

impl LocalGroup {
    /// Asks the owner. That it cannot be asked is counted here; what it refuses, it counts itself.
    pub async fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Fault> {
        self.router.counted(self.owner.ask(call).await)?
    }
}

/// A completion's stream as long as it is there: whoever drains the router waits for it.
pub(crate) struct OpenStream(Arc<Router>);

impl OpenStream {
    /// One stream more.
    pub fn new(router: &Arc<Router>) -> Self {
        router.change_streams(|streams| streams + 1);
        Self(router.clone())
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.change_streams(|streams| streams - 1);
    }
}
