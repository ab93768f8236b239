//! Why a call of the client fails.

use pie_proto::Reason;
use pie_proto::reason::reason_of;
use std::time::Duration;
use tonic::Status;
use tonic_types::StatusExt;

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers, or the two sides do not trust each other.
    #[error("no pool answers at {url}: is `pie pool` running there? ({source})")]
    Connect {
        /// The address that was called.
        url: String,
        /// What went wrong on the way: of the network, or of TLS.
        source: pie_transport::ConnectError,
    },
    /// An address that is none.
    #[error("`{url}` is no URL: give one like http://127.0.0.1:7400, or https:// for a pool with TLS")]
    BadUrl {
        /// What was given.
        url: String,
    },
    /// A token that cannot stand in a header.
    #[error("the token is none: it must be the one line that `pie token` printed")]
    BadToken,
    /// The pool answers, and refuses; or the connection broke under the call.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    /// An edit that does not fit the client's own text.
    #[error(
        "the edit covers bytes {start}..{end}, which is no range of the text ({length} bytes, cut at characters)"
    )]
    BadEdit {
        /// The first byte of the edit.
        start: usize,
        /// The byte behind the edit's last.
        end: usize,
        /// Bytes of the text.
        length: usize,
    },
    /// A tenant's name that cannot stand in a header.
    #[error("`{tenant}` is no tenant's name: use printable ASCII")]
    BadTenant {
        /// What was given.
        tenant: String,
    },
    /// The stream ended without its last message.
    #[error("the completion ended without a reason: the router went away; try again")]
    CutOff,
}

impl ClientError {
    /// The pool's reason, if it is the pool that refused.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(status) => reason_of(status),
            _ => None,
        }
    }

    /// Whether the same call may succeed in a moment.
    pub fn passes(&self) -> bool {
        match self {
            Self::Refused(status) => {
                let broken = std::error::Error::source(status.as_ref()).is_some();
                // A connection that broke under the call is told by various codes; no router has said any of them.
                status.code() == tonic::Code::Unavailable
                    || self.reason() == Some(Reason::Overloaded)
                    || broken
            }
            Self::CutOff => true,
            Self::Connect { .. }
            | Self::BadUrl { .. }
            | Self::BadToken
            | Self::BadEdit { .. }
            | Self::BadTenant { .. } => false,
        }
    }

    /// When the pool wants to be asked again, if it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(status) => status.get_details_retry_info()?.retry_delay,
            _ => None,
        }
    }

    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "CONNECT_FAILED",
            Self::BadUrl { .. } => "BAD_URL",
            Self::BadToken => "BAD_TOKEN",
            Self::Refused(status) => reason_of(status).map_or("UNKNOWN", Reason::as_str),
            Self::BadEdit { .. } => "BAD_EDIT",
            Self::BadTenant { .. } => "BAD_TENANT",
            Self::CutOff => "COMPLETION_CUT_OFF",
        }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

fn refusal(status: &Status) -> String {
    match reason_of(status) {
        Some(reason) => format!("{reason}: {} (`pie explain {reason}` says more)", status.message()),
        // Not of this program's making: the cause says more than the message, for example that a certificate was refused.
        None => match std::error::Error::source(status) {
            Some(cause) => format!("{}: {}", status.code(), pie_transport::causes(cause)),
            None => format!("{}: {}", status.code(), status.message()),
        },
    }
}
