//! A container that the user wrote under the sidecar's name: merged over what injection would make.
//!
//! As in Istio, by Kubernetes' own merge keys: environment by name, mounts by path, ports by number; other lists are replaced.
//! Invariant: the container keeps our name, and a probe or hook never asks in two ways.

use super::codes;
use super::fields::{list, text};
use super::findings::Findings;
use super::options::Template;
use super::{INIT, PROXY, VALIDATION};
use serde_json::{Map, Value, json};

/// Istio's name of each, which counts too.
const NAMES: &[(&str, &str)] = &[(PROXY, "istio-proxy"), (INIT, "istio-init"), (VALIDATION, "istio-validation")];

/// Lists whose items have a key.
const KEYS: &[(&str, &str)] = &[("env", "name"), ("volumeMounts", "mountPath"), ("ports", "containerPort")];

/// Ways to ask or act, of which one can be there.
const WAYS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// What the user wrote.
#[derive(Default)]
pub(super) struct Written {
    pub proxy: Option<Value>,
    pub init: Option<Value>,
}

/// Takes such containers out of the pod; `None` if they make no sense.
pub(super) fn take(pod: &mut Value, template: Template, findings: &mut Findings) -> Option<Written> {
    let mut written = Written::default();
    for group in ["containers", "initContainers"] {
        let Some(containers) = pod["spec"].get_mut(group).and_then(Value::as_array_mut) else { continue };
        let (own, taken): (Vec<Value>, Vec<Value>) =
            std::mem::take(containers).into_iter().partition(|c| role(c).is_none());
        *containers = own;
        for container in taken {
            let slot = if role(&container) == Some(PROXY) { &mut written.proxy } else { &mut written.init };
            if slot.is_some() {
                let name = text(&container, "name").unwrap_or_default();
                let message = format!("the pod has two containers that mean its sidecar, one of them {name}");
                findings.refuse(codes::NAME_TAKEN, &format!("spec.{group}[{name}]"), message, "keep one of them");
                return None;
            }
            *slot = Some(container);
        }
    }
    if template == Template::Gateway && written.init.is_some() {
        let message = "a gateway captures nothing: it has no init container of the mesh";
        findings.refuse(codes::TEMPLATE, "spec", message, "remove that container");
        return None;
    }
    if template == Template::Sidecar && list(&pod["spec"], "containers").is_empty() {
        let message = "the pod has no container but its sidecar";
        let hint = "add the program's container; a gateway's pod has the annotation inject.istio.io/templates: gateway";
        findings.refuse(codes::TEMPLATE, "spec.containers", message, hint);
        return None;
    }
    if let Some(lists) = pod["spec"].as_object_mut()
        && lists.get("initContainers").and_then(Value::as_array).is_some_and(Vec::is_empty)
    {
        lists.remove("initContainers");
    }
    Some(written)
}

/// Whether a container of this name is an injector's.
pub(super) fn is_ours(name: &str) -> bool {
    NAMES.iter().any(|(ours, _)| name == *ours)
}

fn role(container: &Value) -> Option<&'static str> {
    let name = text(container, "name")?;
    NAMES.iter().find(|(ours, istios)| name == *ours || name == *istios).map(|(ours, _)| *ours)
}

/// `own` over `made`.
pub(super) fn merge(made: &Value, own: &Value) -> Value {
    let mut own = own.clone();
    if let Some(fields) = own.as_object_mut() {
        for fixed in ["name", "restartPolicy"] {
            fields.remove(fixed);
        }
        // Istio's word for "the injector's".
        if fields.get("image").and_then(Value::as_str) == Some("auto") {
            fields.remove("image");
            // The API server's own default for an image without a tag, written before injection is asked.
            if fields.get("imagePullPolicy").and_then(Value::as_str) == Some("Always") {
                fields.remove("imagePullPolicy");
            }
        }
    }
    let mut merged = made.clone();
    over(&mut merged, &own, "");
    merged
}

fn over(made: &mut Value, own: &Value, field: &str) {
    match (made, own) {
        (Value::Object(made), Value::Object(own)) => fields_over(made, own),
        (Value::Array(made), Value::Array(own)) if KEYS.iter().any(|(list, _)| *list == field) => {
            let key = KEYS.iter().find(|(list, _)| *list == field).map_or("", |(_, key)| key);
            for item in own {
                match made.iter_mut().find(|made| made[key] == item[key]) {
                    Some(same) => *same = item.clone(),
                    None => made.push(item.clone()),
                }
            }
        }
        (_, Value::Null) => {}
        (made, own) => *made = own.clone(),
    }
}

fn fields_over(made: &mut Map<String, Value>, own: &Map<String, Value>) {
    if WAYS.iter().any(|way| own.contains_key(*way)) {
        for way in WAYS {
            made.remove(*way);
        }
    }
    for (key, value) in own {
        over(made.entry(key.clone()).or_insert_with(|| json!(null)), value, key);
    }
}
