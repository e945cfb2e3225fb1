//! MeshConfig: the key `mesh` of ConfigMap `istio-system/istio`, and `Mesh.spec.meshConfig`.
//!
//! Never applies defaults: an absent field means "as the level above, else the profile's default". Known fields that are
//! not implemented are in `crate::implemented`.

use std::collections::BTreeMap;

use super::{HttpRetry, LocalityLbSetting, OutboundMode, TcpKeepalive};
use crate::field::from_node::read_fields;
use crate::field::{FromNode, Reading, Shape, Span};
use crate::implemented;
use crate::yaml::{Node, Value};

message! {
    /// Istio's mesh-wide settings that are implemented.
    pub struct MeshConfig {
        /// Identity prefix.
        trust_domain: Option<String>,
        /// Accepted for it.
        trust_domain_aliases: Vec<String>,
        /// Namespace of mesh-wide policy; default `istio-system`.
        root_namespace: Option<String>,
        /// Mesh-wide locality setting.
        locality_lb_setting: Option<LocalityLbSetting>,
        /// Unknown destinations.
        outbound_traffic_policy: Option<MeshOutboundPolicy>,
        /// Default 10 s.
        connect_timeout: Option<Span>,
        /// Mesh-wide keep-alive.
        tcp_keepalive: Option<TcpKeepalive>,
        /// Mesh-wide retries.
        default_http_retry_policy: Option<HttpRetry>,
        /// Default `exportTo`.
        default_service_export_to: Vec<String>,
        /// Default `exportTo`.
        default_virtual_service_export_to: Vec<String>,
        /// Default `exportTo`.
        default_destination_rule_export_to: Vec<String>,
        /// Default true.
        enable_auto_mtls: Option<bool>,
        /// Cluster-local services.
        service_settings: Vec<ServiceSettings>,
        /// Namespaces that take part.
        discovery_selectors: Vec<DiscoverySelector>,
        /// Path of the access log; empty is off.
        access_log_file: Option<String>,
        /// Its format.
        access_log_format: Option<String>,
        /// TEXT or JSON.
        access_log_encoding: Option<AccessLogEncoding>,
        /// Default 0 s: wait for ever.
        protocol_detection_timeout: Option<Span>,
        /// How paths are normalised before authorisation.
        path_normalization: Option<PathNormalization>,
        /// Whether HTTP/1.1 travels as HTTP/2.
        h2_upgrade_policy: Option<MeshH2UpgradePolicy>,
        /// Defaults of proxies.
        default_config: Option<DefaultProxyConfig>,
        /// Whether the callee's program metrics are merged.
        enable_prometheus_merge: Option<bool>,
    } with {
        /// Which top-level fields were written, for overriding field by field.
        written: Vec<String>,
    }
}

message! {
    /// What happens to unknown destinations, mesh-wide.
    pub struct MeshOutboundPolicy {
        /// Mode; REGISTRY_ONLY if the block is empty.
        mode: OutboundMode,
    }
}

message! {
    /// Settings of services.
    pub struct ServiceSettings {
        /// Settings.
        settings: Option<ServiceSetting>,
        /// Names, a leading `*` allowed.
        hosts: Vec<String>,
    }
}

message! {
    /// A setting of services.
    pub struct ServiceSetting {
        /// Whether they stay in their cluster.
        cluster_local: bool,
    }
}

message! {
    /// A Kubernetes label selector.
    pub struct DiscoverySelector {
        /// All must match.
        match_labels: BTreeMap<String, String>,
        /// All must match.
        match_expressions: Vec<MatchExpression>,
    }
}

message! {
    /// One requirement of a label selector.
    pub struct MatchExpression {
        /// Label.
        key: String,
        /// In, NotIn, Exists, DoesNotExist.
        operator: String,
        /// Of In and NotIn.
        values: Vec<String>,
    }
}

words! {
    /// Form of the access log.
    pub enum AccessLogEncoding {
        /// Text.
        Text = "TEXT",
        /// JSON.
        Json = "JSON",
    }
}

message! {
    /// How paths are normalised.
    pub struct PathNormalization {
        /// How.
        normalization: NormalizationType,
    }
}

