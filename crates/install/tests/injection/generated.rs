//! Random pods: the same invariants over combinations that nobody thought of.

use super::{Mode, admissible, changes, settings};
use fairlead_install::inject::{Decision, Namespace, inject, patch};
use proptest::prelude::*;
use serde_json::{Value, json};

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![(1u16..=65535).prop_map(|port| json!(port)), Just(json!("http")), Just(json!("missing"))]
}

fn probe() -> impl Strategy<Value = Value> {
    let way = prop_oneof![
        (port(), "/[a-z$()?=]{0,6}").prop_map(|(port, path)| json!({"httpGet": {"port": port, "path": path}})),
        port().prop_map(|port| json!({"tcpSocket": {"port": port}})),
        (1u16..=65535).prop_map(|port| json!({"grpc": {"port": port}})),
        Just(json!({"exec": {"command": ["true"]}})),
    ];
    (way, proptest::option::of(1u32..60)).prop_map(|(mut probe, period)| {
        if let Some(period) = period {
            probe["periodSeconds"] = json!(period);
        }
        probe
    })
}

fn hook() -> impl Strategy<Value = Value> {
    prop_oneof![
        port().prop_map(|port| json!({"httpGet": {"port": port, "path": "/hook"}})),
        port().prop_map(|port| json!({"httpGet": {"port": port, "host": "192.0.2.1"}})),
        Just(json!({"sleep": {"seconds": 1}})),
    ]
}

fn container(name: String, init: bool) -> impl Strategy<Value = Value> {
    let probes = proptest::collection::vec(proptest::option::of(probe()), 3);
    let hooks = proptest::collection::vec(proptest::option::of(hook()), 2);
    (any::<bool>(), any::<bool>(), any::<bool>(), probes, hooks).prop_map(
        move |(native, ports, security, probes, hooks)| {
            let mut container =
                json!({"name": name, "image": "registry.example/program:1", "env": [{"name": "A", "value": "$(B)"}]});
            if ports {
                container["ports"] = json!([{"name": "http", "containerPort": 8080}]);
            }
            if security {
                container["securityContext"] = json!({"runAsUser": 1000, "readOnlyRootFilesystem": true});
            }
            if init && native {
                container["restartPolicy"] = json!("Always");
            }
            if !init || native {
                for (field, probe) in ["livenessProbe", "readinessProbe", "startupProbe"].iter().zip(probes) {
                    if let Some(probe) = probe {
                        container[*field] = probe;
                    }
                }
                for (field, hook) in ["postStart", "preStop"].iter().zip(hooks) {
                    if let Some(hook) = hook {
                        container["lifecycle"][*field] = hook;
                    }
                }
            }
            container
        },
    )
}

fn containers(prefix: &'static str, least: usize, init: bool) -> impl Strategy<Value = Vec<Value>> {
    (least..=3)
        .prop_flat_map(move |count| (0..count).map(|at| container(format!("{prefix}{at}"), init)).collect::<Vec<_>>())
}

fn annotation() -> impl Strategy<Value = (&'static str, &'static str)> {
    proptest::sample::select(vec![
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "3306,6379"),
        ("traffic.sidecar.istio.io/includeInboundPorts", ""),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.96.0.0/12"),
        ("sidecar.istio.io/proxyCPU", "50m"),
        ("sidecar.istio.io/proxyMemoryLimit", "1Gi"),
        ("sidecar.istio.io/nativeSidecar", "false"),
        ("sidecar.istio.io/nativeSidecar", "true"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "false"),
        ("sidecar.istio.io/logLevel", "debug"),
        ("proxy.istio.io/config", "holdApplicationUntilProxyStarts: true"),
        ("prometheus.io/scrape", "true"),
        ("sidecar.istio.io/statsInclusionPrefixes", "cluster"),
    ])
}

fn pod() -> impl Strategy<Value = Value> {
    let annotations = proptest::collection::btree_map("[a-z]{1,3}", annotation(), 0..4);
    let restart = proptest::option::of(proptest::sample::select(vec!["Always", "Never", "OnFailure"]));
    (containers("app", 1, false), containers("init", 0, true), annotations, restart, any::<bool>()).prop_map(
        |(containers, init, annotations, restart, volumes)| {
            let mut pod = json!({"metadata": {"generateName": "random-"}, "spec": {"containers": containers}});
            for (name, value) in annotations.into_values() {
                pod["metadata"]["annotations"][name] = json!(value);
            }
            if !init.is_empty() {
                pod["spec"]["initContainers"] = json!(init);
            }
            if let Some(restart) = restart {
                pod["spec"]["restartPolicy"] = json!(restart);
            }
            if volumes {
                pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
                pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
            }
            pod
        },
    )
}

/// A JSON patch, as an API server applies it.
fn apply(document: &mut Value, operations: &[Value]) {
    for operation in operations {
        let path = operation["path"].as_str().unwrap();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let parent = document.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match operation["op"].as_str().unwrap() {
            "remove" => assert!(parent.remove(&key).is_some(), "{path}"),
            "replace" => assert!(parent.insert(key, operation["value"].clone()).is_some(), "{path}"),
            "add" => assert!(parent.insert(key, operation["value"].clone()).is_none(), "{path}"),
            other => panic!("{other}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn invariants_hold(pod in pod(), native in any::<bool>(), cni in any::<bool>()) {
        let settings = settings(Mode { native, cni });
        let place = Namespace { name: "shop", labels: None };
        let decision = inject(&pod, place, &settings);
        let Decision::Inject { pod: injected, .. } = decision else { panic!("{decision:?}") };
        changes::only_additions(&pod, &injected, "random");
        changes::order(&pod, &injected, cni, "random");
        admissible::check(&injected, "random");
        let again = inject(&injected, place, &settings);
        let is_skipped = matches!(again, Decision::Skip { .. });
        prop_assert!(is_skipped, "{:?}", again);
        let mut patched = pod.clone();
        apply(&mut patched, &patch::between(&pod, &injected));
        prop_assert_eq!(patched, injected);
    }
}
