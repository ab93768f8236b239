//! What the service asks of the group's owner, and what it answers.

use crate::tenants::Tenant;
use pie_proto::carried::Carried;
use pie_proto::request::{ApplyEdits, Complete, Identity, SessionName};
use pie_proto::{Fault, v1};
use pie_text::{Document, DocumentChange};
use pie_words::{AskedFollowing, Following, TokenId};
use std::time::Instant;
use tokio::sync::oneshot;

/// The answer to a call.
pub type Reply<T> = oneshot::Sender<Result<T, Fault>>;

/// A call on its way to the owner. The service has checked and, for a new document, tokenized it.
pub enum Call {
    /// Open a session, or bring one that is open to its client's text.
    Open {
        /// Whose.
        tenant: Tenant,
        /// Its name among the tenant's.
        name: SessionName,
        /// What it is to hold.
        prepared: Prepared,
        /// How its cache follows its edits.
        following: AskedFollowing,
        /// The answer.
        reply: Reply<v1::OpenSessionResponse>,
    },
    /// Edit a session's document.
    Edit {
        /// Whose.
        tenant: Tenant,
        /// What.
        request: ApplyEdits,
        /// What that does, if it was worked out on what [`EditReply::Beside`] gave. The request need not hold its edits then.
        prepared: Option<Box<DocumentChange>>,
        /// When the call came in.
        arrived: Instant,
        /// The answer.
        reply: Reply<EditReply>,
    },
    /// A copy of a session's document, to prepare a change on; none if no such session is open.
    Look {
        /// Whose.
        tenant: Tenant,
        /// Which.
        session: SessionName,
        /// The answer.
        reply: Reply<Option<Box<Document>>>,
    },
    /// Complete a session's document.
    Complete {
        /// Whose.
        tenant: Tenant,
        /// What.
        request: Complete,
        /// What was found out for it beside the owner.
        worked_out: WorkedOut,
        /// When the call came in.
        arrived: Instant,
        /// Where the stream's receiver goes, when the completion is accepted.
        reply: Reply<MessageStream>,
    },
    /// Describe a session.
    Get {
        /// Whose.
        tenant: Tenant,
        /// Which.
        session: SessionName,
        /// Only of this life.
        identity: Option<Identity>,
        /// With text and tokens.
        content: bool,
        /// The answer.
        reply: Reply<v1::GetSessionResponse>,
    },
    /// List a tenant's sessions in order of their names.
    List {
        /// Whose.
        tenant: Tenant,
        /// Behind this name.
        after: Option<SessionName>,
        /// At most so many.
        limit: usize,
        /// The answer, and whether there are more.
        reply: oneshot::Sender<(Vec<v1::Session>, More)>,
    },
    /// List the sessions of a tenant, or of all, for who runs the pool.
    Held {
        /// Whose; of all if `None`.
        tenant: Option<Tenant>,
        /// Behind this one.
        after: Option<(Tenant, SessionName)>,
        /// At most so many.
        limit: usize,
        /// The answer, and whether there are more.
        reply: oneshot::Sender<(Vec<v1::TenantSession>, More)>,
    },
    /// Take a session that was open elsewhere.
    Take {
        /// Which.
        taken: ImportedSession,
        /// The answer.
        reply: Reply<()>,
    },
    /// Put a session out of reach, to be closed: until [`Call::Keep`] or [`Call::Depart`].
    Vacate {
        /// Whose.
        tenant: Tenant,
        /// Which.
        session: SessionName,
        /// Only of this life.
        identity: Option<Identity>,
        /// The answer.
        reply: Reply<Resident>,
    },
    /// Make sure that a session can be opened. What is in the answer is in its way and out of reach: it is to be closed.
    Room {
        /// Whose.
        tenant: Tenant,
        /// Which.
        session: SessionName,
        /// The answer.
        reply: Reply<Option<Resident>>,
    },
    /// Put out of reach what nobody uses, to be closed.
    Idle {
        /// The answer.
        reply: oneshot::Sender<Vec<Resident>>,
    },
    /// Who is on its way for longer than anything takes.
    Stuck {
        /// The answer.
        reply: oneshot::Sender<Vec<Resident>>,
    },
    /// Answered when the ranks have all that has happened to the documents so far.
    Settled {
        /// The answer.
        reply: Reply<()>,
    },
    /// Give a session away: until [`Call::Keep`] or [`Call::Depart`] it is out of reach.
    Give {
        /// Whose.
        tenant: Tenant,
        /// Which.
        session: SessionName,
        /// If completions run.
        busy: BusySessionPolicy,
        /// The answer.
        reply: Reply<GiveReply>,
    },
    /// It stays after all.
    Keep {
        /// Who.
        resident: Resident,
    },
    /// It lives here no longer.
    Depart {
        /// Who.
        resident: Resident,
        /// What became of it.
        departure: Departure,
    },
    /// Who is here: the sessions of all tenants.
    Residents {
        /// The answer.
        reply: oneshot::Sender<Vec<(Tenant, SessionName)>>,
    },
    /// Give all documents to the group's next owner. Refused while the group is owned here.
    GiveAll {
        /// The answer.
        reply: Reply<Vec<Carried>>,
    },
    /// What was given has arrived there.
    Arrived {
        /// Of that.
        what: ArrivedDocuments,
    },
    /// Describe the group.
    Describe {
        /// The answer.
        reply: oneshot::Sender<v1::DescribePoolResponse>,
    },
}

