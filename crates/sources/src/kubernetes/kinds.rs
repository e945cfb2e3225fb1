//! Which kinds are watched, where, and what it means when one cannot be read.
//!
//! This is what the control plane's role must grant (get, list, watch) and nothing else: kinds that resolving does not read (Secret,
//! ServiceAccount) are not watched. Invariant: a kind is here once.

use fairlead_resources::Kind;
use kube::api::ApiResource;

/// Where a kind's objects are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the whole cluster.
    Everywhere,
    /// In the system namespace, all or the one of this name.
    System(Option<&'static str>),
    /// One object.
    Named { namespace: &'static str, name: &'static str },
}

/// What goes on without a kind that exists and was never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it says what there is, or guards access, and to go on without it would be wrong or open.
    Required,
    /// Everything else.
    Optional,
}

/// A kind that is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub kind: Kind,
    pub plural: &'static str,
    pub place: Place,
    pub need: Need,
}

const fn everywhere(kind: Kind, plural: &'static str, need: Need) -> Watched {
    Watched { kind, plural, place: Place::Everywhere, need }
}

/// All of them.
pub const WATCHED: &[Watched] = &[
    everywhere(Kind::Namespace, "namespaces", Need::Required),
    everywhere(Kind::Service, "services", Need::Required),
    everywhere(Kind::EndpointSlice, "endpointslices", Need::Required),
    everywhere(Kind::Pod, "pods", Need::Required),
    everywhere(Kind::Node, "nodes", Need::Optional),
    Watched {
        kind: Kind::ConfigMap,
        plural: "configmaps",
        place: Place::Named { namespace: "istio-system", name: "istio" },
        need: Need::Optional,
    },
    everywhere(Kind::VirtualService, "virtualservices", Need::Optional),
    everywhere(Kind::DestinationRule, "destinationrules", Need::Optional),
    everywhere(Kind::Gateway, "gateways", Need::Optional),
    everywhere(Kind::ServiceEntry, "serviceentries", Need::Optional),
    everywhere(Kind::WorkloadEntry, "workloadentries", Need::Optional),
    everywhere(Kind::WorkloadGroup, "workloadgroups", Need::Optional),
    everywhere(Kind::Sidecar, "sidecars", Need::Optional),
    everywhere(Kind::PeerAuthentication, "peerauthentications", Need::Required),
    everywhere(Kind::RequestAuthentication, "requestauthentications", Need::Required),
    everywhere(Kind::AuthorizationPolicy, "authorizationpolicies", Need::Required),
    everywhere(Kind::Telemetry, "telemetries", Need::Optional),
    everywhere(Kind::ProxyConfig, "proxyconfigs", Need::Optional),
    everywhere(Kind::ServiceExport, "serviceexports", Need::Optional),
    everywhere(Kind::ServiceImport, "serviceimports", Need::Optional),
    Watched { kind: Kind::Mesh, plural: "meshes", place: Place::System(Some("mesh")), need: Need::Required },
    // Peers bound and revoke: without them a revoked peer would be believed.
    Watched { kind: Kind::Peer, plural: "peers", place: Place::System(None), need: Need::Required },
];

impl Watched {
    /// Whether the kind comes by a CustomResourceDefinition, which may not be there.
    pub fn is_custom(&self) -> bool {
        !matches!(self.kind.group(), "" | "discovery.k8s.io")
    }

    /// The resource at one of the kind's versions.
    pub fn resource(&self, version: &str) -> ApiResource {
        let group = self.kind.group();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: self.kind.as_str().to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    /// `pods`, `virtualservices.networking.istio.io`: as roles and messages name it.
    pub fn name(&self) -> String {
        let group = self.kind.group();
        if group.is_empty() { self.plural.to_owned() } else { format!("{}.{group}", self.plural) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_is_watched_once_or_left_out_for_a_reason() {
        let watched: BTreeSet<Kind> = WATCHED.iter().map(|w| w.kind).collect();
        assert_eq!(watched.len(), WATCHED.len());
        // Nothing reads Secrets and ServiceAccounts; processes of a mesh directory do not run in a Kubernetes cluster.
        let left_out = [Kind::Secret, Kind::ServiceAccount, Kind::Workload];
        for kind in Kind::ALL {
            assert_ne!(watched.contains(kind), left_out.contains(kind), "{kind:?}");
        }
    }

    #[test]
    fn resources_are_named_as_roles_name_them() {
        let named = |kind| WATCHED.iter().find(|w| w.kind == kind).unwrap();
        assert_eq!(named(Kind::Pod).name(), "pods");
        assert_eq!(named(Kind::Gateway).name(), "gateways.networking.istio.io");
        assert_eq!(named(Kind::Gateway).resource("v1").api_version, "networking.istio.io/v1");
        assert_eq!(named(Kind::Pod).resource("v1").api_version, "v1");
    }
}
