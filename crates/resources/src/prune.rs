//! What a mesh reads of an object, and nothing else: for keeping objects without the hundreds of fields that it does not read.
//!
//! Never for configuration kinds' fields: of those an unknown field is a mistake that must be seen again. Invariant: a pruned
//! object decodes to the same as the whole one.

use crate::field::from_node::is_wire_name;
use crate::field::{Shape, Unknown};
use crate::object::Kind;
use crate::yaml::{Node, Value};

/// Drops what is not read from an object of this kind.
pub fn prune(kind: Kind, node: &mut Node) {
    let Shape::Message(_, fields) = kind.shape() else { return };
    let core = kind.reading().unknown == Unknown::Ignore;
    let Value::Map(entries) = &mut node.value else { return };
    entries.retain_mut(|(key, value)| {
        if matches!(key.as_str(), "apiVersion" | "kind") {
            return true;
        }
        match fields.iter().find(|(field, _)| is_wire_name(field, key)) {
            Some((_, shape)) if core || key == "metadata" => {
                fields_of(shape(), value);
                true
            }
            Some(_) => true,
            // Status is passed over in configuration kinds; whatever else is there is a mistake to be told of.
            None => !core && key != "status",
        }
    });
}

fn fields_of(shape: Shape, node: &mut Node) {
    match (shape, &mut node.value) {
        (Shape::Message(_, fields), Value::Map(entries)) => {
            entries.retain_mut(|(key, value)| {
                let Some((_, shape)) = fields.iter().find(|(field, _)| is_wire_name(field, key)) else { return false };
                fields_of(shape(), value);
                true
            });
        }
        (Shape::Map(shape), Value::Map(entries)) => entries.iter_mut().for_each(|(_, node)| fields_of(shape(), node)),
        (Shape::List(shape), Value::List(items)) => items.iter_mut().for_each(|node| fields_of(shape(), node)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode_object;

    const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop","labels":{"app":"web"},
        "ownerReferences":[{"kind":"ReplicaSet","name":"web"}]},"spec":{"nodeName":"n1","tolerations":[{"key":"x"}],
        "containers":[{"name":"web","image":"web:1","ports":[{"name":"http","containerPort":8080,"hostIP":"0.0.0.0"}]}]},
        "status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],"qosClass":"Burstable"}}"#;

    #[test]
    fn a_pruned_object_reads_as_the_whole_one() {
        let whole: Node = serde_json::from_str(POD).unwrap();
        let mut pruned = whole.clone();
        prune(Kind::Pod, &mut pruned);
        let text = serde_json::to_string(&pruned).unwrap();
        for gone in ["ownerReferences", "tolerations", "image", "hostIP", "qosClass"] {
            assert!(!text.contains(gone), "{text}");
        }
        let read = |node: &Node| decode_object(&"east".into(), node).objects.remove(0).object;
        assert_eq!(read(&pruned), read(&whole));
    }

    #[test]
    fn mistakes_in_configuration_stay() {
        let text = r#"{"apiVersion":"networking.istio.io/v1","kind":"DestinationRule","metadata":{"name":"a","namespace":"b",
            "finalizers":[]},"spec":{"hosst":"x"},"specs":{},"status":{}}"#;
        let mut node: Node = serde_json::from_str(text).unwrap();
        prune(Kind::DestinationRule, &mut node);
        let text = serde_json::to_string(&node).unwrap();
        assert!(text.contains("hosst") && text.contains("specs"), "{text}");
        assert!(!text.contains("status") && !text.contains("finalizers"), "{text}");
        assert!(decode_object(&"east".into(), &node).objects.is_empty());
    }
}
