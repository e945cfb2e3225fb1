//! What workers notice and the conductor acts on.
//!
//! Invariant: only bad news and first good news travel here; a healthy request sends nothing.

use fairlead_engine::outlier::Cause;
use fairlead_engine::path::PathEvent;
use fairlead_engine::upstream::EndpointKey;
use std::net::SocketAddr;
use std::sync::Arc;

/// One observation.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Something happened on the way to another cluster.
    Path { address: SocketAddr, event: PathEvent },
    /// Outlier detection has a reason to eject an endpoint.
    Outlier { cluster: Arc<str>, endpoint: EndpointKey, cause: Cause },
}