/// What is found out for a completion before its owner is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkedOut {
    /// What it may write.
    pub expected: Vec<TokenId>,
    /// In the mode REWRITE: what the model is told, behind the document at the revision that the request names.
    pub prompt: Vec<TokenId>,
}

/// A client's text, worked out beside the owner for what [`Call::Look`] gave. It is refused if that is so no longer.
#[derive(Debug)]
pub enum Prepared {
    /// There was no such session.
    New {
        /// Which life of the name begins.
        identity: Identity,
        /// At the revision at which it begins.
        document: Box<Document>,
    },
    /// There was one, and this makes its document equal to the client's.
    Again(Box<DocumentChange>),
}

/// What becomes of an edit.
#[derive(Debug)]
pub enum EditReply {
    /// It is applied.
    Done(v1::ApplyEditsResponse),
    /// It takes more than a moment: it is to be worked out elsewhere, on this copy, and then applied.
    Beside {
        /// As it is now.
        document: Box<Document>,
        /// The edit, as it came.
        request: Box<ApplyEdits>,
        /// Bytes of text that are to be tokenized.
        bytes: usize,
    },
}

/// Which of the documents that were given have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArrivedDocuments {
    /// All.
    All,
    /// One of a tenant's.
    One(Tenant, SessionName),
}

/// What a call needs of who answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// The group's owner, whose changes the ranks hold: it changes a document.
    Change,
    /// The group's owner.
    Ownership,
    /// Anybody who has the documents.
    Nothing,
}

impl Call {
    fn needs(&self) -> Needs {
        match self {
            Self::Open { .. } | Self::Edit { .. } | Self::Take { .. } | Self::Vacate { .. } => Needs::Change,
            Self::Look { .. }
            | Self::Complete { .. }
            | Self::Get { .. }
            | Self::Room { .. }
            | Self::Idle { .. }
            | Self::Stuck { .. } => Needs::Ownership,
            Self::List { .. }
            | Self::Held { .. }
            | Self::Settled { .. }
            | Self::Give { .. }
            | Self::Keep { .. }
            | Self::Depart { .. }
            | Self::Residents { .. }
            | Self::GiveAll { .. }
            | Self::Arrived { .. }
            | Self::Describe { .. } => Needs::Nothing,
        }
    }

    /// Refuses what only the group's owner may answer; other calls are handed back.
    pub(crate) fn refuse_unless_free(self, fault: impl FnOnce() -> Fault) -> Option<Self> {
        if self.needs() == Needs::Nothing { Some(self) } else { self.refuse(fault()) }
    }

    /// Refuses what changes documents; other calls are handed back.
    pub(crate) fn refuse_changes(self, fault: impl FnOnce() -> Fault) -> Option<Self> {
        if self.needs() == Needs::Change { self.refuse(fault()) } else { Some(self) }
    }

    /// What nobody refuses is handed back.
    fn refuse(self, fault: Fault) -> Option<Self> {
        // Whoever asked may be gone.
        match self {
            Self::Open { reply, .. } => drop(reply.send(Err(fault))),
            Self::Edit { reply, .. } => drop(reply.send(Err(fault))),
            Self::Look { reply, .. } => drop(reply.send(Err(fault))),
            Self::Complete { reply, .. } => drop(reply.send(Err(fault))),
            Self::Get { reply, .. } => drop(reply.send(Err(fault))),
            Self::Take { reply, .. } => drop(reply.send(Err(fault))),
            Self::Vacate { reply, .. } => drop(reply.send(Err(fault))),
            Self::Room { reply, .. } => drop(reply.send(Err(fault))),
            Self::Idle { reply } | Self::Stuck { reply } => drop(reply.send(Vec::new())),
            free => return Some(free),
        }
        None
    }
}

/// A session from elsewhere, tokenized.
#[derive(Debug)]
pub struct ImportedSession {
    /// Whose.
    pub tenant: Tenant,
    /// Its name among the tenant's.
    pub name: SessionName,
    /// Which life of the name it is.
    pub identity: Identity,
    /// How its cache follows its edits.
    pub following: Following,
    /// At the revision that its client knows.
    pub document: Box<Document>,
}

/// A session of an owner's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Whose.
    pub tenant: Tenant,
    /// Its name among the tenant's.
    pub name: SessionName,
    /// Which life of the name it is.
    pub identity: Identity,
}

/// What became of a session that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It arrived elsewhere.
    Moved,
    /// It is closed.
    Closed(Why),
}

/// Who closes a session, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its client.
    Client,
    /// Who runs the pool.
    Admin,
    /// Nobody used it for long.
    Idle,
    /// Nobody used it, and another one was to be opened.
    Room,
}

/// What giving a session does to completions that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusySessionPolicy {
    /// They may end: the session is not given yet.
    Waits,
    /// They fail, and can be retried where the session will be.
    Fails,
}

/// The answer to [`Call::Give`].
#[derive(Debug)]
pub enum GiveReply {
    /// The session, to be taken elsewhere.
    Carried(Box<Carried>),
    /// A completion runs.
    NotYet,
}

/// Whether a page is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// There are more sessions.
    Yes,
    /// That was all.
    No,
}

impl More {
    /// Whether one of two lists goes on.
    pub fn or(self, other: Self) -> Self {
        if self == Self::Yes { self } else { other }
    }
}

pub use crate::messages::MessageStream;

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
    /// All its ranks write rows to disk and read them back.
    pub spills: bool,
}
