//! Answers that wait until the ranks have what they are about: what a caller was told is not lost with this router.

use crate::call::Reply;
use crate::core::Ack;
use crate::faults;
use pie_proto::Fault;
use std::collections::VecDeque;

/// Who keeps the documents beside this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witnesses {
    /// Ranks do, and say how far they are.
    Ranks,
    /// They were lost a moment ago, and are expected back.
    Awaited,
    /// Nobody.
    Nobody,
}

/// See the module. Answers are about all entries of the journal up to a number.
pub(super) struct Holding {
    ack: Ack,
    witnesses: Witnesses,
    confirmed: u64,
    held: VecDeque<UnconfirmedReply>,
}

struct UnconfirmedReply {
    until: u64,
    answer: Box<dyn FnOnce(Result<(), Fault>) + Send>,
}

impl Holding {
    /// Nobody keeps anything yet.
    pub fn new(ack: Ack) -> Self {
        Self { ack, witnesses: Witnesses::Nobody, confirmed: 0, held: VecDeque::new() }
    }

    /// Whether a document may be changed: somebody must be able to keep the change.
    pub fn admits(&self) -> Result<(), Fault> {
        match (self.ack, self.witnesses) {
            (Ack::Replicated, Witnesses::Nobody) => Err(faults::not_kept()),
            (Ack::Replicated, Witnesses::Ranks | Witnesses::Awaited) | (Ack::Owner, _) => Ok(()),
        }
    }

    /// Answers now, or when the ranks have all entries up to `latest`. A refusal need not wait.
    pub fn answer<T: Send + 'static>(&mut self, latest: u64, reply: Reply<T>, answer: Result<T, Fault>) {
        if self.ack == Ack::Owner || latest <= self.confirmed || answer.is_err() {
            let _ = reply.send(answer);
            return;
        }
        let answer = move |kept: Result<(), Fault>| drop(reply.send(kept.and(answer)));
        self.held.push_back(UnconfirmedReply { until: latest, answer: Box::new(answer) });
    }

    /// Who keeps the documents.
    pub fn witnesses(&self) -> Witnesses {
        self.witnesses
    }

    /// Whether answers wait.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// All ranks that are there have the entries up to this one.
    pub fn confirm(&mut self, number: u64) {
        self.confirmed = self.confirmed.max(number);
        while self.held.front().is_some_and(|held| held.until <= self.confirmed) {
            if let Some(held) = self.held.pop_front() {
                (held.answer)(Ok(()));
            }
        }
    }

    /// Somebody keeps the documents from now on, or nobody does: then it is not known what has arrived of what is not confirmed.
    pub fn witnessed(&mut self, witnesses: Witnesses) {
        self.witnesses = witnesses;
        if witnesses == Witnesses::Nobody {
            self.held.drain(..).for_each(|held| (held.answer)(Err(faults::perhaps_not_kept())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_proto::Reason;
    use tokio::sync::oneshot;

    #[test]
    fn an_answer_waits_for_the_ranks() {
        let mut holding = Holding::new(Ack::Replicated);
        assert_eq!(holding.admits().expect_err("nobody keeps it").reason, Reason::NotReplicated);
        holding.witnessed(Witnesses::Ranks);
        assert_eq!(holding.admits(), Ok(()));
        let ask = |holding: &mut Holding, latest, answer| {
            let (reply, answered) = oneshot::channel();
            holding.answer(latest, reply, answer);
            answered
        };
        let mut first = ask(&mut holding, 3, Ok(1));
        let mut second = ask(&mut holding, 4, Ok(2));
        let refused = Fault::new(Reason::RevisionMismatch, "");
        assert_eq!(ask(&mut holding, 4, Err(refused.clone())).try_recv(), Ok(Err(refused)));
        holding.confirm(2);
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        holding.confirm(3);
        assert_eq!(first.try_recv(), Ok(Ok(1)));
        holding.witnessed(Witnesses::Awaited);
        assert!(second.try_recv().is_err() && holding.admits().is_ok());
        holding.witnessed(Witnesses::Nobody);
        let lost = second.try_recv().expect("an answer").expect_err("nobody has it");
        assert_eq!(lost.reason, Reason::NotReplicated);
        // What has been confirmed needs no further word.
        assert_eq!(ask(&mut holding, 3, Ok(5)).try_recv(), Ok(Ok(5)));
    }

    #[test]
    fn an_owner_that_answers_by_itself_waits_for_nobody() {
        let mut holding = Holding::new(Ack::Owner);
        let (reply, mut answered) = oneshot::channel();
        holding.answer(9, reply, Ok(1));
        assert_eq!((holding.admits(), answered.try_recv()), (Ok(()), Ok(Ok(1))));
    }
}
