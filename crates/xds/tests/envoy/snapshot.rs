//! The smallest mesh that uses every type: one listener on a Unix socket, one route, one cluster with one endpoint.

use fairlead_proto::ResourceType;
use fairlead_proto::any::{Any, pack, pack_bytes};
use fairlead_proto::envoy::cluster::{Cluster, cluster};
use fairlead_proto::envoy::core::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Pipe, SocketAddress, address, config_source,
    socket_address,
};
use fairlead_proto::envoy::endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};
use fairlead_proto::envoy::http::router::Router;
use fairlead_proto::envoy::listener::{Filter, FilterChain, Listener, filter};
use fairlead_proto::envoy::network::http_connection_manager::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager, http_filter,
};
use fairlead_proto::envoy::protobuf::Duration;
use fairlead_proto::envoy::route::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action, route_match,
};
use fairlead_xds::{Resource, Snapshot};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub const LISTENER: &str = ResourceType::Listener.url();

pub struct Mesh {
    generation: u64,
    socket: PathBuf,
    upstream: SocketAddr,
    colour: &'static str,
    timeout: i64,
    bad_listener: bool,
}

/// Everything served by the Envoy cluster `colour`.
pub fn mesh(generation: u64, socket: &Path, upstream: SocketAddr, colour: &'static str) -> Mesh {
    Mesh { generation, socket: socket.to_owned(), upstream, colour, timeout: 5, bad_listener: false }
}

impl Mesh {
    pub fn connect_timeout(mut self, seconds: i64) -> Self {
        self.timeout = seconds;
        self
    }

    pub fn bad_listener(mut self) -> Self {
        self.bad_listener = true;
        self
    }

    pub fn snapshot(&self) -> Snapshot {
        let colour = self.colour;
        Snapshot::new(self.generation)
            .with(ResourceType::Cluster.url(), [resource(colour, self.timeout, pack_bytes(&self.cluster()))])
            .with(ResourceType::ClusterLoadAssignment.url(), [resource(colour, "1", pack_bytes(&self.endpoints()))])
            .with(LISTENER, [resource("all", self.bad_listener, pack_bytes(&self.listener()))])
            .with(ResourceType::RouteConfiguration.url(), [resource("routes", colour, pack_bytes(&self.routes()))])
    }

    fn cluster(&self) -> Cluster {
        Cluster {
            name: self.colour.to_owned(),
            cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds as i32)),
            eds_cluster_config: Some(cluster::EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
            connect_timeout: Some(Duration { seconds: self.timeout, nanos: 0 }),
            ..Default::default()
        }
    }

    fn endpoints(&self) -> ClusterLoadAssignment {
        let socket = SocketAddress {
            address: self.upstream.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(self.upstream.port().into())),
            ..Default::default()
        };
        let address = Address { address: Some(address::Address::SocketAddress(socket)) };
        let endpoint = Endpoint { address: Some(address), ..Default::default() };
        let endpoint =
            LbEndpoint { host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)), ..Default::default() };
        ClusterLoadAssignment {
            cluster_name: self.colour.to_owned(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
            ..Default::default()
        }
    }

    fn listener(&self) -> Listener {
        let rds = Rds { config_source: Some(ads()), route_config_name: "routes".to_owned() };
        let manager = HttpConnectionManager {
            stat_prefix: "all".to_owned(),
            route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(rds)),
            http_filters: vec![HttpFilter {
                name: "envoy.filters.http.router".to_owned(),
                config_type: Some(http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
                ..Default::default()
            }],
            ..Default::default()
        };
        let config = match self.bad_listener {
            false => pack(&manager),
            true => Any { type_url: "type.googleapis.com/no.such.filter".to_owned(), value: Vec::new() },
        };
        let filter = Filter { name: "all".to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) };
        let pipe = Pipe { path: self.socket.to_string_lossy().into_owned(), ..Default::default() };
        Listener {
            name: "all".to_owned(),
            address: Some(Address { address: Some(address::Address::Pipe(pipe)) }),
            filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
            ..Default::default()
        }
    }

    fn routes(&self) -> RouteConfiguration {
        let action = RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(self.colour.to_owned())),
            ..Default::default()
        };
        let matches = RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        };
        let route = Route { r#match: Some(matches), action: Some(route::Action::Route(action)), ..Default::default() };
        let host = VirtualHost {
            name: "all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..Default::default()
        };
        RouteConfiguration { name: "routes".to_owned(), virtual_hosts: vec![host], ..Default::default() }
    }
}

fn resource(name: &str, version: impl ToString, body: impl Into<bytes::Bytes>) -> Resource {
    Resource::new(name, version.to_string(), body)
}

fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3 as i32,
        ..Default::default()
    }
}
