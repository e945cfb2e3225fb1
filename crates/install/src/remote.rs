//! Primary-remote: a cluster whose control plane runs in another one, its primary. The objects of both sides.
//!
//! The remote has an account for the primary, a Service that leads there, webhooks and a gateway. The primary has a namespace for each
//! remote with the control plane, its state and its credential, so that no control plane can read another cluster's CA. Must never
//! grant the account more than its table below. Invariant: objects in the primary carry another [`PART_OF`] than an installation's own,
//! so that installing and uninstalling the primary leaves them alone.

use crate::control::{CONTROL, PEERING, deployment, injector, port, stored};
use crate::object::{PART_OF, disruption_budget, labelled, meta, service_type};
use crate::rbac::{self, Names, RULES, Reach, Rule};
use crate::values::{Expose, RemoteValues, Values};
use serde_json::{Value, json};

/// The account in the remote that is the primary's.
pub const ACCOUNT: &str = "fairlead-primary";
/// The Secret in the primary with the way into the remote, and its keys.
pub const SECRET: &str = "fairlead-remote";
/// Key of [`SECRET`]: where the API server is, and by what it is believed.
pub const KUBECONFIG: &str = "kubeconfig";
/// Key of [`SECRET`]: the newest token of [`ACCOUNT`].
pub const TOKEN: &str = "token";
/// Name of the port that proxies and peers use.
pub const XDS: &str = "tls-xds";
/// Name of the webhooks' port.
pub const WEBHOOK: &str = "https-webhook";
/// Value of [`PART_OF`] of what is in the primary.
pub const HOSTED: &str = "fairlead-remote";
/// Label of the namespace in the primary: the remote's name.
pub const REMOTE: &str = "fairlead.dev/remote";

const MOUNT: &str = "/etc/fairlead/remote";

/// What [`ACCOUNT`] may do beyond what every control plane may at the API server that it reads.
pub const REMOTE_RULES: &[Rule] = &[
    Rule {
        reach: Reach::Own,
        group: "",
        resources: &["serviceaccounts/token"],
        names: Names::These(&[ACCOUNT]),
        verbs: &["create"],
        reader: ("crates/control/src/kubernetes/hosted/renewal.rs", "create_token_request"),
    },
    Rule {
        reach: Reach::Own,
        group: "discovery.k8s.io",
        resources: &["endpointslices"],
        names: Names::These(&["fairlead-control-ipv4", "fairlead-control-ipv6"]),
        verbs: &["create", "patch"],
        reader: ("crates/control/src/kubernetes/hosted/announce.rs", "Api<EndpointSlice>"),
    },
];

/// What the control plane of a remote may do in the primary, beyond its state.
pub const HOME_RULES: &[Rule] = &[
    Rule {
        reach: Reach::Own,
        group: "",
        resources: &["services"],
        names: Names::Any,
        verbs: &["get", "list", "watch"],
        reader: ("crates/control/src/kubernetes/hosted/announce.rs", "Api<Service>"),
    },
    Rule {
        reach: Reach::Cluster,
        group: "",
        resources: &["nodes"],
        names: Names::Any,
        verbs: &["list"],
        reader: ("crates/control/src/kubernetes/hosted/announce.rs", "Api<Node>"),
    },
];

/// The namespace in the primary.
pub fn home(cluster: &str) -> String {
    format!("fairlead-remote-{cluster}")
}

/// Rules for state, which of a remote is in the primary.
fn is_state(rule: &Rule) -> bool {
    rule.resources == ["leases"] || rule.resources == ["secrets"]
}

/// What [`ACCOUNT`] may do in the remote.
pub fn remote_rules() -> impl Iterator<Item = &'static Rule> + Clone {
    RULES.iter().filter(|rule| !is_state(rule)).chain(REMOTE_RULES)
}

/// What the control plane's account may do in the primary. Nodes are looked at only where they lead in.
pub fn home_rules(values: &Values) -> impl Iterator<Item = &'static Rule> + Clone {
    let by_nodes = values.expose == Expose::NodePort;
    RULES
        .iter()
        .filter(|rule| is_state(rule))
        .chain(HOME_RULES.iter().filter(move |r| by_nodes || r.reach == Reach::Own))
}

/// Roles of the primary in the remote.
pub fn rights(values: &Values) -> Vec<Value> {
    let objects = rbac::bound(ACCOUNT, crate::values::NAMESPACE, remote_rules(), values);
    objects.into_iter().map(|o| labelled(o, Some(&values.revision))).collect()
}

