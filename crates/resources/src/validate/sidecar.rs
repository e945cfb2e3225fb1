//! `Sidecar`.

use std::collections::HashSet;

use super::check::Check;
use super::{gateway, labels, names, ports, server_tls, traffic_policy, virtual_service};
use crate::field::FieldPath;
use crate::istio::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundMode, Port, ServerTlsMode, ServerTlsSettings,
    SidecarSpec,
};

/// Checks a Sidecar.
pub(super) fn check(spec: &SidecarSpec, namespace: &str, at: &FieldPath, check: &mut Check<'_>) {
    labels::workload_selector(spec.workload_selector.as_ref(), &at.key("workloadSelector"), check);
    let empty = spec.egress.is_empty()
        && spec.ingress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none();
    if empty {
        check.error(at, "the Sidecar is empty");
    }
    let mut bound = HashSet::new();
    for (index, listener) in spec.ingress.iter().enumerate() {
        ingress(listener, &mut bound, &at.key("ingress").index(index), check);
    }
    egress(&spec.egress, namespace, &at.key("egress"), check);
    if let Some(pool) = &spec.inbound_connection_pool {
        traffic_policy::connection_pool(pool, &at.key("inboundConnectionPool"), check);
    }
    let Some(policy) = &spec.outbound_traffic_policy else { return };
    let at = at.key("outboundTrafficPolicy");
    if let Some(proxy) = &policy.egress_proxy {
        let at = at.key("egressProxy");
        if policy.mode != OutboundMode::AllowAny {
            check.error(&at, "egressProxy needs the mode ALLOW_ANY");
        }
        virtual_service::destination(Some(proxy), &at, check);
        if proxy.port.is_none() {
            check.error(&at.key("port"), "the egress proxy's port is required");
        }
    }
}

fn ingress<'a>(
    listener: &'a IstioIngressListener,
    bound: &mut HashSet<(&'a str, u32)>,
    at: &FieldPath,
    check: &mut Check<'_>,
) {
    let Some(port) = &listener.port else {
        check.error(&at.key("port"), "an ingress listener must have a port");
        return;
    };
    if listener.bind.starts_with("unix://") {
        check.error(&at.key("bind"), format!("`{}` is not an IP address", listener.bind));
    }
    bind(port, &listener.bind, listener.capture_mode, bound, at, check);
    if let Some(problem) = default_endpoint(&listener.default_endpoint) {
        check.error(&at.key("defaultEndpoint"), problem);
    }
    if let Some(tls) = &listener.tls {
        ingress_tls(tls, port, &at.key("tls"), check);
    }
    if let Some(pool) = &listener.connection_pool {
        let at = at.key("connectionPool");
        traffic_policy::connection_pool(pool, &at, check);
        if pool.http.is_some() && !ports::is_http(&port.protocol) {
            let message = format!("port {} is not HTTP; only the tcp settings apply", port.number);
            check.warning(&at.key("http"), message);
        }
    }
}

fn ingress_tls(tls: &ServerTlsSettings, port: &Port, at: &FieldPath, check: &mut Check<'_>) {
    if !ports::is_tls(&port.protocol) {
        check.error(at, "only HTTPS and TLS ports can have tls settings");
    }
    for (field, written) in [
        ("httpsRedirect", tls.https_redirect),
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ] {
        if written {
            check.error(&at.key(field), format!("{field} is not supported in a Sidecar"));
        }
    }
    if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
        check.error(&at.key("mode"), format!("mode {} is not supported in a Sidecar", tls.mode));
        return;
    }
    server_tls::check(tls, at, check);
}

fn egress(listeners: &[IstioEgressListener], own: &str, at: &FieldPath, check: &mut Check<'_>) {
    let mut bound = HashSet::new();
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, listener) in listeners.iter().enumerate() {
        let at = at.index(index);
        match &listener.port {
            None => {
                if index + 1 != listeners.len() {
                    check.error(&at.key("port"), "the egress listener without a port must be the last");
                }
                if listener.capture_mode == CaptureMode::None && listener.bind.is_empty() {
                    check.error(&at, "captureMode NONE needs a port");
                }
            }
            Some(port) => bind(port, &listener.bind, listener.capture_mode, &mut bound, &at, check),
        }
        let at = at.key("hosts");
        if listener.hosts.is_empty() {
            check.error(&at, "an egress listener must have at least one host");
        }
        for (index, host) in listener.hosts.iter().enumerate() {
            let at = at.index(index);
            gateway::scoped_host(host, false, &at, check);
            if host == "*/*" && listener.hosts.len() > 1 {
                check.warning(&at, "`*/*` covers everything; the other hosts have no effect");
                continue;
            }
            if listener.port.is_some() {
                continue;
            }
            let covered = host.split_once('/').is_some_and(|(namespace, dns)| {
                let same = |other: &str| other == namespace || (other == "." && namespace == own);
                dns != "*" && listener.hosts.iter().filter_map(|other| other.strip_suffix("/*")).any(same)
            });
            if covered || !seen.insert(host) {
                check.warning(&at, format!("`{host}` is covered twice"));
            }
        }
    }
}

/// A listener's address: unique, a port beside an IP, none beside a Unix socket.
fn bind<'a>(
    port: &Port,
    address: &'a str,
    mode: CaptureMode,
    bound: &mut HashSet<(&'a str, u32)>,
    at: &FieldPath,
    check: &mut Check<'_>,
) {
    ports::protocol(&port.protocol, true, &at.key("port").key("protocol"), check);
    if address.starts_with("unix://") {
        check.problem(&at.key("bind"), names::unix_path(address));
        if port.number != 0 {
            check.error(&at.key("port").key("number"), "the port number must be 0 with a Unix socket");
        }
        if mode == CaptureMode::Iptables {
            check.error(&at.key("captureMode"), "captureMode must be DEFAULT or NONE with a Unix socket");
        }
        if !bound.insert((address, 0)) {
            check.error(&at.key("bind"), "Unix sockets of listeners must be unique");
        }
        return;
    }
    if !address.is_empty() && !names::is_ip(address) {
        check.error(&at.key("bind"), format!("`{address}` is not an IP address"));
    }
    ports::number(port.number, &at.key("port").key("number"), check);
    if !bound.insert(("", port.number)) {
        check.error(&at.key("port").key("number"), "ports of listeners must be unique");
    }
}

/// `127.0.0.1:PORT`, `0.0.0.0:PORT`, `[::1]:PORT`, `[::]:PORT`, `unix://PATH` or nothing.
fn default_endpoint(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    if text.starts_with("unix://") {
        return names::unix_path(text).or_else(|| (text.len() < 9).then(|| format!("`{text}` is no path")));
    }
    let host_port = text.rsplit_once(':');
    let good = host_port.is_some_and(|(host, port)| {
        ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"].contains(&host) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    (!good).then(|| format!("`{text}` is not 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix://PATH"))
}
