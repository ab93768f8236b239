//! Why calls fail: stable reasons, each with its gRPC code and a page of advice.

use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `google.rpc.ErrorInfo` of this program.
pub const DOMAIN: &str = "pie-pool";

/// The `domain` of errors that a rank reports to its group's owner; their reasons are the worker's codes.
pub const RANK_DOMAIN: &str = "pie-worker";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:ident, $advice:literal;)*) => {
        /// A stable reason, as `google.rpc.ErrorInfo.reason` carries it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name),* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The gRPC code that goes with it.
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code),* }
            }

            /// What it means and what to do, for `pie explain`.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice),* }
            }
        }
    };
}

reasons! {
    /// The base revision is not the current one.
    RevisionMismatch = "REVISION_MISMATCH", FailedPrecondition,
        "The edit or completion was made against another revision than the session has now (metadata \
         `current_revision`). Another client edited the document, or an answer was lost on the way. Rebase the edit on the current text \
         (GetSession with content), or reopen the session with the whole text: only the difference is encoded.";
    /// A range leaves the document.
    RangeOutOfBounds = "RANGE_OUT_OF_BOUNDS", OutOfRange,
        "A byte range of an edit, or a token splice, ends behind the document's end at the base revision. All edits of a request are in \
         coordinates of the base revision, none in those of an edit before it in the list.";
    /// A range starts behind its end.
    RangeReversed = "RANGE_REVERSED", InvalidArgument,
        "The start of a range lies behind its end. Ranges are start inclusive, end exclusive.";
    /// A byte offset inside a UTF-8 character.
    InsideCharacter = "INSIDE_CHARACTER", InvalidArgument,
        "A byte offset points into the middle of a UTF-8 character. Offsets count bytes of UTF-8, not characters and not UTF-16 units; \
         editors that speak the Language Server Protocol send `lsp` ranges instead, whose columns count bytes too where \
         `position_encoding` is UTF-8.";
    /// Two edits touch the same text.
    EditsOverlap = "EDITS_OVERLAP", InvalidArgument,
        "Two edits of one request cover the same text (metadata `edit` names the second). Merge them into one.";
    /// An LSP column inside of a character.
    BadUtf16Column = "BAD_UTF16_COLUMN", InvalidArgument,
        "An LSP column is in the middle of a surrogate pair. Columns count UTF-16 code units from the start of the line, unless the \
         request's `position_encoding` says otherwise.";
    /// White space without end, in a model whose tokenizer may not get through.
    RunTooLong = "RUN_TOO_LONG", InvalidArgument,
        "The text has a very long run of white space, which the patterns of this model's tokenizer may cut wrongly without saying so. \
         The limit is in the message. The session is unchanged: leave the white space out.";
    /// No session of this name.
    SessionUnknown = "SESSION_UNKNOWN", NotFound,
        "No session of this name is open: it was closed, or the pool lost it. Open it again with the whole text.";
    /// Another life of the name than the call is for.
    SessionReplaced = "SESSION_REPLACED", FailedPrecondition,
        "The call carries the identity of a session that is over: its name was closed, or lost, and opened anew, by this client or by another. Nothing \
         was changed by the call. Open the session again with the whole text, and take identity and revision from the answer; if two clients use \
         one name for two documents, give each its own.";
    /// A name that cannot be used.
    BadSessionName = "BAD_SESSION_NAME", InvalidArgument,
        "Session names have 1 to 256 bytes and no control characters. Leave the name empty to be given one.";
    /// More tokens than the model can see, or more bytes than the pool takes.
    DocumentTooLong = "DOCUMENT_TOO_LONG", InvalidArgument,
        "The document would have more tokens than the model's context, or more bytes than the pool accepts. The limit is in the message \
         and in DescribePool. The session is unchanged: send a part of the document.";
    /// Lines around a cursor that are too much to be written anew.
    RegionTooLong = "REGION_TOO_LONG", InvalidArgument,
        "The lines around the cursor that were to be written anew are too many bytes; the limit is in the message. Ask for fewer lines \
         (`lines_before`, `lines_behind`).";
    /// No free KV rows.
    KvExhausted = "KV_EXHAUSTED", ResourceExhausted,
        "The group's KV cache has too few free slots. Close sessions, retry later, or start the pool with more `--kv-memory`.";
    /// A tenant has its share.
    TenantLimit = "TENANT_LIMIT", ResourceExhausted,
        "The tenant (its token's, or gRPC metadata `pie-tenant`) has as many sessions, tokens or running completions as it may have; the message \
         names which and the limit (its quota in the tokens file, or `--tenant-sessions`, `--tenant-tokens`, `--tenant-requests`). Close sessions, or \
         retry after the pause in RetryInfo.";
    /// A tenant's name that cannot be used.
    BadTenant = "BAD_TENANT", InvalidArgument,
        "The gRPC metadata `pie-tenant` must be 1 to 64 visible ASCII characters other than `/`.";
    /// A call without a token.
    NoToken = "NO_TOKEN", Unauthenticated,
        "The pool asks for a token, and the call has none, or one in another form. Send gRPC metadata `authorization: Bearer TOKEN` with every call \
         (`pie ctl --token-file FILE`). Who runs the pool makes tokens with `pie token`.";
    /// A token that the pool does not know.
    BadToken = "BAD_TOKEN", Unauthenticated,
        "The pool does not know the token: it was mistyped, or taken out of the tokens file (`--tokens`). Ask who runs the pool for another one.";
    /// A token whose time is over.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated,
        "The token was valid until the moment in its entry of the tokens file (`expires`). Ask who runs the pool for another one; a tenant may have \
         several, so that the next one is there before the last expires.";
    /// A call that only those who run the pool may make.
    NotAdmin = "NOT_ADMIN", PermissionDenied,
        "Calls of pie.v1.Admin need a token whose entry in the tokens file says `admin = true` (`pie token --admin` makes one).";
    /// A list that is longer than it may be.
    TooMany = "TOO_MANY", InvalidArgument,
        "A list in the request, or one of its members, is longer than it may be; the message names it and the limit. Send several requests.";
    /// No markers for filling in the middle.
    FimUnsupported = "FIM_UNSUPPORTED", FailedPrecondition,
        "The model's tokenizer has no fill-in-the-middle markers of a known family, or the document is one of tokens whose client must place them \
         itself. Complete with mode CONTINUE instead, or have the pool started with --fim, which says how the model does it.";
    /// Nothing to complete.
    ContextEmpty = "CONTEXT_EMPTY", FailedPrecondition,
        "The session has no tokens and the model has no leading token, so there is nothing to continue. Edit some text in first.";
    /// Sampling parameters out of range.
    BadSampling = "BAD_SAMPLING", InvalidArgument,
        "A sampling parameter is out of its range; the message names it and the range.";
    /// Tokens that a completion cannot have generated.
    BadGenerated = "BAD_GENERATED", InvalidArgument,
        "A completion was to go on behind tokens (`generated`) that are not its beginning: they are as many as it may have, or one of them ends it, or \
         the model draws others from the same text and seed. The message says which. Take them from the messages of the earlier stream, all of them and \
         in order, and ask for everything else as then; or complete without them, from the beginning.";
    /// Text for a session of tokens.
    TokensOnly = "TOKENS_ONLY", FailedPrecondition,
        "The session was opened with token ids and has no text; edit it with token splices, or open one with text.";
    /// Tokens for a session of text.
    TextOnly = "TEXT_ONLY", FailedPrecondition,
        "The session was opened with text, and token splices would break the tie between the two; edit it with text edits.";
    /// A token id behind the vocabulary.
    TokenUnknown = "TOKEN_UNKNOWN", InvalidArgument,
        "A token id is not in the model's vocabulary; its size is in DescribePool.";
    /// Token splices out of order.
    SplicesUnsorted = "SPLICES_UNSORTED", InvalidArgument,
        "Token splices must be sorted by `at` and must not overlap; all in token indices of the base revision.";
    /// A field that must be there is not.
    FieldMissing = "FIELD_MISSING", InvalidArgument,
        "The request lacks a field that it cannot do without; the message names it.";
    /// A value outside its enumeration.
    FieldInvalid = "FIELD_INVALID", InvalidArgument,
        "A field holds a value that this version does not know; the message names it. Is the client newer than the pool?";
    /// The caller waits no longer.
    DeadlinePassed = "DEADLINE_PASSED", DeadlineExceeded,
        "The call's deadline (`grpc-timeout`) passed before the pool could answer. An edit may have been applied all the same: then the retry is \
         refused with REVISION_MISMATCH.";
    /// Bytes that are no message.
    Malformed = "MALFORMED", InvalidArgument,
        "The bytes of the request are no protobuf message that the method takes, or not compressed as they say (`grpc-encoding`: gzip or identity); \
         the message says what is wrong. Texts must be UTF-8. Is the client made of the same .proto files?";
    /// More bytes than a message may have.
    MessageTooLarge = "MESSAGE_TOO_LARGE", InvalidArgument,
        "The request's message is larger than the pool takes, as it is sent or once it is decompressed: 1 MiB more than the largest document \
         (`--document-limit`). Send a part of the document, or several requests.";
    /// A page token that the pool did not give out.
    BadPageToken = "BAD_PAGE_TOKEN", InvalidArgument,
        "The page token is not one from an earlier answer; start again without one.";
    /// The group's caches are gone.
    GroupLost = "GROUP_LOST", Unavailable,
        "A rank of the group died or did not answer in time, so the group's KV caches are gone; the message names the rank and the reason. \
         Retry: when the group forms again, sessions are encoded again from their documents.";
    /// Nobody but the router has the change.
    NotReplicated = "NOT_REPLICATED", Unavailable,
        "Changes are told as made when the ranks of the session's group have them too (`--ack replicated`), and at the moment no rank is there. The \
         message says whether anything was changed. Retry after the pause in RetryInfo, when the group is formed again. An edit may have been applied all \
         the same: then the retry is refused with REVISION_MISMATCH.";
    /// Too many calls wait.
    Overloaded = "OVERLOADED", ResourceExhausted,
        "As much waits as may: calls of the session, the tenant or the group, text to be tokenized; or the group has as many sessions (`--sessions`, none \
         of them idle for `--session-room`) or completions (`--completions`) as it may, those included that are over and not read to their end. The \
         message names which. Retry after a short, growing pause.";
    /// The pool is stopping.
    ShuttingDown = "SHUTTING_DOWN", Unavailable,
        "The router is stopping and takes no new work. Retry: another router may answer.";
    /// The router is being drained.
    ServerDraining = "SERVER_DRAINING", Unavailable,
        "The router got SIGTERM: completions that run may end (`--drain-grace`), edits of open sessions are taken, new sessions and new \
         completions are not. Retry after the pause in RetryInfo, on a new connection: another router takes its groups over, with the sessions. Where \
         there is no other router, sessions end with this one: then they are SESSION_UNKNOWN, and opened again with the whole text.";
    /// The session is on its way.
    SessionMoving = "SESSION_MOVING", Unavailable,
        "The session is being moved to another group or another router, with its document and its revision. Nothing was changed by the call: retry \
         it as it is, after the pause in RetryInfo.";
    /// No group can take the session.
    NoGroup = "NO_GROUP", Unavailable,
        "No group of ranks serves at the moment, or none takes new sessions. Retry; if it stays so, look at DescribePool (`pie ctl pool`) and the \
         workers' logs.";
    /// The group has another owner than the router thought that asked.
    SessionElsewhere = "SESSION_ELSEWHERE", Unavailable,
        "A router forwarded the call to another one that does not own the session's group (metadata `group`) any more. Nothing was changed by the call: \
         retry it as it is, after the pause in RetryInfo.";
    /// The router cannot tell whether it still owns the group.
    OwnershipUnsure = "OWNERSHIP_UNSURE", Unavailable,
        "The router that owns the session's group has not heard from the placement (etcd) for so long that another router may own the group by now, \
         or it has just lost it. Nothing was changed by the call: retry it as it is, after the pause in RetryInfo. The router goes on when the \
         placement answers, or gives the document to the group's new owner. Operators: look at etcd and the way to it.";
    /// The group's router cannot be reached.
    RouterUnreachable = "ROUTER_UNREACHABLE", Unavailable,
        "The router that owns the session's group did not answer the one that forwards. Retry: when it is gone, another router takes its group \
         over. An edit may have been applied all the same: then the retry is refused with REVISION_MISMATCH.";
    /// No group of this name.
    GroupUnknown = "GROUP_UNKNOWN", NotFound,
        "No group of this name has ranks or an owner. `pie ctl pool` lists them.";
    /// The tokenizer failed on text that it should take.
    TokenizerFailed = "TOKENIZER_FAILED", Internal,
        "The tokenizer refused a text. The session is unchanged. Please report the message with the tokenizer's name.";
    /// A broken invariant.
    Internal = "INTERNAL", Internal,
        "A bug in pie-pool: the message says which invariant is broken. Please report it with the router's log.";
}

