//! The blocks of a traffic policy: load balancing, connection pool, outlier detection, TLS, tunnel.
//!
//! Never applies defaults. Invariant: every value says whether it was written (`Option`), since blocks replace each other.

use std::collections::BTreeMap;

use super::{Percent, PortSelector};
use crate::field::{Double, Span};

message! {
    /// A policy, or one port's.
    pub struct TrafficPolicy {
        /// Load balancing.
        load_balancer: Option<LoadBalancerSettings>,
        /// Connection limits.
        connection_pool: Option<ConnectionPoolSettings>,
        /// Ejection of failing endpoints.
        outlier_detection: Option<OutlierDetection>,
        /// TLS towards the endpoints.
        tls: Option<ClientTlsSettings>,
        /// Replaces the four blocks above for one port.
        port_level_settings: Vec<PortTrafficPolicy>,
        /// Not implemented.
        tunnel: Option<TunnelSettings>,
        /// Not implemented.
        proxy_protocol: Option<ProxyProtocol>,
        /// Not implemented.
        retry_budget: Option<RetryBudget>,
    }
}

message! {
    /// The policy of one port; omitted blocks take the built-in defaults, not the rule's.
    pub struct PortTrafficPolicy {
        /// The port.
        port: Option<PortSelector>,
        /// Load balancing.
        load_balancer: Option<LoadBalancerSettings>,
        /// Connection limits.
        connection_pool: Option<ConnectionPoolSettings>,
        /// Ejection of failing endpoints.
        outlier_detection: Option<OutlierDetection>,
        /// TLS towards the endpoints.
        tls: Option<ClientTlsSettings>,
    }
}

message! {
    /// How endpoints are chosen.
    pub struct LoadBalancerSettings {
        /// A standard algorithm.
        simple: Option<SimpleLb>,
        /// Not implemented.
        consistent_hash: Option<ConsistentHashLb>,
        /// Replaces the mesh's locality setting.
        locality_lb_setting: Option<LocalityLbSetting>,
        /// Deprecated; not implemented.
        warmup_duration_secs: Option<Span>,
        /// Not implemented.
        warmup: Option<WarmupConfiguration>,
    }
}

words! {
    /// Standard algorithms.
    pub enum SimpleLb {
        /// LEAST_REQUEST.
        Unspecified = "UNSPECIFIED",
        /// Deprecated alias of LEAST_REQUEST.
        LeastConn = "LEAST_CONN",
        /// Random.
        Random = "RANDOM",
        /// Not implemented: the original destination.
        Passthrough = "PASSTHROUGH",
        /// In turn.
        RoundRobin = "ROUND_ROBIN",
        /// The less loaded of two.
        LeastRequest = "LEAST_REQUEST",
    }
}

message! {
    /// Hash-based choice.
    pub struct ConsistentHashLb {
        /// Key: a header.
        http_header_name: Option<String>,
        /// Key: a cookie.
        http_cookie: Option<HttpCookie>,
        /// Key: the caller's address.
        use_source_ip: Option<bool>,
        /// Key: a query parameter.
        http_query_parameter_name: Option<String>,
        /// Algorithm.
        ring_hash: Option<RingHash>,
        /// Algorithm.
        maglev: Option<Maglev>,
        /// Deprecated.
        minimum_ring_size: Option<u64>,
    }
}

message! {
    /// A cookie used as hash key.
    pub struct HttpCookie {
        /// Its name.
        name: String,
        /// Its path.
        path: String,
        /// Its lifetime; unset: not generated.
        ttl: Option<Span>,
        /// Further attributes.
        attributes: Vec<CookieAttribute>,
    }
}

message! {
    /// One attribute of a cookie.
    pub struct CookieAttribute {
        /// Name.
        name: String,
        /// Value.
        value: String,
    }
}

message! {
    /// Ring hash.
    pub struct RingHash {
        /// Least number of nodes.
        minimum_ring_size: Option<u64>,
    }
}

message! {
    /// Maglev.
    pub struct Maglev {
        /// A prime.
        table_size: Option<u64>,
    }
}

message! {
    /// Slow start of new endpoints.
    pub struct WarmupConfiguration {
        /// How long.
        duration: Option<Span>,
        /// Where it starts; default 10.
        minimum_percent: Option<Double>,
        /// Curve; default 1.
        aggression: Option<Double>,
    }
}

message! {
    /// Locality load balancing.
    pub struct LocalityLbSetting {
        /// Explicit weights by caller locality.
        distribute: Vec<Distribute>,
        /// Region to region.
        failover: Vec<Failover>,
        /// Ordered labels, `key` or `key=value`.
        failover_priority: Vec<String>,
        /// False switches locality load balancing off.
        enabled: Option<bool>,
    }
}

message! {
    /// Weights for callers in one locality.
    pub struct Distribute {
        /// `region/zone/subzone`, `*` allowed.
        from: String,
        /// Locality to weight, sum 100.
        to: BTreeMap<String, u32>,
    }
}

message! {
    /// Where traffic of a region goes when that region fails.
    pub struct Failover {
        /// Region of the caller.
        from: String,
        /// Region that takes over.
        to: String,
    }
}

