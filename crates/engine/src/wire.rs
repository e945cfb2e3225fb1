//! Reading protobuf's roundabout scalars: wrappers, durations, `Any`s with a known type, metadata.
//!
//! Invariant: whatever bytes came, these functions return a value or an error naming the field; they never panic.

use crate::error::{DecodeError, Decoded};
use fairlead_model::{ObjectKey, Origin};
use fairlead_proto::any::{self, Any};
use fairlead_proto::envoy::core::Metadata;
use fairlead_proto::envoy::protobuf::{Duration as ProtoDuration, Struct, value::Kind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Message type of an `Any` without the host part of its url: `envoy.config.listener.v3.Listener`.
pub(crate) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Unpacks an `Any`, errors seen from `field`.
pub(crate) fn unpack<M: prost::Message + prost::Name + Default>(any: &Any, field: &str) -> Decoded<M> {
    any::unpack(any).map_err(|e| DecodeError::from(e).inside(field))
}

/// A duration that is not negative and not absurd (protobuf allows 10,000 years either way).
pub(crate) fn duration(value: &ProtoDuration, field: &str) -> Decoded<Duration> {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(value.seconds), u32::try_from(value.nanos)) else {
        return Err(DecodeError::new(field, "a duration must not be negative"));
    };
    if nanos >= 1_000_000_000 || seconds > 315_576_000_000 {
        return Err(DecodeError::new(field, "is no valid duration"));
    }
    Ok(Duration::new(seconds, nanos))
}

/// [`duration`] of an optional field.
pub(crate) fn optional_duration(value: &Option<ProtoDuration>, field: &str) -> Decoded<Option<Duration>> {
    value.as_ref().map(|value| duration(value, field)).transpose()
}

/// An optional duration where zero means "none" (most of Envoy's time-outs).
pub(crate) fn nonzero_duration(value: &Option<ProtoDuration>, field: &str) -> Decoded<Option<Duration>> {
    Ok(optional_duration(value, field)?.filter(|d| !d.is_zero()))
}

/// A name to be resolved, in lower case, and a numeric port.
pub(crate) fn named_address(
    address: &fairlead_proto::envoy::core::SocketAddress,
    field: &str,
) -> Decoded<(Arc<str>, u16)> {
    use fairlead_proto::envoy::core::socket_address::PortSpecifier;
    let name = address.address.to_ascii_lowercase();
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(letter) {
        return Err(DecodeError::new(
            format!("{field}.address"),
            format!("{name:?} is neither an IP address nor a name"),
        ));
    }
    match address.port_specifier {
        Some(PortSpecifier::PortValue(port)) => Ok((name.into(), port_number(port, &format!("{field}.port_value"))?)),
        _ => Err(DecodeError::new(format!("{field}.port_value"), "a numeric port is required")),
    }
}

/// A socket address with a numeric port.
pub(crate) fn socket_address(address: &fairlead_proto::envoy::core::SocketAddress, field: &str) -> Decoded<SocketAddr> {
    use fairlead_proto::envoy::core::socket_address::PortSpecifier;
    let ip: IpAddr = address
        .address
        .parse()
        .map_err(|_| DecodeError::new(format!("{field}.address"), format!("{:?} is no IP address", address.address)))?;
    match address.port_specifier {
        Some(PortSpecifier::PortValue(port)) => {
            let port = port_number(port, &format!("{field}.port_value"))?;
            Ok(SocketAddr::new(ip, port))
        }
        _ => Err(DecodeError::new(format!("{field}.port_value"), "a numeric port is required")),
    }
}

/// A port that fits 16 bits.
pub(crate) fn port_number(port: u32, field: &str) -> Decoded<u16> {
    u16::try_from(port).map_err(|_| DecodeError::new(field, format!("{port} is no port number")))
}

/// One namespace of filter metadata.
pub(crate) fn filter_metadata<'a>(metadata: &'a Option<Metadata>, namespace: &str) -> Option<&'a Struct> {
    metadata.as_ref()?.filter_metadata.get(namespace)
}

/// A string field of a struct.
pub(crate) fn text<'a>(fields: &'a Struct, key: &str) -> Option<&'a str> {
    match fields.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// A boolean field of a struct; absent means false.
pub(crate) fn flag(fields: &Struct, key: &str) -> bool {
    matches!(fields.fields.get(key).and_then(|v| v.kind.as_ref()), Some(Kind::BoolValue(true)))
}

/// A nested struct.
pub(crate) fn nested<'a>(fields: &'a Struct, key: &str) -> Option<&'a Struct> {
    match fields.fields.get(key)?.kind.as_ref()? {
        Kind::StructValue(inner) => Some(inner),
        _ => None,
    }
}

/// `fairlead.origin` of a resource: `{cluster, kind, namespace, name, path, file, line}`.
pub(crate) fn origin(metadata: &Option<Metadata>) -> Option<Origin> {
    let fields = nested(filter_metadata(metadata, "fairlead")?, "origin")?;
    let read = |key: &str| -> Arc<str> { Arc::from(text(fields, key).unwrap_or_default()) };
    let line = match fields.fields.get("line").and_then(|v| v.kind.as_ref()) {
        // A float that is out of range saturates: a wrong line number must not cost the route.
        Some(Kind::NumberValue(line)) => *line as u32,
        _ => 0,
    };
    Some(Origin {
        object: ObjectKey::new(
            text(fields, "cluster").unwrap_or_default(),
            read("kind"),
            read("namespace"),
            read("name"),
        ),
        path: text(fields, "path").unwrap_or_default().to_owned(),
        file: read("file"),
        line,
    })
}
