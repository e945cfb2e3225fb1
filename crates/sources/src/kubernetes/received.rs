//! An object as the API server sent it, read straight into the tree that decoding takes.
//!
//! Never goes through text or a second tree, and never reads `managedFields`, which are often half of an object.

use fairlead_resources::yaml::{Node, Value};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::ApiResource;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// An object of any kind.
#[derive(Clone, Debug)]
pub struct Received {
    /// Name, namespace and resource version: what watching needs.
    meta: ObjectMeta,
    pub node: Node,
}

impl Received {
    /// The tree, with apiVersion and kind, which items of a list lack.
    pub fn into_node(mut self, resource: &ApiResource) -> Node {
        if let Value::Map(entries) = &mut self.node.value {
            for (key, value) in [("apiVersion", &resource.api_version), ("kind", &resource.kind)] {
                if !entries.iter().any(|(name, _)| name == key) {
                    entries.push((key.to_owned(), Node::of(Value::String(value.clone()))));
                }
            }
        }
        self.node
    }
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Level::Object.deserialize(deserializer)?;
        let metadata = node.child("metadata");
        let text = |key: &str| metadata.and_then(|m| m.text_at(key)).map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { meta, node })
    }
}

/// Where in an object we are.
#[derive(Clone, Copy)]
enum Level {
    Object,
    Metadata,
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map: Vec<(String, Node)> = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            match self {
                Self::Metadata if key == "managedFields" => drop(entries.next_value::<IgnoredAny>()?),
                Self::Object if key == "metadata" => map.push((key, entries.next_value_seed(Self::Metadata)?)),
                _ => map.push((key, entries.next_value()?)),
            }
        }
        Ok(Node::of(Value::Map(map)))
    }
}

impl Resource for Received {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt as _;

    #[test]
    fn managed_fields_are_not_read_and_those_of_others_are() {
        let text = r#"{"metadata":{"name":"a","namespace":"b","resourceVersion":"7","managedFields":[{"manager":"x"}]},
            "spec":{"managedFields":1}}"#;
        let received: Received = serde_json::from_str(text).unwrap();
        assert_eq!(received.resource_version().as_deref(), Some("7"));
        let metadata = received.node.child("metadata").unwrap();
        assert!(metadata.child("managedFields").is_none());
        assert!(received.node.child("spec").unwrap().child("managedFields").is_some());
        let pods = super::super::kinds::WATCHED.iter().find(|w| w.plural == "pods").unwrap();
        let node = received.into_node(&pods.resource("v1"));
        assert_eq!((node.text_at("apiVersion"), node.text_at("kind")), (Some("v1"), Some("Pod")));
    }
}
