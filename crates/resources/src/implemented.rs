//! What is implemented at present, in one place: known fields that are not refuse the rule they are in.
//!
//! Never silently ignores a field. Invariant: when a field is implemented, its line here goes, and nothing else changes
//! in this crate. Rules keep their index and are marked `refused`.

use crate::codes;
use crate::fairlead::{Workload, probe_address};
use crate::field::{Cost, FieldPath, Finding, Level};
use crate::guard;
use crate::istio::{
    AuthorizationAction, AuthorizationPolicy, ClientTlsMode, ClientTlsSettings, DestinationRule, Gateway, HttpRoute,
    LoadBalancerSettings, Resolution, Server, ServerTlsMode, ServiceEntry, SimpleLb, TrafficPolicy, VirtualService,
    WorkloadEntry,
};
use crate::object::Object;

/// Kinds of the mesh's world, by group, that are not even read yet.
pub const KINDS_NOT_APPLIED: &[(&str, &str)] = &[
    ("networking.istio.io", "EnvoyFilter"),
    ("extensions.istio.io", "WasmPlugin"),
    ("extensions.istio.io", "TrafficExtension"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("gateway.networking.k8s.io", "GRPCRoute"),
    ("gateway.networking.k8s.io", "TCPRoute"),
    ("gateway.networking.k8s.io", "TLSRoute"),
    ("gateway.networking.k8s.io", "ReferenceGrant"),
    ("gateway.networking.k8s.io", "BackendTLSPolicy"),
    ("fairlead.dev", "LoadBalancingPolicy"),
];

/// Known MeshConfig fields that are not implemented; each is a rule of its own.
pub const MESH_CONFIG_NOT_IMPLEMENTED: &[&str] = &[
    "accessLogFilterExpression",
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "defaultProviders",
    "disableEnvoyListenerLog",
    "dnsRefreshRate",
    "enableEnvoyAccessLogService",
    "enableTracing",
    "extensionProviders",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "meshMTLS",
    "outboundClusterStatName",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "serviceScopeConfigs",
    "tlsDefaults",
    "verifyCertificateAtClient",
];

/// `defaultConfig` fields that configure the start of Istio's agent and of Envoy.
pub const PROXY_CONFIG_WITHOUT_EFFECT: &[&str] = &[
    "availabilityZone",
    "binaryPath",
    "caCertificatesPem",
    "concurrency",
    "configPath",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "discoveryAddress",
    "discoveryRefreshDelay",
    "envoyAccessLogService",
    "envoyMetricsService",
    "extraStatTags",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "holdApplicationUntilProxyStarts",
    "image",
    "interceptionMode",
    "meshId",
    "parentShutdownDuration",
    "privateKeyProvider",
    "proxyAdminPort",
    "proxyBootstrapTemplatePath",
    "proxyHeaders",
    "proxyStatsMatcher",
    "readinessProbe",
    "runtimeValues",
    "sds",
    "serviceCluster",
    "statNameLength",
    "statsCompression",
    "statsdUdpAddress",
    "statusPort",
    "terminationDrainDuration",
    "tracing",
    "tracingServiceName",
    "zipkinAddress",
];

/// The finding for a known field that is not implemented; the caller marks the rule.
pub fn not_implemented(path: FieldPath, what: &str) -> Finding {
    let message = format!("{what} is not implemented; its rule is refused");
    Finding::new(Level::Error, codes::NOT_IMPLEMENTED, Cost::Rule, path, message)
        .hint("remove the field, or do without the rule for now")
}

/// The finding for a known field that has no effect.
pub fn without_effect(path: FieldPath, what: &str) -> Finding {
    let message = format!("{what} has no effect here");
    Finding::new(Level::Warning, codes::WITHOUT_EFFECT, Cost::Nothing, path, message)
}

/// Marks what is not implemented in an object that is otherwise good. True if that refuses the object as a whole.
pub fn settle(object: &mut Object, findings: &mut Vec<Finding>) -> bool {
    let before = findings.len();
    let spec = FieldPath::root().key("spec");
    match object {
        Object::VirtualService(service) => virtual_service(service, &spec, findings),
        Object::DestinationRule(rule) => destination_rule(rule, &spec, findings),
        Object::Gateway(gateway) => gateway_servers(gateway, &spec, findings),
        Object::ServiceEntry(entry) => service_entry(entry, &spec, findings),
        Object::WorkloadEntry(entry) => workload_entry(entry, &spec, findings),
        Object::AuthorizationPolicy(policy) => authorization_policy(policy, &spec, findings),
        Object::Workload(workload) => readiness_probe(workload, &spec, findings),
        Object::RequestAuthentication(_) => {
            let message = "RequestAuthentication is not applied yet: no token is verified";
            findings.push(
                Finding::new(Level::Error, codes::GUARD_NOT_APPLIED, Cost::Rule, FieldPath::root(), message)
                    .hint("rules that ask for request principals or claims match no caller until then"),
            );
        }
        Object::WorkloadGroup(_) | Object::Sidecar(_) | Object::Telemetry(_) | Object::ProxyConfig(_) => {
            let message = format!("{} is not applied yet; the traffic goes on without it", object.kind().as_str());
            findings.push(Finding::new(
                Level::Warning,
                codes::KIND_NOT_APPLIED,
                Cost::Nothing,
                FieldPath::root(),
                message,
            ));
        }
        _ => {}
    }
    findings.iter().skip(before).any(|finding| finding.cost == Cost::Object)
}

fn virtual_service(service: &mut VirtualService, spec: &FieldPath, findings: &mut Vec<Finding>) {
    for (index, rule) in service.spec.http.iter_mut().enumerate() {
        http_rule(rule, &spec.key("http").index(index), findings);
    }
    for (index, rule) in service.spec.tcp.iter().enumerate() {
        for (at, block) in rule.matches.iter().enumerate() {
            if !block.source_subnet.is_empty() {
                let path = spec.key("tcp").index(index).key("match").index(at).key("sourceSubnet");
                findings.push(without_effect(path, "sourceSubnet"));
            }
        }
    }
}

/// A probe that cannot be made is left out: the default holds, the first port accepts.
fn readiness_probe(workload: &mut Workload, spec: &FieldPath, findings: &mut Vec<Finding>) {
    let Some(probe) = &workload.spec.readiness_probe else { return };
    let at = spec.key("readinessProbe");
    let before = findings.len();
    if probe.exec.is_some() {
        findings.push(not_implemented(at.key("exec"), "a probe by a command"));
    }
    let http = probe.http_get.as_ref().map(|http| ("httpGet", &http.host));
    let tcp = probe.tcp_socket.as_ref().map(|tcp| ("tcpSocket", &tcp.host));
    for (field, host) in http.into_iter().chain(tcp).filter(|(_, host)| probe_address(host).is_none()) {
        findings.push(not_implemented(at.key(field).key("host"), &format!("a probe of another host (`{host}`)")));
    }
    if findings.len() > before {
        workload.spec.readiness_probe = None;
    }
}

fn http_rule(rule: &mut HttpRoute, at: &FieldPath, findings: &mut Vec<Finding>) {
    for (field, written) in [
        ("mirror", rule.mirror.is_some()),
        ("mirrors", !rule.mirrors.is_empty()),
        ("corsPolicy", rule.cors_policy.is_some()),
    ] {
        if written {
            findings.push(not_implemented(at.key(field), field));
            rule.refused = true;
        }
    }
    answers(rule, at, findings);
    for (index, block) in rule.matches.iter().enumerate() {
        let path = at.key("match").index(index);
        if !block.stat_prefix.is_empty() {
            findings.push(without_effect(path.key("statPrefix"), "statPrefix"));
        }
        for (field, headers) in [("headers", &block.headers), ("withoutHeaders", &block.without_headers)] {
            for name in headers.keys().filter(|name| name.starts_with("@request.auth.")) {
                findings.push(not_implemented(path.key(field).key(name), "matching on token claims"));
                rule.refused = true;
            }
        }
    }
}

/// Statuses that Istio's check lets pass and no proxy can answer with, and faults that never happen.
fn answers(rule: &mut HttpRoute, at: &FieldPath, findings: &mut Vec<Finding>) {
    let code = rule.redirect.as_ref().map_or(0, |redirect| redirect.redirect_code);
    if !matches!(code, 0 | 301 | 302 | 303 | 307 | 308) {
        findings.push(not_implemented(at.key("redirect").key("redirectCode"), &format!("redirect status {code}")));
        rule.refused = true;
    }
    if rule.direct_response.as_ref().is_some_and(|response| response.status == 600) {
        findings.push(not_implemented(at.key("directResponse").key("status"), "status 600"));
        rule.refused = true;
    }
    let Some(fault) = &rule.fault else { return };
    let at = at.key("fault");
    if let Some(abort) = &fault.abort {
        let at = at.key("abort");
        if abort.http_status == Some(600) {
            findings.push(not_implemented(at.key("httpStatus"), "status 600"));
            rule.refused = true;
        } else if abort.http_status.is_none() && abort.grpc_status.is_none() {
            findings.push(without_effect(at, "an abort without httpStatus or grpcStatus"));
        } else if abort.percentage.is_none() {
            findings.push(without_effect(at, "an abort without percentage"));
        }
    }
    if let Some(delay) = &fault.delay
        && delay.percentage.is_none()
        && delay.percent.is_none()
    {
        findings.push(without_effect(at.key("delay"), "a delay without percentage"));
    }
}

fn destination_rule(rule: &mut DestinationRule, spec: &FieldPath, findings: &mut Vec<Finding>) {
    if let Some(policy) = &mut rule.spec.traffic_policy {
        traffic_policy(policy, &spec.key("trafficPolicy"), findings);
    }
    for (index, subset) in rule.spec.subsets.iter_mut().enumerate() {
        if let Some(policy) = &mut subset.traffic_policy {
            traffic_policy(policy, &spec.key("subsets").index(index).key("trafficPolicy"), findings);
        }
    }
}

/// Refused blocks are taken out of the policy, so that what is left is what holds; a refused `tls` stays, marked.
fn traffic_policy(policy: &mut TrafficPolicy, at: &FieldPath, findings: &mut Vec<Finding>) {
    blocks(&mut policy.load_balancer, &mut policy.tls, at, findings);
    for (index, port) in policy.port_level_settings.iter_mut().enumerate() {
        blocks(&mut port.load_balancer, &mut port.tls, &at.key("portLevelSettings").index(index), findings);
    }
    if policy.tunnel.take().is_some() {
        findings.push(not_implemented(at.key("tunnel"), "tunnel"));
    }
    if policy.proxy_protocol.take().is_some() {
        findings.push(not_implemented(at.key("proxyProtocol"), "proxyProtocol"));
    }
    if policy.retry_budget.take().is_some() {
        findings.push(not_implemented(at.key("retryBudget"), "retryBudget"));
    }
}

fn blocks(
    balancer: &mut Option<LoadBalancerSettings>,
    tls: &mut Option<ClientTlsSettings>,
    at: &FieldPath,
    findings: &mut Vec<Finding>,
) {
    if let Some(balancer) = balancer {
        let at = at.key("loadBalancer");
        if balancer.consistent_hash.take().is_some() {
            findings.push(not_implemented(at.key("consistentHash"), "consistentHash"));
        }
        if balancer.warmup.take().is_some() {
            findings.push(not_implemented(at.key("warmup"), "warmup"));
        }
        if balancer.warmup_duration_secs.take().is_some() {
            findings.push(not_implemented(at.key("warmupDurationSecs"), "warmupDurationSecs"));
        }
        if balancer.simple == Some(SimpleLb::Passthrough) {
            balancer.simple = None;
            findings.push(not_implemented(at.key("simple"), "PASSTHROUGH"));
        }
    }
    if let Some(tls) = tls {
        client_tls(tls, &at.key("tls"), findings);
    }
}

fn client_tls(tls: &mut ClientTlsSettings, at: &FieldPath, findings: &mut Vec<Finding>) {
    let simple = tls.mode == ClientTlsMode::Simple;
    for (field, written) in [
        ("mode", tls.mode == ClientTlsMode::Mutual),
        ("caCertificates", simple && !tls.ca_certificates.is_empty()),
        ("caCrl", simple && !tls.ca_crl.is_empty()),
        ("credentialName", simple && !tls.credential_name.is_empty()),
    ] {
        if written {
            let what = if field == "mode" { "TLS mode MUTUAL" } else { field };
            findings.push(not_implemented(at.key(field), what));
            tls.refused = true;
        }
    }
}

fn gateway_servers(gateway: &mut Gateway, spec: &FieldPath, findings: &mut Vec<Finding>) {
    for (index, server) in gateway.spec.servers.iter_mut().enumerate() {
        gateway_server(server, &spec.key("servers").index(index), findings);
    }
}

fn gateway_server(server: &mut Server, at: &FieldPath, findings: &mut Vec<Finding>) {
    if !server.default_endpoint.is_empty() {
        findings.push(without_effect(at.key("defaultEndpoint"), "defaultEndpoint"));
    }
    let Some(tls) = &server.tls else { return };
    if matches!(tls.mode, ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
        findings.push(not_implemented(at.key("tls").key("mode"), &format!("TLS mode {}", tls.mode)));
        server.refused = true;
    }
}

fn service_entry(entry: &mut ServiceEntry, spec: &FieldPath, findings: &mut Vec<Finding>) {
    // Resolving an IP address gives that address: without a name to resolve, DNS is STATIC.
    let addresses = entry.spec.endpoints.iter().all(|endpoint| endpoint.address.parse::<std::net::IpAddr>().is_ok());
    let nothing_to_resolve = entry.spec.workload_selector.is_some() || (!entry.spec.endpoints.is_empty() && addresses);
    if nothing_to_resolve && matches!(entry.spec.resolution, Resolution::Dns) {
        entry.spec.resolution = Resolution::Static;
    }
    if entry.spec.resolution == Resolution::DynamicDns {
        let what = format!("resolution {}", entry.spec.resolution);
        let mut finding = not_implemented(spec.key("resolution"), &what);
        finding.message = format!("{what} is not implemented; the object is refused");
        finding.cost = Cost::Object;
        findings.push(finding.hint("use DNS with the names written out, or NONE"));
    }
    for (index, endpoint) in entry.spec.endpoints.iter().enumerate() {
        if endpoint.address.starts_with("unix://") {
            let path = spec.key("endpoints").index(index).key("address");
            let mut finding = not_implemented(path, "a Unix socket as address");
            finding.cost = Cost::Object;
            findings.push(finding.hint("use an IP address"));
        }
    }
}

fn workload_entry(entry: &WorkloadEntry, spec: &FieldPath, findings: &mut Vec<Finding>) {
    let address = entry.spec.address.as_str();
    if address.is_empty() || address.parse::<std::net::IpAddr>().is_ok() {
        return;
    }
    let mut finding = not_implemented(spec.key("address"), "an address that is no IP address");
    finding.cost = Cost::Object;
    finding.message = format!("`{address}` as a workload's address is not implemented; the object is refused");
    findings.push(finding.hint("use an IP address"));
}

fn authorization_policy(policy: &mut AuthorizationPolicy, spec: &FieldPath, findings: &mut Vec<Finding>) {
    if policy.spec.action == AuthorizationAction::Custom {
        let message = "CUSTOM is not implemented; the policy denies what its rules match";
        findings.push(
            Finding::new(Level::Error, codes::NOT_IMPLEMENTED, Cost::Rule, spec.key("action"), message)
                .hint("use ALLOW or DENY"),
        );
    }
    if policy.spec.target_ref.is_some() || !policy.spec.target_refs.is_empty() {
        let field = if policy.spec.target_ref.is_some() { "targetRef" } else { "targetRefs" };
        let message =
            format!("{field} names a Gateway API object or waypoint; none exists here, so the policy has no effect");
        let finding = Finding::new(Level::Error, codes::REFERENCE, Cost::Rule, spec.key(field), message);
        findings.push(finding.hint("select workloads with `selector`"));
    }
    let mut refused = Vec::new();
    for (index, rule) in policy.spec.rules.iter().enumerate() {
        for (at, condition) in rule.when.iter().enumerate().rev() {
            if condition.key.starts_with("experimental.envoy.filters.") {
                let path = spec.key("rules").index(index).key("when").index(at);
                findings.push(not_implemented(path.key("key"), "a condition on Envoy's filter metadata"));
                refused.push(path);
            }
        }
    }
    for path in refused {
        guard::refuse_in_rule(policy, &path);
    }
}
