//! What injection may change of a pod, and where its containers stand.

use serde_json::{Map, Value, json};

const PROBES: &[&str] = &["livenessProbe", "readinessProbe", "startupProbe"];
const HOOKS: &[&str] = &["postStart", "preStop"];
const SIDECARS: &[&str] = &["fairlead-proxy", "fairlead-init", "fairlead-validation", "istio-proxy", "istio-init"];

pub fn list<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().collect()
}

fn own<'a>(pod: &'a Value, group: &str) -> Vec<&'a Value> {
    let is_own = |container: &&Value| !SIDECARS.contains(&container["name"].as_str().unwrap());
    list(&pod["spec"], group).into_iter().filter(is_own).collect()
}

/// The proxy's container, and whether it is a native sidecar.
pub fn proxy(pod: &Value) -> (&Value, bool) {
    let find = |group: &str| list(&pod["spec"], group).into_iter().find(|one| one["name"] == "fairlead-proxy");
    match (find("initContainers"), find("containers")) {
        (Some(native), None) => {
            assert_eq!(native["restartPolicy"], "Always");
            (native, true)
        }
        (None, Some(ordinary)) => (ordinary, false),
        other => panic!("one proxy, not {other:?}"),
    }
}

/// The flags of capture, from the init container; with CNI they stand in the annotation that the plugin reads, too.
pub fn capture(pod: &Value, cni: bool) -> Vec<String> {
    let name = if cni { "fairlead-validation" } else { "fairlead-init" };
    let init = list(&pod["spec"], "initContainers").into_iter().find(|one| one["name"] == name).unwrap();
    let all: Vec<String> = serde_json::from_value(init["args"].clone()).unwrap();
    assert_eq!((all[0].as_str(), all.last().unwrap() == "--verify"), ("capture", cni));
    let flags = all[1..all.len() - usize::from(cni)].to_vec();
    let annotation = pod["metadata"]["annotations"].get("fairlead.dev/capture").and_then(Value::as_str);
    let annotated: Option<Vec<String>> = annotation.map(|text| serde_json::from_str(text).unwrap());
    assert_eq!(annotated, cni.then(|| flags.clone()), "the plugin and its check say the same");
    flags
}

fn without(value: &Value, keys: &[&str]) -> Value {
    let mut fields = value.as_object().cloned().unwrap_or_default();
    fields.retain(|key, _| !keys.contains(&key.as_str()));
    Value::Object(fields)
}

/// The user's containers, volumes, environment and everything else are as they were, but for the way probes ask.
pub fn only_additions(before: &Value, after: &Value, about: &str) {
    let groups = ["containers", "initContainers"];
    for group in groups {
        let (was, is) = (own(before, group), own(after, group));
        assert_eq!(was.len(), is.len(), "{about}: {group}");
        for (was, is) in was.into_iter().zip(is) {
            let asked = [PROBES, &["lifecycle"]].concat();
            assert_eq!(without(was, &asked), without(is, &asked), "{about}");
            hook_changes(&was["lifecycle"], &is["lifecycle"], about);
            for probe in PROBES {
                probe_changes(&was[*probe], &is[*probe], about);
            }
        }
    }
    let rest = [&groups[..], &["volumes", "imagePullSecrets"]].concat();
    assert_eq!(without(&before["spec"], &rest), without(&after["spec"], &rest), "{about}: spec");
    for kept in ["volumes", "imagePullSecrets"] {
        let (was, is) = (list(&before["spec"], kept), list(&after["spec"], kept));
        assert_eq!(was, is[..was.len()], "{about}: {kept}");
    }
    assert_eq!(without(before, &["metadata", "spec"]), without(after, &["metadata", "spec"]), "{about}");
    let metadata = ["labels", "annotations"];
    assert_eq!(without(&before["metadata"], &metadata), without(&after["metadata"], &metadata), "{about}: metadata");
    for map in metadata {
        let nothing = Map::new();
        for (key, value) in before["metadata"][map].as_object().unwrap_or(&nothing) {
            if key.starts_with("prometheus.io/") {
                continue; // turned to the proxy's port: the table says which
            }
            assert_eq!(&after["metadata"][map][key], value, "{about}: {map} {key}");
        }
    }
    named_in_status(before, after, about);
}

fn probe_changes(was: &Value, is: &Value, about: &str) {
    if was == is {
        return;
    }
    let ways = ["httpGet", "tcpSocket", "grpc", "exec"];
    assert_eq!(without(was, &ways), without(is, &ways), "{about}: only the way of asking changes");
    assert!(is["httpGet"]["path"].as_str().unwrap().starts_with("/app-health/"), "{about}");
    assert_eq!(is["httpGet"]["port"], json!(15020), "{about}");
    assert_eq!(ways.iter().filter(|way| is.get(**way).is_some()).count(), 1, "{about}");
}

/// A hook is as it was, or an `httpGet` of the proxy that was one of the program.
fn hook_changes(was: &Value, is: &Value, about: &str) {
    assert_eq!(without(was, HOOKS), without(is, HOOKS), "{about}: lifecycle");
    for hook in HOOKS {
        let (was, is) = (&was[*hook], &is[*hook]);
        if was == is {
            continue;
        }
        assert!(was["httpGet"].is_object() && was["httpGet"].get("host").is_none(), "{about}: {was}");
        let path = is["httpGet"]["path"].as_str().unwrap();
        assert!(path.starts_with("/app-lifecycle/"), "{about}: {path}");
        assert_eq!(is, &json!({"httpGet": {"path": path, "port": 15020}}), "{about}");
    }
}

/// `sidecar.istio.io/status` names exactly what was added, so that it can be undone.
fn named_in_status(before: &Value, after: &Value, about: &str) {
    let status = after["metadata"]["annotations"]["sidecar.istio.io/status"].as_str().unwrap();
    let status: Value = serde_json::from_str(status).unwrap();
    let names = |pod: &Value, group: &str| -> Vec<String> {
        list(&pod["spec"], group).iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    for group in ["initContainers", "containers"] {
        let sidecars = names(after, group).into_iter().filter(|name| SIDECARS.contains(&name.as_str()));
        assert_eq!(json!(sidecars.collect::<Vec<_>>()), status[group], "{about}: {group}");
    }
    let were = names(before, "volumes");
    let added: Vec<String> = names(after, "volumes").split_off(were.len());
    assert_eq!(json!(added), status["volumes"], "{about}: volumes");
}

/// Capture before everything that is captured, the proxy before everything that needs it, the user's own in their order.
pub fn order(before: &Value, after: &Value, cni: bool, about: &str) {
    let names = |pod: &Value, group: &str| -> Vec<String> {
        list(&pod["spec"], group).iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let own = |group: &str| -> Vec<String> {
        names(before, group).into_iter().filter(|name| !SIDECARS.contains(&name.as_str())).collect()
    };
    let init = vec![if cni { "fairlead-validation" } else { "fairlead-init" }.to_owned()];
    let native = proxy(after).1;
    let expected = if native {
        [init, vec!["fairlead-proxy".to_owned()], own("initContainers")].concat()
    } else if cni {
        [init, own("initContainers")].concat()
    } else {
        [own("initContainers"), init].concat()
    };
    assert_eq!(names(after, "initContainers"), expected, "{about}: init containers");
    let mut containers = names(after, "containers");
    if !native {
        let first = containers.first().is_some_and(|name| name == "fairlead-proxy");
        assert_eq!(containers.remove(if first { 0 } else { containers.len() - 1 }), "fairlead-proxy", "{about}");
    }
    assert_eq!(containers, own("containers"), "{about}: containers");
}
