//! The vocabulary of Fairlead as plain types: what users' objects resolve to, what the CLI shows, and diagnostics.
//!
//! This crate does no I/O, knows no protobuf and no CRD. Invariant: every type is plain data (`Serialize`, mostly
//! `Eq + Hash`), so that a derived thing can be compared, memoised and shown without asking anyone.

pub mod diagnostic;
pub mod endpoint;
pub mod gateway;
pub mod ids;
pub mod labels;
pub mod listing;
pub mod matching;
pub mod mesh;
pub mod names;
pub mod origin;
pub mod policy;
pub mod proxy;
pub mod report;
pub mod route;
pub mod security;
pub mod service;
pub mod settings;
pub mod shared;
pub mod summary;

pub use diagnostic::{Diagnostic, Severity};
pub use endpoint::{Endpoint, EndpointId, Health, WorkloadRef};
pub use ids::{ClusterId, NetworkId};
pub use labels::WorkloadLabels;
pub use mesh::{Member, MemberState, ResolvedMesh};
pub use origin::{ObjectKey, Origin};
pub use proxy::{ClientKind, ProxyDescription, ProxyRole};
pub use service::{Protocol, Service, ServiceKey, ServicePort};
pub use settings::{MeshSettings, Profile};
pub use shared::{Shared, Text};
