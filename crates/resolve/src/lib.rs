//! Objects of all clusters in, resolved mesh and diagnostics out: all Istio and Multi-Cluster Services meaning.
//!
//! Pure: no I/O, no clock, no protobuf. Invariants: the order of input never matters; one bad object costs that object;
//! what guards access never opens.
//!
//! The way of the data: [`settings`] (mesh and one cluster's MeshConfig) → [`cluster`] (one cluster's own objects,
//! normalised) → [`export`] (what that cluster tells one peer) → [`view`] (own cluster and peers, resolved) →
//! [`names`] (what a name means for a caller).

pub mod analyze;
pub mod destinations;
pub mod exports;
pub mod gateways;
pub mod names;
pub mod registry;
pub mod routes;
pub mod security;
pub mod settings;
pub mod view;

pub use exports::{Audience, export, export_to};
pub use names::{kubernetes_names, names};
pub use registry::{Before, ClusterInput, ClusterState, ObjectRef, Observed, cluster, cluster_after};
pub use settings::{Settings, settings};
pub use view::{ViewInput, view, view_with};
