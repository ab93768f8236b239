//! In whose name calls are made.

use crate::error::ClientError;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The metadata key that names the tenant, for pools that ask for no tokens.
const TENANT: &str = "pie-tenant";
const AUTHORIZATION: &str = "authorization";

/// A bearer token. It is not shown by `{:?}`.
#[derive(Clone, Debug)]
pub struct BearerToken(MetadataValue<Ascii>);

impl BearerToken {
    /// A token, as `pie token` printed it.
    ///
    /// # Errors
    /// [`ClientError::BadToken`].
    pub fn new(token: &str) -> Result<Self, ClientError> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ClientError::BadToken);
        }
        let mut value =
            MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| ClientError::BadToken)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// Adds who calls, and the trace that the caller is in, to the metadata of every call.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    token: Option<BearerToken>,
    tenant: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    pub(crate) fn new(token: Option<BearerToken>) -> Self {
        Self { token, tenant: None }
    }

    pub(crate) fn as_tenant(&self, name: &str) -> Result<Self, ClientError> {
        let tenant = name.parse().map_err(|_| ClientError::BadTenant { tenant: name.to_owned() })?;
        Ok(Self { token: self.token.clone(), tenant: Some(tenant) })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(BearerToken(token)) = &self.token {
            request.metadata_mut().insert(AUTHORIZATION, token.clone());
        }
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert(TENANT, tenant.clone());
        }
        pie_proto::trace::inject(request.metadata_mut());
        Ok(request)
    }
}
