//! What the control plane may do at its API server, rule by rule, each with the code that needs it.
//!
//! Must never grant a wildcard, nor reading secrets outside our namespace. Invariant: a rule that no code uses is a finding of the
//! test beside this table (`tests/rbac.rs`).

use crate::object::labelled;
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
const SOURCES: &str = "crates/sources/src/kubernetes/kinds.rs";
const CA_BUNDLE: &str = "crates/control/src/webhook/ca_bundle.rs";
const CONDITIONS: &str = "crates/control/src/kubernetes/conditions.rs";
const LEASE: &str = "crates/control/src/kubernetes/lease.rs";
const TRUST: &str = "crates/control/src/kubernetes/trust_maps.rs";

const fn everywhere(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    reader: (&'static str, &'static str),
) -> Rule {
    Rule { reach: Reach::Cluster, group, resources, names: Names::Any, verbs, reader }
}

const fn own(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    reader: (&'static str, &'static str),
) -> Rule {
    Rule { reach: Reach::Own, group, resources, names: Names::Any, verbs, reader }
}

const fn named(
    group: &'static str,
    resources: &'static [&'static str],
    names: Names,
    verbs: &'static [&'static str],
    reader: (&'static str, &'static str),
) -> Rule {
    Rule { reach: Reach::Cluster, group, resources, names, verbs, reader }
}

/// Kinds of `networking.istio.io` that are read and validated.
pub const NETWORKING: &[&str] = &[
    "virtualservices",
    "destinationrules",
    "gateways",
    "serviceentries",
    "workloadentries",
    "workloadgroups",
    "sidecars",
    "proxyconfigs",
];

/// All rules.
pub const RULES: &[Rule] = &[
    everywhere("", &["namespaces", "services", "pods", "nodes"], READ, (SOURCES, "Kind::Namespace")),
    everywhere("discovery.k8s.io", &["endpointslices"], READ, (SOURCES, "Kind::EndpointSlice")),
    named("", &["configmaps"], Names::These(&["istio"]), READ, (SOURCES, "istio-system")),
    everywhere("networking.istio.io", NETWORKING, READ, (SOURCES, "Kind::VirtualService")),
    everywhere(
        "security.istio.io",
        &["peerauthentications", "requestauthentications", "authorizationpolicies"],
        READ,
        (SOURCES, "Kind::AuthorizationPolicy"),
    ),
    everywhere("telemetry.istio.io", &["telemetries"], READ, (SOURCES, "Kind::Telemetry")),
    everywhere("multicluster.x-k8s.io", &["serviceexports", "serviceimports"], READ, (SOURCES, "Kind::ServiceExport")),
    own("fairlead.dev", &["meshes", "peers"], READ, (SOURCES, "Kind::Mesh")),
    // Status alone: what users wrote is theirs.
    everywhere(
        "networking.istio.io",
        &[
            "virtualservices/status",
            "destinationrules/status",
            "gateways/status",
            "serviceentries/status",
            "workloadentries/status",
            "sidecars/status",
        ],
        &["patch"],
        (CONDITIONS, "virtualservices"),
    ),
    everywhere(
        "security.istio.io",
        &["peerauthentications/status", "requestauthentications/status", "authorizationpolicies/status"],
        &["patch"],
        (CONDITIONS, "authorizationpolicies"),
    ),
    own("fairlead.dev", &["meshes/status", "peers/status"], &["patch"], (CONDITIONS, "meshes")),
    everywhere("events.k8s.io", &["events"], &["create", "patch"], (CONDITIONS, "Recorder")),
    everywhere(
        "authentication.k8s.io",
        &["tokenreviews"],
        &["create"],
        ("crates/control/src/kubernetes/review.rs", "Api<TokenReview>"),
    ),
    // Server-side apply of what is not there yet needs `create`; the name is known then, so that it can be bounded too.
    named(
        "",
        &["configmaps"],
        Names::These(&["fairlead-trust"]),
        &["get", "list", "watch", "create", "patch"],
        (TRUST, "Api<ConfigMap>"),
    ),
    everywhere(
        "admissionregistration.k8s.io",
        &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        READ,
        (CA_BUNDLE, "watch(api"),
    ),
    named(
        "admissionregistration.k8s.io",
        &["mutatingwebhookconfigurations"],
        Names::Injectors,
        &["patch"],
        (CA_BUNDLE, "MutatingWebhookConfiguration"),
    ),
    named(
        "admissionregistration.k8s.io",
        &["validatingwebhookconfigurations"],
        Names::Validators,
        &["patch"],
        (CA_BUNDLE, "ValidatingWebhookConfiguration"),
    ),
    // What is created has no name yet that a rule could ask for.
    own("coordination.k8s.io", &["leases"], &["create"], (LEASE, "Api<Lease>")),
    Rule {
        reach: Reach::Own,
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: Names::These(&["fairlead-control"]),
        verbs: &["get", "update"],
        reader: (LEASE, "const NAME: &str = \"fairlead-control\""),
    },
    // Not by name: what was heard of a peer is in an object of the peer's name.
    own(
        "",
        &["secrets"],
        &["get", "list", "watch", "create", "update"],
        ("crates/control/src/kubernetes/state/mod.rs", "Api<Secret>"),
    ),
];

/// Roles and their bindings.
pub fn objects(values: &Values) -> Vec<Value> {
    let name = values.named(CONTROL);
    let objects = bound(&name, NAMESPACE, RULES, values);
    objects.into_iter().map(|o| labelled(o, Some(&values.revision))).collect()
}

/// Roles of these rules, bound to an account of that name in a namespace; none for a reach without rules.
pub fn bound<'a>(
    name: &str,
    namespace: &str,
    rules: impl IntoIterator<Item = &'a Rule> + Clone,
    values: &Values,
) -> Vec<Value> {
    let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]);
    let mut objects = Vec::new();
    for (reach, kind) in [(Reach::Cluster, "ClusterRole"), (Reach::Own, "Role")] {
        let rules = rules.clone().into_iter().filter(|rule| rule.reach == reach);
        let rules: Vec<Value> = rules.map(|rule| rendered(rule, values)).collect();
        if rules.is_empty() {
            continue;
        }
        let mut metadata = json!({"name": name});
        if reach == Reach::Own {
            metadata["namespace"] = json!(namespace);
        }
        let group = "rbac.authorization.k8s.io";
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": rules,
        }));
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": kind, "name": name}, "subjects": subject,
        }));
    }
    objects
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
