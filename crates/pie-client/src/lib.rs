//! A session handle for Rust callers: it keeps the client's copy of the text, retries what may be retried, and brings
//! the pool back to the client's text when the two have parted.
//!
//! **Invariant.** The client's text is the truth: after every successful call the pool's document equals
//! [`SessionHandle::text`], whatever was lost on the way.
//!
//! **Must not know** the router's insides: only `pie.v1`.

mod channels;
mod completion;
mod credentials;
mod error;
mod patience;
mod session;

use channels::Channels;
use patience::{Overload, Repeats, RetryBudget};

pub use completion::{Completed, Completion, CompletionOptions, Exactness, RegionLines};
pub use credentials::{BearerToken, Credentials};
pub use error::ClientError;
pub use session::{Edit, EditOutcome, SessionHandle};

use pie_proto::v1;
use pie_proto::v1::admin_client::AdminClient as Admin;
use pie_proto::v1::pool_client::PoolClient as Wire;
use pie_transport::Connector;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// Documents travel whole when they are opened.
const MESSAGE_LIMIT: usize = 64 << 20;

/// A connection to a pool. Clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    channels: Channels,
    credentials: Credentials,
    repeats: Repeats,
}

/// How a pool is reached, and who calls. By default in plaintext, and nobody in particular.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Plaintext, or TLS with whom to trust and whom to be.
    pub connector: Connector,
    /// The token that says who calls; none for pools that ask for none.
    pub token: Option<BearerToken>,
}

impl Pool {
    /// Connects to a pool, for example at `http://127.0.0.1:7400`. Several routers, separated by commas, are called in turn; one that
    /// is away is passed over by the calls that are repeated.
    ///
    /// # Errors
    /// The address is none, or nobody answers.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        Self::connect_with(url, &Access::default()).await
    }

    /// The same, over TLS (`https://`), or with a token.
    ///
    /// # Errors
    /// As [`Pool::connect`], or the two sides do not trust each other.
    pub async fn connect_with(url: &str, access: &Access) -> Result<Self, ClientError> {
        let channels = Channels::connect(url, &access.connector).await?;
        let credentials = Credentials::new(access.token.clone());
        Ok(Self { channels, credentials, repeats: Repeats::default() })
    }

    /// The pool at the other end of a channel.
    pub fn over(channel: Channel) -> Self {
        let (credentials, repeats) = (Credentials::default(), Repeats::default());
        Self { channels: Channels::one(channel), credentials, repeats }
    }

    /// The same connection in a tenant's name (metadata `pie-tenant`); a pool that asks for tokens goes by the token.
    ///
    /// # Errors
    /// [`ClientError::BadTenant`].
    pub fn as_tenant(&self, name: &str) -> Result<Self, ClientError> {
        Ok(Self { credentials: self.credentials.as_tenant(name)?, ..self.clone() })
    }

    /// How often calls were repeated, because the pool refused them for a moment.
    pub fn repeats(&self) -> u64 {
        self.repeats.count()
    }

    /// Calls until the pool answers, as long as it refuses for a moment.
    async fn patiently<T, Answer: Future<Output = Result<tonic::Response<T>, tonic::Status>>>(
        &self,
        call: impl Fn(Wire<InterceptedService<Channel, Credentials>>) -> Answer,
    ) -> Result<T, ClientError> {
        let mut patience = self.patience(Overload::Waits);
        loop {
            match call(self.wire()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => patience.wait(status.into()).await?,
            }
        }
    }

    pub(crate) fn patience(&self, overload: Overload) -> RetryBudget {
        RetryBudget::new(&self.repeats, overload)
    }

    /// The generated client, for calls that need no handle.
    pub fn wire(&self) -> Wire<InterceptedService<Channel, Credentials>> {
        Wire::with_interceptor(self.channels.next(), self.credentials.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// The generated client of those who run the pool.
    pub fn admin(&self) -> Admin<InterceptedService<Channel, Credentials>> {
        Admin::with_interceptor(self.channels.next(), self.credentials.clone())
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
    ) -> Result<SessionHandle, ClientError> {
        SessionHandle::open(self.clone(), name.to_owned(), text, strategy).await
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
