//! JSON patches (RFC 6902) as an admission review answers with them.
//!
//! Invariant: applied to `before` it gives `after`, and it touches nothing that is equal in both.

use serde_json::{Map, Value, json};

/// The operations from one value to another.
#[must_use]
pub fn between(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    difference(before, after, "", &mut operations);
    operations
}

fn difference(before: &Value, after: &Value, path: &str, operations: &mut Vec<Value>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(before), Value::Object(after)) => fields(before, after, path, operations),
        _ => operations.push(json!({"op": "replace", "path": path, "value": after})),
    }
}

fn fields(before: &Map<String, Value>, after: &Map<String, Value>, path: &str, operations: &mut Vec<Value>) {
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        operations.push(json!({"op": "remove", "path": format!("{path}/{}", escaped(key))}));
    }
    for (key, value) in after {
        let path = format!("{path}/{}", escaped(key));
        match before.get(key) {
            Some(old) => difference(old, value, &path, operations),
            None => operations.push(json!({"op": "add", "path": path, "value": value})),
        }
    }
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touches_what_differs_only() {
        let before = json!({"a": {"x/y": 1, "same": [1]}, "gone": true, "list": [1]});
        let after = json!({"a": {"x/y": 2, "same": [1]}, "list": [1, 2], "new": {}});
        let operations = between(&before, &after);
        assert_eq!(
            operations,
            [
                json!({"op": "remove", "path": "/gone"}),
                json!({"op": "replace", "path": "/a/x~1y", "value": 2}),
                json!({"op": "replace", "path": "/list", "value": [1, 2]}),
                json!({"op": "add", "path": "/new", "value": {}}),
            ]
        );
        assert!(between(&after, &after).is_empty());
    }
}
