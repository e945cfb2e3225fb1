//! The CNI plugin: the DaemonSet that puts it on every node, and what it may ask.
//!
//! Must never be able to write at the API server. Invariant: with the plugin no injected pod needs a privilege.

use crate::object::{downward, labelled, meta};
use crate::values::{NAMESPACE, Values};
use serde_json::{Value, json};

/// Name of all its objects.
pub const CNI: &str = "fairlead-cni";

/// Its objects; none where init containers capture.
pub fn objects(values: &Values) -> Vec<Value> {
    if !values.cni.enabled {
        return Vec::new();
    }
    let subject = json!([{"kind": "ServiceAccount", "name": CNI, "namespace": NAMESPACE}]);
    let reference = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": CNI});
    let objects = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(CNI)}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": CNI},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": CNI},
            "roleRef": reference("ClusterRole"), "subjects": subject,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta(CNI),
            "rules": [{"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": [CNI], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta(CNI),
            "roleRef": reference("Role"), "subjects": subject,
        }),
        daemon_set(values),
    ];
    objects.into_iter().map(|o| labelled(o, None)).collect()
}

fn daemon_set(values: &Values) -> Value {
    let labels = json!({"app": CNI});
    let (bin, conf) = ("/host/opt/cni/bin", "/host/etc/cni/net.d");
    let container = json!({
        "name": "install", "image": values.image, "imagePullPolicy": values.image_pull_policy,
        "args": [
            "cni", "install", "--bin-dir", bin, "--conf-dir", conf, "--host-conf-dir", values.cni.conf_dir, "--daemonset", format!("{NAMESPACE}/{CNI}"),
        ],
        "env": downward(values),
        // Root, since the folders of the node are root's; nothing else of root's rights.
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "allowPrivilegeEscalation": false, "privileged": false,
            "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
        "readinessProbe": {
            "exec": {"command": ["/usr/local/bin/fairlead", "cni", "installed", "--bin-dir", bin, "--conf-dir", conf]},
            "periodSeconds": 5,
        },
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "volumeMounts": [
            {"name": "cni-bin", "mountPath": bin},
            {"name": "cni-conf", "mountPath": conf},
        ],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta(CNI),
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {"app": CNI, "sidecar.istio.io/inject": "false"}},
                "spec": {
                    "serviceAccountName": CNI, "priorityClassName": "system-node-critical",
                    "nodeSelector": {"kubernetes.io/os": "linux"}, "tolerations": [{"operator": "Exists"}],
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 10,
                    "imagePullSecrets": values.image_pull_secrets,
                    "containers": [container],
                    "volumes": [
                        {"name": "cni-bin", "hostPath": {"path": values.cni.bin_dir, "type": "DirectoryOrCreate"}},
                        {"name": "cni-conf", "hostPath": {"path": values.cni.conf_dir, "type": "DirectoryOrCreate"}},
                    ],
                },
            },
        },
    })
}
