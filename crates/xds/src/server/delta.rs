//! The delta form of requests and responses. Encoding only: what to send is the session's business.

use super::session::{Push, Request, Session, Violation};
use super::wish::Change;
use super::{Encoding, Event};
use crate::nack;
use fairlead_proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, HeldVersion, Resource, ResourceError, ResourceName,
};

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
            initial: by_name(request.initial_resource_versions),
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

/// Sorted, one entry a name.
fn by_name(mut versions: Vec<HeldVersion>) -> Vec<HeldVersion> {
    // As a rule it is sorted already, and this looks at each once.
    versions.sort_by(|a, b| a.name.cmp(&b.name));
    versions.dedup_by(|later, first| {
        let same = later.name == first.name;
        if same {
            std::mem::swap(later, first);
        }
        same
    });
    versions
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sorted_and_of_two_of_a_name_the_later_counts() {
        let written = [("b", "1"), ("a", "1"), ("b", "2"), ("c", "1"), ("b", "3")];
        let sorted = by_name(written.map(|(name, version)| HeldVersion::new(name, version)).into());
        let texts: Vec<_> = sorted.iter().map(|held| [&held.name[..], &held.version[..]].concat()).collect();
        assert_eq!(texts, [b"a1".to_vec(), b"b3".to_vec(), b"c1".to_vec()]);
    }
}
