//! A completion's messages on their way to whoever reads them. A slow reader never holds up the group, and costs little: what he
//! does not read at once is joined to what waits already, and a completion counts until its last message is read, or was not for
//! [`READ_WITHIN`] after it came.

use pie_proto::v1::{CompleteResponse, FinishReason};
use pie_proto::{Fault, Reason};
use pie_words::Revision;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TryRecvError;
use tonic::Status;

/// How long the messages of a completion that is over are kept for its reader.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(60);
/// Messages that wait one by one; tokens that come then join the last of them.
const APART: usize = 16;

type StreamItem = Result<CompleteResponse, Status>;

#[derive(Debug, Default)]
struct MessageQueue {
    messages: VecDeque<StreamItem>,
    reader: Option<Waker>,
    /// Since when nothing more comes.
    ended: Option<Instant>,
    /// Nobody reads it.
    abandoned: bool,
}

impl MessageQueue {
    fn put(&mut self, message: StreamItem) {
        if self.abandoned || self.ended.is_some() {
            return;
        }
        let many = self.messages.len() >= APART;
        match (self.messages.back_mut().filter(|_| many), message) {
            (Some(Ok(last)), Ok(message)) => join(last, message),
            (_, message) => self.messages.push_back(message),
        }
    }

    fn is_over(&self) -> bool {
        self.abandoned || (self.ended.is_some() && self.messages.is_empty())
    }

    /// Lets go of what was not read in time; a reader who comes after all hears of it.
    fn expire(&mut self, now: Instant) -> bool {
        let late = self.ended.is_some_and(|ended| now.saturating_duration_since(ended) >= READ_WITHIN);
        if late && !self.is_over() {
            self.abandoned = true;
            let late = format!(
                "the answer was not read for {} s after it was complete: ask again",
                READ_WITHIN.as_secs()
            );
            self.messages = [Err(Fault::new(Reason::DeadlinePassed, late).into())].into();
        }
        self.is_over()
    }
}

/// Adds a message to the one before, which the client has not seen.
fn join(last: &mut CompleteResponse, message: CompleteResponse) {
    if message.finish_reason() != FinishReason::Unspecified {
        last.finish_reason = message.finish_reason;
    }
    last.text_delta.push_str(&message.text_delta);
    last.tokens.extend(message.tokens);
    last.timings = last.timings.take().or(message.timings);
    last.seed = last.seed.or(message.seed);
}

#[derive(Clone, Debug, Default)]
struct SharedUnread(Arc<Mutex<MessageQueue>>);

impl SharedUnread {
    fn with<T>(&self, what: impl FnOnce(&mut MessageQueue) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what the reader waits for, and wakes him: without the lock, since he may read at once.
    fn tell(&self, what: impl FnOnce(&mut MessageQueue)) {
        let reader = self.with(|unread| {
            what(unread);
            unread.reader.take()
        });
        reader.into_iter().for_each(Waker::wake);
    }
}

/// The completion's end. Dropping it ends the stream.
pub(crate) struct MessageWriter(SharedUnread);

/// The reader's end.
#[derive(Debug)]
pub struct MessageStream {
    unread: SharedUnread,
    revision: Revision,
}

/// Looks whether a stream is read to its end.
pub(crate) struct Watch(SharedUnread);

/// The messages of a completion of a document at this revision.
pub(crate) fn messages(revision: Revision) -> (MessageWriter, MessageStream) {
    let unread = SharedUnread::default();
    (MessageWriter(unread.clone()), MessageStream { unread, revision })
}

impl MessageWriter {
    /// Sends a message, or the reason why no more come.
    pub fn send(&self, message: StreamItem) {
        self.0.tell(|unread| unread.put(message));
    }

    /// The reader went away.
    pub fn is_abandoned(&self) -> bool {
        self.0.with(|unread| unread.abandoned)
    }

