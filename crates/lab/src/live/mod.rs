//! A mesh run live: started from plain data, called as programs call, broken and healed on demand, measured under load.
//!
//! Above the lab's substrate ([`crate::Handle`]) and below the command line: [`MeshSpec`] says what is to run, [`Lab`] runs it,
//! [`caller`] makes one call from a workload's place, [`runner`] runs call tables, [`load`] measures, [`hold`] keeps streams open, [`server`] takes verbs over
//! a socket. Must never know how a mesh is resolved: what a call got is told by the echo program and by the proxies' own records.
//! Invariant: everything that was broken for a call is whole again before the next call that does not ask for it.

pub mod admin;
pub mod authority;
pub mod caller;
mod calling;
mod conditions;
pub mod given;
pub mod hold;
mod index;
pub mod lab;
pub mod layout;
pub mod load;
pub mod lookup;
mod membership;
mod outcome;
mod prepare;
mod processes;
pub mod protocol;
pub mod records;
mod returning;
pub mod runner;
pub mod server;
pub mod settle;
pub mod spec;
pub mod start;
pub mod traffic;
pub mod verbs;

pub use lab::{Lab, LabError};
pub use layout::Layout;
pub use spec::{ClusterMesh, ExternalServer, MeshSpec, MeshWorkload, Part, Probe, ProbeKind};
pub use start::{StartOptions, start};
