//! No field is read and ignored: each decoded field, set to another value, changes the resolved mesh or yields a
//! diagnostic.
//!
//! Generated from the kinds' own schemas, so that a new field is covered on the day it is added. What has no effect on a
//! resolved mesh by its nature stands in `ELSEWHERE` with the reason.

// A test that cannot read its input fails by panicking.
#![allow(clippy::unwrap_used)]

mod harness;

use fairlead_model::ids::ClusterId;
use fairlead_resources::Kind;
use fairlead_resources::field::Shape;
use harness::{World, Written, digest};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The step into a list's first item.
const FIRST: &str = "[0]";

/// Fields that are used outside of resolving, or identify an object.
const ELSEWHERE: &[(&str, &str)] = &[
    ("*.metadata.uid", "an API server's bookkeeping"),
    ("*.metadata.generation", "an API server's bookkeeping"),
    ("*.metadata.resourceVersion", "an API server's bookkeeping"),
    (
        "*.metadata.creationTimestamp",
        "only breaks ties between objects (cases routes/order, destinations/merge_same_host)",
    ),
    ("*.metadata.annotations.x", "annotations are free text; those with a meaning have cases"),
    ("*.metadata.labels.x", "labels are free text; those with a meaning have cases"),
    ("Workload.spec.command", "the lab starts it"),
    ("Workload.spec.args", "the lab starts it"),
    ("Workload.spec.env", "the lab starts it"),
    ("Workload.spec.readinessProbe", "the callee's proxy probes and reports health"),
    ("Workload.spec.ports.protocol", "the lab listens by it"),
    ("Peer.spec.addresses", "peering dials them"),
    ("Peer.spec.trustDomain", "peering verifies the peer by it"),
    ("Peer.spec.rootFingerprints", "peering verifies the peer by them"),
    ("Mesh.spec.admission", "peering admits by it"),
    ("*.metadata.name", "identity; a name that nothing refers to shows in origins only"),
    ("*.metadata.namespace", "identity; kinds without a namespace have none"),
    ("EndpointSlice.addressType", "only FQDN, whose addresses are no addresses, is left out"),
    ("EndpointSlice.endpoints.hostname", "a pod's name in a headless service is its workload's"),
    ("EndpointSlice.endpoints.targetRef.namespace", "always the slice's own (Kubernetes)"),
    ("EndpointSlice.ports.protocol", "the Service says what its ports speak"),
    ("EndpointSlice.ports.appProtocol", "the Service says what its ports speak"),
    ("Node.status", "for NodePort gateways, which directory clusters do not have"),
    ("Pod.spec.containers.name", "containers have no meaning to a mesh"),
    ("Pod.spec.initContainers.name", "containers have no meaning to a mesh"),
    ("Pod.spec.containers.ports.protocol", "the Service says what its ports speak"),
    ("Pod.spec.initContainers.ports.protocol", "the Service says what its ports speak"),
    ("Pod.spec.hostname", "a pod's name in a headless service is its workload's"),
    ("Pod.spec.subdomain", "a pod's name in a headless service is its workload's"),
    ("Pod.status.hostIP", "for NodePort gateways, which directory clusters do not have"),
    ("Pod.status.phase", "only the end of a pod counts (case registry/pods_and_slices)"),
    ("Pod.status.conditions.status", "only True counts (case registry/pods_and_slices)"),
    ("Service.spec.ipFamilies", "only IPv4 and IPv6 count (case registry/dual_stack)"),
    ("Service.spec.type", "only ExternalName counts (case analyze/references)"),
    ("Service.spec.externalName", "of ExternalName, which is refused"),
    ("Service.spec.externalIPs", "only those of gateways count (case gateways/built_in)"),
    ("Service.status.loadBalancer", "only those of gateways count (case gateways/built_in)"),
    ("Service.spec.loadBalancerIP", "a wish to the cloud; the answer is in status"),
    ("Service.spec.ports.nodePort", "a port of nodes, not of workloads"),
    ("ServiceExport.spec.exportedAnnotations", "annotations are free text"),
    ("VirtualService.spec.http.mirrorPercentage", "says nothing without a mirror, which is refused"),
];