    /// Looks on.
    pub fn watch(&self) -> Watch {
        Watch(self.0.clone())
    }
}

impl Drop for MessageWriter {
    fn drop(&mut self) {
        self.0.tell(|unread| unread.ended = Some(Instant::now()));
    }
}

impl Watch {
    /// All is said and read, or nobody wants to read it, or did in time.
    pub fn is_over(&self, now: Instant) -> bool {
        self.0.with(|unread| unread.expire(now))
    }
}

impl MessageStream {
    /// What the document's revision was when the completion was accepted.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The next message, if it is there.
    ///
    /// # Errors
    /// As of tokio's channels.
    pub fn try_recv(&mut self) -> Result<Result<CompleteResponse, Status>, TryRecvError> {
        self.unread.with(|unread| match unread.messages.pop_front() {
            Some(message) => Ok(message),
            None if unread.ended.is_some() => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        })
    }
}

impl tokio_stream::Stream for MessageStream {
    type Item = StreamItem;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<StreamItem>> {
        self.unread.with(|unread| match unread.messages.pop_front() {
            Some(message) => Poll::Ready(Some(message)),
            None if unread.ended.is_some() => Poll::Ready(None),
            None => {
                unread.reader = Some(context.waker().clone());
                Poll::Pending
            }
        })
    }
}

impl Drop for MessageStream {
    fn drop(&mut self) {
        let unread = self.unread.with(|unread| {
            unread.abandoned = true;
            std::mem::take(&mut unread.messages)
        });
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_proto::v1::{CompletedToken, Timings};
    use tokio_stream::StreamExt;

    fn message(token: u32) -> CompleteResponse {
        CompleteResponse {
            text_delta: format!("{token} "),
            tokens: vec![CompletedToken { id: token, ..Default::default() }],
            timings: (token == 0).then(Timings::default),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_reader_who_is_late_gets_everything_in_few_messages() {
        for count in [1, APART as u32, 4000] {
            let (writer, mut stream) = messages(Revision(1));
            let watch = writer.watch();
            (0..count).for_each(|token| writer.send(Ok(message(token))));
            writer.send(Ok(CompleteResponse {
                finish_reason: FinishReason::Length.into(),
                ..Default::default()
            }));
            drop(writer);
            assert!(!watch.is_over(Instant::now()), "it is not read");
            let (mut said, mut tokens, mut read) = (String::new(), Vec::new(), Vec::new());
            while let Some(message) = stream.next().await {
                let message = message.expect("no failure");
                said.push_str(&message.text_delta);
                tokens.extend(message.tokens.iter().map(|token| token.id));
                read.push(message);
            }
            assert!(tokens.iter().copied().eq(0..count), "all, in order");
            assert_eq!(said, (0..count).map(|token| format!("{token} ")).collect::<String>());
            assert!(read.len() <= APART && read[0].timings.is_some(), "{} messages", read.len());
            assert_eq!(read[read.len() - 1].finish_reason(), FinishReason::Length);
            assert!(watch.is_over(Instant::now()));
        }
    }

    #[tokio::test]
    async fn failures_stand_alone_and_whoever_leaves_keeps_nothing() {
        let (writer, mut stream) = messages(Revision(1));
        let watch = writer.watch();
        (0..100).for_each(|token| writer.send(Ok(message(token))));
        writer.send(Err(Status::unavailable("gone")));
        let mut last = None;
        while let Ok(message) = stream.try_recv() {
            last = Some(message);
        }
        assert_eq!(last.expect("the last").expect_err("a failure").code(), tonic::Code::Unavailable);
        writer.send(Ok(message(7)));
        drop(stream);
        assert!(watch.is_over(Instant::now()) && writer.is_abandoned());
        assert!(watch.0.with(|unread| unread.messages.is_empty()), "nothing is kept for nobody");
        // What is over is kept for a while, and then told to be gone.
        let (writer, mut stream) = messages(Revision(1));
        let watch = writer.watch();
        (0..100).for_each(|token| writer.send(Ok(message(token))));
        let later = Instant::now() + 2 * READ_WITHIN;
        assert!(!watch.is_over(later), "it still runs");
        drop(writer);
        assert!(!watch.is_over(Instant::now()) && watch.is_over(later));
        let gone = stream.try_recv().expect("a message").expect_err("a failure");
        assert_eq!(gone.code(), tonic::Code::DeadlineExceeded);
        assert!(stream.try_recv().is_err(), "one message");
        // One who waits is woken by the end.
        let (writer, mut stream) = messages(Revision(1));
        let waits = tokio::spawn(async move { stream.next().await.is_none() });
        tokio::task::yield_now().await;
        drop(writer);
        assert!(waits.await.expect("no panic"));
    }
}
