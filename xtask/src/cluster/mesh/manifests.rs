//! A cluster of a mesh directory as objects for a real API server.
//!
//! What a directory calls a `Workload` becomes a StatefulSet of the echo program, whose pods have just the names that the workload's
//! replicas have in the lab (`reviews-v1-0`), so that one call table holds for both; all else is applied as it is written, but for gateways
//! at the edge. Never reads a cluster. Invariant: a field of a Workload that has no counterpart here is an error, not a difference.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// Namespace of what the mesh itself runs.
pub const SYSTEM: &str = "fairlead-system";
/// Where programs are asked whether they are ready, and nothing else.
pub const READY_PORT: u16 = 17999;
/// Volume, folder and file that say how a program answers.
pub const ANSWERS: &str = "answers";
/// Calls that a proxy remembers: more than any table makes of one.
pub const RECORDS: u32 = 6000;
/// Where a pod is, if not where its node says.
const LOCALITY: &str = "topology.istio.io/locality";
/// Fields of `Workload.spec` that are translated.
const KNOWN: &[&str] = &["ports", "replicas", "serviceAccount", "labels", "sidecar"];

/// The objects of `root/clusters/<cluster>`, in an order in which they can be applied.
pub fn manifests(root: &Path, cluster: &str, image: &str) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for file in yaml_files(&root.join("clusters").join(cluster))? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        documents.extend(read(&text).with_context(|| format!("{} is no YAML", file.display()))?);
    }
    let mesh = mesh(root)?;
    let locality = mesh["spec"]["clusters"][cluster]["locality"].as_str().unwrap_or_default();
    let domain = format!("{cluster}.{}", mesh["spec"]["trustDomain"].as_str().unwrap_or_default());
    translate(documents, cluster, locality, &domain, image)
}

/// `mesh.yaml` as the object that a control plane in Kubernetes reads.
pub fn mesh(root: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(root.join("mesh.yaml"))?;
    let mut mesh = read(&text)?.into_iter().find(|d| d["kind"] == "Mesh").context("mesh.yaml holds no Mesh")?;
    mesh["metadata"] = json!({"name": "mesh", "namespace": SYSTEM});
    Ok(mesh)
}

fn yaml_files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    Ok(files)
}

fn read(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(|d| !d.is_null()).collect())
}

fn translate(
    documents: Vec<Value>,
    cluster: &str,
    locality: &str,
    domain: &str,
    image: &str,
) -> anyhow::Result<Vec<Value>> {
    // What a Gateway selects runs a proxy and no program.
    let edges: Vec<Value> =
        documents.iter().filter(|d| d["kind"] == "Gateway").map(|d| d["spec"]["selector"].clone()).collect();
    let mut namespaces: BTreeSet<String> = BTreeSet::new();
    let mut accounts: BTreeSet<(String, String)> = BTreeSet::new();
    let mut objects = Vec::new();
    let mut programs = Vec::new();
    for document in documents {
        let namespace = text(&document["metadata"]["namespace"]);
        if !namespace.is_empty() {
            namespaces.insert(namespace.clone());
        }
        match document["kind"].as_str().unwrap_or_default() {
            "Namespace" => {
                namespaces.insert(text(&document["metadata"]["name"]));
            }
            "Workload" if edges.iter().any(|edge| is_selected(&document, edge)) => {
                let account = account(&document);
                if account != "default" {
                    accounts.insert((namespace, account));
                }
                programs.extend(edge(&document, cluster, domain, image)?);
            }
            "Workload" => {
                let account = account(&document);
                if account != "default" {
                    accounts.insert((namespace, account));
                }
                programs.push(stateful_set(&document, cluster, locality, image)?);
            }
            _ => objects.push(document),
        }
    }
    let mut all: Vec<Value> = namespaces.iter().map(|name| self::namespace(name)).collect();
    all.extend(accounts.iter().map(|(namespace, name)| {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
    }));
    // Programs come last, so that their first request finds the rules in place.
    all.extend(objects);
    all.extend(programs);
    Ok(all)
}

fn is_selected(workload: &Value, selector: &Value) -> bool {
    let labels = &workload["metadata"]["labels"];
    selector.as_object().is_some_and(|all| !all.is_empty() && all.iter().all(|(key, value)| labels[key] == *value))
}

fn namespace(name: &str) -> Value {
    let mut metadata = json!({"name": name});
    // Where settings are kept, nothing runs.
    if name != "istio-system" && name != SYSTEM {
        metadata["labels"] = json!({"istio-injection": "enabled"});
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

fn stateful_set(workload: &Value, cluster: &str, locality: &str, image: &str) -> anyhow::Result<Value> {
    let (name, namespace) = (text(&workload["metadata"]["name"]), text(&workload["metadata"]["namespace"]));
    let spec = &workload["spec"];
    let at = format!("Workload {namespace}/{name}");
    for field in spec.as_object().into_iter().flat_map(Map::keys) {
        if !KNOWN.contains(&field.as_str()) {
            bail!("{at}: spec.{field} has no counterpart in a StatefulSet of the echo program");
        }
    }
    let ports: Vec<u64> = spec["ports"].as_array().into_iter().flatten().filter_map(port).collect();
    if ports.is_empty() {
        bail!("{at}: no port");
    }
    let selector = json!({"fairlead.dev/workload": name});
    let mut labels = selector.clone();
    for more in [&workload["metadata"]["labels"], &spec["labels"]] {
        for (key, value) in more.as_object().into_iter().flatten() {
            labels[key] = value.clone();
        }
    }
    if !locality.is_empty() {
        // A label cannot hold slashes.
        labels[LOCALITY] = locality.replace('/', ".").into();
    }
    if spec["sidecar"] == false {
        labels["sidecar.istio.io/inject"] = "false".into();
    }
    let mut arguments = vec![json!("echo"), json!("--workload"), json!(format!("{cluster}/{namespace}/$(POD_NAME)"))];
    for port in ports.iter().chain([&u64::from(READY_PORT)]) {
        arguments.extend([json!("--port"), json!(port.to_string())]);
    }
    arguments.extend([json!("--answers"), json!(format!("/{ANSWERS}/{ANSWERS}"))]);
    let container = json!({
        "name": "app",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": ports.iter().map(|port| json!({"containerPort": port})).collect::<Vec<_>>(),
        // Not the image's user: as the proxy's, its connections would be taken for the proxy's own.
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
        "readinessProbe": {"tcpSocket": {"port": READY_PORT}, "periodSeconds": 1, "failureThreshold": 2},
        "volumeMounts": [{"name": ANSWERS, "mountPath": format!("/{ANSWERS}")}],
    });
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": namespace, "labels": selector},
        "spec": {
            "replicas": spec["replicas"].as_u64().unwrap_or(1),
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": account(workload),
                    "terminationGracePeriodSeconds": 5,
                    "containers": [container],
                    "volumes": [{"name": ANSWERS, "emptyDir": {}}],
                },
            },
        },
    }))
}

