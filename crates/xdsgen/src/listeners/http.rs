//! HTTP connection managers.
//!
//! Sources: Istio's defaults per listener class (X-Forwarded-Client-Cert, websocket upgrade, no stream idle timeout), and
//! path normalisation, on which policies rely.

use super::input::{HttpClass, HttpRoutes, HttpServing, ListenerInput};
use crate::rbac::{self, Rules};
use crate::routes::{FAULT_FILTER, grpc_timeout, no_fault};
use crate::wire::{ads, bool_value, duration};
use fairlead_model::security::Action;
use fairlead_model::settings::PathNormalization;
use fairlead_proto::any::pack;
use fairlead_proto::envoy::access_logger::file;
use fairlead_proto::envoy::http::{rbac as http_rbac, router};
use fairlead_proto::envoy::network::http_connection_manager as hcm;
use fairlead_proto::envoy::{accesslog, core, route};
use std::time::Duration;

/// Istio's default text format.
const FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% \
%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

pub fn connection_manager(input: &ListenerInput, guarded: bool, serving: &HttpServing) -> hcm::HttpConnectionManager {
    use hcm::http_connection_manager::{
        ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails,
        UpgradeConfig,
    };
    let shown = SetCurrentClientCertDetails { subject: bool_value(true), dns: true, uri: true, ..Default::default() };
    let (forward, details) = match serving.class {
        HttpClass::Outbound => (ForwardClientCertDetails::Sanitize, None),
        HttpClass::Inbound => (ForwardClientCertDetails::AppendForward, Some(shown)),
        HttpClass::Gateway => (ForwardClientCertDetails::SanitizeSet, Some(shown)),
    };
    let normalization = input.http.normalization;
    let merge = matches!(normalization, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes);
    let slashes = match normalization {
        PathNormalization::DecodeAndMergeSlashes => PathWithEscapedSlashesAction::UnescapeAndForward,
        _ => PathWithEscapedSlashesAction::KeepUnchanged,
    };
    let edge = serving.class == HttpClass::Gateway;
    let mut http_filters = Vec::new();
    if guarded {
        http_filters.extend(policies(input));
    }
    if input.http.faults && serving.class != HttpClass::Inbound {
        http_filters.push(filter(FAULT_FILTER, no_fault()));
    }
    http_filters.push(filter("envoy.filters.http.router", pack(&router::Router::default())));
    hcm::HttpConnectionManager {
        stat_prefix: serving.stat_prefix.clone(),
        http_filters,
        access_log: access_log(),
        use_remote_address: bool_value(edge),
        xff_num_trusted_hops: if edge { input.http.trusted_proxies } else { 0 },
        normalize_path: bool_value(normalization != PathNormalization::None),
        merge_slashes: merge,
        path_with_escaped_slashes_action: slashes as i32,
        forward_client_cert_details: forward as i32,
        set_current_client_cert_details: details,
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() }],
        stream_idle_timeout: duration(Duration::ZERO),
        server_name: "fairlead".to_owned(),
        route_specifier: Some(match &serving.routes {
            HttpRoutes::Named(name) => {
                RouteSpecifier::Rds(hcm::Rds { config_source: ads(), route_config_name: name.to_string() })
            }
            HttpRoutes::Program(cluster) => RouteSpecifier::RouteConfig(program(&cluster.to_string())),
        }),
        ..Default::default()
    }
}

/// One line per request or connection to standard output, in Istio's text format.
pub fn access_log() -> Vec<accesslog::AccessLog> {
    let config = file::FileAccessLog {
        path: "/dev/stdout".to_owned(),
        access_log_format: Some(file::file_access_log::AccessLogFormat::LogFormat(core::SubstitutionFormatString {
            format: Some(core::substitution_format_string::Format::TextFormatSource(core::DataSource {
                specifier: Some(core::data_source::Specifier::InlineString(FORMAT.to_owned())),
                ..Default::default()
            })),
            ..Default::default()
        })),
    };
    vec![accesslog::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(pack(&config))),
        ..Default::default()
    }]
}

/// Everything to one Envoy cluster, without a time limit.
fn program(cluster: &str) -> route::RouteConfiguration {
    let action = route::RouteAction {
        cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: duration(Duration::ZERO),
        max_stream_duration: grpc_timeout(duration(Duration::ZERO)),
        ..Default::default()
    };
    let everything = route::Route {
        name: "default".to_owned(),
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    route::RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![route::VirtualHost {
            name: cluster.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![everything],
            ..Default::default()
        }],
        validate_clusters: bool_value(false),
        ..Default::default()
    }
}

fn policies(input: &ListenerInput) -> Vec<hcm::HttpFilter> {
    let filter_of = |action: Action, prefix: &str| {
        let Rules { enforced, shadow } = rbac::rules(&input.policies, action, true)?;
        let config = http_rbac::Rbac {
            rules: enforced,
            shadow_rules_stat_prefix: if shadow.is_some() { prefix.to_owned() } else { String::new() },
            shadow_rules: shadow,
            ..Default::default()
        };
        Some(filter("envoy.filters.http.rbac", pack(&config)))
    };
    let filters =
        [filter_of(Action::Deny, rbac::SHADOW_PREFIX_DENY), filter_of(Action::Allow, rbac::SHADOW_PREFIX_ALLOW)];
    filters.into_iter().flatten().collect()
}

fn filter(name: &str, config: fairlead_proto::any::Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}
