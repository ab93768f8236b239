//! The calls of one session, each as it is answered where the session lives, and as it is sent there.

use super::preparing::Opening;
use crate::calls;
use crate::elsewhere::{Elsewhere, passed_on, pool};
use crate::group::{Asker, GroupCall, LocalGroup};
use pie_group::call::{Call, Why, WorkedOut};
use pie_proto::request::{ApplyEdits, Complete, Identity, Mode, OpenSession, SessionName};
use pie_proto::{REVISION_METADATA, v1};
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

/// A completion's messages.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<v1::CompleteResponse, Status>> + Send>>;

/// A completion that was accepted.
pub(crate) struct AcceptedCompletion {
    /// What the document's revision was then. A router that does not tell is one of an earlier release, and does not know what was
    /// generated before.
    pub revision: Option<u64>,
    /// The answer.
    pub messages: Messages,
}

/// A call of a session that is open: it goes where that lives.
pub(super) trait SessionCall: GroupCall + Clone + Sync {
    /// The session's name, unchecked.
    fn session(&self) -> &str;
}

macro_rules! session_calls {
    ($($message:ident),*) => {
        $(impl SessionCall for v1::$message {
            fn session(&self) -> &str {
                &self.session
            }
        })*
    };
}

session_calls!(ApplyEditsRequest, CompleteRequest, GetSessionRequest, CloseSessionRequest);

impl GroupCall for v1::OpenSessionRequest {
    type Answer = v1::OpenSessionResponse;

    async fn here(self, group: LocalGroup, asker: Asker) -> Result<Self::Answer, Status> {
        group.router.check_phase()?;
        let name = group.router.counted(SessionName::new(self.session.clone()))?;
        let OpenSession { content, spellings, following, .. } =
            group.router.counted(OpenSession::try_from(self))?;
        let tenant = asker.tenant;
        // Before the work of tokenizing: whoever has no room is told at once.
        group.make_room(&tenant, &name).await?;
        Ok(group.open(Opening { tenant, name, content, spellings, following }).await?)
    }

    async fn elsewhere(self, group: Elsewhere) -> Result<Self::Answer, Status> {
        group.call(self, async |channel, request| pool(channel).open_session(request).await).await
    }
}

impl GroupCall for v1::ApplyEditsRequest {
    type Answer = v1::ApplyEditsResponse;

    async fn here(self, group: LocalGroup, asker: Asker) -> Result<Self::Answer, Status> {
        let request = group.router.counted(ApplyEdits::try_from(self))?;
        tracing::debug!(target: calls::TEXT, edits = ?request.edits, "edits");
        Ok(group.edit(asker, request).await?)
    }

    async fn elsewhere(self, group: Elsewhere) -> Result<Self::Answer, Status> {
        group.call(self, async |channel, request| pool(channel).apply_edits(request).await).await
    }
}

impl GroupCall for v1::CompleteRequest {
    type Answer = AcceptedCompletion;

    async fn here(self, group: LocalGroup, asker: Asker) -> Result<Self::Answer, Status> {
        group.router.check_phase()?;
        let mut request = group.router.counted(Complete::try_from(self))?;
        let expected = group.expected(std::mem::take(&mut request.prediction)).await?;
        if request.mode == Mode::Rewrite {
            return group.rewrite(asker, request, expected).await;
        }
        let Asker { tenant, arrived } = asker;
        let worked_out = WorkedOut { expected, ..WorkedOut::default() };
        let stream =
            group.ask(|reply| Call::Complete { tenant, request, worked_out, arrived, reply }).await?;
        Ok(AcceptedCompletion { revision: Some(stream.revision().0), messages: Box::pin(stream) })
    }

    async fn elsewhere(self, group: Elsewhere) -> Result<Self::Answer, Status> {
        let router = group.router.clone();
        let send = async |channel, request| {
            let answer = pool(channel).complete(request).await?;
            let revision =
                answer.metadata().get(REVISION_METADATA).and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(answer.map(|stream| (revision, stream)))
        };
        let (revision, stream) = group.call(self, send).await?;
        let messages = stream.map(move |message| message.map_err(|status| passed_on(&router, status)));
        Ok(AcceptedCompletion { revision, messages: Box::pin(messages) })
    }
}

impl GroupCall for v1::GetSessionRequest {
    type Answer = v1::GetSessionResponse;

    async fn here(self, group: LocalGroup, asker: Asker) -> Result<Self::Answer, Status> {
        let Self { session, content, identity } = self;
        let session = group.router.counted(SessionName::new(session))?;
        let (tenant, identity) = (asker.tenant, Identity::given(identity));
        Ok(group.ask(|reply| Call::Get { tenant, session, identity, content, reply }).await?)
    }

    async fn elsewhere(self, group: Elsewhere) -> Result<Self::Answer, Status> {
        group.call(self, async |channel, request| pool(channel).get_session(request).await).await
    }
}

impl GroupCall for v1::CloseSessionRequest {
    type Answer = v1::CloseSessionResponse;

    async fn here(self, group: LocalGroup, asker: Asker) -> Result<Self::Answer, Status> {
        let session = group.router.counted(SessionName::new(self.session))?;
        group.close(asker.tenant, session, Identity::given(self.identity), Why::Client).await?;
        Ok(v1::CloseSessionResponse {})
    }

    async fn elsewhere(self, group: Elsewhere) -> Result<Self::Answer, Status> {
        group.call(self, async |channel, request| pool(channel).close_session(request).await).await
    }
}
