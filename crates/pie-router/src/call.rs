//! What the service asks of the group's owner, and what it answers.

use crate::tenants::Tenant;
use pie_plan::{Strategy, TokenId};
use pie_proto::request::{ApplyEdits, Complete, SessionName};
use pie_proto::{Fault, v1};
use pie_text::Document;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// The answer to a call.
pub type Reply<T> = oneshot::Sender<Result<T, Fault>>;

/// A call on its way to the owner. The service has checked and, for a new document, tokenized it.
pub enum Call {
    /// Open or reopen a session.
    Open {
        /// Whose.
        tenant: Tenant,
        /// `None`: choose one.
        name: Option<SessionName>,
        /// Tokenized already: that is the work that does not depend on what is held.
        document: Box<Document>,
        /// Of its edits.
        strategy: Strategy,
        /// The answer.
        reply: Reply<v1::OpenSessionResponse>,
    },
    /// Edit a session's document.
    Edit {
        /// What.
        request: ApplyEdits,
        /// When the call came in.
        arrived: Instant,
        /// The answer.
        reply: Reply<v1::ApplyEditsResponse>,
    },
    /// Complete a session's document.
    Complete {
        /// What.
        request: Complete,
        /// When the call came in.
        arrived: Instant,
        /// Where the stream's receiver goes, when the completion is accepted.
        reply: Reply<Stream>,
    },
    /// Describe a session.
    Get {
        /// Which.
        session: SessionName,
        /// With text and tokens.
        content: bool,
        /// The answer.
        reply: Reply<v1::GetSessionResponse>,
    },
    /// Close a session.
    Close {
        /// Which.
        session: SessionName,
        /// The answer.
        reply: Reply<()>,
    },
    /// List sessions in order of their names.
    List {
        /// Behind this name.
        after: Option<String>,
        /// At most so many.
        limit: usize,
        /// The answer, and whether there are more.
        reply: oneshot::Sender<(Vec<v1::Session>, More)>,
    },
    /// Describe the group.
    Describe {
        /// The answer.
        reply: oneshot::Sender<v1::DescribePoolResponse>,
    },
}

/// Whether a page is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// There are more sessions.
    Yes,
    /// That was all.
    No,
}

/// A completion's messages.
pub type Stream = mpsc::Receiver<Result<v1::CompleteResponse, tonic::Status>>;

/// What the owner must know of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    /// Its name.
    pub name: String,
    /// Parameters.
    pub parameters: u64,
    /// Positions that it knows.
    pub context_limit: u32,
    /// Size of its vocabulary.
    pub vocabulary: u32,
    /// Tokens that end a text.
    pub end_of_text: Vec<TokenId>,
}
