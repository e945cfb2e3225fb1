//! The kinds of resource that discovery carries, and their type urls.
//!
//! Discovery itself treats a type url as an opaque string; this list is for those who make and read resources.
//! Invariant: `url` and `FromStr` are inverse.

use std::fmt;
use std::str::FromStr;

macro_rules! resource_types {
    ($($(#[$doc:meta])* $name:ident = $url:literal,)*) => {
        /// A kind of resource, Envoy's or ours. `Display` and [`ResourceType::url`] give the type url of its `Any`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ResourceType { $($(#[$doc])* $name,)* }

        impl ResourceType {
            /// Every kind, in declaration order.
            pub const ALL: &[ResourceType] = &[$(ResourceType::$name,)*];

            /// What a data plane of ours takes, in no particular order.
            pub const OF_DATA_PLANES: [ResourceType; 6] = [
                ResourceType::Cluster,
                ResourceType::ClusterLoadAssignment,
                ResourceType::Listener,
                ResourceType::RouteConfiguration,
                ResourceType::NameTable,
                ResourceType::TrustBundles,
            ];

            /// The full type url, `type.googleapis.com/…`.
            pub const fn url(self) -> &'static str {
                match self { $(ResourceType::$name => concat!("type.googleapis.com/", $url),)* }
            }
        }
    };
}

resource_types! {
    /// Envoy cluster (CDS).
    Cluster = "envoy.config.cluster.v3.Cluster",
    /// Endpoints of one Envoy cluster (EDS).
    ClusterLoadAssignment = "envoy.config.endpoint.v3.ClusterLoadAssignment",
    /// Listener (LDS).
    Listener = "envoy.config.listener.v3.Listener",
    /// Route configuration (RDS).
    RouteConfiguration = "envoy.config.route.v3.RouteConfiguration",
    /// One virtual host of a route configuration, on demand (VHDS).
    VirtualHost = "envoy.config.route.v3.VirtualHost",
    /// Certificates and trust bundles (SDS).
    Secret = "envoy.extensions.transport_sockets.tls.v3.Secret",
    /// The name index every proxy gets: [`crate::JsonResource`].
    NameTable = "fairlead.mesh.v1.NameTable",
    /// Whom this cluster trusts (identity `TrustBundleSet`): [`crate::JsonResource`].
    TrustBundles = "fairlead.mesh.v1.TrustBundles",
    /// A member of the mesh: [`crate::JsonResource`].
    PeerMember = "fairlead.peering.v1.Member",
    /// What a peer offers of one service: [`crate::JsonResource`].
    PeerServiceSummary = "fairlead.peering.v1.ServiceSummary",
    /// One endpoint of a peer's service: [`crate::JsonResource`].
    PeerEndpoint = "fairlead.peering.v1.Endpoint",
    /// Requests in flight, capacity, latency of a peer's service: [`crate::JsonResource`].
    PeerLoad = "fairlead.peering.v1.Load",
}

/// A type url that names none of the kinds above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownResourceType(pub String);

impl fmt::Display for UnknownResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown resource type {:?}", self.0)
    }
}

impl std::error::Error for UnknownResourceType {}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url())
    }
}

impl FromStr for ResourceType {
    type Err = UnknownResourceType;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|kind| kind.url() == url).ok_or_else(|| UnknownResourceType(url.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Name;

    #[test]
    fn urls_round_trip() {
        for kind in ResourceType::ALL {
            assert_eq!(kind.url().parse(), Ok(*kind));
        }
        assert!("type.googleapis.com/x".parse::<ResourceType>().is_err());
    }

    #[test]
    fn urls_are_those_of_the_messages() {
        use crate::envoy;
        assert_eq!(ResourceType::Cluster.url(), envoy::cluster::Cluster::type_url());
        assert_eq!(ResourceType::ClusterLoadAssignment.url(), envoy::endpoint::ClusterLoadAssignment::type_url());
        assert_eq!(ResourceType::Listener.url(), envoy::listener::Listener::type_url());
        assert_eq!(ResourceType::RouteConfiguration.url(), envoy::route::RouteConfiguration::type_url());
        assert_eq!(ResourceType::VirtualHost.url(), envoy::route::VirtualHost::type_url());
        assert_eq!(ResourceType::Secret.url(), envoy::tls::Secret::type_url());
    }
}
