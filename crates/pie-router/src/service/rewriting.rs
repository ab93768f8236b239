//! Completions that write the lines around a cursor anew: what the model is told is worked out on a copy of the document, and what
//! it writes is told as edits, as far as they are settled.

use super::preparing::ATTEMPTS;
use super::sessions::{AcceptedCompletion, Messages};
use crate::faults;
use crate::group::{Asker, LocalGroup};
use pie_group::call::{Call, WorkedOut};
use pie_group::tokenizing::{AdmissionWait, beside};
use pie_proto::request::Complete;
use pie_proto::{Reason, v1};
use pie_text::{AnswerEnd, EditableRegion, RegionAnswer};
use pie_words::{TextEdit, TokenId};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_stream::Stream;
use tonic::Status;

/// Tokens that may be written beside twice those of the lines as they are.
const MORE_TOKENS: usize = 64;

impl LocalGroup {
    /// Answers in the mode REWRITE. If nobody named a revision, it is that at which the copy was made.
    pub(super) async fn rewrite(
        &self,
        asker: Asker,
        request: Complete,
        expected: Vec<TokenId>,
    ) -> Result<AcceptedCompletion, Status> {
        let Asker { tenant, arrived } = asker;
        let mut attempt = 1;
        loop {
            let (owner, session) = (tenant.clone(), request.session.clone());
            let held = self.ask(|reply| Call::Look { tenant: owner, session, reply }).await?;
            let document =
                self.router.counted(held.ok_or_else(|| faults::no_session(request.session.as_str())))?;
            let (revision, bytes) = (document.revision(), document.len_bytes());
            if let Some(wanted) = request.revision.filter(|wanted| *wanted != revision) {
                self.router.counted(Err(faults::other_revision(wanted, revision)))?;
            }
            let (at, lines) = (request.at, request.lines);
            let found = move || document.region(at, lines).map_err(|error| faults::at_cursor(&error));
            let region = self.router.counted(beside(bytes, AdmissionWait::Briefly, found).await)?;
            let mut request = request.clone();
            request.revision.get_or_insert(revision);
            request.stop.extend(region.stop.iter().cloned());
            if request.max_tokens == 0 {
                let usual = 2 * region.expected.len() + MORE_TOKENS;
                let context = self.owner.holdings().context_limit;
                request.max_tokens = u32::try_from(usual)
                    .unwrap_or(u32::MAX)
                    .min(u32::try_from(context).unwrap_or(u32::MAX))
                    .max(1);
            }
            let EditableRegion { bytes, text, expected: lines, prompt, .. } = region;
            let worked_out = WorkedOut { expected: [expected.clone(), lines].concat(), prompt };
            let answer = RegionAnswer::new(bytes.start, &text);
            let tenant = tenant.clone();
            match self.ask(|reply| Call::Complete { tenant, request, worked_out, arrived, reply }).await {
                Err(fault) if attempt < ATTEMPTS && fault.reason == Reason::RevisionMismatch => attempt += 1,
                Err(fault) => return Err(fault.into()),
                Ok(stream) => {
                    let region = v1::ByteRange { start: bytes.start as u64, end: bytes.end as u64 };
                    let revision = Some(stream.revision().0);
                    let messages = Box::pin(stream);
                    let messages =
                        Box::pin(Rewritten { messages, answer: Some(answer), region: Some(region) });
                    return Ok(AcceptedCompletion { revision, messages });
                }
            }
        }
    }
}

/// An answer, with the edits that it comes to.
struct Rewritten {
    messages: Messages,
    /// Until its last message.
    answer: Option<RegionAnswer>,
    /// Until its first.
    region: Option<v1::ByteRange>,
}

impl Rewritten {
    fn tell(&mut self, mut message: v1::CompleteResponse) -> v1::CompleteResponse {
        message.region = self.region.take();
        let mut edits = self.answer.as_mut().map_or_else(Vec::new, |answer| answer.push(&message.text_delta));
        let end = match message.finish_reason() {
            v1::FinishReason::Unspecified => None,
            v1::FinishReason::Stop => Some(AnswerEnd::Whole),
            v1::FinishReason::Length | v1::FinishReason::Edited => Some(AnswerEnd::CutShort),
        };
        if let Some((answer, end)) = end.and_then(|end| Some((self.answer.take()?, end))) {
            edits.extend(answer.finish(end));
        }
        message.edits = edits.into_iter().map(wire).collect();
        message
    }
}

impl Stream for Rewritten {
    type Item = Result<v1::CompleteResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = ready!(self.messages.as_mut().poll_next(context));
        Poll::Ready(message.map(|message| message.map(|message| self.tell(message))))
    }
}

fn wire(edit: TextEdit) -> v1::TextEdit {
    v1::TextEdit { range: Some(edit.range.into()), text: edit.insert }
}
