//! What the lab consists of: a description in, a plan of namespaces, links, addresses and routes out, and the plan built.
//!
//! ```text
//!              wan (bridge in the lab's root namespace; everything on it is a neighbour of everything else)
//!    ┌──────────┬───────┴───┬─────────────┐
//!  east/node  east/control  east/east-west  west/node …
//!    └──────────┴─────┬─────┴─── … one bridge per network; clusters with the same network share it
//!            east/shop/frontend …      pods: only here, default route through their cluster's node
//! ```
//!
//! Addresses are given to interfaces alone (/32, /128) and every neighbour is a route of its own, so any address that is
//! written in a mesh can be used, in any mixture of ranges, and twice in different networks. Invariant: planning is pure and
//! deterministic; building does what the plan says and nothing else.

mod addresses;
mod apply;
mod derive;
mod plan;
mod spec;
mod text;

pub use apply::{ApplyError, Topology};
pub use derive::{PlanError, plan};
pub use plan::{Leg, Namespace, Note, Plan, Role};
pub use spec::{ClusterSpec, ExternalSpec, GatewaySpec, Spec, WorkloadSpec};

/// The interface on the network's bridge.
pub const NETWORK_DEVICE: &str = "eth0";
/// The interface on the wide-area bridge.
pub const WAN_DEVICE: &str = "wan0";
