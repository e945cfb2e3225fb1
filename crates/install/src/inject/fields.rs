//! Reading and writing a pod as JSON.
//!
//! Never fails on a form that the API server would not let through: what is not of the expected form is absent.

use serde_json::{Map, Value};

/// A text that is not empty.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The items of a list; none if it is absent.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod["metadata"]["labels"].get(key).and_then(Value::as_str)
}

pub(super) fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"].get(key).and_then(Value::as_str)
}

/// The object under `key`, made if it is absent.
pub(super) fn object<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value[key].is_object() {
        value[key] = Value::Object(Map::new());
    }
    match &mut value[key] {
        Value::Object(map) => map,
        _ => unreachable!("it was made one"),
    }
}

/// The list under `key`, made if it is absent.
pub(super) fn items<'a>(value: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !value[key].is_array() {
        value[key] = Value::Array(Vec::new());
    }
    match &mut value[key] {
        Value::Array(items) => items,
        _ => unreachable!("it was made one"),
    }
}

/// Whether an init container is a sidecar to Kubernetes.
pub(super) fn is_native(container: &Value) -> bool {
    text(container, "restartPolicy") == Some("Always")
}
