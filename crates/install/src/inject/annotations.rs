//! Every annotation that Istio reads of a pod, and what it does here; docs/injection.md has the same table.
//!
//! Invariant: an annotation under Istio's prefixes for pods that is not in the table is named by a warning.

use super::codes;
use super::findings::Findings;
use super::options::Template;
use serde_json::Value;

/// What an annotation does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// As in Istio.
    Honoured,
    /// Written by an injector, or about something else than injection.
    Information,
    /// Not here; the text says what takes its place.
    NotHonoured(&'static str),
}

/// An annotation and its treatment.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub name: &'static str,
    pub treatment: Treatment,
}

pub(super) const INCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
pub(super) const EXCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
pub(super) const INCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeOutboundPorts";
pub(super) const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
pub(super) const INCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
pub(super) const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
pub(super) const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
pub(super) const REROUTE_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
pub(super) const KUBEVIRT_INTERFACES: &str = "traffic.sidecar.istio.io/kubevirtInterfaces";
pub(super) const MERGE_METRICS: &str = "prometheus.istio.io/merge-metrics";
pub(super) const CPU: &str = "sidecar.istio.io/proxyCPU";
pub(super) const MEMORY: &str = "sidecar.istio.io/proxyMemory";
pub(super) const CPU_LIMIT: &str = "sidecar.istio.io/proxyCPULimit";
pub(super) const MEMORY_LIMIT: &str = "sidecar.istio.io/proxyMemoryLimit";
pub(super) const IMAGE: &str = "sidecar.istio.io/proxyImage";
pub(super) const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
pub(super) const REWRITE_PROBES: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
pub(super) const NATIVE: &str = "sidecar.istio.io/nativeSidecar";
pub(super) const INTERCEPTION: &str = "sidecar.istio.io/interceptionMode";
pub(super) const USER_VOLUME: &str = "sidecar.istio.io/userVolume";
pub(super) const USER_MOUNT: &str = "sidecar.istio.io/userVolumeMount";
pub(super) const READY_DELAY: &str = "readiness.status.sidecar.istio.io/initialDelaySeconds";
pub(super) const READY_PERIOD: &str = "readiness.status.sidecar.istio.io/periodSeconds";
pub(super) const READY_FAILURES: &str = "readiness.status.sidecar.istio.io/failureThreshold";
pub(super) const CONFIG: &str = "proxy.istio.io/config";
pub(super) const TEMPLATES: &str = "inject.istio.io/templates";

const fn honoured(name: &'static str) -> Known {
    Known { name, treatment: Treatment::Honoured }
}

const fn information(name: &'static str) -> Known {
    Known { name, treatment: Treatment::Information }
}

const fn not(name: &'static str, instead: &'static str) -> Known {
    Known { name, treatment: Treatment::NotHonoured(instead) }
}

const STATS: &str = "the proxy's metrics are Istio's standard metrics, all of them; choose in the scraper";
const AMBIENT: &str = "there is no ambient mode; use sidecars";

