//! A cluster that is followed from change to change is the one that is made from nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use fairlead_model::{ClusterId, Health, WorkloadRef};
use fairlead_resolve::{Before, ClusterInput, ObjectRef, Observed, Settings, cluster, cluster_after, settings};
use fairlead_resources::{Decoded, decode};
use std::collections::BTreeSet;
use std::sync::Arc;

type Objects = Vec<Arc<Decoded>>;

const MESH: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: a}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: None, selector: {app: cart}, ports: [{name: tcp, port: 90, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: bank, namespace: money}
spec: {clusterIP: 10.96.0.3, selector: {app: bank}, ports: [{name: grpc, port: 70}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: reviews, namespace: shop}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: world}
spec: {hosts: [api.example.com], resolution: DNS, location: MESH_EXTERNAL, ports: [{number: 443, name: tls, protocol: TLS}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-v2, namespace: shop}
spec: {selector: {matchLabels: {version: v2}}, rules: [{}]}
";

fn pod(namespace: &str, app: &str, name: &str, address: &str, version: &str, ready: bool) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}, version: {version}}}}}
spec: {{nodeName: n1, serviceAccountName: {app}, containers: [{{name: c, ports: [{{name: web, containerPort: 9090}}]}}]}}
status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: \"{}\"}}]}}
",
        if ready { "True" } else { "False" }
    )
}

fn slice(service: &str, pods: &[(&str, &str, bool)]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-1, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints:
"
    );
    for (pod, address, ready) in pods {
        text.push_str(&format!(
            "- {{addresses: [{address}], conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: {pod}, namespace: shop}}}}\n"
        ));
    }
    text
}

