//! Rendered objects: goldens, and what must hold of them whatever the values are.
//!
//! Goldens are in `objects/`; `UPDATE_GOLDEN=1` writes them.

use fairlead_install::object::{PART_OF, REVISION};
use fairlead_install::{NAMESPACE, Values, crds, render};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

fn values(pairs: &[&str]) -> Values {
    let pairs: Vec<String> = ["cluster=east"].iter().chain(pairs).map(|p| (*p).to_owned()).collect();
    Values::default().set(&pairs).unwrap()
}

/// Values whose objects are compared with `objects/NAME.yaml`.
const GOLDENS: &[(&str, &[&str])] = &[
    ("default", &[]),
    (
        "canary",
        &[
            "revision=canary",
            "tags=[prod, default]",
            "network=lan",
            "expose=nodeport",
            "control.replicas=3",
            "gateway.enabled=false",
            "cni.enabled=true",
            "mesh.trust=shared",
            "injection.holdApplicationUntilProxyStarts=true",
            "imagePullSecrets=[{name: registry}]",
            "nodeSelector={pool: infra}",
            "tolerations=[{key: infra, operator: Exists}]",
        ],
    ),
];

/// More, of which only what must always hold is asked.
const OTHERS: &[&[&str]] = &[
    &["expose=none", "mesh.profile=istio", "mesh.admission=open"],
    &["revision=b", "tags=[a, c]", "cni.enabled=true", "cni.binDir=/usr/libexec/cni"],
    &["image=registry.example/fairlead:1", "imagePullPolicy=Always", "gateway.replicas=2"],
];

fn every() -> Vec<(Values, Vec<Value>)> {
    let sets = GOLDENS.iter().map(|(_, pairs)| *pairs).chain(OTHERS.iter().copied());
    sets.map(|pairs| {
        let values = values(pairs);
        let objects = render(&values).unwrap().all().cloned().collect();
        (values, objects)
    })
    .collect()
}

#[test]
fn goldens() {
    for (name, pairs) in GOLDENS {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/objects/{name}.yaml"));
        let objects: Vec<Value> = render(&values(pairs)).unwrap().all().cloned().collect();
        let text: String = objects
            .iter()
            .map(|o| format!("---\n{}", serde_saphyr::to_string(o).unwrap()))
            .collect::<Vec<_>>()
            .concat();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap();
        assert!(golden == text, "{} differs; UPDATE_GOLDEN=1 writes it anew", file.display());
        let again: Vec<Value> = serde_saphyr::from_multiple(&golden).unwrap();
        assert_eq!(again, objects, "what is printed is what is meant");
    }
}

#[test]
fn every_object_is_found_again_and_every_name_is_of_its_revision() {
    for (values, objects) in every() {
        let mut seen = BTreeSet::new();
        for object in &objects {
            let meta = &object["metadata"];
            let key = (object["kind"].to_string(), meta["name"].as_str().unwrap().to_owned());
            assert_eq!(meta["labels"][PART_OF], "fairlead", "{key:?}");
            assert!(meta["namespace"].is_null() || meta["namespace"] == NAMESPACE, "{key:?}");
            if let Some(revision) = meta["labels"][REVISION].as_str() {
                assert_eq!(revision, values.revision);
                let tagged = meta["labels"]["istio.io/tag"].is_string();
                let suffixed = revision == "default" || tagged || key.1.ends_with(&format!("-{revision}"));
                assert!(suffixed, "{key:?} would be another revision's too");
            }
            assert!(seen.insert(key.clone()), "{key:?} twice");
        }
    }
}

fn pod_specs(objects: &[Value]) -> impl Iterator<Item = (&str, &Value)> {
    objects
        .iter()
        .filter(|o| o["spec"]["template"].is_object())
        .map(|o| (o["metadata"]["name"].as_str().unwrap(), &o["spec"]["template"]))
}

#[test]
fn nothing_runs_with_more_than_it_needs() {
    for (_, objects) in every() {
        for (name, template) in pod_specs(&objects) {
            let spec = &template["spec"];
            assert_eq!(template["metadata"]["labels"]["sidecar.istio.io/inject"], "false", "{name}");
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            assert!(spec["hostNetwork"].is_null() && spec["hostPID"].is_null(), "{name}");
            let root = name == "fairlead-cni";
            assert_eq!(spec["securityContext"]["runAsNonRoot"] == true, !root, "{name}");
            for container in spec["containers"].as_array().unwrap() {
                let security = &container["securityContext"];
                assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{name}");
                let args: Vec<&str> = container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                for mount in container["volumeMounts"].as_array().unwrap() {
                    let path = mount["mountPath"].as_str().unwrap();
                    assert!(args.iter().any(|a| a.starts_with(path)), "{name}: nobody is told of {path}");
                }
                assert!(container["resources"].is_object() && container["readinessProbe"].is_object(), "{name}");
                let mounts = container["volumeMounts"].as_array().unwrap().iter().map(|m| &m["name"]);
                let volumes: BTreeSet<_> =
                    spec["volumes"].as_array().unwrap().iter().map(|v| v["name"].to_string()).collect();
                assert_eq!(
                    mounts.map(ToString::to_string).collect::<BTreeSet<_>>(),
                    volumes,
                    "{name}: each is mounted"
                );
            }
        }
    }
}

