//! Closes sessions of this router's owners: for their clients, for those who run the pool, and because nobody uses them. In this
//! order, so that a home is never forgotten that somebody has just made: out of reach, no home, gone.

use crate::faults;
use crate::group::{LocalGroup, Router};
use pie_group::call::{Call, Departure, Resident, Why};
use pie_group::tenants::Tenant;
use pie_proto::Fault;
use pie_proto::request::{Identity, SessionName};
use std::sync::Weak;
use std::time::Duration;

/// The placement forgets a home in this time, or the session stays.
const FORGET: Duration = Duration::from_secs(5);
/// Sessions that may be put away for one that is to be opened: others open some at the same time.
const ATTEMPTS: usize = 4;

impl LocalGroup {
    /// Closes a session; a call that fails has changed nothing.
    pub async fn close(
        &self,
        tenant: Tenant,
        session: SessionName,
        identity: Option<Identity>,
        why: Why,
    ) -> Result<(), Fault> {
        let resident = self.ask(|reply| Call::Vacate { tenant, session, identity, reply }).await?;
        self.finish(resident, why).await
    }

    /// Makes room for a session that is to be opened.
    ///
    /// # Errors
    /// There is none, and no session is idle long enough.
    pub async fn make_room(&self, tenant: &Tenant, session: &SessionName) -> Result<(), Fault> {
        for _ in 0..ATTEMPTS {
            let (tenant, session) = (tenant.clone(), session.clone());
            match self.ask(|reply| Call::Room { tenant, session, reply }).await? {
                Some(resident) => self.finish(resident, Why::Room).await?,
                None => break,
            }
        }
        Ok(())
    }

    /// Closes a session that is out of reach already. It goes on whoever waits for it: half closed is of no use to anybody.
    async fn finish(&self, resident: Resident, why: Why) -> Result<(), Fault> {
        let group = self.clone();
        let closed = tokio::spawn(async move {
            let (directory, owner) = (&group.router.directory, &group.owner);
            let forget = directory.forget(&resident.tenant, &resident.name, &group.id);
            let forgotten = tokio::time::timeout(FORGET, forget).await;
            match forgotten.unwrap_or_else(|_| Err(faults::placement_silent())) {
                Ok(()) => {
                    owner.tell(Call::Depart { resident, departure: Departure::Closed(why) }).await?;
                    // Else the next owner would find it with the ranks, and it would be open again.
                    owner.ask_surely(|reply| Call::Settled { reply }).await?
                }
                Err(fault) => {
                    owner.stats().fault(&fault);
                    // What is told is told to an owner that is there; otherwise its documents are gone with it.
                    let _ = owner.tell(Call::Keep { resident }).await;
                    Err(fault)
                }
            }
        });
        closed.await.map_err(|_| faults::stopping())?
    }

    /// A session is on its way for longer than anything takes: its home says whether it lives here.
    pub async fn resolve(&self, resident: Resident) -> Result<(), Fault> {
        let home = self.router.directory.home_now(&resident.tenant, &resident.name);
        let home =
            tokio::time::timeout(FORGET, home).await.unwrap_or_else(|_| Err(faults::placement_silent()))?;
        let call = match home {
            Some(home) if home != self.id => Call::Depart { resident, departure: Departure::Moved },
            Some(_) | None => Call::Keep { resident },
        };
        self.owner.tell(call).await
    }

    /// Closes what nobody uses, and sets right what is stuck on its way.
    async fn sweep(&self) -> Result<(), Fault> {
        for resident in self.owner.ask_surely(|reply| Call::Stuck { reply }).await? {
            let name = resident.name.clone();
            self.resolve(resident).await?;
            tracing::warn!(group = %self.id, session = name.as_str(), "a session was stuck on its way: its home was looked up");
        }
        let idle = self.owner.ask_surely(|reply| Call::Idle { reply }).await?;
        if !idle.is_empty() {
            tracing::info!(group = %self.id, sessions = idle.len(), "sessions that nobody uses are closed");
        }
        let mut done = Ok(());
        for resident in idle {
            // Without a placement they can be used: they are tried again later.
            match done {
                Ok(()) => done = self.finish(resident, Why::Idle).await,
                Err(_) => self.owner.tell(Call::Keep { resident }).await?,
            }
        }
        done
    }
}

/// Looks after the sessions of this router's owners, as long as somebody else has the router.
pub(crate) async fn look_after(router: Weak<Router>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(router) = router.upgrade() else { return };
        for group in router.locals() {
            if let Err(fault) = group.sweep().await {
                tracing::debug!(%fault, "sessions are looked after later");
            }
        }
    }
}
