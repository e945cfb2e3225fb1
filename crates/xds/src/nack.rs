//! How a refusal travels: a `google.rpc.Status` whose details name the resources.
//!
//! xDS leaves the details open; each is an `envoy.service.discovery.v3.ResourceError`, so a server learns which
//! resources were refused while the message stays readable for any other server. Invariant: what `decode` returns
//! is bounded, whatever the client sent.

use fairlead_proto::any::Any;
use fairlead_proto::discovery::{ResourceError, ResourceName};
use fairlead_proto::envoy::rpc::Status;
use prost::Message;

const RESOURCE_ERROR: &str = "type.googleapis.com/envoy.service.discovery.v3.ResourceError";
const INVALID_ARGUMENT: i32 = 3;
/// A message longer than this is cut: it ends in logs and listings.
const MESSAGE_BYTES: usize = 4_096;
/// Resources named in one refusal; the rest counts as refused by an unnamed error.
const DETAILS: usize = 1_000;

/// A refusal, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nack {
    /// For people.
    pub message: String,
    /// The resources refused; empty when the client did not say.
    pub names: Vec<String>,
}

/// Builds the error detail of a nack from pairs of name and reason.
pub(crate) fn encode<'a>(refused: impl Iterator<Item = (&'a str, &'a str)>) -> Status {
    let mut message = String::new();
    let mut details = Vec::new();
    for (name, reason) in refused {
        if message.len() < MESSAGE_BYTES {
            let separator = if message.is_empty() { "" } else { "; " };
            message.push_str(&format!("{separator}{name}: {reason}"));
        }
        if details.len() < DETAILS {
            let error = ResourceError {
                resource_name: Some(ResourceName { name: name.to_owned() }),
                error_detail: Some(status(INVALID_ARGUMENT, reason)),
            };
            details.push(Any { type_url: RESOURCE_ERROR.to_owned(), value: error.encode_to_vec() });
        }
    }
    Status { details, ..status(INVALID_ARGUMENT, cut(&message)) }
}

/// Reads the error detail of a nack, ours or anyone's.
pub(crate) fn decode(status: &Status) -> Nack {
    let names = status.details.iter().take(DETAILS).filter(|any| any.type_url == RESOURCE_ERROR);
    let names = names.filter_map(|any| ResourceError::decode(any.value.as_slice()).ok()?.resource_name);
    Nack { message: cut(&status.message).to_owned(), names: names.map(|name| name.name).collect() }
}

/// A status without details.
pub(crate) fn status(code: i32, message: &str) -> Status {
    Status { code, message: message.to_owned(), ..Status::default() }
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_trip_and_text_is_bounded() {
        let long = "é".repeat(MESSAGE_BYTES);
        let sent = encode([("a", "bad"), ("b", long.as_str())].into_iter());
        let read = decode(&sent);
        assert_eq!(read.names, ["a", "b"]);
        assert!(read.message.starts_with("a: bad; b: é") && read.message.len() <= MESSAGE_BYTES);
    }

    #[test]
    fn a_foreign_detail_names_nothing() {
        let any = Any { type_url: "type.googleapis.com/x".into(), value: vec![1] };
        let read = decode(&Status { details: vec![any], ..status(13, "no") });
        assert_eq!(read, Nack { message: "no".into(), names: vec![] });
    }
}
