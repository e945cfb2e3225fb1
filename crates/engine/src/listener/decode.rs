//! From `envoy.config.listener.v3.Listener` to [`Listener`].

use super::{
    AccessLog, ChainIndex, ChainMatch, Direction, FilterChain, HttpManager, Listener, NetworkFilter, TcpProxy,
    TlsContext,
};
use crate::error::{DecodeError, Decoded};
use crate::rbac::RbacFilter;
use crate::wire;
use fairlead_proto::envoy::core::{TrafficDirection, address};
use fairlead_proto::envoy::listener as proto;
use std::sync::Arc;
use std::time::Duration;

impl Listener {
    pub(crate) fn decode(listener: &proto::Listener) -> Decoded<Self> {
        let internal =
            matches!(listener.listener_specifier, Some(proto::listener::ListenerSpecifier::InternalListener(_)));
        let address = match listener.address.as_ref().and_then(|address| address.address.as_ref()) {
            Some(address::Address::SocketAddress(address)) => {
                Some(wire::socket_address(address, "address.socket_address")?)
            }
            _ if internal => None,
            _ => return Err(DecodeError::new("address.socket_address", "is required")),
        };
        for (present, field) in [
            (listener.filter_chain_matcher.is_some(), "filter_chain_matcher"),
            (listener.fcds_config.is_some(), "fcds_config"),
            (listener.udp_listener_config.is_some(), "udp_listener_config"),
            (!listener.additional_addresses.is_empty(), "additional_addresses"),
        ] {
            if present {
                return Err(DecodeError::unsupported(field));
            }
        }
        let chains = listener.filter_chains.iter().enumerate().map(|(index, chain)| {
            FilterChain::decode(chain).map(Arc::new).map_err(|e| e.inside(format!("filter_chains[{index}]")))
        });
        let chains = chains.collect::<Decoded<Vec<_>>>()?;
        let default_chain = listener
            .default_filter_chain
            .as_ref()
            .map(|chain| FilterChain::decode(chain).map(Arc::new).map_err(|e| e.inside("default_filter_chain")));
        let mut decoded = Self {
            name: listener.name.as_str().into(),
            address,
            bind_to_port: !internal && listener.bind_to_port.as_ref().is_none_or(|v| v.value),
            use_original_dst: listener.use_original_dst.is_some_and(|v| v.value),
            restores_original_dst: listener.use_original_dst.is_some_and(|v| v.value),
            direction: match listener.traffic_direction() {
                TrafficDirection::Unspecified => Direction::Unspecified,
                TrafficDirection::Inbound => Direction::Inbound,
                TrafficDirection::Outbound => Direction::Outbound,
            },
            tls_inspector: false,
            http_inspector: false,
            sniff_timeout: match &listener.listener_filters_timeout {
                None => Some(Duration::from_secs(15)),
                some => wire::nonzero_duration(some, "listener_filters_timeout")?,
            },
            continue_on_sniff_timeout: listener.continue_on_listener_filters_timeout,
            index: ChainIndex::build(chains.iter().map(|chain| &chain.matching))?,
            chains,
            default_chain: default_chain.transpose()?,
            access_log: AccessLog::decode_all(&listener.access_log)?,
            origin: wire::origin(&listener.metadata),
        };
        for (index, filter) in listener.listener_filters.iter().enumerate() {
            decoded.listener_filter(filter).map_err(|e| e.inside(format!("listener_filters[{index}]")))?;
        }
        Ok(decoded)
    }

    fn listener_filter(&mut self, filter: &proto::ListenerFilter) -> Decoded<()> {
        if filter.filter_disabled.is_some() {
            return Err(DecodeError::unsupported("filter_disabled"));
        }
        let type_name = match &filter.config_type {
            Some(proto::listener_filter::ConfigType::TypedConfig(any)) => wire::type_name(any),
            Some(_) => return Err(DecodeError::unsupported("config_discovery")),
            None => "",
        };
        match (type_name, filter.name.as_str()) {
            ("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", _)
            | ("", "envoy.filters.listener.tls_inspector") => self.tls_inspector = true,
            ("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", _)
            | ("", "envoy.filters.listener.http_inspector") => self.http_inspector = true,
            ("envoy.extensions.filters.listener.original_dst.v3.OriginalDst", _)
            | ("", "envoy.filters.listener.original_dst") => self.restores_original_dst = true,
            (other, name) => {
                return Err(DecodeError::new("typed_config", format!("unknown listener filter {name} ({other})")));
            }
        }
        Ok(())
    }
}

impl FilterChain {
    fn decode(chain: &proto::FilterChain) -> Decoded<Self> {
        let matching = match &chain.filter_chain_match {
            Some(matching) => ChainMatch::decode(matching).map_err(|e| e.inside("filter_chain_match"))?,
            None => ChainMatch::default(),
        };
        let tls = match &chain.transport_socket {
            Some(socket) => TlsContext::decode_downstream(socket).map_err(|e| e.inside("transport_socket"))?,
            None => None,
        };
        let siblings =
            wire::filter_metadata(&chain.metadata, "fairlead").is_some_and(|f| wire::flag(f, "sibling_failover"));
        let mut filters = Vec::with_capacity(chain.filters.len());
        for (index, filter) in chain.filters.iter().enumerate() {
            let at = |e: DecodeError| e.inside(format!("filters[{index}]"));
            let terminal_before = filters.last().is_some_and(|last| !matches!(last, NetworkFilter::Rbac(_)));
            if terminal_before {
                return Err(at(DecodeError::new("", "nothing may follow a terminal filter")));
            }
            filters.push(decode_filter(filter, siblings).map_err(at)?);
        }
        if matches!(filters.last(), Some(NetworkFilter::Rbac(_))) {
            return Err(DecodeError::new("filters", "the last one must be tcp_proxy or http_connection_manager"));
        }
        Ok(Self {
            name: chain.name.as_str().into(),
            matching,
            tls: tls.map(Arc::new),
            filters,
            origin: wire::origin(&chain.metadata),
        })
    }
}

fn decode_filter(filter: &proto::Filter, sibling_failover: bool) -> Decoded<NetworkFilter> {
    let Some(proto::filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(DecodeError::new("typed_config", "is required"));
    };
    let inside = |e: DecodeError| e.inside("typed_config");
    match wire::type_name(any) {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            let hcm = wire::unpack(any, "typed_config")?;
            Ok(NetworkFilter::Http(Arc::new(HttpManager::decode(&hcm).map_err(inside)?)))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let tcp = wire::unpack(any, "typed_config")?;
            let tcp = TcpProxy::decode(&tcp).map_err(inside)?;
            Ok(NetworkFilter::TcpProxy(Arc::new(TcpProxy { sibling_failover, ..tcp })))
        }
        "envoy.extensions.filters.network.rbac.v3.RBAC" => {
            let rbac = wire::unpack(any, "typed_config")?;
            Ok(NetworkFilter::Rbac(Arc::new(RbacFilter::decode_network(&rbac).map_err(inside)?)))
        }
        other => Err(DecodeError::new("typed_config", format!("unknown network filter {other}; remove it"))),
    }
}
