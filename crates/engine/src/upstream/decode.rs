//! From `envoy.config.cluster.v3.Cluster` and `ClusterLoadAssignment` to ours.

use super::{
    CircuitBreakers, ClusterKind, Endpoint, EndpointAddress, EndpointHealth, EndpointKey, Endpoints, EnvoyCluster,
    FairleadEndpoint, LbPolicy, LocalityGroup, OutlierConfig, TransportMatch, UpstreamProtocol, UpstreamTransport,
    WorkloadLabel,
};
use crate::error::{DecodeError, Decoded};
use crate::listener::TlsContext;
use crate::route::istio_name;
use crate::wire;
use fairlead_model::ids::Locality;
use fairlead_proto::envoy::cluster::{self as proto, cluster as inner};
use fairlead_proto::envoy::core::{HealthStatus, TransportSocket, address, envoy_internal_address};
use fairlead_proto::envoy::endpoint as eds;
use fairlead_proto::envoy::protobuf::{Struct, value::Kind};
use fairlead_proto::envoy::upstream_http::{HttpProtocolOptions, http_protocol_options as http_options};
use std::sync::Arc;
use std::time::Duration;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Envoy's default `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default panic threshold, percent.
const PANIC_THRESHOLD: f64 = 50.0;
/// Envoy's default `dns_refresh_rate`.
const DNS_REFRESH: Duration = Duration::from_secs(5);
/// Envoy's limit of priorities it expects; more are refused, for each takes a table.
const MAX_PRIORITY: u32 = 128;
/// Envoy's default over-provisioning, percent.
const OVERPROVISIONING: u32 = 140;

