//! Running from a fixed set of resources, without a control plane: benchmarks and component tests.
//!
//! Invariant: the same assembly as in [`crate::run`]; only where resources and identity come from differs.

use crate::assembly::Assembly;
use crate::identity::MeshIdentity;
use crate::options::ProxyOptions;
use crate::status::Status;
use base64::Engine as _;
use bytes::Bytes;
use fairlead_engine::{Change, Resource, Snapshot};
use fairlead_proto::ResourceType;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// One resource of a static file: a JSON list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticResource {
    /// Full type url.
    pub type_url: String,
    pub name: String,
    /// The encoded `Any`, base64.
    pub body: String,
}

/// Why static resources cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StaticError {
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    #[error("{0}: {1}")]
    Format(String, serde_json::Error),
    #[error("resource {0:?}: {1}")]
    Resource(String, String),
    #[error("the proxy could not be started: {0}")]
    Start(#[from] std::io::Error),
}

/// A running proxy with fixed resources.
pub struct StaticProxy {
    assembly: Assembly,
    snapshot: Arc<Snapshot>,
}

impl StaticResource {
    /// A resource for a static file.
    pub fn new(kind: ResourceType, name: &str, any: &[u8]) -> Self {
        let body = base64::engine::general_purpose::STANDARD.encode(any);
        Self { type_url: kind.url().to_owned(), name: name.to_owned(), body }
    }

    fn change(&self) -> Result<Change, StaticError> {
        let bad = |message: String| StaticError::Resource(self.name.clone(), message);
        let kind: ResourceType = self.type_url.parse().map_err(|e| bad(format!("{e}")))?;
        let body = base64::engine::general_purpose::STANDARD.decode(&self.body).map_err(|e| bad(e.to_string()))?;
        Ok(Change::Set(Resource::new(kind, self.name.as_str(), "", Bytes::from(body))))
    }
}

/// Reads a static file.
///
/// # Errors
/// The file cannot be read or is no list of resources.
pub fn read_static(path: &Path) -> Result<Vec<StaticResource>, StaticError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| StaticError::File(name.clone(), e))?;
    serde_json::from_str(&text).map_err(|e| StaticError::Format(name, e))
}

/// Starts a proxy with fixed resources; it runs until [`StaticProxy::end`].
///
/// # Errors
/// A resource cannot be decoded, or no thread could be started.
pub async fn start_static(
    options: ProxyOptions,
    resources: &[StaticResource],
    identity: Option<MeshIdentity>,
) -> Result<StaticProxy, StaticError> {
    let changes: Vec<Change> = resources.iter().map(StaticResource::change).collect::<Result<_, _>>()?;
    let (snapshot, rejected) = Snapshot::build(None, changes);
    if let Some(rejected) = rejected.first() {
        return Err(StaticError::Resource(rejected.name.clone(), rejected.error.to_string()));
    }
    let options = Arc::new(options);
    let status = Status::serve(options.clone()).await;
    let assembly = Assembly::start(options, identity)?;
    assembly.apply(&snapshot);
    crate::admin::serve(&assembly, &status).await;
    Ok(StaticProxy { assembly, snapshot })
}

/// Serves fixed resources until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// As [`start_static`].
pub async fn run_static(
    options: ProxyOptions,
    resources: &[StaticResource],
    identity: Option<MeshIdentity>,
) -> Result<(), StaticError> {
    let proxy = start_static(options, resources, identity).await?;
    crate::process::terminated().await;
    proxy.end().await;
    Ok(())
}

impl StaticProxy {
    /// Where a listener is bound, once it is.
    pub async fn listening(&self, listener: &str) -> SocketAddr {
        self.assembly.listening(listener).await
    }

    /// Replaces or adds resources.
    ///
    /// # Errors
    /// A resource cannot be decoded; nothing is changed then.
    pub fn update(&mut self, resources: &[StaticResource]) -> Result<(), StaticError> {
        let changes: Vec<Change> = resources.iter().map(StaticResource::change).collect::<Result<_, _>>()?;
        let (snapshot, rejected) = Snapshot::build(Some(&self.snapshot), changes);
        if let Some(rejected) = rejected.first() {
            return Err(StaticError::Resource(rejected.name.clone(), rejected.error.to_string()));
        }
        self.snapshot = snapshot;
        self.assembly.apply(&self.snapshot);
        Ok(())
    }

    /// Per-call records so far; empty unless the options keep them.
    pub fn records(&self) -> Vec<crate::CallRecord> {
        self.assembly.shared.records.as_ref().map(|records| records.since(0)).unwrap_or_default()
    }

    /// All metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.assembly.shared.registry.render()
    }

    /// Drains and ends.
    pub async fn end(self) {
        self.assembly.end().await;
    }
}
