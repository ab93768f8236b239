//! What one connection may ask of a server.

use std::time::Duration;
use tonic::transport::Server;

/// Calls that a connection may have open; the next one waits on the client's side.
const STREAMS: u32 = 1024;
/// Bytes of a call's headers: metadata, tokens included.
const HEADERS: u32 = 16 << 10;
/// A peer that is silent is asked so often whether it lives, and is given up when it does not answer.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A server with the limits that every port of this program has. Sizes of messages are each service's own.
pub fn limited() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
}
