//! A session handle for Rust callers: it keeps the client's copy of the text, retries what may be retried, and brings
//! the pool back to the client's text when the two have parted.
//!
//! **Invariant.** The client's text is the truth: after every successful call the pool's document equals
//! [`Session::text`], whatever was lost on the way.
//!
//! **Must not know** the router's insides: only `pie.v1`.

mod completion;
mod error;
mod session;
mod tenant;

pub use completion::{Completed, Completion, CompletionOptions};
pub use error::ClientError;
pub use session::{Edit, Edited, Session};
pub use tenant::Tenant;

use pie_proto::v1;
use pie_proto::v1::admin_client::AdminClient as Admin;
use pie_proto::v1::pool_client::PoolClient as Wire;
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

/// Attempts at a call that the pool asks to retry.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Documents travel whole when they are opened.
const MESSAGE_LIMIT: usize = 64 << 20;

/// A connection to a pool. Clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    channel: Channel,
    tenant: Tenant,
}

impl Pool {
    /// Connects to a pool, for example at `http://127.0.0.1:7400`.
    ///
    /// # Errors
    /// The address is none, or nobody answers.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let refused = |source| ClientError::Connect { url: url.to_owned(), source };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(refused)?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(refused)?;
        Ok(Self::over(channel))
    }

    /// The pool at the other end of a channel.
    pub fn over(channel: Channel) -> Self {
        Self { channel, tenant: Tenant::default() }
    }

    /// The same connection in a tenant's name (metadata `pie-tenant`).
    ///
    /// # Errors
    /// [`ClientError::BadTenant`].
    pub fn as_tenant(&self, name: &str) -> Result<Self, ClientError> {
        Ok(Self { channel: self.channel.clone(), tenant: Tenant::new(name)? })
    }

    /// The generated client, for calls that need no handle.
    pub fn wire(&self) -> Wire<InterceptedService<Channel, Tenant>> {
        Wire::with_interceptor(self.channel.clone(), self.tenant.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// The generated client of those who run the pool.
    pub fn admin(&self) -> Admin<InterceptedService<Channel, Tenant>> {
        Admin::with_interceptor(self.channel.clone(), self.tenant.clone())
    }

    /// Opens a session with a text, or brings one that is open to it; an empty name lets the pool choose.
    ///
    /// # Errors
    /// The pool's refusal.
    pub async fn open(
        &self,
        name: &str,
        text: String,
        strategy: v1::Strategy,
    ) -> Result<Session, ClientError> {
        Session::open(self.clone(), name.to_owned(), text, strategy).await
    }

    /// What the pool is made of.
    ///
    /// # Errors
    /// The pool's refusal.
    pub async fn describe(&self) -> Result<v1::DescribePoolResponse, ClientError> {
        Ok(self.wire().describe_pool(v1::DescribePoolRequest {}).await?.into_inner())
    }

    /// All sessions, page by page.
    ///
    /// # Errors
    /// The pool's refusal.
    pub async fn sessions(&self) -> Result<Vec<v1::Session>, ClientError> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListSessionsRequest { page_size: 0, page_token };
            let page = self.wire().list_sessions(request).await?.into_inner();
            all.extend(page.sessions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }
}
