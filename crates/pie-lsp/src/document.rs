//! One document's task: it keeps the document's session in step with the editor's text, and asks for completions of it. What is slow
//! (the pool) never holds up what is quick (the editor): changes that come meanwhile are sent as one.

mod front;
mod messages;
mod sending;

use crate::completion::{complete, next_edit};
use crate::fitting::Surroundings;
use crate::link::{LinkError, PoolConnection, PoolLink};
use crate::mirror::{Mirror, MirrorUpdate};
use crate::suggestion::Suggestion;
use front::PrecedingParts;
use futures::FutureExt;
use futures::future::BoxFuture;
pub use messages::{Answer, DocumentMessage, DocumentSnapshot, Policy, Question, Wanted};
use pie_client::SessionHandle;
use ropey::Rope;
use sending::{CallOutcome, PoolReply};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Messages that wait for a document's task, which is quick. What is lost of more is made good by the next one.
const INBOX: usize = 256;
/// A question waits so long for the pool to have the text, then it is answered with nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a failure the pool is left alone so long, unless somebody asks for a completion; after each further one twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// The session is closed in this time.
const FAREWELL: Duration = Duration::from_millis(900);
/// A question is asked so often, if the pool has lost the session meanwhile.
const TRIES: u32 = 3;

/// Tells when all tasks have ended: each has a clone of the first, and the second then receives `None`.
pub fn ends() -> (mpsc::Sender<Infallible>, mpsc::Receiver<Infallible>) {
    mpsc::channel(1)
}

/// A document's task, which ends, and closes the session, when this is dropped.
pub struct DocumentHandle {
    inbox: mpsc::Sender<DocumentMessage>,
    policy: watch::Sender<Policy>,
}

impl DocumentHandle {
    /// Starts the task.
    pub fn start(name: String, text: Rope, link: PoolLink, ends: mpsc::Sender<Infallible>) -> Self {
        let (inbox, messages) = mpsc::channel(INBOX);
        let (policy, policies) = watch::channel(Policy::Unknown);
        let document = DocumentTask::new(name, text, link);
        tokio::spawn(async move {
            document.run(messages, policies).await;
            drop(ends);
        });
        Self { inbox, policy }
    }

    /// Tells the task something, if there is room.
    pub fn tell(&self, message: DocumentMessage) {
        if self.inbox.try_send(message).is_err() {
            tracing::warn!("a document's task is behind; the next message brings it back");
        }
    }

    /// What may be done with the document from now on.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.send_replace(policy);
    }
}

/// A question that is not answered yet.
struct PendingQuestion {
    question: Question,
    since: Instant,
    tries: u32,
}

struct DocumentTask {
    name: String,
    link: PoolLink,
    mirror: Mirror,
    /// How many changes made the mirror's text.
    number: u64,
    policy: Policy,
    connected: Option<PoolConnection>,
    /// `None` while it is not open, and while it is being sent something.
    session: Option<SessionHandle>,
    sending: Option<BoxFuture<'static, CallOutcome>>,
    asked: Option<PendingQuestion>,
    running: Option<BoxFuture<'static, Result<Answer, LinkError>>>,
    suggestion: Option<Suggestion>,
    front: PrecedingParts,
    /// Where the editor works.
    cursor: usize,
    quiet_until: Instant,
    pause: Duration,
}

/// A future that may not be there, and then is never done.
async fn done<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn unwanted(asked: &mut Option<PendingQuestion>) {
    match asked {
        Some(asked) => asked.question.answer.closed().await,
        None => std::future::pending().await,
    }
}

impl DocumentTask {
    fn new(name: String, text: Rope, link: PoolLink) -> Self {
        Self {
            name,
            link,
            mirror: Mirror::new(text),
            number: 0,
            policy: Policy::Unknown,
            connected: None,
            session: None,
            sending: None,
            asked: None,
            running: None,
            suggestion: None,
            front: PrecedingParts::default(),
            cursor: 0,
            quiet_until: Instant::now(),
            pause: FIRST_PAUSE,
        }
    }