message! {
    /// Connection limits, per proxy.
    pub struct ConnectionPoolSettings {
        /// All connections.
        tcp: Option<TcpSettings>,
        /// HTTP connections.
        http: Option<HttpSettings>,
    }
}

message! {
    /// Limits of all connections.
    pub struct TcpSettings {
        /// Most connections; 0 is unset.
        max_connections: i32,
        /// Connect timeout; unset is the mesh's.
        connect_timeout: Option<Span>,
        /// Keep-alive probes.
        tcp_keepalive: Option<TcpKeepalive>,
        /// Longest life of a connection.
        max_connection_duration: Option<Span>,
        /// Idle timeout; default 1 h, 0 disables.
        idle_timeout: Option<Span>,
    }
}

message! {
    /// TCP keep-alive probes.
    pub struct TcpKeepalive {
        /// Unanswered probes.
        probes: u32,
        /// Idle time before the first.
        time: Option<Span>,
        /// Time between them.
        interval: Option<Span>,
    }
}

message! {
    /// Limits of HTTP connections.
    pub struct HttpSettings {
        /// Requests waiting for a connection; 0 is unset.
        http1_max_pending_requests: i32,
        /// Requests in flight; 0 is unset.
        http2_max_requests: i32,
        /// Requests before a connection is closed; 0 is no limit.
        max_requests_per_connection: i32,
        /// Retries in flight; 0 is unset.
        max_retries: i32,
        /// Idle timeout; default 1 h.
        idle_timeout: Option<Span>,
        /// Whether HTTP/1.1 travels as HTTP/2.
        h2_upgrade_policy: H2UpgradePolicy,
        /// Use the caller's protocol.
        use_client_protocol: bool,
        /// Streams per HTTP/2 connection; 0 is unset.
        max_concurrent_streams: i32,
    }
}

words! {
    /// Whether HTTP/1.1 travels as HTTP/2.
    pub enum H2UpgradePolicy {
        /// The mesh's.
        Default = "DEFAULT",
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// Yes.
        Upgrade = "UPGRADE",
    }
}

message! {
    /// Ejection of failing endpoints.
    pub struct OutlierDetection {
        /// Removed from Istio; not implemented.
        consecutive_errors: i32,
        /// Whether local-origin failures are counted apart.
        split_external_local_origin_errors: bool,
        /// Local-origin failures in a row; default 5.
        consecutive_local_origin_failures: Option<u32>,
        /// 502, 503, 504 in a row; unset or 0: off.
        consecutive_gateway_errors: Option<u32>,
        /// 5xx in a row; default 5, 0: off.
        consecutive_5xx_errors: Option<u32>,
        /// Time between sweeps; default 10 s.
        interval: Option<Span>,
        /// Ejection time, times the number of ejections; default 30 s.
        base_ejection_time: Option<Span>,
        /// Most ejected; default 10 %, 0 is unset.
        max_ejection_percent: i32,
        /// Panic threshold; 0 is off.
        min_health_percent: i32,
    }
}

message! {
    /// TLS towards the endpoints.
    pub struct ClientTlsSettings {
        /// Mode.
        mode: ClientTlsMode,
        /// Client certificate file (MUTUAL).
        client_certificate: String,
        /// Its key file (MUTUAL).
        private_key: String,
        /// File of accepted roots; empty: the system's.
        ca_certificates: String,
        /// Secret with key, certificate and roots.
        credential_name: String,
        /// Names the server's certificate may have.
        subject_alt_names: Vec<String>,
        /// Server name sent; empty: the request's host for SIMPLE and MUTUAL.
        sni: String,
        /// Accept any server certificate.
        insecure_skip_verify: Option<bool>,
        /// File of revocations.
        ca_crl: String,
    } with {
        /// The block is refused: an error diagnostic says why. Traffic must not fall back to another mode: it fails.
        refused: bool,
    }
}

words! {
    /// TLS modes towards the endpoints.
    pub enum ClientTlsMode {
        /// Plaintext.
        Disable = "DISABLE",
        /// Server authentication only.
        Simple = "SIMPLE",
        /// Not implemented: client certificate from files or a Secret.
        Mutual = "MUTUAL",
        /// The mesh's identities.
        IstioMutual = "ISTIO_MUTUAL",
    }
}

message! {
    /// HTTP CONNECT towards the endpoints.
    pub struct TunnelSettings {
        /// CONNECT or POST.
        protocol: String,
        /// Target host.
        target_host: String,
        /// Target port.
        target_port: u32,
    }
}

message! {
    /// PROXY protocol towards the endpoints.
    pub struct ProxyProtocol {
        /// Version.
        version: ProxyProtocolVersion,
    }
}

words! {
    /// Versions of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1 = "V1",
        /// Binary.
        V2 = "V2",
    }
}

message! {
    /// Most retries in relation to requests.
    pub struct RetryBudget {
        /// Of active requests; default 20.
        percent: Option<Percent>,
        /// Default 3.
        min_retry_concurrency: u32,
        /// Default 0.
        budget_interval: Option<Span>,
    }
}
