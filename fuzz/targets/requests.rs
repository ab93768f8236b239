//! Messages of `pie.v1`, and the sessions that routers send each other, from bytes, through every checked conversion. A refusal becomes a status that clients can read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pie_proto::carried::Carried;
use pie_proto::reason::{self, Fault};
use pie_proto::request::{ApplyEdits, Complete, Content, Edits, OpenSession, SessionName};
use pie_proto::{peer_v1, v1};
use pie_words::Cursor;
use prost::Message;

fn checked<W: Message + Default, T: TryFrom<W, Error = Fault>>(bytes: &[u8]) -> Option<T> {
    let wire = W::decode(bytes).ok()?;
    match T::try_from(wire) {
        Ok(request) => Some(request),
        Err(fault) => {
            assert!(!fault.message.is_empty());
            let why = fault.reason;
            let status = tonic::Status::from(fault);
            assert_eq!(reason::reason_of(&status), Some(why), "clients can read why");
            assert_eq!(status.code(), why.code());
            None
        }
    }
}

fn good(name: &SessionName) {
    let name = name.as_str();
    assert!((1..=256).contains(&name.len()) && !name.chars().any(char::is_control));
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    match choice % 4 {
        0 => {
            if let Some(open) = checked::<v1::OpenSessionRequest, OpenSession>(bytes) {
                open.name.as_ref().map(good);
                assert!(matches!(open.content, Content::Text(_) | Content::Tokens(_)));
            }
        }
        1 => {
            if let Some(apply) = checked::<v1::ApplyEditsRequest, ApplyEdits>(bytes) {
                good(&apply.session);
                if let Edits::Tokens(list) = apply.edits {
                    let _ = pie_words::Splices::new(list, 100);
                }
            }
        }
        2 => {
            if let Some(carried) = checked::<peer_v1::Carried, Carried>(bytes) {
                good(&carried.name);
                assert_eq!(Carried::try_from(peer_v1::Carried::from(carried.clone())).as_ref(), Ok(&carried));
            }
        }
        _ => {
            if let Some(complete) = checked::<v1::CompleteRequest, Complete>(bytes) {
                good(&complete.session);
                let sampling = complete.sampling;
                assert!(complete.max_tokens > 0 && sampling.temperature >= 0.0);
                assert!(sampling.temperature.is_finite() && sampling.top_p > 0.0 && sampling.top_p <= 1.0);
                assert!(sampling.top_logprobs <= pie_proto::request::TOP_LOGPROBS_LIMIT);
                assert!(complete.stop.iter().all(|stop| !stop.is_empty()));
                assert!(matches!(
                    complete.at,
                    None | Some(Cursor::Byte(_) | Cursor::Lsp(_) | Cursor::Token(_))
                ));
            }
        }
    }
});