/// The table.
pub const ANNOTATIONS: &[Known] = &[
    honoured("sidecar.istio.io/inject"),
    information("sidecar.istio.io/status"),
    honoured(INCLUDE_OUTBOUND_RANGES),
    honoured(EXCLUDE_OUTBOUND_RANGES),
    honoured(INCLUDE_OUTBOUND_PORTS),
    honoured(EXCLUDE_OUTBOUND_PORTS),
    honoured(INCLUDE_INBOUND_PORTS),
    honoured(EXCLUDE_INBOUND_PORTS),
    honoured(EXCLUDE_INTERFACES),
    honoured(KUBEVIRT_INTERFACES),
    honoured(REROUTE_INTERFACES),
    honoured(CPU),
    honoured(MEMORY),
    honoured(CPU_LIMIT),
    honoured(MEMORY_LIMIT),
    honoured(IMAGE),
    honoured(LOG_LEVEL),
    honoured(REWRITE_PROBES),
    honoured(NATIVE),
    honoured(INTERCEPTION),
    honoured(USER_VOLUME),
    honoured(USER_MOUNT),
    honoured(READY_DELAY),
    honoured(READY_PERIOD),
    honoured(READY_FAILURES),
    not(
        "readiness.status.sidecar.istio.io/applicationPorts",
        "ready means that the proxy serves; the program's own probes tell of it",
    ),
    honoured(CONFIG),
    honoured(TEMPLATES),
    not("proxy.istio.io/overrides", "write a container named fairlead-proxy into the pod"),
    honoured(MERGE_METRICS),
    not("status.sidecar.istio.io/port", "the status ports are 15020 and 15021"),
    not("sidecar.istio.io/agentLogLevel", "there is no agent; use sidecar.istio.io/logLevel"),
    not("sidecar.istio.io/componentLogLevel", "set FAIRLEAD_LOG in a container named fairlead-proxy"),
    not("sidecar.istio.io/bootstrapOverride", "the proxy is not Envoy and reads no bootstrap"),
    not("sidecar.istio.io/discoveryAddress", "set controlAddress in the injector's settings"),
    not("sidecar.istio.io/controlPlaneAuthPolicy", "the control plane is always spoken to by mutual TLS"),
    not("sidecar.istio.io/enableCoreDump", "core dumps would hold keys"),
    not("sidecar.istio.io/extraStatTags", STATS),
    not("sidecar.istio.io/statsInclusionPrefixes", STATS),
    not("sidecar.istio.io/statsInclusionSuffixes", STATS),
    not("sidecar.istio.io/statsInclusionRegexps", STATS),
    not("sidecar.istio.io/statsHistogramBuckets", STATS),
    not("sidecar.istio.io/statsCompression", STATS),
    not("sidecar.istio.io/statsEvictionInterval", STATS),
    not("ambient.istio.io/bypass-inbound-capture", AMBIENT),
    not("ambient.istio.io/redirection", AMBIENT),
    not("ambient.istio.io/dns-capture", AMBIENT),
];

/// What says nothing of a gateway, which captures nothing and has no program beside it.
const OF_SIDECARS: &[&str] = &[
    INCLUDE_OUTBOUND_RANGES,
    EXCLUDE_OUTBOUND_RANGES,
    INCLUDE_OUTBOUND_PORTS,
    EXCLUDE_OUTBOUND_PORTS,
    INCLUDE_INBOUND_PORTS,
    EXCLUDE_INBOUND_PORTS,
    EXCLUDE_INTERFACES,
    REROUTE_INTERFACES,
    KUBEVIRT_INTERFACES,
    REWRITE_PROBES,
    NATIVE,
    INTERCEPTION,
];

/// Names what is not honoured.
pub(super) fn unheeded(pod: &Value, template: Template, findings: &mut Findings) {
    let Some(annotations) = pod["metadata"]["annotations"].as_object() else { return };
    for name in annotations.keys() {
        let path = format!("metadata.annotations[{name}]");
        match ANNOTATIONS.iter().find(|known| known.name == name).map(|known| known.treatment) {
            Some(Treatment::Honoured) if template == Template::Gateway && OF_SIDECARS.contains(&name.as_str()) => {
                let message = format!("annotation {name} has no effect on a gateway");
                findings.warn(codes::NOT_HONOURED, &path, message, "remove it");
            }
            Some(Treatment::Honoured | Treatment::Information) => {}
            Some(Treatment::NotHonoured(instead)) => {
                findings.warn(codes::NOT_HONOURED, &path, format!("annotation {name} is not honoured"), instead);
            }
            None if is_istios(name) => {
                let hint = "docs/injection.md lists those that are; look at the spelling";
                findings.warn(codes::NOT_HONOURED, &path, format!("annotation {name} is not known"), hint);
            }
            None => {}
        }
    }
}

/// Whether a name is under a prefix that Istio's injector reads.
fn is_istios(name: &str) -> bool {
    let prefix = name.split_once('/').map_or("", |(prefix, _)| prefix);
    prefix == "sidecar.istio.io"
        || prefix.ends_with(".sidecar.istio.io")
        || ["proxy.istio.io", "inject.istio.io", "ambient.istio.io", "prometheus.istio.io"].contains(&prefix)
}