impl EnvoyCluster {
    pub(crate) fn decode(cluster: &proto::Cluster) -> Decoded<Self> {
        for (present, field) in [
            (cluster.lb_subset_config.is_some(), "lb_subset_config"),
            (!cluster.health_checks.is_empty(), "health_checks"),
            (cluster.transport_socket_matcher.is_some(), "transport_socket_matcher"),
            (!cluster.filters.is_empty(), "filters"),
            (cluster.load_balancing_policy.is_some(), "load_balancing_policy"),
        ] {
            if present {
                return Err(DecodeError::unsupported(field));
            }
        }
        let common = cluster.common_lb_config.clone().unwrap_or_default();
        let kind = cluster_kind(cluster)?;
        let lb_policy = match (cluster.lb_policy(), &kind) {
            (inner::LbPolicy::RoundRobin, _) => LbPolicy::RoundRobin,
            (inner::LbPolicy::LeastRequest, _) => LbPolicy::LeastRequest,
            (inner::LbPolicy::Random, _) => LbPolicy::Random,
            (inner::LbPolicy::ClusterProvided, ClusterKind::OriginalDst) => LbPolicy::Random,
            _ => return Err(DecodeError::new("lb_policy", "must be ROUND_ROBIN, LEAST_REQUEST or RANDOM")),
        };
        let locality_weighted = match &common.locality_config_specifier {
            None => false,
            Some(inner::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
            Some(_) => return Err(DecodeError::unsupported("common_lb_config.zone_aware_lb_config")),
        };
        let flags = wire::filter_metadata(&cluster.metadata, "fairlead");
        let flag = |name: &str| flags.is_some_and(|fields| wire::flag(fields, name));
        let (_, port, subset, host) = istio_name(&cluster.name).unwrap_or_default();
        let service = service_of(cluster);
        let named = |key: &str| service.and_then(|service| wire::text(service, key)).unwrap_or_default();
        let options = http_options_of(cluster)?;
        Ok(Self {
            name: cluster.name.as_str().into(),
            host: if host.is_empty() { named("host").into() } else { host.into() },
            port: port.parse().unwrap_or(0),
            subset: subset.into(),
            service_namespace: named("namespace").into(),
            service_name: named("name").into(),
            lb_policy,
            connect_timeout: wire::nonzero_duration(&cluster.connect_timeout, "connect_timeout")?
                .unwrap_or(CONNECT_TIMEOUT),
            panic_threshold: common.healthy_panic_threshold.map_or(PANIC_THRESHOLD, |p| p.value),
            locality_weighted,
            failover_when_none: flag("failover_when_none"),
            external: flag("external"),
            unjudged: flag("unjudged"),
            transport_matches: transport_matches(cluster)?,
            transport: transport(cluster.transport_socket.as_ref(), "transport_socket")?,
            protocol: protocol(cluster, options.as_ref())?,
            limits: CircuitBreakers::decode(cluster.circuit_breakers.as_ref()),
            outlier: match &cluster.outlier_detection {
                Some(outlier) => Some(OutlierConfig::decode(outlier).map_err(|e| e.inside("outlier_detection"))?),
                None => None,
            },
            max_requests_per_connection: max_requests(cluster, options.as_ref()),
            idle_timeout: idle_timeout(cluster, options.as_ref())?,
            origin: wire::origin(&cluster.metadata),
            kind,
        })
    }
}

fn cluster_kind(cluster: &proto::Cluster) -> Decoded<ClusterKind> {
    let kind = match &cluster.cluster_discovery_type {
        None => inner::DiscoveryType::Static,
        Some(inner::ClusterDiscoveryType::Type(kind)) => {
            inner::DiscoveryType::try_from(*kind).map_err(|_| DecodeError::new("type", "is unknown"))?
        }
        Some(_) => return Err(DecodeError::unsupported("cluster_type")),
    };
    match kind {
        inner::DiscoveryType::Static => {
            let endpoints = match &cluster.load_assignment {
                Some(assignment) => Endpoints::decode(assignment, false).map_err(|e| e.inside("load_assignment"))?,
                None => Endpoints { overprovisioning: OVERPROVISIONING, ..Endpoints::default() },
            };
            Ok(ClusterKind::Static(Arc::new(endpoints)))
        }
        inner::DiscoveryType::Eds => {
            let name =
                cluster.eds_cluster_config.as_ref().map(|eds| eds.service_name.as_str()).filter(|n| !n.is_empty());
            Ok(ClusterKind::Eds(name.unwrap_or(&cluster.name).into()))
        }
        inner::DiscoveryType::OriginalDst => Ok(ClusterKind::OriginalDst),
        inner::DiscoveryType::StrictDns | inner::DiscoveryType::LogicalDns => {
            dns(cluster, kind == inner::DiscoveryType::LogicalDns)
        }
    }
}

fn dns(cluster: &proto::Cluster, logical: bool) -> Decoded<ClusterKind> {
    for (present, field) in [
        (cluster.respect_dns_ttl, "respect_dns_ttl"),
        (!cluster.dns_resolvers.is_empty(), "dns_resolvers"),
        (cluster.dns_resolution_config.is_some(), "dns_resolution_config"),
        (cluster.typed_dns_resolver_config.is_some(), "typed_dns_resolver_config"),
        (cluster.use_tcp_for_dns_lookups, "use_tcp_for_dns_lookups"),
    ] {
        if present {
            return Err(DecodeError::unsupported(field));
        }
    }
    let assignment =
        cluster.load_assignment.as_ref().ok_or_else(|| DecodeError::new("load_assignment", "is required"))?;
    let endpoints = Endpoints::decode(assignment, true).map_err(|e| e.inside("load_assignment"))?;
    if logical && endpoints.len() != 1 {
        return Err(DecodeError::new("load_assignment", "must have one endpoint for LOGICAL_DNS"));
    }
    let or_v6 = match cluster.dns_lookup_family() {
        inner::DnsLookupFamily::V4Only => false,
        inner::DnsLookupFamily::V4Preferred => true,
        _ => return Err(DecodeError::unsupported("dns_lookup_family other than V4_ONLY and V4_PREFERRED")),
    };
    let refresh = wire::nonzero_duration(&cluster.dns_refresh_rate, "dns_refresh_rate")?.unwrap_or(DNS_REFRESH);
    Ok(ClusterKind::Dns { endpoints: Arc::new(endpoints), first_only: logical, or_v6, refresh })
}

fn service_of(cluster: &proto::Cluster) -> Option<&Struct> {
    let istio = wire::filter_metadata(&cluster.metadata, "istio")?;
    match istio.fields.get("services")?.kind.as_ref()? {
        Kind::ListValue(list) => match list.values.first()?.kind.as_ref()? {
            Kind::StructValue(service) => Some(service),
            _ => None,
        },
        _ => None,
    }
}

fn transport(socket: Option<&TransportSocket>, field: &str) -> Decoded<UpstreamTransport> {
    let Some(socket) = socket else { return Ok(UpstreamTransport::Raw) };
    Ok(match TlsContext::decode_upstream(socket).map_err(|e| e.inside(field))? {
        Some(tls) => UpstreamTransport::Tls(Arc::new(tls)),
        None => UpstreamTransport::Raw,
    })
}

fn transport_matches(cluster: &proto::Cluster) -> Decoded<Vec<TransportMatch>> {
    let decode = |(index, entry): (usize, &inner::TransportSocketMatch)| {
        let field = format!("transport_socket_matches[{index}]");
        let mut labels = Vec::new();
        for (key, value) in entry.r#match.iter().flat_map(|fields| &fields.fields) {
            match &value.kind {
                Some(Kind::StringValue(text)) => labels.push((key.as_str().into(), text.as_str().into())),
                _ => return Err(DecodeError::new(format!("{field}.match.{key}"), "must be a string")),
            }
        }
        let transport = transport(entry.transport_socket.as_ref(), &format!("{field}.transport_socket"))?;
        Ok(TransportMatch { name: entry.name.as_str().into(), labels, transport })
    };
    cluster.transport_socket_matches.iter().enumerate().map(decode).collect()
}

