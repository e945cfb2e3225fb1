//! The closed set of kinds users write.
//!
//! Never holds an object that was refused, except guards in their fail-closed reading (`unreadable`).

use fairlead_model::{ClusterId, ObjectKey};

use crate::core::{ConfigMap, EndpointSlice, Namespace, Node as KubeNode, Pod, Secret, Service, ServiceAccount};
use crate::fairlead::{Mesh, Peer, Workload};
use crate::field::{FromNode, Nulls, Reading, Shape, Unknown};
use crate::istio::{
    AuthorizationPolicy, DestinationRule, Gateway, PeerAuthentication, ProxyConfig, RequestAuthentication,
    ServiceEntry, Sidecar, Telemetry, VirtualService, WorkloadEntry, WorkloadGroup,
};
use crate::mcs::{ServiceExport, ServiceImport};
use crate::meta::Meta;
use crate::yaml::Node;

macro_rules! kinds {
    ($( $(#[$doc:meta])* $kind:ident($ty:ty): $group:literal [$($version:literal),+] $scope:ident $style:ident; )*) => {
        /// An object of a kind that is known here. Large kinds of which there are few are boxed: what a cluster has thousands of
        /// (Pods) takes no more than it needs.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Object { $( $(#[$doc])* $kind($ty), )* }

        /// The kinds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $( $(#[$doc])* $kind, )* }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Kind] = &[$( Kind::$kind ),*];

            /// The name users write.
            pub fn as_str(self) -> &'static str {
                match self { $( Kind::$kind => stringify!($kind), )* }
            }

            /// The API group; empty is core.
            pub fn group(self) -> &'static str {
                match self { $( Kind::$kind => $group, )* }
            }

            /// The versions served, newest first.
            pub fn versions(self) -> &'static [&'static str] {
                match self { $( Kind::$kind => &[$($version),+], )* }
            }

            /// Whether objects of the kind are in a namespace.
            pub fn is_namespaced(self) -> bool {
                match self { $( Kind::$kind => matches!(Scope::$scope, Scope::Namespaced), )* }
            }

            /// The schema.
            pub fn shape(self) -> Shape {
                match self { $( Kind::$kind => <$ty as FromNode>::shape(), )* }
            }

            /// A reading with this kind's treatment of unknown fields and nulls.
            pub fn reading(self) -> Reading {
                match self { $( Kind::$kind => Style::$style.reading(), )* }
            }

            /// Reads an object of this kind.
            pub fn read(self, node: &Node, reading: &mut Reading) -> Object {
                match self { $( Kind::$kind => Object::$kind(<$ty as FromNode>::from_node(node, reading)), )* }
            }
        }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $( Object::$kind(_) => Kind::$kind, )* }
            }

            /// Its metadata.
            pub fn meta(&self) -> &Meta {
                match self { $( Object::$kind(object) => &object.metadata, )* }
            }

            /// Its metadata, for defaults that are filled in and for what is not worth holding.
            pub fn meta_mut(&mut self) -> &mut Meta {
                match self { $( Object::$kind(object) => &mut object.metadata, )* }
            }
        }
    };
}

