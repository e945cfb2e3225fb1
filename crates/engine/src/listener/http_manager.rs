//! The HTTP connection manager and its filters.
//!
//! Invariant: an HTTP filter this proxy does not know refuses the listener unless it is marked optional, and the list ends
//! with the router.

use super::filter::AccessLog;
use crate::error::{DecodeError, Decoded};
use crate::rbac::RbacFilter;
use crate::route::RouteConfig;
use crate::wire;
use fairlead_proto::envoy::network::http_connection_manager as proto;
use fairlead_proto::envoy::network::http_connection_manager::http_connection_manager as inner;
use std::sync::Arc;
use std::time::Duration;

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Clone, Debug)]
pub struct HttpManager {
    pub stat_prefix: Arc<str>,
    pub codec: Codec,
    pub routes: Routes,
    pub filters: Vec<HttpFilter>,
    /// The RBAC filters among `filters`, in order: what [`crate::decide::authorize`] takes.
    pub authorization: Vec<Arc<RbacFilter>>,
    pub access_log: Vec<AccessLog>,
    /// The socket's other end is the client; `x-forwarded-for` is appended to. Else the header is believed.
    pub use_remote_address: bool,
    pub xff_num_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub path: PathRules,
    pub forward_client_cert: ForwardClientCert,
    pub client_cert_header: ClientCertHeader,
    /// Upgrades that are let through, lower case (`websocket`).
    pub upgrades: Vec<Arc<str>>,
    /// A stream without a byte for this long ends; Envoy's default is 5 min, zero disables (`None`).
    pub stream_idle_timeout: Option<Duration>,
    /// Until the whole request has come; `None` is for ever.
    pub request_timeout: Option<Duration>,
    /// Until the head has come; `None` is for ever.
    pub request_headers_timeout: Option<Duration>,
    /// A connection without a stream for this long is closed; Envoy's default is 1 h.
    pub idle_timeout: Option<Duration>,
    /// How long a draining connection stays; Envoy's default is 5 s.
    pub drain_timeout: Duration,
    /// Envoy's default is 60.
    pub max_request_headers_kb: u32,
    /// Value of the `server` header.
    pub server_name: Arc<str>,
    pub server_header: ServerHeader,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    /// Cuts the port off the authority before routing when it equals the listener's.
    pub strip_matching_host_port: bool,
    /// Cuts any port off the authority before routing.
    pub strip_any_host_port: bool,
    pub via: Arc<str>,
    /// HTTP/1.0 requests are answered instead of refused with 426.
    pub accept_http_10: bool,
}

/// Which HTTP versions the downstream may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    Auto,
    Http1,
    Http2,
}

/// Where the routes are.
#[derive(Clone, Debug)]
pub enum Routes {
    /// The `RouteConfiguration` of this name.
    Rds(Arc<str>),
    Inline(Arc<RouteConfig>),
}

/// An HTTP filter, decoded.
#[derive(Clone, Debug)]
pub enum HttpFilter {
    Rbac(Arc<RbacFilter>),
    /// Delays and failures that routes ask for; without them it does nothing.
    Fault,
    Router,
}

/// How `:path` is rewritten before anything looks at it; see [`crate::normalize`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// RFC 3986: dot segments removed, needless percent-encoding removed.
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

/// What happens to `%2F`, `%2f`, `%5C`, `%5c` in paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    /// 400.
    Reject,
    /// 307 to the unescaped path (gRPC: refused).
    UnescapeAndRedirect,
    UnescapeAndForward,
}

/// What happens to `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    #[default]
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// Which parts of the client certificate go into `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertHeader {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHeader {
    #[default]
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

