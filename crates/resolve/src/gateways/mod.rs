//! Gateways: what gateway workloads listen for, and where a cluster's networks are entered.
//!
//! Never opens a server that was refused or conflicts with an older one. Precedence (Istio): Gateways oldest first; on one
//! port plaintext HTTP servers merge, TLS servers merge by host, a host that an older TLS server has on the port or a
//! protocol that does not go with the port's older servers skips the later server. A network is entered at the addresses
//! written in `Mesh.spec.clusters`, else at Services with the label `topology.istio.io/network`, else at workloads that an
//! AUTO_PASSTHROUGH Gateway selects, else at the built-in east-west gateway.

mod conflicts;
mod east_west;
mod servers;

pub use east_west::names_of_load_balancers;
pub(crate) use east_west::{BUILT_IN_NAME, BUILT_IN_NAMESPACE, EastWest};
pub(crate) use servers::Gateways;
