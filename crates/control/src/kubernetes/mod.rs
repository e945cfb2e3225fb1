//! What a control plane does at the API server of its cluster, beside reading objects.
//!
//! Never in the way of local traffic: an API server that is away costs what is written to it, until it is back.

mod client;
mod conditions;
mod duties;
#[cfg(test)]
pub(crate) mod fake_api;
#[cfg(test)]
pub(crate) mod fake_signer;
mod hosted;
mod lease;
mod pod_token;
mod review;
mod state;
mod token_keys;
mod trust_maps;

pub use hosted::Hosting;
pub use pod_token::{PodTokenError, is_jwt};
pub use review::{Proven, Reviewer};
pub use token_keys::TokenKeys;

use crate::store::Store;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What everything of ours carries.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "fairlead");

/// The cluster's API server, and where our own objects are in it. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    pub client: kube::Client,
    /// The system namespace.
    pub namespace: String,
    /// This cluster's name in the mesh.
    pub cluster: String,
    /// Where what must outlive a pod is kept.
    pub home: Home,
    /// Of a control plane that serves a remote cluster: what it keeps right between the two API servers.
    pub hosting: Option<Arc<Hosting>>,
}

/// The API server and namespace of a control plane's own state: its cluster's, or its primary's.
#[derive(Clone)]
pub struct Home {
    pub client: kube::Client,
    pub namespace: String,
}

impl Kubernetes {
    /// Who judges the tokens of this cluster's pods.
    pub fn reviewer(&self, store: &Arc<Store>, vital: &mut JoinSet<()>) -> anyhow::Result<Arc<Reviewer>> {
        let keys = Arc::new(TokenKeys::load(self.client.clone(), store.clone())?);
        vital.spawn(keys.clone().follow());
        Ok(Arc::new(Reviewer::new(self.client.clone(), &self.cluster, keys)))
    }
}
