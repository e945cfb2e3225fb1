//! `Gateway`: servers, their ports and hosts.

use std::collections::HashSet;

use super::check::Check;
use super::{labels, names, ports, server_tls};
use crate::field::FieldPath;
use crate::istio::{GatewaySpec, Server};

/// Checks a Gateway.
pub(super) fn check(spec: &GatewaySpec, at: &FieldPath, check: &mut Check<'_>) {
    if spec.servers.is_empty() {
        check.error(&at.key("servers"), "a gateway must have at least one server");
    }
    labels::selector_labels(&spec.selector, &at.key("selector"), check);
    let mut seen = HashSet::new();
    for (index, entry) in spec.servers.iter().enumerate() {
        let at = at.key("servers").index(index);
        server(entry, &at, check);
        if let Some(port) = &entry.port
            && !port.name.is_empty()
            && !seen.insert(port.name.as_str())
        {
            let message = format!("port names of servers must be unique: duplicate `{}`", port.name);
            check.error(&at.key("port").key("name"), message);
        }
    }
}

/// `[namespace/]host` of a Gateway (and, without IP addresses, of a Sidecar).
pub(super) fn scoped_host(host: &str, is_gateway: bool, at: &FieldPath, check: &mut Check<'_>) {
    let dns = match host.split_once('/') {
        Some((namespace, dns)) => {
            let good = match namespace {
                "*" | "." => true,
                "~" => !is_gateway,
                name => names::is_dns_label(name),
            };
            if !good {
                check.error(at, format!("invalid namespace `{namespace}` in `{host}`"));
            }
            dns
        }
        None if is_gateway => host,
        None => {
            check.error(at, format!("`{host}` must have the form namespace/host"));
            return;
        }
    };
    if is_gateway && names::is_ip(dns) {
        return;
    }
    if names::is_partial_wildcard(dns) {
        check.error(at, format!("partial wildcard `{dns}` is not allowed"));
        return;
    }
    if let Some(problem) = names::wildcard(dns) {
        check.error(at, problem);
    } else if dns != "*" && !dns.contains('.') {
        check.error(at, format!("short name `{dns}` is not allowed; write the full host"));
    }
}

fn server(server: &Server, at: &FieldPath, check: &mut Check<'_>) {
    if !server.name.is_empty() && !names::is_dns_label(&server.name.to_ascii_lowercase()) {
        check.error(&at.key("name"), format!("`{}` is not a valid server name", server.name));
    }
    if server.hosts.is_empty() {
        check.error(&at.key("hosts"), "a server must have at least one host");
    }
    for (index, host) in server.hosts.iter().enumerate() {
        scoped_host(host, true, &at.key("hosts").index(index), check);
    }
    let unix = server.bind.starts_with("unix://");
    if unix {
        check.problem(&at.key("bind"), names::unix_path(&server.bind));
    } else if !server.bind.is_empty() && !names::is_ip(&server.bind) {
        check.error(&at.key("bind"), format!("`{}` is not an IP address", server.bind));
    }
    let tls_at = at.key("tls");
    if let Some(tls) = &server.tls {
        server_tls::check(tls, &tls_at, check);
    }
    let Some(port) = &server.port else {
        check.error(&at.key("port"), "a server's port is required");
        return;
    };
    let port_at = at.key("port");
    ports::protocol(&port.protocol, false, &port_at.key("protocol"), check);
    if unix {
        if port.number != 0 {
            check.error(&port_at.key("number"), "the port number must be 0 with a Unix socket");
        }
    } else {
        ports::number(port.number, &port_at.key("number"), check);
    }
    if port.target_port != 0 {
        ports::number(port.target_port, &port_at.key("targetPort"), check);
        check.warning(&port_at.key("targetPort"), "targetPort is not supported on a Gateway");
    }
    if port.name.is_empty() {
        check.error(&port_at.key("name"), "the port's name must be set");
    }
    match &server.tls {
        None if ports::is_tls(&port.protocol) => check.error(&tls_at, "HTTPS and TLS servers must have tls settings"),
        None => {}
        Some(tls) => {
            if tls.https_redirect && !ports::is_http(&port.protocol) {
                check.warning(&tls_at.key("httpsRedirect"), "httpsRedirect is for plaintext HTTP servers only");
            }
            if ports::is_http(&port.protocol) && !server_tls::is_redirect_only(tls) {
                check.error(&tls_at, "a plaintext HTTP server cannot have tls settings");
            }
        }
    }
}
