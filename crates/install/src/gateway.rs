//! The east-west gateway: account, Deployment, Service, and the Gateway object that opens its port.
//!
//! Invariant: the pod gets no API token; what it proves itself with is the projected token for the control plane's audience.

use crate::object::{
    container_security, disruption_budget, downward, labelled, meta, placed, pod_security, service_type, spread,
};
use crate::values::Values;
use serde_json::{Value, json};

/// Name of all its objects.
pub const EAST_WEST: &str = "fairlead-eastwest";

/// Its objects; none where values leave it out.
pub fn objects(values: &Values) -> Vec<Value> {
    if !values.gateway.enabled {
        return Vec::new();
    }
    let labels = json!({"app": EAST_WEST, "istio": "eastwestgateway"});
    let with_network = json!({
        "app": EAST_WEST, "istio": "eastwestgateway", "topology.istio.io/network": values.network(),
    });
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(EAST_WEST), "automountServiceAccountToken": false,
    });
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(EAST_WEST),
        "spec": {"type": service_type(values.expose), "selector": labels, "ports": [
            {"name": "http-status", "port": 15021, "targetPort": 15021, "protocol": "TCP"},
            {"name": "tls", "port": 15443, "targetPort": 15443, "protocol": "TCP"},
        ]},
    });
    service["metadata"]["labels"] = with_network.clone();
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": meta(EAST_WEST),
        "spec": {"selector": {"istio": "eastwestgateway"}, "servers": [{
            "port": {"number": 15443, "name": "tls", "protocol": "TLS"},
            "tls": {"mode": "AUTO_PASSTHROUGH"},
            "hosts": ["*.local"],
        }]},
    });
    let objects =
        [account, service, gateway, deployment(values, &labels, &with_network), disruption_budget(EAST_WEST, &labels)];
    objects.into_iter().map(|o| labelled(o, None)).collect()
}

fn deployment(values: &Values, labels: &Value, with_network: &Value) -> Value {
    let mut pod_labels = with_network.clone();
    pod_labels["sidecar.istio.io/inject"] = json!("false");
    pod_labels["service.istio.io/canonical-name"] = json!(EAST_WEST);
    pod_labels["service.istio.io/canonical-revision"] = json!("latest");
    let container = json!({
        "name": "fairlead-proxy", "image": values.image, "imagePullPolicy": values.image_pull_policy,
        "args": [
            "proxy", "--role", "east-west", "--workload", "$(CLUSTER)/$(POD_NAMESPACE)/$(POD_NAME)",
            "--control", values.control_address(), "--control-identity", values.control_identity(),
            "--token-file", "/var/run/secrets/fairlead/token", "--trust-file", "/var/run/fairlead/trust/bundles.json",
            "--status", "0.0.0.0:15021", "--state", "/var/lib/fairlead-proxy",
            "--resolvers-from", "/etc/resolv.conf",
        ],
        "env": downward(values), "securityContext": container_security(), "resources": values.gateway.resources,
        "ports": [
            {"name": "http-status", "containerPort": 15021, "protocol": "TCP"},
            {"name": "tls", "containerPort": 15443, "protocol": "TCP"},
        ],
        "startupProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 2, "failureThreshold": 3},
        "volumeMounts": [
            {"name": "token", "mountPath": "/var/run/secrets/fairlead", "readOnly": true},
            {"name": "trust", "mountPath": "/var/run/fairlead/trust", "readOnly": true},
            {"name": "state", "mountPath": "/var/lib/fairlead-proxy"},
        ],
    });
    let token =
        json!({"serviceAccountToken": {"audience": values.audience(), "expirationSeconds": 3600, "path": "token"}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(EAST_WEST),
        "spec": {
            "replicas": values.gateway.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": pod_labels},
                "spec": placed(json!({
                    "serviceAccountName": EAST_WEST, "automountServiceAccountToken": false,
                    "securityContext": pod_security(), "affinity": spread(labels), "terminationGracePeriodSeconds": 30,
                    "containers": [container],
                    "volumes": [
                        {"name": "token", "projected": {"sources": [token]}},
                        {"name": "trust", "configMap": {"name": "fairlead-trust"}},
                        {"name": "state", "emptyDir": {}},
                    ],
                }), values),
            },
        },
    })
}
