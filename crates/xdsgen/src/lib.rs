//! The resolved mesh and one proxy's description in, Envoy v3 resources out.
//!
//! [`generate`] first settles what the proxy may see ([`scope`]), then makes one [`Input`] per resource and looks it up in a
//! [`Memo`] that all proxies share. A generator is a function of its `Input` alone, so memoising needs no invalidation.
//!
//! Must never see: objects as users write them, sockets, clocks. Invariants: the result is a function of the arguments;
//! a resource's version is a function of its `Input` and the generators' revision, never of encoded bytes (protobuf
//! maps encode in any order); every resource says which objects it came from.

mod clusters;
mod endpoints;
mod generate;
mod generated;
mod input;
#[cfg(feature = "json")]
pub mod json;
mod listeners;
mod memo;
mod metadata;
mod name_table;
mod names;
mod rbac;
mod routes;
mod scope;
pub mod standpoint;
mod tls;
mod wire;

pub use generate::generate;
pub use generated::Generated;
pub use input::Input;
pub use memo::{Counters, Memo, TypeCounters};
pub use names::{NameError, ResourceName, SniTarget};