impl HttpManager {
    pub(crate) fn decode(hcm: &proto::HttpConnectionManager) -> Decoded<Self> {
        let routes = match &hcm.route_specifier {
            Some(inner_route::Rds(rds)) if rds.route_config_name.is_empty() => {
                return Err(DecodeError::new("rds.route_config_name", "is required"));
            }
            Some(inner_route::Rds(rds)) => Routes::Rds(rds.route_config_name.as_str().into()),
            Some(inner_route::RouteConfig(config)) => {
                Routes::Inline(Arc::new(RouteConfig::decode(config).map_err(|e| e.inside("route_config"))?))
            }
            Some(_) => return Err(DecodeError::unsupported("scoped_routes")),
            None => return Err(DecodeError::new("rds", "or route_config is required")),
        };
        let filters = decode_filters(&hcm.http_filters)?;
        let authorization = filters
            .iter()
            .filter_map(|filter| match filter {
                HttpFilter::Rbac(filter) => Some(filter.clone()),
                HttpFilter::Fault | HttpFilter::Router => None,
            })
            .collect();
        let codec = match hcm.codec_type() {
            inner::CodecType::Auto => Codec::Auto,
            inner::CodecType::Http1 => Codec::Http1,
            inner::CodecType::Http2 => Codec::Http2,
            inner::CodecType::Http3 => return Err(DecodeError::unsupported("codec_type HTTP3")),
        };
        for (present, field) in [
            (!hcm.original_ip_detection_extensions.is_empty(), "original_ip_detection_extensions"),
            (!hcm.early_header_mutation_extensions.is_empty(), "early_header_mutation_extensions"),
            (hcm.forward_client_cert_matcher.is_some(), "forward_client_cert_matcher"),
            (hcm.local_reply_config.is_some(), "local_reply_config"),
            (hcm.strip_trailing_host_dot, "strip_trailing_host_dot"),
        ] {
            if present {
                return Err(DecodeError::unsupported(field));
            }
        }
        let common = hcm.common_http_protocol_options.unwrap_or_default();
        let or_default = |value, field, default| match value {
            &None => Ok(Some(default)),
            some => wire::nonzero_duration(some, field),
        };
        let details = hcm.set_current_client_cert_details.unwrap_or_default();
        Ok(Self {
            stat_prefix: hcm.stat_prefix.as_str().into(),
            codec,
            routes,
            filters,
            authorization,
            access_log: AccessLog::decode_all(&hcm.access_log)?,
            use_remote_address: hcm.use_remote_address.is_some_and(|v| v.value),
            xff_num_trusted_hops: hcm.xff_num_trusted_hops,
            skip_xff_append: hcm.skip_xff_append,
            path: PathRules {
                normalize: hcm.normalize_path.is_some_and(|v| v.value),
                merge_slashes: hcm.merge_slashes,
                escaped_slashes: match hcm.path_with_escaped_slashes_action() {
                    inner::PathWithEscapedSlashesAction::ImplementationSpecificDefault
                    | inner::PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
                    inner::PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
                    inner::PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
                    inner::PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
                },
            },
            forward_client_cert: match hcm.forward_client_cert_details() {
                inner::ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
                inner::ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
                inner::ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
                inner::ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
                inner::ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
            },
            client_cert_header: ClientCertHeader {
                subject: details.subject.is_some_and(|v| v.value),
                cert: details.cert,
                chain: details.chain,
                dns: details.dns,
                uri: details.uri,
            },
            upgrades: hcm
                .upgrade_configs
                .iter()
                .filter(|upgrade| upgrade.enabled.as_ref().is_none_or(|enabled| enabled.value))
                .map(|upgrade| upgrade.upgrade_type.to_ascii_lowercase().into())
                .collect(),
            stream_idle_timeout: or_default(&hcm.stream_idle_timeout, "stream_idle_timeout", Duration::from_secs(300))?,
            request_timeout: wire::nonzero_duration(&hcm.request_timeout, "request_timeout")?,
            request_headers_timeout: wire::nonzero_duration(&hcm.request_headers_timeout, "request_headers_timeout")?,
            idle_timeout: or_default(
                &common.idle_timeout,
                "common_http_protocol_options.idle_timeout",
                Duration::from_secs(3600),
            )?,
            drain_timeout: wire::optional_duration(&hcm.drain_timeout, "drain_timeout")?
                .unwrap_or(Duration::from_secs(5)),
            max_request_headers_kb: hcm.max_request_headers_kb.as_ref().map_or(60, |v| v.value),
            server_name: if hcm.server_name.is_empty() { "envoy".into() } else { hcm.server_name.as_str().into() },
            server_header: match hcm.server_header_transformation() {
                inner::ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
                inner::ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
                inner::ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
            },
            generate_request_id: hcm.generate_request_id.as_ref().is_none_or(|v| v.value),
            preserve_external_request_id: hcm.preserve_external_request_id,
            strip_matching_host_port: hcm.strip_matching_host_port,
            strip_any_host_port: matches!(
                hcm.strip_port_mode,
                Some(proto::http_connection_manager::StripPortMode::StripAnyHostPort(true))
            ),
            via: hcm.via.as_str().into(),
            accept_http_10: hcm.http_protocol_options.as_ref().is_some_and(|options| options.accept_http_10),
        })
    }

    /// Whether an upgrade to `protocol` is let through.
    pub fn allows_upgrade(&self, protocol: &str) -> bool {
        self.upgrades.iter().any(|allowed| allowed.eq_ignore_ascii_case(protocol))
    }
}

use proto::http_connection_manager::RouteSpecifier as inner_route;

fn decode_filters(filters: &[proto::HttpFilter]) -> Decoded<Vec<HttpFilter>> {
    let mut decoded = Vec::with_capacity(filters.len());
    for (index, filter) in filters.iter().enumerate() {
        if filter.disabled {
            continue;
        }
        let at = |e: DecodeError| e.inside(format!("http_filters[{index}]"));
        match decode_filter(filter) {
            Ok(filter) => decoded.push(filter),
            // Only an unknown filter may be left out; one that is known and broken is an error all the same.
            Err(Unknown::Filter(_)) if filter.is_optional => {}
            Err(Unknown::Filter(e) | Unknown::Field(e)) => return Err(at(e)),
        }
    }
    match decoded.last() {
        Some(HttpFilter::Router) => Ok(decoded),
        _ => Err(DecodeError::new("http_filters", "the last one must be envoy.filters.http.router")),
    }
}

enum Unknown {
    Filter(DecodeError),
    Field(DecodeError),
}

fn decode_filter(filter: &proto::HttpFilter) -> Result<HttpFilter, Unknown> {
    let Some(proto::http_filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(Unknown::Filter(DecodeError::new("typed_config", "is required")));
    };
    match wire::type_name(any) {
        "envoy.extensions.filters.http.router.v3.Router" => Ok(HttpFilter::Router),
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            let fault: fairlead_proto::envoy::http::fault::HttpFault =
                wire::unpack(any, "typed_config").map_err(Unknown::Field)?;
            if fault == Default::default() {
                Ok(HttpFilter::Fault)
            } else {
                Err(Unknown::Field(DecodeError::unsupported("typed_config: faults of a whole listener")))
            }
        }
        "envoy.extensions.filters.http.rbac.v3.RBAC" => {
            let rbac = wire::unpack(any, "typed_config").map_err(Unknown::Field)?;
            let filter = RbacFilter::decode_http(&rbac).map_err(|e| Unknown::Field(e.inside("typed_config")))?;
            Ok(HttpFilter::Rbac(Arc::new(filter)))
        }
        other => {
            let why = format!("unknown HTTP filter {other}; remove it, or mark it is_optional");
            Err(Unknown::Filter(DecodeError::new("typed_config", why)))
        }
    }
}