fn http_options_of(cluster: &proto::Cluster) -> Decoded<Option<HttpProtocolOptions>> {
    let mut options = None;
    for (name, any) in &cluster.typed_extension_protocol_options {
        let field = format!("typed_extension_protocol_options[{name}]");
        match name.as_str() {
            HTTP_OPTIONS => options = Some(wire::unpack(any, &field)?),
            _ => return Err(DecodeError::new(field, "is unknown")),
        }
    }
    Ok(options)
}

fn protocol(cluster: &proto::Cluster, options: Option<&HttpProtocolOptions>) -> Decoded<UpstreamProtocol> {
    use http_options::UpstreamProtocolOptions as Options;
    use http_options::explicit_http_config::ProtocolConfig;
    let Some(options) = options else {
        // The older way: `http2_protocol_options` on the Envoy cluster itself.
        let older = cluster.http2_protocol_options.is_some();
        return Ok(if older { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 });
    };
    match &options.upstream_protocol_options {
        None => Ok(UpstreamProtocol::Http1),
        Some(Options::UseDownstreamProtocolConfig(_)) => Ok(UpstreamProtocol::UseDownstream),
        Some(Options::AutoConfig(_)) => Ok(UpstreamProtocol::Auto),
        Some(Options::ExplicitHttpConfig(explicit)) => match &explicit.protocol_config {
            None | Some(ProtocolConfig::HttpProtocolOptions(_)) => Ok(UpstreamProtocol::Http1),
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => Ok(UpstreamProtocol::Http2),
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                Err(DecodeError::unsupported("typed_extension_protocol_options: HTTP/3"))
            }
        },
    }
}

fn max_requests(cluster: &proto::Cluster, options: Option<&HttpProtocolOptions>) -> Option<u32> {
    let common = options.and_then(|o| o.common_http_protocol_options.as_ref());
    let limit = common.and_then(|c| c.max_requests_per_connection.as_ref());
    let limit = limit.or(cluster.max_requests_per_connection.as_ref());
    // Zero means no limit.
    limit.map(|limit| limit.value).filter(|limit| *limit > 0)
}

fn idle_timeout(cluster: &proto::Cluster, options: Option<&HttpProtocolOptions>) -> Decoded<Option<Duration>> {
    let common = options.and_then(|o| o.common_http_protocol_options.as_ref());
    match common.or(cluster.common_http_protocol_options.as_ref()).map(|common| &common.idle_timeout) {
        None | Some(None) => Ok(Some(Duration::from_secs(3600))),
        Some(some) => wire::nonzero_duration(some, "common_http_protocol_options.idle_timeout"),
    }
}

impl Endpoints {
    /// `named`: addresses may be names.
    pub(crate) fn decode(assignment: &eds::ClusterLoadAssignment, named: bool) -> Decoded<Self> {
        let policy = assignment.policy.clone().unwrap_or_default();
        if !policy.drop_overloads.is_empty() {
            return Err(DecodeError::unsupported("policy.drop_overloads"));
        }
        if !assignment.named_endpoints.is_empty() {
            return Err(DecodeError::unsupported("named_endpoints"));
        }
        let overprovisioning = policy.overprovisioning_factor.map_or(OVERPROVISIONING, |factor| factor.value);
        if overprovisioning == 0 {
            return Err(DecodeError::new("policy.overprovisioning_factor", "must be above 0"));
        }
        let mut decoded = Self {
            localities: Vec::with_capacity(assignment.endpoints.len()),
            overprovisioning,
            weighted_priority_health: policy.weighted_priority_health,
        };
        let mut seen = ahash::AHashSet::new();
        for (index, group) in assignment.endpoints.iter().enumerate() {
            let at = |e: DecodeError| e.inside(format!("endpoints[{index}]"));
            let mut group = LocalityGroup::decode(group, named).map_err(at)?;
            // Envoy keeps the first of several endpoints with one address in an Envoy cluster.
            group.endpoints.retain(|endpoint| seen.insert(endpoint.key.clone()));
            decoded.localities.push(group);
        }
        Ok(decoded)
    }
}