impl Reason {
    /// The reason of a stable text.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// What was wrong, where, with the numbers, and what to do.
    pub message: String,
    /// Machine-readable details, for example `edit` or `current_revision`.
    pub metadata: Vec<(&'static str, String)>,
    /// When to try again, as `google.rpc.RetryInfo`.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A refusal with a message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: Vec::new(), retry_after: None }
    }

    /// Adds a machine-readable detail.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(self, pause: Duration) -> Self {
        Self { retry_after: Some(pause), ..self }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Fault {}

/// When to come again to what is away, where nothing more is known.
const RETRY: Duration = Duration::from_millis(250);

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let metadata: HashMap<String, String> =
            fault.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(fault.reason.as_str(), DOMAIN, metadata);
        // What is not there now will be: whoever is told so is told when to come again.
        let passes = fault.reason.code() == Code::Unavailable;
        if let Some(pause) = fault.retry_after.or(passes.then_some(RETRY)) {
            details.set_retry_info(Some(pause));
        }
        Status::with_error_details(fault.reason.code(), fault.message, details)
    }
}

/// The reason in a status that this program made.
pub fn reason_of(status: &Status) -> Option<Reason> {
    status
        .get_details_error_info()
        .filter(|info| info.domain == DOMAIN)
        .and_then(|info| Reason::of(&info.reason))
}

/// A machine-readable detail of a status that this program made.
pub fn detail_of(status: &Status, key: &str) -> Option<String> {
    status.get_details_error_info().and_then(|info| info.metadata.get(key).cloned())
}

/// The code that a rank gives for ending its epoch; `None` when it is the connection that broke.
pub fn rank_code_of(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == RANK_DOMAIN).map(|info| info.reason)
}
