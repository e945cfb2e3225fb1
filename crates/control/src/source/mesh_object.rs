//! The `Mesh` object of a Kubernetes cluster, before objects are watched: the trust domain is in it, which certificates carry.
//!
//! Invariant: never makes up settings, not even when the object is deleted. What was last good serves at once when the API server does not answer; without it the start
//! waits, and says for what.

use crate::codes::STALE_OBJECT;
use crate::kubernetes::Kubernetes;
use crate::status::Status;
use fairlead_model::{ClusterId, Diagnostic, ObjectKey, Origin};
use fairlead_resources::fairlead::{Admission, Mesh};
use fairlead_resources::yaml::Node;
use fairlead_resources::{Kind, Object, decode_object};
use std::sync::Arc;
use std::time::Duration;

/// Its name; there is one.
pub const NAME: &str = "mesh";
/// An answer takes no longer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Nor does it where there is something to go on with.
const TIMEOUT_KEPT: Duration = Duration::from_secs(2);
/// Between two questions: what is waited for is an operator, or a server that starts.
const AGAIN: Duration = Duration::from_secs(1);

/// The mesh's settings, however long that takes; at once if they are kept and the API server has none that are better.
pub async fn at_start(
    kubernetes: &Kubernetes,
    cluster: &ClusterId,
    kept: Option<Mesh>,
    status: &Status,
) -> anyhow::Result<Mesh> {
    let mut told = String::new();
    let timeout = if kept.is_some() { TIMEOUT_KEPT } else { TIMEOUT };
    loop {
        let asked = tokio::time::timeout(timeout, ask(kubernetes, cluster)).await;
        let why = match asked.unwrap_or_else(|_| Err(format!("the API server has not answered within {timeout:?}"))) {
            Ok(mesh) => return Ok(mesh),
            Err(why) => why,
        };
        if let Some(kept) = kept {
            tracing::warn!("the mesh's settings are those of before the restart: {why}");
            return Ok(kept);
        }
        if told != why {
            tracing::warn!("waiting for the mesh's settings: {why}");
            status.waiting(format!("the mesh's settings cannot be read: {why}"));
            told = why;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn ask(kubernetes: &Kubernetes, cluster: &ClusterId) -> Result<Mesh, String> {
    let Kubernetes { client, namespace, .. } = kubernetes;
    let version = Kind::Mesh.versions()[0];
    let path = format!("/apis/{}/{version}/namespaces/{namespace}/meshes", Kind::Mesh.group());
    let request = kube::core::Request::new(path).get(NAME, &Default::default()).map_err(|e| e.to_string())?;
    let text = client.request_text(request).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 404 => {
            format!("there is no Mesh {namespace}/{NAME}; `fairlead install` makes one")
        }
        kube::Error::Api(status) => status.message.clone(),
        other => deepest(&other),
    })?;
    let node: Node = serde_json::from_str(&text).map_err(|e| format!("Mesh {namespace}/{NAME} cannot be read: {e}"))?;
    let mut decoding = decode_object(cluster, &node);
    match decoding.objects.pop().filter(|decoded| !decoded.refused).map(|decoded| decoded.object) {
        Some(Object::Mesh(mesh)) => Ok(with_defaults(mesh)),
        _ => {
            let why = decoding.diagnostics.first().map(|d| format!("{}: {}", d.path, d.message)).unwrap_or_default();
            Err(format!("Mesh {namespace}/{NAME} is refused: {why}"))
        }
    }
}

/// With what holds on Kubernetes where the object says nothing: who is introduced by others waits for approval.
pub fn with_defaults(mut mesh: Mesh) -> Mesh {
    mesh.spec.admission.get_or_insert(Admission::Approve);
    mesh
}

/// What is said when the object was deleted.
pub fn gone(cluster: &ClusterId, namespace: &str) -> Diagnostic {
    let object = ObjectKey::new(cluster.clone(), "Mesh", "", NAME);
    let at = Origin { object, path: String::new(), file: Arc::default(), line: 0 };
    let message = format!(
        "there is no Mesh {namespace}/{NAME} any more; its last settings hold until the control plane restarts"
    );
    Diagnostic::warning(STALE_OBJECT, at, message).hint("apply it again; `fairlead install` writes it")
}

fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}
