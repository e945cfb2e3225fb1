//! Whether an expected extract is in what was got.
//!
//! Maps: every key that is expected; `null` means the key must be absent (or null). Lists: item by item. Scalars: equal. A list that
//! is expected under `contains` must be among the items, under `lacks` must not.

use serde_json::Value;

/// Differences, each with its path.
pub fn differences(expected: &Value, got: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(expected, got, String::new(), &mut found);
    found
}

fn compare(expected: &Value, got: &Value, path: String, found: &mut Vec<String>) {
    match (expected, got) {
        (Value::Object(wanted), Value::Array(items)) => {
            for (key, value) in wanted {
                let list = value.as_array().cloned().unwrap_or_default();
                match key.as_str() {
                    "contains" => {
                        for one in list.iter().filter(|one| !items.iter().any(|item| differences(one, item).is_empty()))
                        {
                            found.push(format!("{path}: {one} is not among {}", Value::Array(items.clone())));
                        }
                    }
                    "lacks" => {
                        for one in list.iter().filter(|one| items.iter().any(|item| differences(one, item).is_empty()))
                        {
                            found.push(format!("{path}: {one} is among {}", Value::Array(items.clone())));
                        }
                    }
                    "count" if value.as_u64() == Some(items.len() as u64) => {}
                    "count" => found.push(format!("{path}: {} items, expected {value}", items.len())),
                    index => match index.parse::<usize>().ok().and_then(|index| items.get(index)) {
                        Some(item) => compare(value, item, format!("{path}[{index}]"), found),
                        None => found.push(format!("{path}[{index}]: no such item")),
                    },
                }
            }
        }
        (Value::Object(wanted), Value::Object(there)) => {
            for (key, value) in wanted {
                match there.get(key) {
                    Some(got) => compare(value, got, format!("{path}/{key}"), found),
                    None if value.is_null() => {}
                    None => {
                        found.push(format!("{path}/{key}: missing; there are {:?}", there.keys().collect::<Vec<_>>()))
                    }
                }
            }
        }
        (Value::Array(wanted), Value::Array(there)) if wanted.len() == there.len() => {
            for (at, (value, got)) in wanted.iter().zip(there).enumerate() {
                compare(value, got, format!("{path}[{at}]"), found);
            }
        }
        _ if expected == got => {}
        _ => found.push(format!("{path}: expected {expected}, got {got}")),
    }
}