    async fn run(
        mut self,
        mut messages: mpsc::Receiver<DocumentMessage>,
        mut policies: watch::Receiver<Policy>,
    ) {
        loop {
            self.give_up_waiting();
            self.advance();
            let wake = self.wakes_at();
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => {
                        self.take(message);
                        // What waits behind it is one change with it.
                        while let Ok(message) = messages.try_recv() {
                            self.take(message);
                        }
                    }
                    None => return self.close().await,
                },
                Ok(()) = policies.changed() => {
                    let policy = policies.borrow_and_update().clone();
                    self.obey(policy);
                }
                sent = done(&mut self.sending) => {
                    self.sending = None;
                    self.sent(sent);
                }
                completed = done(&mut self.running) => {
                    self.running = None;
                    self.completed(completed);
                }
                () = unwanted(&mut self.asked) => self.forget(),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn obey(&mut self, policy: Policy) {
        self.policy = policy;
        self.suggestion = None;
        if let Some(connected) = self.connected.clone() {
            self.limit(&connected);
        }
    }

    fn take(&mut self, message: DocumentMessage) {
        match message {
            DocumentMessage::Edited(now, edits) => {
                if now.number == self.number + 1 {
                    let still = self.suggestion.take();
                    self.suggestion = edits.iter().fold(still, |still, edit| still?.edited(edit));
                    self.mirror.edited(now.text, &edits);
                } else {
                    self.suggestion = None;
                    self.mirror.replaced(now.text);
                }
                self.number = now.number;
                self.cursor = edits.last().map_or(self.cursor, |edit| edit.range.start + edit.text.len());
                // Whoever asked, asked of another text.
                self.forget();
            }
            DocumentMessage::Asked(question) => {
                if question.shown.number != self.number {
                    self.suggestion = None;
                    self.number = question.shown.number;
                    self.mirror.replaced(question.shown.text.clone());
                }
                // Whoever waits for a next edit of this text chose to; suggestions are asked for at each move.
                let waits =
                    self.asked.as_ref().is_some_and(|asked| asked.question.wanted == Wanted::NextEdit);
                if waits && question.wanted == Wanted::Suggestion && question.shown.number == self.number {
                    return;
                }
                self.cursor = question.cursor;
                self.front.want(question.front.clone());
                self.forget();
                let wants_text = question.wanted == Wanted::Suggestion;
                let held = self.suggestion.as_ref().filter(|_| wants_text);
                match (held.and_then(|held| held.rest(question.cursor)), &self.policy) {
                    (Some(rest), Policy::Sent(_)) => {
                        drop(question.answer.send(Answer::Suggestion(rest.to_owned())));
                    }
                    _ => self.asked = Some(PendingQuestion { question, since: Instant::now(), tries: 0 }),
                }
            }
        }
    }

    /// Nobody wants an answer any more; a completion that runs ends.
    fn forget(&mut self) {
        self.running = None;
        self.asked = None;
    }

    /// Begins what is to be done next, if nothing is under way that must end before.
    fn advance(&mut self) {
        let Policy::Sent(settings) = self.policy.clone() else {
            return self.keep();
        };
        if self.sending.is_some() || self.running.is_some() {
            return;
        }
        if self.asked.is_none() && Instant::now() < self.quiet_until {
            return;
        }
        let Some(connected) = self.connected.clone() else {
            let link = self.link.clone();
            self.sending = Some(sending::connect(link, self.session.take()).boxed());
            return;
        };
        if self.session.is_none() {
            self.mirror.lost();
            self.front.lost();
        }
        self.cursor = self.cursor.min(self.mirror.text().len_bytes());
        let step = self.mirror.next(self.cursor);
        if step != MirrorUpdate::Rest {
            let (name, session) = (self.name.clone(), self.session.take());
            self.sending = Some(sending::send(connected, name, session, step).boxed());
            return;
        }
        if let (Some(parts), Some(session)) = (self.front.next(), self.session.clone()) {
            self.sending = Some(sending::put(session, parts).boxed());
            return;
        }
        let due = self.asked.as_ref().filter(|asked| asked.since + settings.debounce <= Instant::now());
        if let (Some(session), Some(due)) = (self.session.clone(), due) {
            let start = self.mirror.held().start;
            let at = self.cursor - start;
            self.running = Some(match due.question.wanted {
                Wanted::Suggestion => {
                    let around = Surroundings::new(self.mirror.text(), self.cursor);
                    let text = complete(session, at, around, settings, connected);
                    text.map(|text| text.map(Answer::Suggestion)).boxed()
                }
                Wanted::NextEdit => {
                    let edits = next_edit(session, at, start);
                    edits.map(|edits| edits.map(Answer::NextEdit)).boxed()
                }
            });
        }
    }

    /// The document stays here, or is not known yet to be the pool's.
    fn keep(&mut self) {
        if !matches!(self.policy, Policy::Kept) {
            return;
        }
        self.forget();
        self.mirror.lost();
        if let Some(session) = self.session.take() {
            tokio::spawn(tokio::time::timeout(FAREWELL, session.close()));
        }
    }

    /// When something is to be done though nothing happens.
    fn wakes_at(&self) -> Instant {
        let never = Instant::now() + Duration::from_secs(3600);
        let debounced = match (&self.asked, &self.policy) {
            (Some(asked), Policy::Sent(settings)) if self.sending.is_none() => {
                asked.since + settings.debounce
            }
            _ => never,
        };
        let now = Instant::now();
        let waited = self.asked.as_ref().map_or(never, |asked| asked.since + self.patience());
        let quiet = if self.sending.is_none() { self.quiet_until } else { never };
        let running = self.running.is_some();
        // What is over already has been looked at.
        let moments = [debounced, waited, quiet].into_iter().filter(|moment| *moment > now && !running);
        moments.min().unwrap_or(never)
    }

    /// How long a question may wait before it is asked.
    fn patience(&self) -> Duration {
        match &self.policy {
            Policy::Sent(settings) => PATIENCE + settings.debounce,
            Policy::Unknown | Policy::Kept => PATIENCE,
        }
    }

    /// Answers with nothing who has waited long enough for the pool to have the text.
    fn give_up_waiting(&mut self) {
        let waited = self.asked.as_ref().is_some_and(|asked| asked.since.elapsed() >= self.patience());
        if self.running.is_none() && waited {
            self.asked = None;
            if self.sending.is_some() {
                self.link.fails(&LinkError::Silent("taking the text"));
            }
        }
    }

    fn sent(&mut self, sent: CallOutcome) {
        self.session = sent.session;
        match sent.told {
            Ok(PoolReply::Connected(connected)) => {
                self.limit(&connected);
                self.connected = Some(connected);
            }
            Ok(PoolReply::Document { tokens }) => {
                self.link.serves();
                self.pause = FIRST_PAUSE;
                self.fit(tokens);
            }
            Ok(PoolReply::Front { tokens, parts }) => {
                self.front.put(parts);
                let room = self.connected.as_ref().and_then(|connected| self.room(connected));
                if room.is_some_and(|room| tokens > room) {
                    self.front.make_room();
                }
            }
            Err(error) if error.is_too_long() && self.front.make_room() => {
                tracing::debug!(%error, "nothing of other documents stands in front of this one");
            }
            Err(error) if error.is_too_long() => {
                if !self.mirror.shrink() {
                    self.failed(&error);
                    // It is not the document's length: the next attempt begins with all of it.
                    self.mirror.limit(usize::MAX);
                    self.connected = None;
                }
            }
            Err(error) => {
                // Whether it heard is not known.
                self.mirror.lost();
                self.failed(&error);
            }
        }
    }

    /// Tokens that a document may have, so that there is room for a completion and the markers around it.
    fn room(&self, connected: &PoolConnection) -> Option<usize> {
        let Policy::Sent(settings) = &self.policy else { return None };
        let wanted = usize::try_from(settings.max_tokens).unwrap_or(usize::MAX).saturating_add(16);
        connected.context.map(|context| context - wanted.min(context / 2))
    }

    /// Longer documents are not tried whole: few texts have more than three bytes a token.
    fn limit(&mut self, connected: &PoolConnection) {
        if let Some(room) = self.room(connected) {
            self.mirror.limit(room.saturating_mul(3));
        }
    }

    /// What the pool took may still leave no room for a completion.
    fn fit(&mut self, tokens: usize) {
        let room = self.connected.as_ref().and_then(|connected| self.room(connected));
        if let Some(room) = room.filter(|room| tokens > *room) {
            let held = self.mirror.held().len();
            self.mirror.limit((held.saturating_mul(room) / tokens).min(held.saturating_sub(1)));
        }
    }

    fn completed(&mut self, completed: Result<Answer, LinkError>) {
        let Some(mut asked) = self.asked.take() else { return };
        match completed {
            Ok(answer) => {
                self.link.serves();
                if let Answer::Suggestion(text) = &answer {
                    self.suggestion = Some(Suggestion::new(asked.question.cursor, text.clone()));
                }
                if !matches!(&answer, Answer::Suggestion(text) if text.is_empty()) {
                    // Whoever asked may have gone just now.
                    let _ = asked.question.answer.send(answer);
                }
            }
            // The pool was started anew, or had no room for the session: it is opened again, with the text.
            Err(error) if error.is_gone() && asked.tries < TRIES => {
                tracing::debug!(%error, "the session is opened again");
                self.mirror.lost();
                asked.tries += 1;
                asked.since = Instant::now();
                self.asked = Some(asked);
            }
            // It is this question that is refused: the lines are too many, or there is no room for them.
            Err(error) if asked.question.wanted == Wanted::NextEdit && !error.is_away() => {
                tracing::info!(%error, "no next edit");
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Nobody is kept waiting for a pool that cannot answer.
    fn failed(&mut self, error: &LinkError) {
        self.link.fails(error);
        self.asked = None;
        if error.is_away() {
            self.connected = None;
        }
        self.quiet_until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    async fn close(mut self) {
        let end = Instant::now() + FAREWELL;
        self.running = None;
        if let Some(sending) = self.sending.take() {
            self.session = timeout_at(end, sending).await.ok().and_then(|sent| sent.session);
        }
        if let Some(session) = self.session.take() {
            match timeout_at(end, session.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the session was not closed"),
                Err(_) => tracing::debug!("the pool did not close the session in time"),
            }
        }
    }
}
