//! The webhook configurations: whose pods are sent to the injector, whose objects to the validator.
//!
//! Must never catch pods of `kube-system` or of our own namespace: a cluster whose control plane is away must be able to start
//! them. `caBundle` is absent here; the control plane writes it, under its own field manager. Invariant: a pod matches at most one
//! webhook of all revisions and tags, as with Istio's selectors.

use crate::control::CONTROL;
use crate::object::labelled;
use crate::rbac::NETWORKING;
use crate::values::{DEFAULT_REVISION, NAMESPACE, Values};
use serde_json::{Value, json};

/// Name of the injector's configuration, before a revision's suffix.
pub const INJECTOR: &str = "fairlead-injector";
/// Name of the validator's.
pub const VALIDATOR: &str = "fairlead-validator";
/// Namespaces of Kubernetes itself: nothing is injected there, and nothing written.
pub const OF_KUBERNETES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// Namespaces whose pods are never sent to the injector.
pub const NEVER: [&str; 4] = [OF_KUBERNETES[0], OF_KUBERNETES[1], OF_KUBERNETES[2], NAMESPACE];

/// Both configurations of the values' revision.
pub fn objects(values: &Values) -> Vec<Value> {
    vec![injector(values, &values.named(INJECTOR), &values.revision), validator(values)]
}

/// An injector's configuration under a name, for those who ask for revision or tag `rev`, served by the values' revision.
pub fn injector(values: &Values, name: &str, rev: &str) -> Value {
    let wants = json!({"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]});
    let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let lacks = |key: &str| json!({"key": key, "operator": "DoesNotExist"});
    let mut webhooks = vec![
        webhook(
            values,
            "rev.namespace",
            &[is("istio.io/rev", rev), lacks("istio-injection")],
            std::slice::from_ref(&wants),
        ),
        webhook(
            values,
            "rev.object",
            &[lacks("istio.io/rev"), lacks("istio-injection")],
            &[wants.clone(), is("istio.io/rev", rev)],
        ),
    ];
    if rev == DEFAULT_REVISION {
        webhooks.push(webhook(values, "namespace", &[is("istio-injection", "enabled")], &[wants]));
        webhooks.push(webhook(
            values,
            "object",
            &[lacks("istio-injection"), lacks("istio.io/rev")],
            &[is("sidecar.istio.io/inject", "true"), lacks("istio.io/rev")],
        ));
    }
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name}, "webhooks": webhooks,
    });
    labelled(object, Some(&values.revision))
}

fn webhook(values: &Values, name: &str, namespaces: &[Value], pods: &[Value]) -> Value {
    let mut namespaces = namespaces.to_vec();
    namespaces.push(json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": NEVER}));
    json!({
        "name": format!("{name}.injector.fairlead.dev"),
        "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail", "matchPolicy": "Equivalent",
        "reinvocationPolicy": "Never", "timeoutSeconds": 10,
        "clientConfig": {"service": {"name": values.named(CONTROL), "namespace": NAMESPACE, "path": "/inject", "port": 443}},
        "namespaceSelector": {"matchExpressions": namespaces},
        "objectSelector": {"matchExpressions": pods},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}],
    })
}

/// Objects without `istio.io/rev` are the default revision's.
fn validator(values: &Values) -> Value {
    let own = json!({"key": "istio.io/rev", "operator": "In", "values": [values.revision]});
    let mut selectors = vec![("rev", own)];
    if values.revision == DEFAULT_REVISION {
        selectors.push(("all", json!({"key": "istio.io/rev", "operator": "DoesNotExist"})));
    }
    let rule = |group: &str, resources: &[&str]| {
        json!({
            "apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": resources,
            "scope": "Namespaced",
        })
    };
    let rules = json!([
        rule("networking.istio.io", NETWORKING),
        rule("security.istio.io", &["peerauthentications", "requestauthentications", "authorizationpolicies"]),
        rule("telemetry.istio.io", &["telemetries"]),
        rule("multicluster.x-k8s.io", &["serviceexports", "serviceimports"]),
        rule("fairlead.dev", &["meshes", "peers"]),
    ]);
    let webhooks: Vec<_> = selectors
        .into_iter()
        .map(|(name, selector)| {
            json!({
                "name": format!("{name}.validator.fairlead.dev"),
                "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore", "matchPolicy": "Equivalent",
                "timeoutSeconds": 5,
                "clientConfig": {"service": {"name": values.named(CONTROL), "namespace": NAMESPACE, "path": "/validate", "port": 443}},
                "objectSelector": {"matchExpressions": [selector]},
                "rules": rules,
            })
        })
        .collect();
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": values.named(VALIDATOR)}, "webhooks": webhooks,
    });
    labelled(object, Some(&values.revision))
}