/// What else the remote has in place of a control plane.
pub fn own(values: &Values) -> Vec<Value> {
    // Nothing in the remote runs as it.
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(ACCOUNT), "automountServiceAccountToken": false,
    });
    // Without selector: the control plane writes its EndpointSlices.
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(CONTROL),
        "spec": {"ports": [port(XDS, 15012, 15012), port(WEBHOOK, 443, 15017)]},
    });
    [account, stored(values), service].into_iter().map(|o| labelled(o, Some(&values.revision))).collect()
}

/// What the primary has for the remote of these values; nothing for a cluster that is no remote. The Secret is apart, see [`secret`].
pub fn hosted(values: &Values) -> Vec<Value> {
    let Some(remote) = &values.remote else { return Vec::new() };
    let home = home(&values.cluster);
    let labels = json!({"app": CONTROL, REMOTE: values.cluster});
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": home, "labels": {REMOTE: values.cluster, "pod-security.kubernetes.io/enforce": "restricted"}},
    });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(CONTROL)});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(PEERING),
        "spec": {"type": service_type(values.expose), "selector": labels, "ports": [
            port(XDS, remote.port, 15012), port(WEBHOOK, remote.webhook_port, 15017),
        ]},
    });
    let mut roles = rbac::bound(CONTROL, &home, home_rules(values), values);
    for role in roles.iter_mut().filter(|role| role["metadata"]["namespace"].is_null()) {
        // The primary's own has this name.
        role["metadata"]["name"] = json!(home);
        if role["roleRef"].is_object() {
            role["roleRef"]["name"] = json!(home);
        }
    }
    let mut objects = vec![namespace, account];
    objects.extend(roles);
    objects.extend([injector(values), service, served(values, remote, &labels), disruption_budget(CONTROL, &labels)]);
    objects.into_iter().map(|object| at_home(object, values)).collect()
}

/// The Secret with the way into the remote. `server`, `tls_name` and `authority` (PEM): its API server, as the primary's pods reach and
/// believe it.
pub fn secret(values: &Values, server: &str, tls_name: Option<&str>, authority: &str, token: &str) -> Value {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let mut cluster = json!({"server": server, "certificate-authority-data": encode(authority)});
    if let Some(name) = tls_name {
        cluster["tls-server-name"] = json!(name);
    }
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": values.cluster,
        "clusters": [{"name": values.cluster, "cluster": cluster}],
        "users": [{"name": ACCOUNT, "user": {"tokenFile": format!("{MOUNT}/{TOKEN}")}}],
        "contexts": [{"name": values.cluster, "context": {"cluster": values.cluster, "user": ACCOUNT}}],
    });
    let data = json!({KUBECONFIG: encode(&kubeconfig.to_string()), TOKEN: encode(token)});
    at_home(json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta(SECRET), "data": data}), values)
}

fn at_home(object: Value, values: &Values) -> Value {
    let mut object = labelled(object, None);
    object["metadata"]["labels"][PART_OF] = json!(HOSTED);
    object["metadata"]["labels"][REMOTE] = json!(values.cluster);
    if object["metadata"]["namespace"].is_string() {
        object["metadata"]["namespace"] = json!(home(&values.cluster));
    }
    object
}

/// A control plane as everywhere, with the way to its cluster and to its state.
fn served(values: &Values, remote: &RemoteValues, labels: &Value) -> Value {
    let mut deployment = deployment(values, CONTROL, labels);
    let template = &mut deployment["spec"]["template"];
    template["metadata"]["labels"][REMOTE] = json!(values.cluster);
    let mut push = |list: &str, all: Vec<Value>| {
        let place = match list {
            "volumes" => &mut template["spec"]["volumes"],
            _ => &mut template["spec"]["containers"][0][list],
        };
        if let Value::Array(there) = place {
            there.extend(all);
        }
    };
    let args = [
        "--kubeconfig".to_owned(),
        format!("{MOUNT}/{KUBECONFIG}"),
        "--home-namespace".to_owned(),
        home(&values.cluster),
        "--token-lifetime".to_owned(),
        format!("{}s", remote.token_seconds),
    ];
    push("args", args.into_iter().map(Value::from).collect());
    push("volumeMounts", vec![json!({"name": "remote", "mountPath": MOUNT, "readOnly": true})]);
    push("volumes", vec![json!({"name": "remote", "secret": {"secretName": SECRET}})]);
    deployment
}
