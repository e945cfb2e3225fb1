//! What a filter chain is for, and what is known of a connection when one is chosen.

use crate::error::{DecodeError, Decoded};
use crate::matching::Cidr;
use crate::wire;
use fairlead_proto::envoy::listener as proto;
use std::net::SocketAddr;

/// `envoy.config.listener.v3.FilterChainMatch`; empty lists and `None` match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    pub destination_port: Option<u16>,
    pub prefix_ranges: Vec<Cidr>,
    /// Lower case; `*.example.com` is kept as `.example.com`.
    pub server_names: Vec<Box<str>>,
    pub transport: Option<Transport>,
    pub application_protocols: Vec<Box<[u8]>>,
    pub direct_source_ranges: Vec<Cidr>,
    pub source_type: SourceType,
    pub source_ranges: Vec<Cidr>,
    pub source_ports: Vec<u16>,
}

/// What sniffing found (`tls_inspector`: TLS or not).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    #[default]
    RawBuffer,
    Tls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    #[default]
    Any,
    /// From this machine: a loopback address, or the connection's own destination address.
    SameIpOrLoopback,
    External,
}

/// A connection after its first bytes were looked at.
#[derive(Clone, Copy, Debug)]
pub struct Sniffed<'a> {
    /// Original destination.
    pub destination: SocketAddr,
    pub source: SocketAddr,
    pub transport: Transport,
    /// Server name of the client hello.
    pub server_name: Option<&'a str>,
    /// ALPN of the client hello in its order, or for plaintext what the HTTP inspector saw: `http/1.0`, `http/1.1` or
    /// `h2c`; empty for anything else.
    pub application_protocols: &'a [&'a [u8]],
}

impl ChainMatch {
    pub(crate) fn decode(proto: &proto::FilterChainMatch) -> Decoded<Self> {
        if !proto.address_suffix.is_empty() || proto.suffix_len.is_some() {
            return Err(DecodeError::unsupported("address_suffix"));
        }
        let ranges = |ranges: &[fairlead_proto::envoy::core::CidrRange], field: &str| -> Decoded<Vec<Cidr>> {
            let decode = |(index, range)| Cidr::decode(range).map_err(|e| e.inside(format!("{field}[{index}]")));
            ranges.iter().enumerate().map(decode).collect()
        };
        let mut server_names = Vec::with_capacity(proto.server_names.len());
        for (index, name) in proto.server_names.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let plain = lower.strip_prefix("*.").map_or(&*lower, |rest| rest);
            if plain.is_empty() || plain.contains('*') {
                let field = format!("server_names[{index}]");
                return Err(DecodeError::new(field, format!("{name:?}: a wildcard must be a whole first label")));
            }
            server_names.push(lower.strip_prefix('*').unwrap_or(&lower).into());
        }
        let port = proto.destination_port.as_ref().filter(|port| port.value != 0);
        let source_ports = proto.source_ports.iter().map(|port| wire::port_number(*port, "source_ports"));
        Ok(Self {
            destination_port: port.map(|port| wire::port_number(port.value, "destination_port")).transpose()?,
            prefix_ranges: ranges(&proto.prefix_ranges, "prefix_ranges")?,
            server_names,
            transport: match proto.transport_protocol.as_str() {
                "" => None,
                "tls" => Some(Transport::Tls),
                "raw_buffer" => Some(Transport::RawBuffer),
                other => return Err(DecodeError::new("transport_protocol", format!("unknown protocol {other:?}"))),
            },
            application_protocols: proto.application_protocols.iter().map(|name| name.as_bytes().into()).collect(),
            direct_source_ranges: ranges(&proto.direct_source_prefix_ranges, "direct_source_prefix_ranges")?,
            source_type: match proto.source_type() {
                proto::filter_chain_match::ConnectionSourceType::Any => SourceType::Any,
                proto::filter_chain_match::ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
                proto::filter_chain_match::ConnectionSourceType::External => SourceType::External,
            },
            source_ranges: ranges(&proto.source_prefix_ranges, "source_prefix_ranges")?,
            source_ports: source_ports.collect::<Decoded<_>>()?,
        })
    }
}