#[test]
fn what_is_referred_to_exists() {
    for (_, objects) in every() {
        let has =
            |kind: &str, name: &Value| objects.iter().any(|o| o["kind"] == kind && o["metadata"]["name"] == *name);
        for (name, template) in pod_specs(&objects) {
            assert!(has("ServiceAccount", &template["spec"]["serviceAccountName"]), "{name}");
            for volume in template["spec"]["volumes"].as_array().unwrap() {
                let config_map = &volume["configMap"]["name"];
                // The control plane writes that one.
                assert!(
                    config_map.is_null() || config_map == "fairlead-trust" || has("ConfigMap", config_map),
                    "{name}"
                );
            }
        }
        for object in &objects {
            let role = &object["roleRef"];
            if role.is_object() {
                assert!(has(role["kind"].as_str().unwrap(), &role["name"]));
                assert!(object["subjects"].as_array().unwrap().iter().all(|s| has("ServiceAccount", &s["name"])));
            }
            for webhook in object["webhooks"].as_array().into_iter().flatten() {
                assert!(has("Service", &webhook["clientConfig"]["service"]["name"]));
                assert!(webhook["clientConfig"]["caBundle"].is_null(), "the control plane's field");
            }
            let selector = &object["spec"]["selector"];
            if object["kind"] == "Service" {
                let selects =
                    |t: &Value| selector.as_object().unwrap().iter().all(|(k, v)| t["metadata"]["labels"][k] == *v);
                let backed = pod_specs(&objects).any(|(_, template)| selects(template));
                assert!(backed, "Service {} selects nothing", object["metadata"]["name"]);
            }
        }
    }
}

/// Kubernetes' label selectors, as far as the webhooks use them.
fn selects(selector: &Value, labels: &[(&str, &str)]) -> bool {
    selector["matchExpressions"].as_array().unwrap().iter().all(|e| {
        let found = labels.iter().find(|(k, _)| e["key"] == *k).map(|(_, v)| *v);
        let listed = |v: &str| e["values"].as_array().unwrap().iter().any(|x| x == v);
        match e["operator"].as_str().unwrap() {
            "In" => found.is_some_and(listed),
            "NotIn" => !found.is_some_and(listed),
            "DoesNotExist" => found.is_none(),
            other => panic!("{other}"),
        }
    })
}

/// Istio's table of labels, and who injects.
#[test]
fn a_pod_is_sent_to_one_injector_at_most() {
    let installed: Vec<Value> = [values(&[]), values(&["revision=canary", "tags=[prod]"])]
        .iter()
        .flat_map(|v| render(v).unwrap().webhooks)
        .filter(|o| o["kind"] == "MutatingWebhookConfiguration")
        .collect();
    let who = |namespace: &[(&str, &str)], pod: &[(&str, &str)]| -> Vec<String> {
        let webhooks = installed.iter().flat_map(|o| o["webhooks"].as_array().unwrap());
        let of = |w: &&Value| selects(&w["namespaceSelector"], namespace) && selects(&w["objectSelector"], pod);
        webhooks.filter(of).map(|w| w["clientConfig"]["service"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let (ours, canary) = (vec!["fairlead-control".to_owned()], vec!["fairlead-control-canary".to_owned()]);
    let on = ("istio-injection", "enabled");
    let off = ("istio-injection", "disabled");
    let inject = |v: &'static str| ("sidecar.istio.io/inject", v);
    let rev = |v: &'static str| ("istio.io/rev", v);
    let none: Vec<String> = Vec::new();
    assert_eq!(who(&[], &[]), none);
    assert_eq!(who(&[on], &[]), ours);
    assert_eq!(who(&[on], &[inject("false")]), none);
    assert_eq!(who(&[off], &[inject("true")]), none);
    assert_eq!(who(&[], &[inject("true")]), ours);
    assert_eq!(who(&[rev("default")], &[]), ours);
    assert_eq!(who(&[rev("canary")], &[]), canary);
    assert_eq!(who(&[rev("prod")], &[]), canary);
    assert_eq!(who(&[rev("prod"), on], &[]), ours, "istio-injection wins");
    assert_eq!(who(&[], &[inject("true"), rev("prod")]), canary);
    assert_eq!(who(&[], &[rev("canary")]), canary);
    assert_eq!(who(&[rev("other")], &[]), none);
    assert_eq!(who(&[on, ("kubernetes.io/metadata.name", "kube-system")], &[]), none);
    assert_eq!(who(&[on, ("kubernetes.io/metadata.name", NAMESPACE)], &[]), none);
}

/// A field that Fairlead reads and the definition does not have would be dropped by the API server.
#[test]
fn definitions_of_our_kinds_have_every_field_that_is_read() {
    use fairlead_resources::Kind;
    for kind in [Kind::Mesh, Kind::Peer] {
        let all = crds::all();
        let definition = all.iter().find(|o| o["spec"]["names"]["kind"] == kind.as_str()).unwrap();
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let defined: BTreeSet<&str> = spec.as_object().unwrap().keys().map(String::as_str).collect();
        let read = spec_fields(kind);
        assert_eq!(defined, read.iter().map(String::as_str).collect(), "{}", kind.as_str());
    }
}

fn spec_fields(kind: fairlead_resources::Kind) -> BTreeSet<String> {
    use fairlead_resources::field::{Shape, from_node::wire_name};
    let Shape::Message(_, fields) = kind.shape() else { panic!("{kind:?}") };
    let (_, spec) = fields.iter().find(|(name, _)| *name == "spec").unwrap();
    let Shape::Message(_, fields) = spec() else { panic!("{kind:?}") };
    fields.iter().map(|(name, _)| wire_name(name)).collect()
}
