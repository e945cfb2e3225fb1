//! Fairlead's own kinds (`fairlead.dev/v1alpha1`): `Mesh`, `Peer`, `Workload`.
//!
//! Never applies a profile's defaults: an absent field is `None`, `resolve` fills it.

pub mod mesh;
pub mod peer;
pub mod workload;

pub use mesh::*;
pub use peer::*;
pub use workload::*;
