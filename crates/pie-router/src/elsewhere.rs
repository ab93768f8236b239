//! Calls that another router answers: forwarded on the internal plane, in their tenant's name, to the owner of their group.

use pie_group::peers::{Peers, unreachable};
use pie_group::tenants::Tenant;
use pie_placement::{GroupId, RouterRecord};
use pie_proto::v1::admin_client::AdminClient;
use pie_proto::v1::pool_client::PoolClient;
use pie_proto::{Fault, Reason, reason::reason_of, trace};
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// The metadata that names a tenant.
pub(crate) const TENANT: &str = "pie-tenant";
/// The metadata that names the group whose owner is to answer a forwarded call.
pub(crate) const GROUP: &str = "pie-group";

/// Documents pass whole.
const MESSAGE_LIMIT: usize = usize::MAX;

/// The owner of a group, in another router, as it is asked in a tenant's name.
pub(crate) struct Elsewhere {
    /// Where it is.
    pub router: RouterRecord,
    group: MetadataValue<Ascii>,
    tenant: MetadataValue<Ascii>,
    channel: Channel,
}

impl Elsewhere {
    /// The owner of a group in that router.
    pub fn new(
        peers: &Peers,
        router: &RouterRecord,
        group: &GroupId,
        tenant: &Tenant,
    ) -> Result<Self, Fault> {
        let value = |text: &str| {
            let refused = |error: InvalidMetadataValue| Fault::new(Reason::Internal, error.to_string());
            text.parse::<MetadataValue<Ascii>>().map_err(refused)
        };
        let (group, tenant) = (value(group.as_str())?, value(tenant.as_str())?);
        Ok(Self { router: router.clone(), group, tenant, channel: peers.channel(router)? })
    }

    /// Forwards a call.
    pub async fn call<M, T>(
        self,
        message: M,
        send: impl AsyncFnOnce(Channel, Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(GROUP, self.group);
        request.metadata_mut().insert(TENANT, self.tenant);
        trace::inject(request.metadata_mut());
        let answer = send(self.channel, request).await;
        answer.map(Response::into_inner).map_err(|status| passed_on(&self.router, status))
    }
}

/// The public API of another router.
pub(crate) fn pool(channel: Channel) -> PoolClient<Channel> {
    let client = PoolClient::new(channel);
    client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT)
}

/// What it answers to those who run the pool.
pub(crate) fn admin(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel)
}

/// What another router answered is passed on as it is; that it did not answer is told by a reason of its own.
pub(crate) fn passed_on(router: &RouterRecord, status: Status) -> Status {
    let lost = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    match reason_of(&status) {
        None if lost => unreachable(router, &status.message()).into(),
        _ => status,
    }
}
