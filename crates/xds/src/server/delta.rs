//! The delta form of requests and responses. Encoding only: what to send is the session's business.

use super::session::{Push, Request, Session, Violation};
use super::wish::Change;
use super::{Encoding, Event};
use crate::nack;
use fairlead_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, ResourceError, ResourceName};

impl Session {
    /// Takes a delta request.
    ///
    /// # Errors
    /// A [`Violation`], which ends the stream.
    pub fn delta_request(&mut self, request: DeltaDiscoveryRequest) -> Result<Vec<Event>, Violation> {
        self.take(Request {
            type_url: request.type_url,
            change: Change::Delta {
                subscribe: request.resource_names_subscribe,
                unsubscribe: request.resource_names_unsubscribe,
            },
            initial: request.initial_resource_versions,
            nonce: request.response_nonce,
            nack: request.error_detail.as_ref().map(nack::decode),
        })
    }

    /// The next delta response, if there is anything to tell.
    pub fn next_delta(&mut self) -> Option<DeltaDiscoveryResponse> {
        debug_assert_eq!(self.encoding(), Encoding::Delta);
        self.next().map(encode)
    }
}

fn encode(push: Push) -> DeltaDiscoveryResponse {
    let resource = |resource: crate::Resource| Resource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: resource.body,
    };
    DeltaDiscoveryResponse {
        system_version_info: push.freshness,
        type_url: push.type_url.to_string(),
        nonce: push.nonce,
        resources: push.resources.into_iter().map(resource).collect(),
        removed_resources: push.removed.iter().map(|name| name.to_string()).collect(),
        resource_errors: push.refusals.into_iter().map(|(name, code, why)| error(&name, code, &why)).collect(),
        control_plane: None,
    }
}

pub(super) fn error(name: &str, code: i32, message: &str) -> ResourceError {
    ResourceError {
        resource_name: Some(ResourceName { name: name.to_owned() }),
        error_detail: Some(nack::status(code, message)),
    }
}
