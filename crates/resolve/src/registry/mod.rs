//! One cluster's own objects, normalised: services, workloads, endpoints, routes, policies.
//!
//! Never looks at another cluster. Precedence: a Service's endpoints are those of its EndpointSlices, if it has any, else
//! the Pods its selector selects, and in both cases the WorkloadEntries and `Workload` replicas that it selects; a
//! ServiceEntry with a Service's host only decorates that Service; of two ServiceEntries for one host in one namespace the
//! older one holds. A workload's network: its label or field, else its system namespace's label, else the cluster's. Its
//! locality: its field or label, else its node's, else the cluster's.

mod draft;
mod endpoint;
mod endpoint_id;
mod entry;
mod families;
mod follow;
mod objects;
mod proxy_address;
mod selection;
mod service;
mod slices;
mod state;
mod workloads;

pub(crate) use draft::Draft;
pub use endpoint_id::endpoint_id;
pub(crate) use families::in_families;
pub use follow::{Before, cluster_after};
pub use objects::ObjectRef;
pub(crate) use objects::{Item, Objects};
pub(crate) use proxy_address::{is_refused, is_refused_in_slices, is_refused_name};
pub(crate) use service::OwnService;
pub use state::{ClusterInput, ClusterState, Observed, cluster};
pub(crate) use workloads::Surroundings;