kinds! {
    /// Core.
    Namespace(Namespace): "" ["v1"] Cluster Kubernetes;
    /// Core.
    Service(Service): "" ["v1"] Namespaced Kubernetes;
    /// Core.
    EndpointSlice(EndpointSlice): "discovery.k8s.io" ["v1"] Namespaced Kubernetes;
    /// Core.
    Pod(Pod): "" ["v1"] Namespaced Kubernetes;
    /// Core.
    Node(KubeNode): "" ["v1"] Cluster Kubernetes;
    /// Core.
    ServiceAccount(ServiceAccount): "" ["v1"] Namespaced Kubernetes;
    /// Core.
    Secret(Secret): "" ["v1"] Namespaced Kubernetes;
    /// Core.
    ConfigMap(ConfigMap): "" ["v1"] Namespaced Kubernetes;
    /// Istio.
    VirtualService(VirtualService): "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] Namespaced Strict;
    /// Istio.
    DestinationRule(Box<DestinationRule>): "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] Namespaced Strict;
    /// Istio.
    Gateway(Gateway): "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] Namespaced Strict;
    /// Istio.
    ServiceEntry(ServiceEntry): "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] Namespaced Strict;
    /// Istio.
    WorkloadEntry(WorkloadEntry): "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] Namespaced Strict;
    /// Istio.
    WorkloadGroup(Box<WorkloadGroup>): "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] Namespaced Strict;
    /// Istio.
    Sidecar(Box<Sidecar>): "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] Namespaced Strict;
    /// Istio.
    PeerAuthentication(PeerAuthentication): "security.istio.io" ["v1", "v1beta1"] Namespaced Strict;
    /// Istio.
    RequestAuthentication(RequestAuthentication): "security.istio.io" ["v1", "v1beta1"] Namespaced Strict;
    /// Istio.
    AuthorizationPolicy(AuthorizationPolicy): "security.istio.io" ["v1", "v1beta1"] Namespaced Strict;
    /// Istio.
    Telemetry(Telemetry): "telemetry.istio.io" ["v1", "v1alpha1"] Namespaced Strict;
    /// Istio.
    ProxyConfig(ProxyConfig): "networking.istio.io" ["v1beta1"] Namespaced Strict;
    /// MCS.
    ServiceExport(ServiceExport): "multicluster.x-k8s.io" ["v1beta1", "v1alpha1"] Namespaced Lenient;
    /// MCS.
    ServiceImport(ServiceImport): "multicluster.x-k8s.io" ["v1beta1", "v1alpha1"] Namespaced Lenient;
    /// Fairlead.
    Mesh(Mesh): "fairlead.dev" ["v1alpha1"] Cluster Lenient;
    /// Fairlead.
    Peer(Peer): "fairlead.dev" ["v1alpha1"] Cluster Lenient;
    /// Fairlead.
    Workload(Box<Workload>): "fairlead.dev" ["v1alpha1"] Namespaced Lenient;
}

impl Kind {
    /// The kind of an `apiVersion` and `kind`; `Err(Some)` if only the version is unknown.
    pub fn find(api_version: &str, kind: &str) -> Result<Kind, Option<Kind>> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let found = Self::ALL.iter().copied().find(|k| k.as_str() == kind && k.group() == group);
        match found {
            Some(kind) if kind.versions().contains(&version) => Ok(kind),
            other => Err(other),
        }
    }
}

impl Object {
    /// Its key in a cluster.
    pub fn key(&self, cluster: &ClusterId) -> ObjectKey {
        let meta = self.meta();
        ObjectKey::new(cluster.clone(), self.kind().as_str(), meta.namespace.as_str(), meta.name.as_str())
    }
}

/// Whether objects of a kind are in a namespace.
enum Scope {
    Cluster,
    Namespaced,
}

/// How a kind treats what it does not expect.
enum Style {
    /// Unknown fields are Kubernetes' own.
    Kubernetes,
    /// Unknown fields and nulls are refused, as by Istio's CRDs.
    Strict,
    /// Unknown fields are refused, nulls are absent.
    Lenient,
}

impl Style {
    fn reading(&self) -> Reading {
        match self {
            Style::Kubernetes => Reading::new(Unknown::Ignore, Nulls::Absent),
            Style::Strict => Reading::new(Unknown::Refuse, Nulls::Refuse),
            Style::Lenient => Reading::new(Unknown::Refuse, Nulls::Absent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_kinds_and_versions() {
        assert_eq!(Kind::find("networking.istio.io/v1", "Gateway"), Ok(Kind::Gateway));
        assert_eq!(Kind::find("v1", "Pod"), Ok(Kind::Pod));
        assert_eq!(Kind::find("networking.istio.io/v9", "Gateway"), Err(Some(Kind::Gateway)));
        assert_eq!(Kind::find("gateway.networking.k8s.io/v1", "Gateway"), Err(None));
    }
}
