//! `Node`, `Namespace` and `ServiceAccount`: kinds of which a mesh reads little more than labels.

use crate::meta::Meta;

message! {
    /// A Kubernetes Node: its labels give locality, its addresses those of NodePort gateways.
    pub struct Node {
        /// Identity and labels (`topology.kubernetes.io/region`, `.../zone`, `topology.istio.io/subzone`).
        metadata: Meta,
        /// Addresses.
        status: NodeStatus,
    }
}

message! {
    /// `Node.status`.
    pub struct NodeStatus {
        /// Addresses.
        addresses: Vec<NodeAddress>,
    }
}

message! {
    /// One address of a node.
    pub struct NodeAddress {
        /// `InternalIP`, `ExternalIP`, `Hostname`.
        address_type: String = "type",
        /// The address.
        address: String,
    }
}

message! {
    /// A namespace.
    pub struct Namespace {
        /// Identity, labels (`istio-injection`, `istio.io/rev`, `topology.istio.io/network`), annotations.
        metadata: Meta,
    }
}

message! {
    /// A service account.
    pub struct ServiceAccount {
        /// Identity.
        metadata: Meta,
    }
}
