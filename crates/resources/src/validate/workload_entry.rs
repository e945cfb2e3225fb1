//! `WorkloadEntry` and `WorkloadGroup`.

use super::check::Check;
use super::{labels, names, ports};
use crate::field::FieldPath;
use crate::istio::{ReadinessProbe, WorkloadEntrySpec, WorkloadGroupSpec};

/// Checks a WorkloadEntry.
pub(super) fn check(spec: &WorkloadEntrySpec, at: &FieldPath, check: &mut Check<'_>) {
    if *spec == WorkloadEntrySpec::default() {
        check.error(at, "spec is required");
        return;
    }
    workload(spec, at, check);
    let address = spec.address.as_str();
    let address_at = at.key("address");
    if address.is_empty() {
        without_address(spec, at, check);
    } else if address.starts_with("unix://") {
        check.problem(&address_at, names::unix_path(address));
        if !spec.ports.is_empty() {
            check.error(&at.key("ports"), format!("Unix endpoint `{address}` must not have ports"));
        }
    } else if !names::is_ip(address) && names::fqdn(address).is_some() {
        check.error(&address_at, format!("address `{address}` is not a host name or IP address"));
    }
}

/// An endpoint without an address is the gateway of its network.
pub(super) fn without_address(spec: &WorkloadEntrySpec, at: &FieldPath, check: &mut Check<'_>) {
    if spec.network.is_empty() {
        check.error(&at.key("address"), "an address is required");
    } else {
        let message = format!("no address: the gateway of network `{}` is meant", spec.network);
        check.warning(&at.key("address"), message);
    }
}

/// Checks a WorkloadGroup.
pub(super) fn check_group(spec: &WorkloadGroupSpec, at: &FieldPath, check: &mut Check<'_>) {
    let Some(template) = &spec.template else {
        check.error(&at.key("template"), "template is required");
        return;
    };
    workload(template, &at.key("template"), check);
    if !template.address.is_empty() {
        check.error(&at.key("template").key("address"), "a template has no address");
    }
    if let Some(meta) = &spec.metadata {
        labels::labels(&meta.labels, &at.key("metadata").key("labels"), check);
    }
    if let Some(entry) = &spec.probe {
        probe(entry, &at.key("probe"), check);
    }
}

fn workload(spec: &WorkloadEntrySpec, at: &FieldPath, check: &mut Check<'_>) {
    for (name, number) in &spec.ports {
        ports::name(name, &at.key("ports").key(name), check);
        ports::number(*number, &at.key("ports").key(name), check);
    }
    labels::labels(&spec.labels, &at.key("labels"), check);
    if spec.service_account.len() > 253 {
        check.error(&at.key("serviceAccount"), "the account's name is too long");
    }
}

fn probe(probe: &ReadinessProbe, at: &FieldPath, check: &mut Check<'_>) {
    for (field, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if number < 0 {
            check.error(&at.key(field), format!("{field} must not be negative"));
        }
    }
    let methods = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    if methods.iter().filter(|written| **written).count() != 1 {
        check.error(at, "a probe has exactly one of httpGet, tcpSocket, exec and grpc");
    }
    if let Some(http) = &probe.http_get {
        let at = at.key("httpGet");
        ports::number(http.port, &at.key("port"), check);
        if !matches!(http.scheme.as_str(), "" | "HTTP" | "HTTPS") {
            check.error(&at.key("scheme"), "the scheme is HTTP or HTTPS");
        }
        for (index, header) in http.http_headers.iter().enumerate() {
            if header.name.is_empty()
                || !header.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            {
                let message = format!("`{}` is not a valid header name", header.name);
                check.error(&at.key("httpHeaders").index(index).key("name"), message);
            }
        }
    }
    if let Some(tcp) = &probe.tcp_socket {
        ports::number(tcp.port, &at.key("tcpSocket").key("port"), check);
    }
    if probe.exec.as_ref().is_some_and(|exec| exec.command.iter().all(String::is_empty)) {
        check.error(&at.key("exec").key("command"), "the command is required");
    }
    if let Some(grpc) = &probe.grpc {
        ports::number(grpc.port, &at.key("grpc").key("port"), check);
    }
}
