//! Which answers are compressed: large ones, of callers that compress what they ask. That a caller accepts gzip says nothing: most
//! clients say so by themselves, and where the network is fast an answer comes later for it. A token of a stream is told at once.

use prost::Message;
use tonic::Response;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request};

/// Bytes of an answer from which on compressing it is worth a processor's time.
const LARGE: usize = 8 << 10;
/// What the caller can read: tonic compresses all answers of a call that has it, streams too.
const ACCEPTS: &str = "grpc-accept-encoding";
/// How the request is sent.
const ENCODING: &str = "grpc-encoding";
/// Their answers may be large; no other call's are, or they are streams.
const WITH_LARGE_ANSWERS: [&str; 3] =
    ["/pie.v1.Pool/GetSession", "/pie.v1.Pool/ListSessions", "/pie.v1.Admin/ListTenantSessions"];

/// Makes a call that is not to be answered compressed one that cannot be.
pub(crate) fn negotiate(mut request: Request<Body>) -> Request<Body> {
    if !WITH_LARGE_ANSWERS.contains(&request.uri().path()) || !is_compressed(request.headers()) {
        request.headers_mut().remove(ACCEPTS);
    }
    request
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_some_and(|encoding| encoding != "identity")
}

/// An answer; a small one is not compressed.
pub(crate) fn answer<T: Message>(message: T) -> Response<T> {
    let mut answer = Response::new(message);
    if answer.get_ref().encoded_len() < LARGE {
        answer.disable_compression();
    }
    answer
}
