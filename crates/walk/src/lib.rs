//! Follows one call through the mesh without a socket: `resolve`, `xdsgen` and `engine`, proxy by proxy.
//!
//! Behind `fairlead test`, `analyze` and `explain`. It decides nothing itself: every choice on the way is the product's own decision
//! code on the product's own generated resources, decoded as a proxy decodes them. Invariant: shares are exact and sum to one.

mod arrival;
mod conditions;
mod explain;
mod follow;
mod http;
mod inbound;
mod mesh;
mod place;
mod program;
mod request;
mod tcp;
mod tries;
mod upstream;
mod wire;
mod world;

pub use explain::{Candidate, Explanation, Phase, explain};
pub use follow::follow;
pub use mesh::{Mesh, OpenError};
pub use world::World;
