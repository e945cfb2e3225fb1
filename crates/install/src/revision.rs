//! Tags: names in injection labels that stand for a revision.
//!
//! Invariant: a tag is a webhook configuration and nothing else; moving it to another revision restarts no pod.

use crate::values::Values;
use crate::webhooks;
use serde_json::Value;

/// Name of a tag's webhook configuration.
pub fn tag_name(tag: &str) -> String {
    format!("fairlead-revision-tag-{tag}")
}

/// The configurations of the values' tags.
pub fn objects(values: &Values) -> Vec<Value> {
    values
        .tags
        .iter()
        .map(|tag| {
            let mut object = webhooks::injector(values, &tag_name(tag), tag);
            object["metadata"]["labels"]["istio.io/tag"] = Value::String(tag.clone());
            object
        })
        .collect()
}
