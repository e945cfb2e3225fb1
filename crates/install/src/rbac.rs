//! What the control plane may do at its API server, rule by rule, each with the code that needs it.
//!
//! Must never grant a wildcard, nor reading secrets outside our namespace. Invariant: a rule that no code uses is a finding of the
//! test beside this table (`tests/rbac.rs`).

use crate::object::{labelled, meta};
use crate::values::{NAMESPACE, Values};
use crate::{control::CONTROL, revision, webhooks};
use serde_json::{Value, json};

/// Where a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Everywhere.
    Cluster,
    /// In [`NAMESPACE`].
    Own,
}

/// Objects a rule is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// All.
    Any,
    /// These.
    These(&'static [&'static str]),
    /// The mutating webhook configurations of this revision and its tags.
    Injectors,
    /// The validating ones.
    Validators,
}

/// One rule.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Where.
    pub reach: Reach,
    /// API group; empty is core.
    pub group: &'static str,
    /// Resources.
    pub resources: &'static [&'static str],
    /// Limits.
    pub names: Names,
    /// What.
    pub verbs: &'static [&'static str],
    /// File of the repository that needs it, and a word of that file which shows it.
    pub reader: (&'static str, &'static str),
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];
const NAMED: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];
const STATUS: &[&str] = &["get", "patch", "update"];
const CA_BUNDLE: &str = "crates/control/src/webhook/bundle.rs";
const SOURCES: &str = "crates/sources/src/kubernetes/kinds.rs";

const fn everywhere(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    reader: (&'static str, &'static str),
) -> Rule {
    Rule { reach: Reach::Cluster, group, resources, names: Names::Any, verbs, reader }
}

/// All rules.
pub const RULES: &[Rule] = &[
    everywhere("", &["namespaces", "services", "pods", "nodes"], READ, (SOURCES, "Namespace")),
    everywhere("discovery.k8s.io", &["endpointslices"], READ, (SOURCES, "EndpointSlice")),
    everywhere(
        "networking.istio.io",
        &[
            "virtualservices",
            "destinationrules",
            "gateways",
            "serviceentries",
            "workloadentries",
            "workloadgroups",
            "sidecars",
            "proxyconfigs",
        ],
        READ,
        (SOURCES, "networking.istio.io"),
    ),
    everywhere(
        "security.istio.io",
        &["peerauthentications", "requestauthentications", "authorizationpolicies"],
        READ,
        (SOURCES, "security.istio.io"),
    ),
    everywhere("telemetry.istio.io", &["telemetries"], READ, (SOURCES, "telemetry.istio.io")),
    everywhere(
        "multicluster.x-k8s.io",
        &["serviceexports", "serviceimports"],
        READ,
        (SOURCES, "multicluster.x-k8s.io"),
    ),
    everywhere(
        "authentication.k8s.io",
        &["tokenreviews"],
        &["create"],
        ("crates/control/src/kubernetes/tokens.rs", "TokenReview"),
    ),
    Rule {
        reach: Reach::Cluster,
        group: "",
        resources: &["configmaps"],
        names: Names::These(&["istio"]),
        verbs: READ,
        reader: (SOURCES, "istio-system"),
    },
    Rule {
        reach: Reach::Cluster,
        group: "",
        resources: &["configmaps"],
        names: Names::These(&["fairlead-trust"]),
        verbs: NAMED,
        reader: ("crates/control/src/kubernetes/trust.rs", "fairlead-trust"),
    },
    everywhere(
        "admissionregistration.k8s.io",
        &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        READ,
        (CA_BUNDLE, "WebhookConfiguration"),
    ),
    Rule {
        reach: Reach::Cluster,
        group: "admissionregistration.k8s.io",
        resources: &["mutatingwebhookconfigurations"],
        names: Names::Injectors,
        verbs: &["patch"],
        reader: (CA_BUNDLE, "MutatingWebhookConfiguration"),
    },
    Rule {
        reach: Reach::Cluster,
        group: "admissionregistration.k8s.io",
        resources: &["validatingwebhookconfigurations"],
        names: Names::Validators,
        verbs: &["patch"],
        reader: (CA_BUNDLE, "ValidatingWebhookConfiguration"),
    },
    Rule {
        reach: Reach::Own,
        group: "fairlead.dev",
        resources: &["meshes", "peers"],
        names: Names::Any,
        verbs: READ,
        reader: (SOURCES, "fairlead.dev"),
    },
    Rule {
        reach: Reach::Own,
        group: "fairlead.dev",
        resources: &["meshes/status", "peers/status"],
        names: Names::Any,
        verbs: STATUS,
        reader: ("crates/control/src/kubernetes/status.rs", "patch_status"),
    },
    Rule {
        reach: Reach::Own,
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: Names::Any,
        verbs: WRITE,
        reader: ("crates/control/src/kubernetes/lease.rs", "Lease"),
    },
    Rule {
        reach: Reach::Own,
        group: "",
        resources: &["configmaps", "secrets"],
        names: Names::Any,
        verbs: WRITE,
        reader: ("crates/control/src/kubernetes/store.rs", "Secret"),
    },
];

/// Roles and their bindings.
pub fn objects(values: &Values) -> Vec<Value> {
    let name = values.named(CONTROL);
    let rules = |reach: Reach| -> Vec<Value> {
        RULES.iter().filter(|rule| rule.reach == reach).map(|rule| rendered(rule, values)).collect()
    };
    let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]);
    let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let objects = [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name}, "rules": rules(Reach::Cluster),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name}, "roleRef": role("ClusterRole"), "subjects": subject,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": meta(&name), "rules": rules(Reach::Own),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": meta(&name), "roleRef": role("Role"), "subjects": subject,
        }),
    ];
    objects.into_iter().map(|o| labelled(o, Some(&values.revision))).collect()
}

fn rendered(rule: &Rule, values: &Values) -> Value {
    let mut object = json!({"apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs});
    match rule.names {
        Names::Any => {}
        Names::These(names) => object["resourceNames"] = json!(names),
        Names::Validators => object["resourceNames"] = json!([values.named(webhooks::VALIDATOR)]),
        Names::Injectors => {
            let mut names = vec![values.named(webhooks::INJECTOR)];
            names.extend(values.tags.iter().map(|tag| revision::tag_name(tag)));
            object["resourceNames"] = json!(names);
        }
    }
    object
}
