//! Small protobuf values that every generator needs: durations, wrappers, addresses, extensions.
//!
//! Must never decide anything.

use fairlead_model::matching::StringMatch;
use fairlead_proto::any::{Any, pack};
use fairlead_proto::envoy::protobuf::{BoolValue, Duration, UInt32Value};
use fairlead_proto::envoy::{core, listener, matcher};
use prost::{Message, Name};
use std::net::IpAddr;

pub fn duration(of: std::time::Duration) -> Option<Duration> {
    Some(Duration { seconds: of.as_secs() as i64, nanos: of.subsec_nanos() as i32 })
}

pub fn u32_value(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub fn bool_value(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub fn socket_address(address: IpAddr, port: u16) -> Option<core::Address> {
    let socket = core::SocketAddress {
        address: address.to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

/// A name that the proxy resolves.
pub fn named_address(name: &str, port: u16) -> Option<core::Address> {
    let socket = core::SocketAddress {
        address: name.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

/// `address/length`, or an address as its own range.
pub fn cidr(text: &str) -> Option<core::CidrRange> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse::<IpAddr>().ok()?, length.parse().ok()?),
        None => {
            let address: IpAddr = text.parse().ok()?;
            (address, if address.is_ipv4() { 32 } else { 128 })
        }
    };
    Some(core::CidrRange { address_prefix: address.to_string(), prefix_len: u32_value(length) })
}

/// Resources that come over the stream this one came over.
pub fn ads() -> Option<core::ConfigSource> {
    Some(core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(Default::default())),
        ..Default::default()
    })
}

pub fn network_filter<M: Message + Name>(name: &str, config: &M) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(pack(config))),
    }
}

pub fn listener_filter<M: Message + Name>(name: &str, config: &M) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(pack(config))),
        filter_disabled: None,
    }
}

pub fn transport_socket<M: Message + Name>(name: &str, config: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(pack(config))),
    }
}

pub fn extension(name: &str, typed_config: Any) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(typed_config) }
}

pub fn regex(text: impl Into<String>) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: text.into(), ..Default::default() }
}

/// An Envoy string matcher; `Present` becomes "not empty".
pub fn string_matcher(wanted: &StringMatch, ignore_case: bool) -> matcher::StringMatcher {
    use matcher::string_matcher::MatchPattern;
    let pattern = match wanted {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        // An empty prefix or suffix is no valid pattern in Envoy: everything matches.
        StringMatch::Prefix(text) | StringMatch::Suffix(text) if text.is_empty() => {
            MatchPattern::SafeRegex(regex(".*"))
        }
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Suffix(text) => MatchPattern::Suffix(text.clone()),
        StringMatch::Regex(text) => MatchPattern::SafeRegex(regex(text.clone())),
        StringMatch::Present => MatchPattern::SafeRegex(regex(".+")),
    };
    // Envoy refuses the flag on a regex.
    let ignore_case = ignore_case && !matches!(pattern, MatchPattern::SafeRegex(_));
    matcher::StringMatcher { ignore_case, match_pattern: Some(pattern) }
}

/// The text as a regex that matches exactly it.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}
