//! What the API server demands of a pod, as far as injection could break it: unique names, mounts of volumes that exist, probes and
//! hooks that act in one way, values in their form.

use super::changes::list;
use serde_json::Value;
use std::collections::BTreeSet;

const PROBES: &[&str] = &["livenessProbe", "readinessProbe", "startupProbe"];

pub fn check(pod: &Value, about: &str) {
    let spec = &pod["spec"];
    let volumes = unique(list(spec, "volumes"), about);
    for volume in list(spec, "volumes") {
        let sources = volume.as_object().unwrap().keys().filter(|key| *key != "name").count();
        assert_eq!(sources, 1, "{about}: a volume has one source: {volume}");
    }
    let all: Vec<&Value> = list(spec, "initContainers").into_iter().chain(list(spec, "containers")).collect();
    unique(all.clone(), about);
    assert!(!list(spec, "containers").is_empty(), "{about}: a pod has a container");
    for container in all {
        let name = container["name"].as_str().unwrap();
        is_dns_label(name, about);
        assert!(container["image"].as_str().is_some_and(|image| !image.is_empty()), "{about}: {name} has an image");
        let mut paths = BTreeSet::new();
        for mount in list(container, "volumeMounts") {
            let volume = mount["name"].as_str().unwrap();
            assert!(volumes.contains(volume), "{about}: {name} mounts {volume}, which does not exist");
            assert!(paths.insert(mount["mountPath"].as_str().unwrap()), "{about}: {name} mounts twice at {mount}");
        }
        for probe in PROBES.iter().filter_map(|probe| container.get(*probe)) {
            one_way(probe, &["exec", "httpGet", "tcpSocket", "grpc"], about);
        }
        for hook in ["preStop", "postStart"].iter().filter_map(|hook| container["lifecycle"].get(*hook)) {
            one_way(hook, &["exec", "httpGet", "tcpSocket", "sleep"], about);
        }
        for variable in list(container, "env") {
            let ways = ["value", "valueFrom"].iter().filter(|way| variable.get(**way).is_some()).count();
            assert!(ways <= 1, "{about}: {variable}");
        }
        security(&container["securityContext"], about);
    }
    for (key, value) in pod["metadata"]["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap();
        let ends = value.starts_with(|c: char| c.is_ascii_alphanumeric())
            && value.ends_with(|c: char| c.is_ascii_alphanumeric());
        let inside = value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        assert!(value.is_empty() || (ends && inside && value.len() <= 63), "{about}: label {key}={value}");
    }
    for (key, value) in pod["metadata"]["annotations"].as_object().into_iter().flatten() {
        assert!(value.is_string(), "{about}: annotation {key} is no text");
    }
}

fn unique<'a>(named: Vec<&'a Value>, about: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for one in named {
        let name = one["name"].as_str().unwrap();
        assert!(names.insert(name), "{about}: two of the name {name}");
    }
    names
}

fn is_dns_label(name: &str, about: &str) {
    let good = name.len() <= 63
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    assert!(good, "{about}: {name} is no DNS label");
}

fn one_way(action: &Value, ways: &[&str], about: &str) {
    let there = ways.iter().filter(|way| action.get(**way).is_some()).count();
    assert_eq!(there, 1, "{about}: {action}");
}

fn security(context: &Value, about: &str) {
    let escalation = context["allowPrivilegeEscalation"] == Value::Bool(false);
    let privileged = context["privileged"] == Value::Bool(true);
    let admin = list(&context["capabilities"], "add").iter().any(|added| *added == "SYS_ADMIN");
    assert!(!(escalation && (privileged || admin)), "{about}: the API server refuses {context}");
    let root = context["runAsUser"] == 0 && context["runAsNonRoot"] == Value::Bool(true);
    assert!(!root, "{about}: the kubelet refuses {context}");
}
