//! The control plane: namespace, account, Mesh object, stored values, Deployment and Services.
//!
//! Must never give it more than [`crate::rbac`] lists. Invariant: two revisions share the namespace, the Mesh object and the peering
//! Service, and nothing else.

use crate::object::{
    container_security, disruption_budget, downward, labelled, meta, placed, pod_security, service_type, spread,
};
use crate::values::{NAMESPACE, VALUES_CONFIG_MAP, VALUES_KEY, Values};
use crate::webhooks::INJECTOR;
use serde_json::{Value, json};

/// Unix socket of the admin API in the control container.
pub const ADMIN_SOCKET: &str = "/run/fairlead/admin.sock";
/// Name of the control container.
pub const CONTAINER: &str = "control";
/// Name of the Deployment, Service and ServiceAccount, before a revision's suffix.
pub const CONTROL: &str = "fairlead-control";
/// Where the control container finds the injector's settings, and the key of their ConfigMap.
const INJECTION: &str = "/etc/fairlead/injection";
pub const INJECTION_KEY: &str = "settings.json";
/// The Service that other clusters' control planes dial.
pub const PEERING: &str = "fairlead-peering";

/// What all revisions share: the namespace, the mesh's settings, the door for peers.
pub fn shared(values: &Values) -> Vec<Value> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {
            "topology.istio.io/network": values.network(),
            // The CNI plugin's installer writes files of the node.
            "pod-security.kubernetes.io/enforce": if values.cni.enabled { "privileged" } else { "restricted" },
        }},
    });
    let mesh = json!({
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "Mesh", "metadata": meta("mesh"),
        "spec": {
            "profile": values.mesh.profile, "trust": values.mesh.trust, "trustDomain": values.mesh.trust_domain,
            "admission": values.mesh.admission,
            "clusters": {values.cluster.as_str(): {"network": values.network()}},
        },
    });
    let peering = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(PEERING),
        "spec": {
            "type": service_type(values.expose), "selector": {"app": CONTROL},
            "ports": [port("tls-peering", 15012, 15012)],
        },
    });
    // The door of a remote cluster's control plane is in its primary.
    let peering = Some(peering).filter(|_| values.remote.is_none());
    [namespace, mesh].into_iter().chain(peering).map(|o| labelled(o, None)).collect()
}

/// What belongs to this revision.
pub fn own(values: &Values) -> Vec<Value> {
    let name = values.named(CONTROL);
    let labels = json!({"app": CONTROL, "istio.io/rev": values.revision});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(&name)});
    let (stored, injector) = (stored(values), injector(values));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(&name),
        "spec": {"selector": labels, "ports": [
            port("tls-xds", 15012, 15012), port("https-webhook", 443, 15017), port("http-status", 15014, 15014),
        ]},
    });
    let objects =
        [account, stored, injector, service, deployment(values, &name, &labels), disruption_budget(&name, &labels)];
    objects.into_iter().map(|o| labelled(o, Some(&values.revision))).collect()
}

/// The values, for the next install and for commands.
pub(crate) fn stored(values: &Values) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(&values.named(VALUES_CONFIG_MAP)),
        "data": {VALUES_KEY: values.tree().to_string()},
    })
}

/// The injector's settings, where the control plane mounts them.
pub(crate) fn injector(values: &Values) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(&values.named(INJECTOR)),
        "data": {INJECTION_KEY: json!(values.inject_tree()).to_string()},
    })
}

pub(crate) fn port(name: &str, port: u16, target: u16) -> Value {
    json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"})
}

pub(crate) fn deployment(values: &Values, name: &str, labels: &Value) -> Value {
    let args = json!([
        "control",
        "--kubernetes",
        "--cluster",
        values.cluster,
        "--namespace",
        NAMESPACE,
        "--listen",
        "0.0.0.0:15012",
        "--webhook",
        "0.0.0.0:15017",
        "--status",
        "0.0.0.0:15014",
        "--admin",
        ADMIN_SOCKET,
        "--state",
        "/var/lib/fairlead",
        "--injection",
        format!("{INJECTION}/{INJECTION_KEY}")
    ]);
    let container = json!({
        "name": CONTAINER, "image": values.image, "imagePullPolicy": values.image_pull_policy,
        "args": args, "env": downward(values), "securityContext": container_security(),
        "resources": values.control.resources,
        "ports": [
            {"name": "tls-xds", "containerPort": 15012, "protocol": "TCP"},
            {"name": "https-webhook", "containerPort": 15017, "protocol": "TCP"},
            {"name": "http-status", "containerPort": 15014, "protocol": "TCP"},
        ],
        // It serves on until nobody is sent to it any more: webhooks must not be refused while pods are replaced.
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 15014}, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 3},
        "livenessProbe": {"tcpSocket": {"port": 15014}, "initialDelaySeconds": 30, "periodSeconds": 10, "failureThreshold": 6},
        "volumeMounts": [
            {"name": "run", "mountPath": "/run/fairlead"},
            {"name": "state", "mountPath": "/var/lib/fairlead"},
            {"name": "injection", "mountPath": INJECTION, "readOnly": true},
        ],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(name),
        "spec": {
            "replicas": values.control.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"app": CONTROL, "istio.io/rev": values.revision, "sidecar.istio.io/inject": "false"}},
                "spec": placed(json!({
                    "serviceAccountName": name, "securityContext": pod_security(), "affinity": spread(labels),
                    "terminationGracePeriodSeconds": 30,
                    "containers": [container],
                    "volumes": [
                        {"name": "run", "emptyDir": {}},
                        {"name": "state", "emptyDir": {}},
                        {"name": "injection", "configMap": {"name": values.named(INJECTOR)}},
                    ],
                }), values),
            },
        },
    })
}
