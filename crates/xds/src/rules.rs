//! What differs between types, and what a stranger may cost us.
//!
//! The only type urls this crate knows, and only for their order and form on the wire: Envoy's documentation of xDS
//! ("Eventual consistency considerations", "Grouping resources into responses").

use fairlead_proto::ResourceType;
use std::sync::Arc;

/// How types relate on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRules {
    /// Types that refer to each other, referred-to first: additions are sent in this order and removals in the
    /// opposite one, so that nothing ever refers to what is not there (make before break). Types not listed are
    /// independent.
    pub order: Vec<Arc<str>>,
    /// Types whose state-of-the-world responses carry everything, so that what is missing is removed.
    pub full_state: Vec<Arc<str>>,
    /// Pairs of types of which a resource of the first makes a client ask for the one of the second with the same
    /// name, and is of no use before it has it (Envoy's "resource warming": a new or changed cluster waits for its
    /// endpoints). So the second is sent again after the first has changed, and what refers to a new first waits
    /// until the second has been sent.
    pub follows: Vec<(Arc<str>, Arc<str>)>,
}

/// Bounds on what one stream may ask of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Resource names subscribed to, over all types.
    pub names: usize,
    /// Bytes of one name.
    pub name_bytes: usize,
    /// Types subscribed to.
    pub types: usize,
    /// Bytes of one request.
    pub request_bytes: usize,
    /// Bytes of resources in one delta response; larger changes go in several. A state-of-the-world response
    /// cannot be split. Stays below the 4 MiB at which gRPC clients refuse a message by default.
    pub response_bytes: usize,
}

/// Rank of a type that stands in no order.
pub(crate) const UNRANKED: usize = usize::MAX;

impl TypeRules {
    pub(crate) fn rank(&self, type_url: &str) -> usize {
        self.order.iter().position(|t| &**t == type_url).unwrap_or(UNRANKED)
    }

    pub(crate) fn is_full_state(&self, type_url: &str) -> bool {
        self.full_state.iter().any(|t| &**t == type_url)
    }
}

impl Default for TypeRules {
    /// Envoy's: clusters, endpoints, listeners, routes, virtual hosts; clusters and listeners in full.
    fn default() -> Self {
        let urls = |kinds: &[ResourceType]| kinds.iter().map(|kind| kind.url().into()).collect();
        TypeRules {
            order: urls(&[
                ResourceType::Cluster,
                ResourceType::ClusterLoadAssignment,
                ResourceType::Listener,
                ResourceType::RouteConfiguration,
                ResourceType::VirtualHost,
            ]),
            full_state: urls(&[ResourceType::Cluster, ResourceType::Listener]),
            follows: vec![(ResourceType::Cluster.url().into(), ResourceType::ClusterLoadAssignment.url().into())],
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            names: 50_000,
            name_bytes: 2_048,
            types: 32,
            request_bytes: 16 * 1024 * 1024,
            response_bytes: 3 * 1024 * 1024,
        }
    }
}
