//! What a control plane does at the API server of its cluster, beside reading objects.
//!
//! Never in the way of local traffic: an API server that is away costs what is written to it, until it is back.

mod client;

/// The cluster's API server, and where our own objects are in it. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    pub client: kube::Client,
    /// The system namespace.
    pub namespace: String,
    /// This cluster's name in the mesh.
    pub cluster: String,
}
