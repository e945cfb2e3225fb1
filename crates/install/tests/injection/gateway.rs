//! Pods of Istio's template `gateway`.

use super::{MODES, admissible, changes, restricted, settings};
use fairlead_install::inject::{Decision, Namespace, codes, inject};
use serde_json::{Value, json};

const PLACE: Namespace<'_> = Namespace { name: "edge", labels: None };

/// What a gateway's chart makes: ports, hardening and annotations are written there already.
pub fn of_a_chart() -> Value {
    json!({
        "metadata": {
            "generateName": "ingress-7d9c5-",
            "labels": {
                "app": "ingress", "istio": "ingressgateway", "pod-template-hash": "7d9c5",
                "sidecar.istio.io/inject": "true",
            },
            "annotations": {
                "inject.istio.io/templates": "gateway", "sidecar.istio.io/inject": "true",
                "prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus",
            },
            "ownerReferences": [{"kind": "ReplicaSet", "name": "ingress-7d9c5", "controller": true}],
        },
        "spec": {
            "serviceAccountName": "ingress",
            "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
            "containers": [{
                // As the API server has it for an image without a tag.
                "name": "istio-proxy", "image": "auto", "imagePullPolicy": "Always",
                "ports": [{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "privileged": false,
                    "readOnlyRootFilesystem": true, "runAsUser": 1337, "runAsGroup": 1337,
                },
            }],
        },
    })
}

fn bare() -> Value {
    json!({
        "metadata": {"name": "edge", "annotations": {"inject.istio.io/templates": "gateway"}},
        "spec": {"containers": [{"name": "istio-proxy", "image": "auto"}]},
    })
}

fn injected(pod: &Value) -> (Value, Vec<String>) {
    let mut all = MODES.iter().map(|mode| match inject(pod, PLACE, &settings(*mode)) {
        Decision::Inject { pod, warnings } => {
            (pod, warnings.into_iter().map(|found| found.code.to_string()).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    });
    let first = all.next().unwrap();
    // How sidecars are captured, and where they stand, is nothing to a gateway.
    all.for_each(|other| assert_eq!(other, first));
    first
}

fn refused(pod: &Value) -> Vec<String> {
    let Decision::Refuse { diagnostics } = inject(pod, PLACE, &settings(MODES[0])) else { panic!("{pod}") };
    assert!(diagnostics.iter().all(|found| !found.hint.is_empty()));
    diagnostics.into_iter().map(|found| found.code.to_string()).collect()
}

#[test]
fn the_proxy_is_the_program() {
    for before in [bare(), of_a_chart()] {
        let (pod, warnings) = injected(&before);
        assert_eq!(warnings, [""; 0]);
        admissible::check(&pod, "gateway");
        assert_eq!(restricted::violations(&pod), [""; 0]);
        assert_eq!(pod["spec"].get("initContainers"), None);
        let (proxy, native) = changes::proxy(&pod);
        assert!(!native && changes::list(&pod["spec"], "containers").len() == 1);
        let args: Vec<&str> = proxy["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(args.windows(2).any(|pair| pair == ["--role", "gateway"]), "{args:?}");
        // It would scrape itself.
        assert!(!args.contains(&"--app-metrics"), "{args:?}");
        let labels = &pod["metadata"]["labels"];
        assert_eq!(labels["fairlead.dev/proxy"], "gateway");
        assert_eq!(labels.get("security.istio.io/tlsMode"), None, "its ports take what Gateways say, not mutual TLS");
        let sysctls = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]);
        assert_eq!(pod["spec"]["securityContext"]["sysctls"], sysctls);
        let status: Value =
            serde_json::from_str(pod["metadata"]["annotations"]["sidecar.istio.io/status"].as_str().unwrap()).unwrap();
        assert_eq!((&status["containers"], &status["initContainers"]), (&json!(["fairlead-proxy"]), &json!([])));
        let again = inject(&pod, PLACE, &settings(MODES[0]));
        assert!(matches!(again, Decision::Skip { .. }), "{again:?}");
    }
}

#[test]
fn what_the_user_wrote_stays() {
    let (pod, _) = injected(&of_a_chart());
    let (proxy, _) = changes::proxy(&pod);
    assert_eq!(
        (&proxy["image"], &proxy["imagePullPolicy"]),
        (&json!("fairlead.dev/fairlead:dev"), &json!("IfNotPresent"))
    );
    assert_eq!(proxy["resources"]["requests"], json!({"cpu": "100m", "memory": "128Mi"}));
    assert_eq!(proxy["ports"], json!([{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}]));
    assert_eq!(pod["metadata"]["labels"]["service.istio.io/canonical-name"], "ingress");

    let mut pod = bare();
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    assert_eq!(changes::proxy(&injected(&pod).0).0["imagePullPolicy"], "Never");

    let mut pod = bare();
    pod["spec"]["securityContext"] =
        json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]});
    let other = json!({"name": "log", "image": "log", "ports": [{"containerPort": 15021}],
        "readinessProbe": {"httpGet": {"port": 9, "path": "/"}}, "lifecycle": {"preStop": {"httpGet": {"port": 9}}}});
    pod["spec"]["containers"].as_array_mut().unwrap().insert(0, other.clone());
    let (after, warnings) = injected(&pod);
    assert_eq!(after["spec"]["securityContext"], pod["spec"]["securityContext"]);
    // Nothing stands before it, so its probes reach it.
    assert_eq!(after["spec"]["containers"][1], other);
    assert_eq!(warnings, [codes::PORT_TAKEN]);
}

#[test]
fn what_says_nothing_of_a_gateway_is_named() {
    let mut pod = bare();
    pod["metadata"]["annotations"]["traffic.sidecar.istio.io/excludeOutboundPorts"] = json!("3306");
    pod["metadata"]["annotations"]["sidecar.istio.io/nativeSidecar"] = json!("true");
    assert_eq!(injected(&pod).1, [codes::NOT_HONOURED, codes::NOT_HONOURED]);
}

#[test]
fn contradictions_are_refused() {
    let mut captured = bare();
    captured["spec"]["initContainers"] = json!([{"name": "istio-init", "image": "auto"}]);
    assert_eq!(refused(&captured), [codes::TEMPLATE]);
    let mut both = bare();
    both["metadata"]["labels"] = json!({"security.istio.io/tlsMode": "istio"});
    assert_eq!(refused(&both), [codes::TEMPLATE]);
    let sidecar = json!({
        "metadata": {"labels": {"fairlead.dev/proxy": "gateway"}},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    });
    assert_eq!(refused(&sidecar), [codes::TEMPLATE]);
}
