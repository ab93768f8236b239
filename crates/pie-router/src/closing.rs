//! Closes sessions of this router's owners: for their clients, for those who run the pool, and because nobody uses them. In this
//! order, so that a home is never forgotten that somebody has just made: out of reach, no home, gone.

use crate::call::{Call, Departure, Resident, Why};
use crate::directory::Directory;
use crate::faults;
use crate::owner::Owner;
use crate::tenants::Tenant;
use pie_placement::GroupId;
use pie_proto::Fault;
use pie_proto::request::{Identity, SessionName};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// The placement forgets a home in this time, or the session stays.
const FORGET: Duration = Duration::from_secs(5);
/// Sessions that may be put away for one that is to be opened: others open some at the same time.
const ATTEMPTS: usize = 4;

/// An owner of this router's, and where the homes are.
#[derive(Clone)]
pub(crate) struct Place {
    pub directory: Arc<Directory>,
    pub group: GroupId,
    pub owner: Owner,
}

impl Place {
    /// Closes a session; a call that fails has changed nothing.
    pub async fn close(
        &self,
        tenant: Tenant,
        session: SessionName,
        identity: Option<Identity>,
        why: Why,
    ) -> Result<(), Fault> {
        let (reply, answer) = oneshot::channel();
        self.ask(Call::Vacate { tenant, session, identity, reply })?;
        let resident = answer.await.map_err(|_| faults::stopping())??;
        self.finish(resident, why).await
    }

    /// Makes room for a session that is to be opened.
    ///
    /// # Errors
    /// There is none, and no session is idle long enough.
    pub async fn make_room(&self, tenant: &Tenant, session: &SessionName) -> Result<(), Fault> {
        for _ in 0..ATTEMPTS {
            let (reply, answer) = oneshot::channel();
            let (tenant, session) = (tenant.clone(), session.clone());
            self.ask(Call::Room { tenant, session, reply })?;
            match answer.await.map_err(|_| faults::stopping())?? {
                Some(resident) => self.finish(resident, Why::Room).await?,
                None => break,
            }
        }
        Ok(())
    }

    /// What the owner refuses is counted there; that it was not asked at all, here.
    fn ask(&self, call: Call) -> Result<(), Fault> {
        self.owner.call(call).inspect_err(|fault| self.owner.stats().fault(fault))
    }

    /// Closes a session that is out of reach already. It goes on whoever waits for it: half closed is of no use to anybody.
    async fn finish(&self, resident: Resident, why: Why) -> Result<(), Fault> {
        let place = self.clone();
        let closed = tokio::spawn(async move {
            let (tenant, name) = (&resident.tenant, &resident.name);
            let forget = place.directory.forget(tenant, name, &place.group);
            match tokio::time::timeout(FORGET, forget)
                .await
                .unwrap_or_else(|_| Err(faults::placement_silent()))
            {
                Ok(()) => {
                    place.owner.tell(Call::Depart { resident, departure: Departure::Closed(why) }).await
                }
                Err(fault) => {
                    place.owner.stats().fault(&fault);
                    // What is told is told to an owner that is there; otherwise its documents are gone with it.
                    let _ = place.owner.tell(Call::Keep { resident }).await;
                    Err(fault)
                }
            }
        });
        closed.await.map_err(|_| faults::stopping())?
    }

    /// A session is on its way for longer than anything takes: its home says whether it lives here.
    pub async fn resolve(&self, resident: Resident) -> Result<(), Fault> {
        let home = self.directory.home_now(&resident.tenant, &resident.name);
        let home =
            tokio::time::timeout(FORGET, home).await.unwrap_or_else(|_| Err(faults::placement_silent()))?;
        let call = match home {
            Some(home) if home != self.group => Call::Depart { resident, departure: Departure::Moved },
            Some(_) | None => Call::Keep { resident },
        };
        self.owner.tell(call).await
    }

    /// Closes what nobody uses, and sets right what is stuck on its way.
    async fn sweep(&self) -> Result<(), Fault> {
        let (reply, answer) = oneshot::channel();
        self.owner.tell(Call::Stuck { reply }).await?;
        for resident in answer.await.map_err(|_| faults::stopping())? {
            let name = resident.name.clone();
            self.resolve(resident).await?;
            tracing::warn!(group = %self.group, session = name.as_str(), "a session was stuck on its way: its home was looked up");
        }
        let (reply, answer) = oneshot::channel();
        self.owner.tell(Call::Idle { reply }).await?;
        let idle = answer.await.map_err(|_| faults::stopping())?;
        if !idle.is_empty() {
            tracing::info!(group = %self.group, sessions = idle.len(), "sessions that nobody uses are closed");
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

/// Looks after the sessions of this router's owners, as long as somebody else has the directory.
pub(crate) async fn look_after(directory: Weak<Directory>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(directory) = directory.upgrade() else { return };
        for (group, owner) in directory.locals() {
            let (directory, group, owner) = (directory.clone(), group.clone(), owner.clone());
            if let Err(fault) = (Place { directory, group, owner }).sweep().await {
                tracing::debug!(%fault, "sessions are looked after later");
            }
        }
    }
}
