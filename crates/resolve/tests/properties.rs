//! Compiler properties: the order of input does not matter; resolving after edits equals resolving from nothing; what did
//! not change is the same allocation.

// A test that cannot read its input fails by panicking.
#![allow(clippy::unwrap_used)]

mod harness;

use fairlead_model::ids::ClusterId;
use fairlead_model::mesh::{MemberState, ResolvedMesh};
use harness::{World, Written, digest};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One object, from a small set of names so that edits meet.
#[derive(Clone, Debug)]
enum Edit {
    Put { cluster: u8, kind: u8, name: u8, variant: u8 },
    Remove { cluster: u8, kind: u8, name: u8 },
    State { cluster: u8, state: u8 },
    Unreachable { cluster: u8, value: bool },
}

type Texts = BTreeMap<String, BTreeMap<(u8, u8), String>>;

const CLUSTERS: [&str; 3] = ["east", "north", "west"];
const KINDS: u8 = 9;

fn text(kind: u8, name: u8, variant: u8) -> String {
    let (name, other) = (format!("n{name}"), format!("n{}", (name + 1) % 4));
    let meta = format!("metadata: {{name: {name}, namespace: shop}}");
    match kind {
        0 => {
            let port = ["http", "tcp", "grpc-x", "web"][usize::from(variant % 4)];
            let ip = if variant.is_multiple_of(5) { "clusterIP: None, " } else { "" };
            format!(
                "{{apiVersion: v1, kind: Service, {meta}, spec: {{{ip}selector: {{app: {name}}}, ports: [{{name: {port}, port: {}}}]}}}}",
                80 + u16::from(variant % 2)
            )
        }
        1 => format!(
            "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, {meta}, spec: {{address: 10.0.{variant}.5, labels: {{app: {other}, version: v{}}}, weight: {}}}}}",
            variant % 3,
            variant + 1
        ),
        2 => {
            let to = if variant.is_multiple_of(2) { ", annotations: {fairlead.dev/export-to: west}" } else { "" };
            format!(
                "{{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {{name: {name}, namespace: shop{to}}}}}"
            )
        }
        3 => format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, {meta}, spec: {{host: {other}, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {}}}}}}}, subsets: [{{name: s{}, labels: {{version: v1}}}}]}}}}",
            variant + 1,
            variant % 3
        ),
        4 => format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, {meta}, spec: {{hosts: [{other}], http: [{{route: [{{destination: {{host: {name}, subset: s{}}}}}]}}]}}}}",
            variant % 3
        ),
        5 => format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, {meta}, spec: {{selector: {{matchLabels: {{app: {name}}}}}, action: {}, rules: [{{from: [{{source: {{principals: [cluster.local/ns/shop/sa/a{variant}]}}}}]}}]}}}}",
            if variant.is_multiple_of(2) { "DENY" } else { "ALLOW" }
        ),
        6 => format!(
            "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, {meta}, spec: {{selector: {{matchLabels: {{app: {name}}}}}, mtls: {{mode: {}}}}}}}",
            ["STRICT", "DISABLE", "PERMISSIVE"][usize::from(variant % 3)]
        ),
        7 => format!(
            "{{apiVersion: fairlead.dev/v1alpha1, kind: Workload, {meta}, spec: {{replicas: {}, labels: {{app: {name}}}, ports: [80]}}}}",
            variant % 3
        ),
        _ => format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, {meta}, spec: {{hosts: [{name}.example.com], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC, location: MESH_INTERNAL, endpoints: [{{address: 192.0.2.{}}}]}}}}",
            variant + 1
        ),
    }
}

fn apply(texts: &mut Texts, world: &mut World, edit: &Edit) {
    let name = |cluster: &u8| CLUSTERS[usize::from(*cluster)].to_owned();
    match edit {
        Edit::Put { cluster, kind, name: of, variant } => {
            texts.entry(name(cluster)).or_default().insert((*kind, *of), text(*kind, *of, *variant));
        }
        Edit::Remove { cluster, kind, name: of } => {
            texts.entry(name(cluster)).or_default().remove(&(*kind, *of));
        }
        Edit::State { cluster, state } => {
            let state = [MemberState::Active, MemberState::Draining, MemberState::Revoked][usize::from(*state)];
            world.states.insert(ClusterId::from(name(cluster)), state);
        }
        Edit::Unreachable { cluster, value } => {
            world.peers.entry(ClusterId::from(name(cluster))).or_default().unreachable = *value;
        }
    }
}

fn written(texts: &Texts, istio: bool) -> Written {
    let clusters = CLUSTERS.iter().map(|name| {
        let objects: Vec<&str> = texts.get(*name).into_iter().flat_map(BTreeMap::values).map(String::as_str).collect();
        ((*name).to_owned(), objects.join("\n---\n"))
    });
    Written::new(if istio { "profile: istio" } else { "profile: fairlead" }, &clusters.collect())
}

fn resolve(written: &Written, world: &World, previous: Option<&ResolvedMesh>) -> (ResolvedMesh, Value) {
    let (mesh, diagnostics) = written.view(&ClusterId::from("east"), world, previous);
    let shown = digest::digest(&mesh, &diagnostics);
    (mesh, shown)
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        8 => (0..3u8, 0..KINDS, 0..4u8, 0..6u8)
            .prop_map(|(cluster, kind, name, variant)| Edit::Put { cluster, kind, name, variant }),
        2 => (0..3u8, 0..KINDS, 0..4u8).prop_map(|(cluster, kind, name)| Edit::Remove { cluster, kind, name }),
        1 => (0..3u8, 0..3u8).prop_map(|(cluster, state)| Edit::State { cluster, state }),
        1 => (1..3u8, any::<bool>()).prop_map(|(cluster, value)| Edit::Unreachable { cluster, value }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_objects_does_not_matter(
        edits in prop::collection::vec(edit(), 1..40),
        istio in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (mut texts, mut world) = (Texts::new(), World::default());
        edits.iter().for_each(|edit| apply(&mut texts, &mut world, edit));
        let first = written(&texts, istio);
        let mut shuffled = first.clone();
        for objects in shuffled.clusters.values_mut() {
            // A fixed permutation by seed; objects carry their lines, so origins stay the same.
            objects.sort_by_key(|(decoded, _)| {
                let mut hash = seed;
                for byte in decoded.key.to_string().bytes() {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
                hash
            });
        }
        prop_assert_eq!(resolve(&first, &world, None).1, resolve(&shuffled, &world, None).1);
    }

    #[test]
    fn incremental_equals_full_and_shares_what_did_not_change(
        edits in prop::collection::vec(edit(), 1..25),
        istio in any::<bool>(),
    ) {
        let (mut texts, mut world) = (Texts::new(), World::default());
        let mut previous: Option<ResolvedMesh> = None;
        for edit in &edits {
            apply(&mut texts, &mut world, edit);
            let now = written(&texts, istio);
            let (mesh, shown) = resolve(&now, &world, previous.as_ref());
            prop_assert_eq!(&shown, &resolve(&now, &world, None).1);
            for (key, service) in &mesh.services {
                if let Some(before) = previous.as_ref().and_then(|mesh| mesh.services.get(key)) {
                    prop_assert_eq!(before == service, Arc::ptr_eq(before, service), "{}", key);
                }
            }
            previous = Some(mesh);
        }
    }
}