/// A gateway at the edge: as the installed one between clusters, with the node's address for what is outside.
fn edge(workload: &Value, cluster: &str, domain: &str, image: &str) -> anyhow::Result<Vec<Value>> {
    let (name, namespace) = (text(&workload["metadata"]["name"]), text(&workload["metadata"]["namespace"]));
    let mut labels = workload["metadata"]["labels"].clone();
    labels["fairlead.dev/workload"] = name.clone().into();
    labels["sidecar.istio.io/inject"] = "false".into();
    let selector = json!({"fairlead.dev/workload": name});
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let container = json!({
        "name": "fairlead-proxy",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "proxy", "--role", "gateway", "--workload", format!("{cluster}/{namespace}/$(POD_NAME)"),
            "--control", format!("fairlead-control.{SYSTEM}.svc:15012"),
            "--control-identity", format!("spiffe://{domain}/fairlead/control"),
            "--token-file", "/var/run/secrets/fairlead/token", "--trust-file", "/var/run/fairlead/trust/bundles.json",
            "--resolvers-from", "/etc/resolv.conf", "--records", RECORDS.to_string(),
        ],
        "env": [field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP"), field("HOST_IP", "status.hostIP")],
        "securityContext": {"runAsUser": 1337, "runAsGroup": 1337},
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "token", "mountPath": "/var/run/secrets/fairlead"},
            {"name": "trust", "mountPath": "/var/run/fairlead/trust"},
        ],
    });
    let token = json!({"serviceAccountToken": {"audience": format!("fairlead.dev/{cluster}"), "path": "token"}});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "serviceName": name, "selector": {"matchLabels": selector},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": account(workload), "terminationGracePeriodSeconds": 5,
                // Ports below 1024 without a privilege.
                "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
                "containers": [container],
                "volumes": [
                    {"name": "token", "projected": {"sources": [token]}},
                    {"name": "trust", "configMap": {"name": "fairlead-trust"}},
                ],
            }},
        },
    });
    let ports = workload["spec"]["ports"].as_array().into_iter().flatten().filter_map(port);
    let ports: Vec<_> = ports.map(|port| json!({"name": format!("port-{port}"), "port": port})).collect();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("{name}-edge"), "namespace": namespace},
        "spec": {"type": "LoadBalancer", "selector": selector, "ports": ports},
    });
    Ok(vec![service, set])
}

fn account(workload: &Value) -> String {
    workload["spec"]["serviceAccount"].as_str().unwrap_or("default").to_owned()
}

/// A number, or name and number.
fn port(written: &Value) -> Option<u64> {
    written.as_u64().or_else(|| written["port"].as_u64())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_a_stateful_set_of_the_same_names() {
        let written = "
apiVersion: fairlead.dev/v1alpha1
kind: Workload
metadata: {name: reviews, namespace: shop, labels: {app: reviews}}
spec: {replicas: 2, ports: [{name: http, port: 9080}, 7070], serviceAccount: critic, sidecar: false}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
";
        let all = translate(read(written).unwrap(), "east", "eu/a", "east.mesh", "image:1").unwrap();
        let kinds: Vec<&str> = all.iter().filter_map(|o| o["kind"].as_str()).collect();
        assert_eq!(kinds, ["Namespace", "ServiceAccount", "Service", "StatefulSet"]);
        let pod = &all[3]["spec"]["template"];
        assert_eq!(all[3]["spec"]["replicas"], 2);
        assert_eq!(pod["metadata"]["labels"]["app"], "reviews");
        assert_eq!(pod["metadata"]["labels"][LOCALITY], "eu.a");
        assert_eq!(pod["metadata"]["labels"]["sidecar.istio.io/inject"], "false");
        let arguments = &pod["spec"]["containers"][0]["args"];
        assert_eq!(arguments[2], "east/shop/$(POD_NAME)");
        assert_eq!((&arguments[4], &arguments[6]), (&json!("9080"), &json!("7070")));
    }

    #[test]
    fn what_has_no_counterpart_is_an_error() {
        let written = "{apiVersion: fairlead.dev/v1alpha1, kind: Workload, metadata: {name: a, namespace: b}, spec: {command: [sh], ports: [80]}}";
        let error = translate(read(written).unwrap(), "east", "eu/a", "east.mesh", "image:1").unwrap_err();
        assert!(error.to_string().contains("spec.command"), "{error}");
    }
}
