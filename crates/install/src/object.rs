//! What all rendered objects share: labels, names, pod hardening.
//!
//! Invariant: every object that is rendered carries [`PART_OF`], by which `fairlead uninstall` finds it again; one that belongs to
//! a single revision carries [`REVISION`] too.

use crate::values::{Expose, NAMESPACE, Values};
use serde_json::{Value, json};

/// Label of every object of an installation, with value `fairlead`.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// Label of objects that belong to one revision (Istio's).
pub const REVISION: &str = "istio.io/rev";
/// Uid and gid of everything Fairlead runs in a cluster.
pub const UID: u32 = 1337;

/// The object with the labels of an installation.
pub fn labelled(mut object: Value, revision: Option<&str>) -> Value {
    let labels = &mut object["metadata"]["labels"];
    labels[PART_OF] = json!("fairlead");
    labels["app.kubernetes.io/managed-by"] = json!("fairlead-install");
    if let Some(revision) = revision {
        labels[REVISION] = json!(revision);
    }
    object
}

/// `metadata` in our namespace.
pub fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": NAMESPACE})
}

/// Type of a Service that others are to reach.
pub fn service_type(expose: Expose) -> &'static str {
    match expose {
        Expose::LoadBalancer => "LoadBalancer",
        Expose::NodePort => "NodePort",
        Expose::None => "ClusterIP",
    }
}

/// A pod's security context: no root, no capability, the runtime's seccomp profile.
pub fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true, "runAsUser": UID, "runAsGroup": UID, "fsGroup": UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// The pod, on the nodes that the values choose and with their secrets for the image.
pub fn placed(mut pod: Value, values: &Values) -> Value {
    pod["imagePullSecrets"] = values.image_pull_secrets.clone();
    pod["nodeSelector"] = values.node_selector.clone();
    pod["tolerations"] = values.tolerations.clone();
    pod
}

/// A container's.
pub fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "privileged": false,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// Replicas on different nodes where there are several.
pub fn spread(labels: &Value) -> Value {
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}},
    }]}})
}

/// Environment by downward API.
pub fn downward(values: &Values) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!([
        {"name": "CLUSTER", "value": values.cluster},
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("HOST_IP", "status.hostIP"),
    ])
}

/// At most one pod of these is taken away at a time.
pub fn disruption_budget(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta(name),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
    })
}