#[test]
fn every_field_shows() {
    let base = base();
    let shown = resolve(&base);
    assert_eq!(shown["found"], json!([]), "the base must be good");
    let mut silent = BTreeMap::new();
    let mut tried = 0;
    for (at, object) in base.iter().enumerate() {
        let kind = object["kind"].as_str().unwrap();
        let kind = *Kind::ALL.iter().find(|one| one.as_str() == kind).unwrap();
        let mut variants = Vec::new();
        vary(&kind.shape(), object, Vec::new(), 0, &mut variants);
        for (path, changed) in variants {
            let name = format!("{}.{}", kind.as_str(), path.join("."));
            if path[0] == "apiVersion" || path[0] == "kind" || is_elsewhere(&name) {
                continue;
            }
            let mut objects = base.clone();
            objects[at] = changed;
            tried += 1;
            // One value that shows is enough: some values are the default.
            let shows = silent.entry(name).or_insert(false);
            *shows = *shows || resolve(&objects) != shown;
        }
    }
    assert!(tried > 300, "only {tried} fields were tried");
    let silent: Vec<String> = silent.into_iter().filter(|(_, shows)| !shows).map(|(name, _)| name).collect();
    assert!(silent.is_empty(), "{} fields show nowhere:\n{}", silent.len(), silent.join("\n"));
}

fn is_elsewhere(name: &str) -> bool {
    ELSEWHERE.iter().any(|(pattern, _)| match pattern.strip_prefix("*.") {
        Some(rest) => {
            name.split_once('.').is_some_and(|(_, path)| path == rest || path.starts_with(&format!("{rest}.")))
        }
        None => name == *pattern || name.starts_with(&format!("{pattern}.")),
    })
}

/// Every object that differs from `whole` in one field; `path` leads to the part that `shape` describes.
fn vary(shape: &Shape, whole: &Value, path: Vec<String>, depth: usize, found: &mut Vec<(Vec<String>, Value)>) {
    let here = at(whole, &path);
    match shape {
        Shape::Message(_, fields) => {
            for (name, field) in *fields {
                let mut below = path.clone();
                below.push(wire(name));
                if depth < 9 {
                    vary(&field(), whole, below, depth + 1, found);
                }
            }
        }
        Shape::List(item) => {
            let mut below = path.clone();
            below.push(FIRST.to_owned());
            vary(&item(), whole, below, depth + 1, found);
        }
        Shape::Map(item) => {
            let key = here
                .and_then(Value::as_object)
                .and_then(|map| map.keys().next().cloned())
                .unwrap_or_else(|| "x".into());
            let mut below = path.clone();
            below.push(key);
            vary(&item(), whole, below, depth + 1, found);
        }
        leaf => {
            for value in others(leaf, here) {
                let mut changed = whole.clone();
                put(&mut changed, &path, value);
                found.push((path.iter().filter(|step| *step != FIRST).cloned().collect(), changed));
            }
        }
    }
}

fn others(shape: &Shape, now: Option<&Value>) -> Vec<Value> {
    let values = match shape {
        Shape::Bool => vec![json!(true), json!(false)],
        Shape::Int(low, high) => vec![json!((*low).max(7).min(*high))],
        Shape::Number => vec![json!(7)],
        Shape::String | Shape::Any => match now.and_then(Value::as_str).map(str::parse::<std::net::IpAddr>) {
            Some(Ok(_)) => vec![json!("10.9.9.9")],
            _ => vec![json!("other")],
        },
        Shape::Duration => vec![json!("7s")],
        Shape::IntOrString => vec![json!(7777)],
        Shape::Enum(words) => words.iter().filter(|word| !word.is_empty()).map(|word| json!(word)).collect(),
        Shape::List(_) | Shape::Map(_) | Shape::Message(..) => Vec::new(),
    };
    let unset = match shape {
        // What is unset already.
        Shape::Enum(words) => json!(words.first()),
        _ => Value::Null,
    };
    values.into_iter().filter(|value| now.map_or(value != &unset, |now| now != value)).collect()
}

fn wire(name: &str) -> String {
    fairlead_resources::field::from_node::wire_name(name)
}

fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| if step == FIRST { value.get(0) } else { value.get(step) })
}

fn put(value: &mut Value, path: &[String], new: Value) {
    let Some((step, rest)) = path.split_first() else {
        *value = new;
        return;
    };
    if step == FIRST {
        if value.get(0).is_none() {
            *value = json!([null]);
        }
        return put(&mut value[0], rest, new);
    }
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    put(value.as_object_mut().unwrap().entry(step.clone()).or_insert(Value::Null), rest, new);
}