impl LocalityGroup {
    fn decode(group: &eds::LocalityLbEndpoints, named: bool) -> Decoded<Self> {
        if group.lb_config.is_some() {
            return Err(DecodeError::unsupported("load_balancer_endpoints and leds_cluster_locality_config"));
        }
        if group.priority > MAX_PRIORITY {
            return Err(DecodeError::new("priority", format!("must be at most {MAX_PRIORITY}")));
        }
        let locality = group.locality.clone().unwrap_or_default();
        let locality = Arc::new(Locality { region: locality.region, zone: locality.zone, subzone: locality.sub_zone });
        let decode = |(index, endpoint)| {
            Endpoint::decode(endpoint, &locality, group.priority, named)
                .map(Arc::new)
                .map_err(|e| e.inside(format!("lb_endpoints[{index}]")))
        };
        let endpoints = group.lb_endpoints.iter().enumerate().map(decode).collect::<Decoded<Vec<_>>>()?;
        Ok(Self {
            locality,
            priority: group.priority,
            weight: group.load_balancing_weight.as_ref().map(|weight| weight.value),
            endpoints,
        })
    }
}

impl Endpoint {
    fn decode(proto: &eds::LbEndpoint, locality: &Arc<Locality>, priority: u32, named: bool) -> Decoded<Self> {
        let Some(eds::lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &proto.host_identifier else {
            return Err(DecodeError::new("endpoint", "is required"));
        };
        let address = endpoint.address.as_ref().and_then(|address| address.address.as_ref());
        let address = match address {
            Some(address::Address::SocketAddress(socket))
                if named && socket.address.parse::<std::net::IpAddr>().is_err() =>
            {
                let field = "endpoint.address.socket_address";
                let (host, port) = wire::named_address(socket, field)?;
                EndpointAddress::Named { host, port }
            }
            Some(address::Address::SocketAddress(socket)) => {
                EndpointAddress::Socket(wire::socket_address(socket, "endpoint.address.socket_address")?)
            }
            Some(address::Address::EnvoyInternalAddress(hop)) => match &hop.address_name_specifier {
                Some(envoy_internal_address::AddressNameSpecifier::ServerListenerName(name)) => {
                    EndpointAddress::Gateway { hop: name.as_str().into(), endpoint_id: hop.endpoint_id.as_str().into() }
                }
                None => return Err(DecodeError::new("endpoint.address.server_listener_name", "is required")),
            },
            _ => {
                return Err(DecodeError::new("endpoint.address", "must be a socket_address or envoy_internal_address"));
            }
        };
        let weight = proto.load_balancing_weight.as_ref().map_or(1, |weight| weight.value);
        let health = HealthStatus::try_from(proto.health_status).unwrap_or(HealthStatus::Unhealthy);
        Ok(Self {
            key: EndpointKey(address.to_string().into()),
            address,
            hostname: endpoint.hostname.as_str().into(),
            health: match health {
                HealthStatus::Unknown | HealthStatus::Healthy => EndpointHealth::Healthy,
                HealthStatus::Degraded => EndpointHealth::Degraded,
                HealthStatus::Draining => EndpointHealth::Draining,
                HealthStatus::Unhealthy | HealthStatus::Timeout => EndpointHealth::Unhealthy,
            },
            weight: weight.max(1),
            locality: locality.clone(),
            priority,
            workload: wire::filter_metadata(&proto.metadata, "istio")
                .and_then(|fields| wire::text(fields, "workload"))
                .map(WorkloadLabel::parse),
            fairlead: wire::filter_metadata(&proto.metadata, "fairlead").map(FairleadEndpoint::read),
            transport_labels: wire::filter_metadata(&proto.metadata, "envoy.transport_socket_match")
                .map(text_fields)
                .unwrap_or_default(),
        })
    }
}

impl WorkloadLabel {
    /// Reads `name;namespace;canonical;revision;cluster`, missing parts empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(';');
        let mut next = || parts.next().unwrap_or_default().into();
        Self { name: next(), namespace: next(), canonical_name: next(), canonical_revision: next(), cluster: next() }
    }
}

impl FairleadEndpoint {
    fn read(fields: &Struct) -> Self {
        let read = |key: &str| -> Arc<str> { wire::text(fields, key).unwrap_or_default().into() };
        Self {
            identity: read("identity"),
            id: read("id"),
            cluster: read("cluster"),
            namespace: read("namespace"),
            workload: read("workload"),
            network: read("network"),
            address: wire::text(fields, "address").and_then(|text| text.parse().ok()),
        }
    }
}

fn text_fields(fields: &Struct) -> Vec<(Box<str>, Box<str>)> {
    let read = |(key, value): (&String, &fairlead_proto::envoy::protobuf::Value)| match &value.kind {
        Some(Kind::StringValue(text)) => Some((key.as_str().into(), text.as_str().into())),
        _ => None,
    };
    fields.fields.iter().filter_map(read).collect()
}
