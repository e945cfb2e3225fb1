//! The state-of-the-world form of requests and responses. Encoding only: what to send is the session's business.
//!
//! Clusters and listeners go in full; of other types only what changed, as Envoy's documentation has it. A name that
//! does not exist can only be told as a resource error, which clients that do not know the field skip.

use super::session::{Push, Request, Session, Violation};
use super::wish::Change;
use super::{Encoding, Event, delta};
use crate::nack;
use fairlead_proto::discovery::{DiscoveryRequest, DiscoveryResponse};

/// gRPC's `NOT_FOUND`.
const NOT_FOUND: i32 = 5;

impl Session {
    /// Takes a state-of-the-world request.
    ///
    /// # Errors
    /// A [`Violation`], which ends the stream.
    pub fn sotw_request(&mut self, request: DiscoveryRequest) -> Result<Vec<Event>, Violation> {
        self.take(Request {
            type_url: request.type_url,
            change: Change::Whole(request.resource_names),
            initial: Vec::new(),
            nonce: request.response_nonce,
            nack: request.error_detail.as_ref().map(nack::decode),
        })
    }

    /// The next state-of-the-world response, if there is anything to tell.
    pub fn next_sotw(&mut self) -> Option<DiscoveryResponse> {
        debug_assert_eq!(self.encoding(), Encoding::StateOfTheWorld);
        let push = self.next()?;
        let full_state = self.is_full_state(&push.type_url);
        Some(encode(push, full_state))
    }
}

fn encode(push: Push, full_state: bool) -> DiscoveryResponse {
    let mut resource_errors = Vec::new();
    for name in push.removed.iter().filter(|_| !full_state) {
        let refused = push.refusals.iter().any(|(refused, ..)| refused == name);
        if !refused {
            resource_errors.push(delta::error(name, NOT_FOUND, "no such resource"));
        }
    }
    for (name, code, why) in &push.refusals {
        resource_errors.push(delta::error(name, *code, why));
    }
    DiscoveryResponse {
        version_info: push.version,
        type_url: push.type_url.to_string(),
        nonce: push.nonce,
        resources: push.resources.into_iter().map(|resource| resource.body).collect(),
        control_plane: None,
        resource_errors,
    }
}