/// East's digest, west's digest, and everything reading found. Lines are all the same, as every object is one line.
fn resolve(objects: &[Value]) -> Value {
    let mut spec = String::new();
    let mut clusters: BTreeMap<String, Vec<String>> = BTreeMap::from([("west".to_owned(), vec![])]);
    for object in objects {
        if object["kind"] == "Mesh" {
            spec = object["spec"].to_string();
        } else {
            clusters.entry("east".to_owned()).or_default().push(object.to_string());
        }
    }
    clusters.get_mut("west").unwrap().push(WEST.to_owned());
    let texts = clusters.into_iter().map(|(name, objects)| (name, objects.join("\n---\n"))).collect();
    let written = Written::new(&spec, &texts);
    let settings = written.settings(&ClusterId::from("east"));
    let views: Vec<Value> = ["east", "west"]
        .iter()
        .map(|viewer| {
            let (mesh, diagnostics) = written.view(&ClusterId::from(*viewer), &World::default(), None);
            digest::digest(&mesh, &diagnostics)
        })
        .collect();
    let found: Vec<String> =
        written.diagnostics.iter().map(|one| format!("{} {} {}", one.code, one.object, one.path)).collect();
    json!({"views": views, "found": found, "settings": format!("{settings:?}")})
}

const WEST: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
---
{"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": {"name": "a", "namespace": "shop"}}"#;

/// One object of each kind that is applied, all of them in use.
fn base() -> Vec<Value> {
    let network = "networking.istio.io/v1";
    let meta = |name: &str| json!({"name": name, "namespace": "shop"});
    vec![
        json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "shop"}, "spec": {"clusters": {"east": {"network": "n"}}, "meshConfig": {"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "enableAutoMtls": true, "localityLbSetting": {"enabled": true}, "serviceSettings": [{"settings": {"clusterLocal": true}, "hosts": ["x.shop.svc.cluster.local"]}]}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system", "labels": {"topology.istio.io/network": "m"}}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("a"), "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "tcp", "port": 81, "targetPort": "side"}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"terminating": true}, "targetRef": {"kind": "Pod", "name": "t", "namespace": "shop"}}], "ports": [{"name": "http", "port": 80}]}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("s"), "spec": {"selector": {"app": "none"}, "ports": [{"name": "http", "port": 80}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop", "labels": {"app": "a"}}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}]}], "initContainers": [{"name": "i", "ports": [{"name": "side", "containerPort": 81}]}]}, "status": {"phase": "Running", "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}], "conditions": [{"type": "Ready", "status": "False"}]}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/region": "eu"}}}),
        json!({"apiVersion": network, "kind": "VirtualService", "metadata": meta("a"), "spec": {"hosts": ["a.shop.svc.cluster.local"], "http": [{"route": [{"destination": {"host": "a"}, "weight": 3}, {"destination": {"host": "s"}, "weight": 1}]}], "tcp": [{"route": [{"destination": {"host": "a"}, "weight": 3}, {"destination": {"host": "s"}, "weight": 1}]}], "tls": [{"match": [{"sniHosts": ["a.shop.svc.cluster.local"]}], "route": [{"destination": {"host": "a"}, "weight": 3}, {"destination": {"host": "s"}, "weight": 1}]}]}}),
        json!({"apiVersion": network, "kind": "DestinationRule", "metadata": meta("a"), "spec": {"host": "a", "trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}}]}, "subsets": [{"name": "v1", "labels": {"app": "a"}}]}}),
        json!({"apiVersion": network, "kind": "Gateway", "metadata": meta("g"), "spec": {"selector": {"app": "gw"}, "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["a.example.com"]}]}}),
        json!({"apiVersion": network, "kind": "WorkloadEntry", "metadata": meta("gw"), "spec": {"address": "10.0.0.9", "labels": {"app": "gw"}, "ports": {"http": 80}}}),
        json!({"apiVersion": network, "kind": "ServiceEntry", "metadata": meta("e"), "spec": {"hosts": ["e.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "STATIC", "location": "MESH_INTERNAL", "endpoints": [{"address": "192.0.2.7", "ports": {"http": 8000}}, {"address": "192.0.2.8"}]}}),
        json!({"apiVersion": network, "kind": "WorkloadEntry", "metadata": meta("w"), "spec": {"address": "10.0.0.5", "labels": {"app": "a"}, "ports": {"http": 8000}}}),
        json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": meta("pa"), "spec": {"selector": {"matchLabels": {"app": "a"}}, "mtls": {"mode": "PERMISSIVE"}, "portLevelMtls": {"80": {"mode": "STRICT"}}}}),
        json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": meta("ap"), "spec": {"selector": {"matchLabels": {"app": "a"}}, "rules": [{"when": [{"key": "source.ip", "values": ["10.0.0.1"]}]}]}}),
        json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": meta("a")}),
        json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "Peer", "metadata": {"name": "west"}, "spec": {"namespaces": ["shop"]}}),
        json!({"apiVersion": "fairlead.dev/v1alpha1", "kind": "Workload", "metadata": meta("j"), "spec": {"labels": {"app": "a"}, "sidecar": true, "ports": [{"name": "web", "port": 80}]}}),
    ]
}
