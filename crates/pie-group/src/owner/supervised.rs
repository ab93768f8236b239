//! An owner that panics goes on: the epoch ends, the documents stay, and the group is formed again. A bug that one caller found
//! must not leave a group that looks as if it served.

use super::inbox::Inbox;
use super::{Event, GroupState, Task, new_core};
use crate::ranks::TableRetention;
use crate::stats::GroupEvent;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::mpsc;

impl Task {
    /// Runs until the owner is stopped. Should it end in another way, everybody is told that the group is not served.
    pub(super) async fn supervised(self, events: mpsc::Receiver<Event>, inbox: Inbox) {
        let (state, group) = (self.shown.state.clone(), self.common.options.group.clone());
        let ended = tokio::spawn(self.run(events, inbox.clone())).await;
        if let Err(error) = ended {
            tracing::error!(%group, %error, "the owner's task ended; this router does not serve the group any more");
            state.send_replace(GroupState::Lost(format!("the owner's task ended: {error}")));
            inbox.close();
        }
    }

    /// Does a part of the owner's work. What it may leave half done when it panics is put right by [`Task::recover`], so that
    /// nothing unsound is seen.
    pub(super) fn guarded(&mut self, work: impl FnOnce(&mut Self)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) {
            self.recover(&message(panic.as_ref()));
        }
    }

    /// How far the work got is not known. The tables are dropped with the epoch; documents are changed whole or not at all, and
    /// one that is not whole goes; all books are made anew from the sessions ([`crate::core::Core::recover`]).
    fn recover(&mut self, panic: &str) {
        self.stats.event(GroupEvent::OwnerPanicked);
        // What the ranks have kept is looked at like somebody else's: a document that is lost here comes back from there.
        self.common.knowledge.forgets();
        self.tables = TableRetention::Forgotten;
        let why = format!("the group's owner panicked, which is a bug: {panic}");
        if catch_unwind(AssertUnwindSafe(|| self.desk.act(|core| core.recover(&why)))).is_err() {
            tracing::error!(group = %self.common.options.group, "the owner's sessions cannot be put right: they are gone");
            self.desk.replace(new_core(&self.common.tokenizer, &self.common.options, &self.stats));
        }
        let retired = *self.shown.state.borrow() == GroupState::Retired;
        match (&self.formed, &self.background.forming) {
            _ if retired => {
                tracing::error!(group = %self.common.options.group, why, "after the group was given up")
            }
            // It is on its way, and is not disturbed.
            (None, Some(_)) => {
                tracing::error!(group = %self.common.options.group, why, "while the group was being formed");
                self.shown.state.send_replace(GroupState::Waiting(why));
            }
            _ => self.lose(&why),
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
