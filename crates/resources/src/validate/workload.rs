//! `Workload`.

use std::collections::HashSet;

use super::check::Check;
use super::{labels, mesh};
use crate::fairlead::WorkloadSpec;
use crate::field::{FieldPath, IntOrString};

/// Most replicas of one workload: each is a network namespace and a proxy on one machine.
const REPLICAS: u32 = 100;

/// Checks a Workload.
pub(super) fn check(spec: &WorkloadSpec, at: &FieldPath, check: &mut Check<'_>) {
    if spec.replicas.is_some_and(|replicas| replicas > REPLICAS) {
        check.error(&at.key("replicas"), format!("at most {REPLICAS} replicas"));
    }
    let (mut seen_names, mut seen_numbers) = (HashSet::new(), HashSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let at = at.key("ports").index(index);
        if port.port == 0 {
            check.error(&at, "a port must be in the range 1..65535");
        }
        if !matches!(port.protocol.as_str(), "" | "TCP" | "UDP") {
            check.error(&at.key("protocol"), format!("`{}` is not TCP or UDP", port.protocol));
        }
        if !seen_numbers.insert((port.port, port.protocol == "UDP")) {
            check.error(&at, format!("port {} is a duplicate", port.port));
        }
        if !port.name.is_empty() && !seen_names.insert(port.name.as_str()) {
            check.error(&at, format!("port name `{}` is a duplicate", port.name));
        }
    }
    labels::labels(&spec.labels, &at.key("labels"), check);
    if let Some(text) = &spec.locality {
        check.problem(&at.key("locality"), mesh::locality(text));
    }
    for (index, variable) in spec.env.iter().enumerate() {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            check.error(
                &at.key("env").index(index).key("name"),
                format!("`{}` is not a variable's name", variable.name),
            );
        }
    }
    let Some(probe) = &spec.readiness_probe else { return };
    let at = at.key("readinessProbe");
    let methods = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    if methods.iter().filter(|written| **written).count() != 1 {
        check.error(&at, "a probe has exactly one of httpGet, tcpSocket, exec and grpc");
    }
    let http = probe.http_get.as_ref().map(|probe| ("httpGet", &probe.port));
    let tcp = probe.tcp_socket.as_ref().map(|probe| ("tcpSocket", &probe.port));
    for (field, port) in http.into_iter().chain(tcp) {
        let good = match port {
            IntOrString::Int(number) => (1..=65535).contains(number),
            IntOrString::String(name) => seen_names.contains(name.as_str()),
        };
        if !good {
            check.error(&at.key(field).key("port"), format!("`{port}` is not a port of this workload"));
        }
    }
    let times = [
        ("periodSeconds", probe.period_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, _) in times.into_iter().filter(|(_, value)| *value == Some(0)) {
        check.error(&at.key(field), "must be at least 1");
    }
    let Some(http) = &probe.http_get else { return };
    let at = at.key("httpGet");
    if !matches!(http.scheme.as_str(), "" | "HTTP" | "HTTPS") {
        check.error(&at.key("scheme"), format!("`{}` is not HTTP or HTTPS", http.scheme));
    }
    if !http.path.is_empty() && !http.path.starts_with('/') {
        check.error(&at.key("path"), format!("`{}` does not begin with /", http.path));
    }
    for (index, header) in http.http_headers.iter().enumerate() {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if header.name.is_empty() || !header.name.chars().all(token) {
            check.error(&at.key("httpHeaders").index(index).key("name"), format!("`{}` is no header", header.name));
        }
        if header.value.chars().any(|c| c.is_control() && c != '\t') {
            check.error(&at.key("httpHeaders").index(index).key("value"), "a header's value has no control characters");
        }
    }
}
