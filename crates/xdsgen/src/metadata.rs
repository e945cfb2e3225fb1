//! `filter_metadata` of resources: the one place where metadata structs are made.
//!
//! Invariant: nothing is derived from the order of their maps, which protobuf does not define; versions come from inputs.

use fairlead_model::Origin;
use fairlead_proto::envoy::core::Metadata;
use fairlead_proto::envoy::protobuf::{ListValue, Struct, Value, value::Kind};

/// Our own namespace in `filter_metadata`.
pub const FAIRLEAD: &str = "fairlead";
/// Istio's, read by its tools.
pub const ISTIO: &str = "istio";
/// What Envoy compares with `transport_socket_matches`.
pub const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

pub fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

pub fn yes() -> Value {
    Value { kind: Some(Kind::BoolValue(true)) }
}

pub fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

pub fn nested(fields: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(fields)) }
}

pub fn fields<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect() }
}

/// Empty structs are left out; nothing at all gives `None`.
pub fn metadata<const N: usize>(parts: [(&str, Struct); N]) -> Option<Metadata> {
    let filter_metadata: std::collections::HashMap<_, _> = parts
        .into_iter()
        .filter(|(_, fields)| !fields.fields.is_empty())
        .map(|(key, fields)| (key.to_owned(), fields))
        .collect();
    (!filter_metadata.is_empty()).then(|| Metadata { filter_metadata, ..Default::default() })
}

/// An origin as `explain` reads it back from a proxy. Empty fields are left out.
pub fn origin(origin: &Origin) -> Value {
    let object = &origin.object;
    let mut fields = fields([
        ("cluster", text(object.cluster.as_str())),
        ("kind", text(&*object.kind)),
        ("namespace", text(&*object.namespace)),
        ("name", text(&*object.name)),
        ("path", text(&origin.path)),
        ("file", text(&*origin.file)),
    ]);
    fields.fields.retain(|_, value| !matches!(&value.kind, Some(Kind::StringValue(s)) if s.is_empty()));
    if origin.line > 0 {
        let line = Value { kind: Some(Kind::NumberValue(f64::from(origin.line))) };
        fields.fields.insert("line".to_owned(), line);
    }
    nested(fields)
}
