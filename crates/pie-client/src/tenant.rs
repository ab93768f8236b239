//! In whose name calls are made.

use crate::error::ClientError;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The metadata key that names the tenant.
const HEADER: &str = "pie-tenant";

/// Names a tenant in the metadata of every call, if there is one, and the trace that the caller is in.
#[derive(Clone, Debug, Default)]
pub struct Tenant(Option<MetadataValue<Ascii>>);

impl Tenant {
    pub(crate) fn new(name: &str) -> Result<Self, ClientError> {
        let value = name.parse().map_err(|_| ClientError::BadTenant { tenant: name.to_owned() })?;
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Tenant {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(tenant) = &self.0 {
            request.metadata_mut().insert(HEADER, tenant.clone());
        }
        pie_proto::trace::inject(request.metadata_mut());
        Ok(request)
    }
}
