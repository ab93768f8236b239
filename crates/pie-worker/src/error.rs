//! Why a rank refuses or fails a plan.

use pie_comm::CommError;
use pie_kv::KvError;
use pie_model::ModelError;
use pie_plan::ledger::LedgerError;
use pie_plan::{PlanError, Violation};
use pie_words::{Epoch, SessionId};
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Why a rank refuses or fails.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A plan that the tables refuse.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A broken invariant: a bug.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The cache.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The forward pass.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A peer.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A session samples, and the plan does not say how.
    #[error("the plan samples session {0} without parameters: owner and rank must be of one release")]
    NoSampling(SessionId),
    /// A plan of an epoch that this rank is not in: its group was never formed here, or has ended.
    #[error("this rank is not in the group of that epoch: form it first")]
    NotFormed,
    /// An older or equal epoch wants the rank.
    #[error(
        "epoch {asked} is over: this rank has served epoch {served}; the caller no longer owns the group"
    )]
    Fenced {
        /// What the caller has.
        asked: Epoch,
        /// What this rank has served.
        served: Epoch,
    },
    /// What an owner has the rank keep does not fit what it keeps.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A bug that was caught.
    #[error("the rank panicked: {0}; its epoch is over")]
    Panicked(String),
    /// The engine thread is gone.
    #[error("the rank's engine has stopped")]
    Stopped,
}

impl WorkerError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plan(error) => error.code(),
            Self::Violation(_) => "INVARIANT_BROKEN",
            Self::Kv(error) => error.code(),
            Self::Model(error) => error.code(),
            Self::Comm(error) => error.code(),
            Self::NoSampling(_) => "PLAN_WITHOUT_SAMPLING",
            Self::NotFormed => "RANK_NOT_FORMED",
            Self::Fenced { .. } => "EPOCH_FENCED",
            Self::Ledger(error) => error.code(),
            Self::Panicked(_) => "RANK_PANICKED",
            Self::Stopped => "RANK_STOPPED",
        }
    }
}

impl From<WorkerError> for Status {
    fn from(error: WorkerError) -> Self {
        let code = match &error {
            WorkerError::Fenced { .. } | WorkerError::NotFormed | WorkerError::Ledger(_) => {
                Code::FailedPrecondition
            }
            WorkerError::Comm(_) | WorkerError::Stopped => Code::Unavailable,
            _ => Code::Internal,
        };
        // The domain tells the owner that the rank itself says so, and that it is not the connection that broke.
        let details =
            ErrorDetails::with_error_info(error.code(), pie_proto::reason::RANK_DOMAIN, HashMap::new());
        Status::with_error_details(code, error.to_string(), details)
    }
}