fn apply(objects: &Objects, texts: &[String]) -> Objects {
    let mut objects = objects.clone();
    for text in texts {
        let decoding = decode(&"east".into(), &Arc::from("east.yaml"), text.as_bytes());
        assert!(decoding.refused.is_empty(), "{:?}", decoding.diagnostics);
        for decoded in decoding.objects {
            objects.retain(|o| o.key != decoded.key);
            objects.push(Arc::new(decoded));
        }
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    objects
}

fn without(objects: &Objects, name: &str) -> Objects {
    let left: Objects = objects.iter().filter(|o| &*o.key.name != name).cloned().collect();
    assert!(left.len() < objects.len(), "{name} is not there");
    left
}

fn refs<'a>(objects: &'a Objects, file: &'a Arc<str>) -> Vec<ObjectRef<'a>> {
    objects.iter().map(|decoded| ObjectRef { decoded, file }).collect()
}

fn settled(objects: &[ObjectRef<'_>]) -> Settings {
    settings("mesh", None, &BTreeSet::from(["east".into()]), objects)
}

/// Goes from one to the other; whether that could be followed.
fn follow(what: &str, old: &Objects, new: &Objects, seen: [&Observed; 2]) -> bool {
    let (file, name) = (Arc::from("east.yaml"), ClusterId::from("east"));
    let (then, now) = (refs(old, &file), refs(new, &file));
    let (before, after) = (settled(&then), settled(&now));
    let input = ClusterInput { cluster: &name, settings: &before, objects: &then, observed: seen[0] };
    let (state, diagnostics) = cluster(&input);
    let last =
        Before { state: &state, diagnostics: &diagnostics, settings: &before, observed: seen[0], objects: &then };
    let input = ClusterInput { cluster: &name, settings: &after, objects: &now, observed: seen[1] };
    let (wanted, told) = cluster(&input);
    let Some((got, said)) = cluster_after(&input, &last) else { return false };
    assert_eq!(format!("{got:#?}"), format!("{wanted:#?}"), "{what}");
    assert_eq!(said, told, "{what}");
    true
}

fn mesh() -> Objects {
    let pods = [
        pod("shop", "reviews", "reviews-1", "10.0.0.1", "v1", true),
        pod("shop", "reviews", "reviews-2", "10.0.0.2", "v1", true),
        pod("shop", "cart", "cart-0", "10.0.0.3", "v1", true),
        pod("money", "bank", "bank-1", "10.0.0.4", "v1", true),
        slice("reviews", &[("reviews-1", "10.0.0.1", true), ("reviews-2", "10.0.0.2", true)]),
        MESH.to_owned(),
    ];
    apply(&Vec::new(), &pods)
}

#[test]
fn pods_and_slices_are_followed() {
    let (mesh, nothing) = (mesh(), Observed::default());
    let unready = slice("reviews", &[("reviews-1", "10.0.0.1", false), ("reviews-2", "10.0.0.2", true)]);
    let moved = [
        pod("shop", "reviews", "reviews-1", "10.0.9.9", "v1", true),
        slice("reviews", &[("reviews-1", "10.0.9.9", true), ("reviews-2", "10.0.0.2", true)]),
    ];
    let refused = slice("reviews", &[("reviews-1", "127.0.0.1", true), ("reviews-2", "10.0.0.2", true)]);
    let more = pod("shop", "cart", "cart-1", "10.0.0.7", "v2", true);
    for (what, new) in [
        ("nothing", mesh.clone()),
        ("an endpoint is not ready", apply(&mesh, &[unready])),
        ("a pod has another address", apply(&mesh, &moved)),
        ("a slice leads a proxy to itself, which is told of", apply(&mesh, &[refused])),
        ("a pod more", apply(&mesh, &[more])),
        (
            "a pod in another namespace is not ready",
            apply(&mesh, &[pod("money", "bank", "bank-1", "10.0.0.4", "v1", false)]),
        ),
        ("a pod less", without(&mesh, "cart-0")),
        ("a slice less", without(&mesh, "reviews-1")),
        ("no pods of a service", apply(&without(&mesh, "bank-1"), &[])),
        ("a pod of no service", apply(&mesh, &[pod("else", "alone", "alone", "10.0.0.8", "v1", true)])),
    ] {
        assert!(follow(what, &mesh, &new, [&nothing; 2]), "{what}");
        assert!(follow(what, &new, &mesh, [&nothing; 2]), "back from: {what}");
    }
}

#[test]
fn what_was_seen_of_workloads_is_followed() {
    let (mesh, nothing) = (mesh(), Observed::default());
    let workload = WorkloadRef { cluster: "east".into(), namespace: "shop".into(), name: "reviews-2".into() };
    let down = Observed { health: [(workload, Health::Unhealthy)].into(), ..Observed::default() };
    assert!(follow("down", &mesh, &mesh, [&nothing, &down]));
    assert!(follow("up", &mesh, &mesh, [&down, &nothing]));
    let draining = Observed { incarnation: 1, ..Observed::default() };
    assert!(!follow("another life", &mesh, &mesh, [&nothing, &draining]));
}

#[test]
fn everything_else_is_made_from_nothing() {
    let (mesh, nothing) = (mesh(), Observed::default());
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: new, namespace: shop}\nspec: {ports: [{name: http, port: 1}]}\n";
    assert!(!follow("a service", &mesh, &apply(&mesh, &[service.to_owned()]), [&nothing; 2]));
    assert!(!follow("a rule less", &mesh, &without(&mesh, "strict"), [&nothing; 2]));
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: else}\n\
        spec: {selector: {app: edge}, servers: [{hosts: ['*'], port: {number: 80, name: http, protocol: HTTP}}]}\n";
    let gated = apply(&mesh, &[gateway.to_owned(), pod("shop", "edge", "edge-1", "10.0.0.20", "v1", true)]);
    let moved = apply(&gated, &[pod("shop", "edge", "edge-1", "10.0.0.21", "v1", true)]);
    assert!(!follow("a gateway moved", &gated, &moved, [&nothing; 2]));
    // A selector that nobody carried is one that somebody carries now.
    let guarded = apply(&mesh, &[POLICY.to_owned()]);
    let carried = apply(&guarded, &[pod("shop", "cart", "cart-9", "10.0.0.30", "v2", true)]);
    assert!(!follow("labels under a policy", &guarded, &carried, [&nothing; 2]));
    let ready = apply(&guarded, &[pod("shop", "cart", "cart-0", "10.0.0.3", "v1", false)]);
    assert!(follow("no labels under a policy", &guarded, &ready, [&nothing; 2]));
}
