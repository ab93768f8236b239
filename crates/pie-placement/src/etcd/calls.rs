//! One way to call etcd: with a deadline, and with errors that say where and what to do.

use std::future::Future;
use std::time::Duration;

use etcd_client::{Client, Error};
use rand::Rng;

use crate::PlacementError;

/// The client and what its errors need to say. Cheap to clone.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) client: Client,
    /// By comma, for errors.
    pub(super) endpoints: String,
    pub(super) timeout: Duration,
}

impl Calls {
    /// Waits for a call within the usual deadline.
    pub(super) async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, PlacementError> {
        self.call_within(self.timeout, operation, call).await
    }

    /// Waits for a call within a deadline of its own.
    pub(super) async fn call_within<T>(
        &self,
        timeout: Duration,
        operation: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, PlacementError> {
        match tokio::time::timeout(timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.error(operation, &error)),
            Err(_) => Err(self.unavailable(operation, format!("nothing within {timeout:?}"))),
        }
    }

    pub(super) fn unavailable(&self, operation: &'static str, detail: impl ToString) -> PlacementError {
        PlacementError::Unavailable {
            operation,
            endpoints: self.endpoints.clone(),
            detail: detail.to_string(),
        }
    }

    pub(super) fn error(&self, operation: &'static str, error: &Error) -> PlacementError {
        /// gRPC codes with which etcd refuses: INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED (quota),
        /// FAILED_PRECONDITION, UNAUTHENTICATED.
        const REFUSALS: [i32; 5] = [3, 7, 8, 9, 16];
        match error {
            Error::GRpcStatus(status) if REFUSALS.contains(&i32::from(status.code())) => {
                PlacementError::Refused {
                    operation,
                    endpoints: self.endpoints.clone(),
                    detail: status.message().to_owned(),
                }
            }
            Error::InvalidArgs(why) => {
                PlacementError::InvalidEndpoint { endpoints: self.endpoints.clone(), why: why.clone() }
            }
            Error::InvalidUri(why) => {
                PlacementError::InvalidEndpoint { endpoints: self.endpoints.clone(), why: why.to_string() }
            }
            other => self.unavailable(operation, other),
        }
    }
}

/// Growing pauses between attempts, with jitter so that the holders of a pool do not return all at once.
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);

    pub(super) fn up_to(longest: Duration) -> Self {
        Self { next: Self::FIRST.min(longest), longest }
    }

    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}
