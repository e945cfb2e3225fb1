//! Network filters this proxy has, and access logs.

use super::http_manager::HttpManager;
use crate::error::{DecodeError, Decoded};
use crate::rbac::RbacFilter;
use crate::route::istio_name;
use crate::wire;
use fairlead_proto::envoy::accesslog;
use fairlead_proto::envoy::network::tcp_proxy as proto;
use std::sync::Arc;
use std::time::Duration;

/// A network filter, decoded.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    Rbac(Arc<RbacFilter>),
    Http(Arc<HttpManager>),
    TcpProxy(Arc<TcpProxy>),
}

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Clone, Debug)]
pub struct TcpProxy {
    pub stat_prefix: Arc<str>,
    /// At least one; a weight of 0 is never chosen.
    pub backends: Vec<TcpBackend>,
    pub total_weight: u64,
    /// A backend that is wholly down gives its share to its siblings of the same host (`fairlead.sibling_failover` of the
    /// filter chain).
    pub sibling_failover: bool,
    /// Envoy's default is 1 h; zero disables (`None`).
    pub idle_timeout: Option<Duration>,
    /// Envoy's default is 1.
    pub max_connect_attempts: u32,
    pub max_connection_duration: Option<Duration>,
    pub access_log: Vec<AccessLog>,
}

/// An Envoy cluster a connection may go to.
#[derive(Clone, Debug)]
pub struct TcpBackend {
    pub cluster: Arc<str>,
    /// Host in Istio's naming `outbound|PORT|SUBSET|HOST`, empty for others.
    pub host: Arc<str>,
    pub weight: u32,
}

impl TcpBackend {
    fn new(cluster: &str, weight: u32) -> Self {
        let host = istio_name(cluster).map_or("", |(_, _, _, host)| host);
        Self { cluster: cluster.into(), host: host.into(), weight }
    }
}

/// A log file and its text format, Envoy's operators; `None` is Envoy's default format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub path: Arc<str>,
    pub format: Option<Arc<str>>,
}

impl TcpProxy {
    pub(crate) fn decode(proto: &proto::TcpProxy) -> Decoded<Self> {
        if proto.tunneling_config.is_some() {
            return Err(DecodeError::unsupported("tunneling_config"));
        }
        if !proto.hash_policy.is_empty() {
            return Err(DecodeError::unsupported("hash_policy"));
        }
        if proto.metadata_match.is_some() {
            return Err(DecodeError::unsupported("metadata_match"));
        }
        let backends: Vec<TcpBackend> = match &proto.cluster_specifier {
            Some(proto::tcp_proxy::ClusterSpecifier::Cluster(name)) => {
                vec![TcpBackend::new(name, 1)]
            }
            Some(proto::tcp_proxy::ClusterSpecifier::WeightedClusters(weighted)) => {
                weighted.clusters.iter().map(|backend| TcpBackend::new(&backend.name, backend.weight)).collect()
            }
            None => return Err(DecodeError::new("cluster", "or weighted_clusters is required")),
        };
        let total_weight: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        if total_weight == 0 {
            return Err(DecodeError::new("weighted_clusters", "needs a cluster with a weight above 0"));
        }
        let idle_timeout = match &proto.idle_timeout {
            None => Some(Duration::from_secs(3600)),
            some => wire::nonzero_duration(some, "idle_timeout")?,
        };
        Ok(Self {
            stat_prefix: proto.stat_prefix.as_str().into(),
            backends,
            total_weight,
            sibling_failover: false,
            idle_timeout,
            max_connect_attempts: proto.max_connect_attempts.as_ref().map_or(1, |n| n.value.max(1)),
            max_connection_duration: wire::nonzero_duration(
                &proto.max_downstream_connection_duration,
                "max_downstream_connection_duration",
            )?,
            access_log: AccessLog::decode_all(&proto.access_log)?,
        })
    }
}

impl AccessLog {
    pub(crate) fn decode_all(logs: &[accesslog::AccessLog]) -> Decoded<Vec<Self>> {
        let decode =
            |(index, log)| Self::decode(log).map_err(|e: DecodeError| e.inside(format!("access_log[{index}]")));
        logs.iter().enumerate().map(decode).collect()
    }

    fn decode(log: &accesslog::AccessLog) -> Decoded<Self> {
        use fairlead_proto::envoy::access_logger::{file, stream};
        use fairlead_proto::envoy::core::substitution_format_string::Format;
        if log.filter.is_some() {
            return Err(DecodeError::unsupported("filter"));
        }
        let Some(accesslog::access_log::ConfigType::TypedConfig(any)) = &log.config_type else {
            return Err(DecodeError::new("typed_config", "is required"));
        };
        let text = |format: Option<Format>| match format {
            None => Ok(None),
            Some(Format::TextFormatSource(source)) => match source.specifier {
                Some(fairlead_proto::envoy::core::data_source::Specifier::InlineString(text)) => {
                    Ok(Some(Arc::from(text)))
                }
                _ => Err(DecodeError::unsupported("typed_config.text_format_source")),
            },
            Some(Format::TextFormat(text)) => Ok(Some(Arc::from(text))),
            Some(Format::JsonFormat(_)) => Err(DecodeError::unsupported("typed_config.json_format")),
        };
        match wire::type_name(any) {
            "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
                let log: file::FileAccessLog = wire::unpack(any, "typed_config")?;
                use file::file_access_log::AccessLogFormat as F;
                let format = match log.access_log_format {
                    None => None,
                    Some(F::Format(text)) => Some(Arc::from(text)),
                    Some(F::LogFormat(format)) => text(format.format)?,
                    Some(_) => return Err(DecodeError::unsupported("typed_config.json_format")),
                };
                Ok(Self { path: log.path.into(), format })
            }
            "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
                let log: stream::StdoutAccessLog = wire::unpack(any, "typed_config")?;
                use stream::stdout_access_log::AccessLogFormat as F;
                let format = match log.access_log_format {
                    None => None,
                    Some(F::LogFormat(format)) => text(format.format)?,
                };
                Ok(Self { path: "/dev/stdout".into(), format })
            }
            other => Err(DecodeError::new("typed_config", format!("unknown access logger {other}; use a file logger"))),
        }
    }
}
