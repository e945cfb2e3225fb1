//! JSON values of the fixture: what is written laid over defaults, durations in short.

use serde_json::{Value, json};

/// A model type, read from its JSON.
pub fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e} in {value:#}"))
}

/// What is written over what is default, object by object.
pub fn over(default: Value, written: Value) -> Value {
    match (default, written) {
        (Value::Object(mut default), Value::Object(written)) => {
            for (key, value) in written {
                let merged = match default.remove(&key) {
                    Some(below) => over(below, value),
                    None => value,
                };
                default.insert(key, merged);
            }
            Value::Object(default)
        }
        (default, Value::Null) => default,
        (_, written) => written,
    }
}

/// A duration, as model types have it.
pub fn seconds(s: u64) -> Value {
    json!({"secs": s, "nanos": 0})
}

/// Durations are written as whole seconds or `250ms`.
pub fn durations(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| {
                    let timed = matches!(
                        key.as_str(),
                        "timeout"
                            | "for_time"
                            | "per_try_timeout"
                            | "backoff"
                            | "interval"
                            | "base_ejection_time"
                            | "connect_timeout"
                            | "tcp_idle_timeout"
                            | "http_idle_timeout"
                            | "max_connection_duration"
                    );
                    let value = match &value {
                        Value::Number(n) if timed => seconds(n.as_u64().unwrap_or_default()),
                        Value::String(text) if timed => {
                            let ms: u64 = text.trim_end_matches("ms").parse().expect("milliseconds");
                            json!({"secs": ms / 1000, "nanos": ms % 1000 * 1_000_000})
                        }
                        _ => durations(value),
                    };
                    (key, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(durations).collect()),
        other => other,
    }
}