words! {
    /// How paths are normalised.
    pub enum NormalizationType {
        /// BASE.
        Default = "DEFAULT",
        /// Not at all.
        None = "NONE",
        /// RFC 3986 dot segments.
        Base = "BASE",
        /// And repeated slashes.
        MergeSlashes = "MERGE_SLASHES",
        /// And `%2F` and `%5C` first.
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES",
    }
}

words! {
    /// Whether HTTP/1.1 travels as HTTP/2, mesh-wide.
    pub enum MeshH2UpgradePolicy {
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE",
        /// Yes.
        Upgrade = "UPGRADE",
    }
}

/// `defaultConfig`: read for `proxyMetadata` and `drainDuration`; what else is in it configures Envoy's start and yields a
/// warning that it has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct DefaultProxyConfig {
    /// Time a stopping proxy takes; default 45 s.
    pub drain_duration: Option<Span>,
    /// Metadata of proxies.
    pub proxy_metadata: BTreeMap<String, String>,
    /// Where gateways stand.
    pub gateway_topology: Option<GatewayTopology>,
}

message! {
    /// What stands in front of gateways.
    pub struct GatewayTopology {
        /// Trusted proxies in front: so many of the last `x-forwarded-for` entries are believed. Default 0.
        num_trusted_proxies: Option<u32>,
    }
}

impl FromNode for DefaultProxyConfig {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        let mut config = Self::default();
        read_fields(node, reading, &["drainDuration", "proxyMetadata", "gatewayTopology"], |key, value, reading| {
            match key {
                "drainDuration" => config.drain_duration = Some(Span::from_node(value, reading)),
                "gatewayTopology" => config.gateway_topology = Some(GatewayTopology::from_node(value, reading)),
                "proxyMetadata" => config.proxy_metadata = BTreeMap::from_node(value, reading),
                _ if implemented::PROXY_CONFIG_WITHOUT_EFFECT.contains(&key) => {
                    let path = reading.path();
                    reading.push(implemented::without_effect(path, &format!("defaultConfig field `{key}`")));
                }
                _ => return false,
            }
            true
        });
        config
    }

    fn shape() -> Shape {
        Shape::Message(
            "DefaultProxyConfig",
            &[
                ("drainDuration", Span::shape),
                ("proxyMetadata", BTreeMap::<String, String>::shape),
                ("gatewayTopology", GatewayTopology::shape),
            ],
        )
    }
}

impl MeshConfig {
    /// Reads a MeshConfig tree and remembers which fields were written.
    pub fn read(node: &Node, reading: &mut Reading) -> Self {
        let mut kept = node.clone();
        if let Value::Map(entries) = &mut kept.value {
            entries.retain(|(key, _)| {
                let implemented = !implemented::MESH_CONFIG_NOT_IMPLEMENTED.contains(&key.as_str());
                if !implemented {
                    let path = reading.path().key(key);
                    reading.push(implemented::not_implemented(path, &format!("MeshConfig field `{key}`")));
                }
                implemented
            });
        }
        let mut config = Self::from_node(&kept, reading);
        if let Value::Map(entries) = &kept.value {
            config.written = entries.iter().map(|(key, _)| key.clone()).collect();
        }
        config
    }

    /// This configuration with every field that `over` writes replaced by `over`'s (ConfigMap over `Mesh.spec.meshConfig`).
    #[must_use]
    pub fn overridden_by(&self, over: &MeshConfig) -> MeshConfig {
        let mut merged = self.clone();
        macro_rules! take {
            ($($field:ident),* $(,)?) => { $(
                if over.written.iter().any(|key| crate::field::from_node::is_wire_name(stringify!($field), key)) {
                    merged.$field = over.$field.clone();
                }
            )* };
        }
        take!(
            trust_domain,
            trust_domain_aliases,
            root_namespace,
            locality_lb_setting,
            outbound_traffic_policy,
            connect_timeout,
            tcp_keepalive,
            default_http_retry_policy,
            default_service_export_to,
            default_virtual_service_export_to,
            default_destination_rule_export_to,
            enable_auto_mtls,
            service_settings,
            discovery_selectors,
            access_log_file,
            access_log_format,
            access_log_encoding,
            protocol_detection_timeout,
            path_normalization,
            h2_upgrade_policy,
            default_config,
            enable_prometheus_merge,
        );
        for key in &over.written {
            if !merged.written.contains(key) {
                merged.written.push(key.clone());
            }
        }
        merged
    }
}
