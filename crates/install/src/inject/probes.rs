//! Probes that the kubelet makes over the network are asked of the proxy, which asks the program: the kubelet has no certificate.
//!
//! Of a rewritten probe only the way of asking changes. Left as they are: `exec`, a probe with a `host` of its own, one of a port
//! that the proxy serves, one whose named port the container does not declare. Invariant: what is asked is what was written.

use super::app_probes::{AppProbe, AppProbes, Grpc, Header, HttpGet, TcpSocket};
use super::codes;
use super::fields::{is_native, list, text};
use super::findings::Findings;
use super::hooks;
use super::options::Options;
use super::template;
use serde_json::{Value, json};

/// The port at which the proxy answers for the program.
pub(super) const PORT: u16 = 15020;
/// Ports that the proxy serves itself.
const OWN_PORTS: &[u16] = &[15020, 15021, 15090];

const KINDS: &[(&str, &str)] =
    &[("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];

/// Rewrites the probes and hooks of containers and native sidecars.
pub(super) fn rewrite(pod: &mut Value, options: &Options, findings: &mut Findings) -> AppProbes {
    let mut probes = AppProbes::default();
    for group in ["containers", "initContainers"] {
        let Some(containers) = pod["spec"].get_mut(group).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter(|container| group == "containers" || is_native(container)) {
            rewrite_container(container, &mut probes, findings);
            hooks::rewrite(container, group, options, &mut probes, findings);
        }
    }
    probes
}

fn rewrite_container(container: &mut Value, probes: &mut AppProbes, findings: &mut Findings) {
    let Some(name) = text(container, "name").map(str::to_owned) else { return };
    if template::is_ours(&name) {
        return;
    }
    let ports = list(container, "ports").to_vec();
    for (field, short) in KINDS {
        let Some(probe) = container.get_mut(*field).filter(|probe| probe.is_object()) else { continue };
        match question(probe, &ports) {
            Ok(None) => {}
            Ok(Some(question)) => {
                let key = format!("/app-health/{name}/{short}");
                if let Some(probe) = probe.as_object_mut() {
                    for way in ["httpGet", "tcpSocket", "grpc"] {
                        probe.remove(way);
                    }
                    probe.insert("httpGet".into(), json!({"path": key, "port": PORT}));
                }
                probes.0.insert(key, question);
            }
            Err(message) => {
                let hint = "declare the port by that name in the container, or write its number";
                findings.warn(codes::PROBE, &format!("spec.containers[{name}].{field}"), message, hint);
            }
        }
    }
}

/// What the proxy is to ask; `None`: the probe is left as it is.
fn question(probe: &Value, ports: &[Value]) -> Result<Option<AppProbe>, String> {
    let timeout = probe["timeoutSeconds"].as_u64().and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(1).max(1);
    let mut question = AppProbe { timeout_seconds: Some(timeout), ..AppProbe::default() };
    let port = if let Some(http) = probe.get("httpGet").filter(|http| http.is_object()) {
        if text(http, "host").is_some() {
            return Ok(None);
        }
        let get = request(http, ports)?;
        let port = get.port;
        question.http_get = Some(get);
        port
    } else if let Some(tcp) = probe.get("tcpSocket").filter(|tcp| tcp.is_object()) {
        if text(tcp, "host").is_some() {
            return Ok(None);
        }
        let port = number(&tcp["port"], ports)?;
        question.tcp_socket = Some(TcpSocket { port });
        port
    } else if let Some(grpc) = probe.get("grpc").filter(|grpc| grpc.is_object()) {
        let port = number(&grpc["port"], ports)?;
        question.grpc = Some(Grpc { port, service: text(grpc, "service").unwrap_or_default().to_owned() });
        port
    } else {
        return Ok(None);
    };
    Ok((!is_own(port)).then_some(question))
}

/// Whether the proxy serves the port itself.
pub(super) fn is_own(port: u16) -> bool {
    OWN_PORTS.contains(&port)
}

/// An `httpGet`, of a probe or a hook.
pub(super) fn request(http: &Value, ports: &[Value]) -> Result<HttpGet, String> {
    Ok(HttpGet {
        path: absolute(text(http, "path").unwrap_or("/")),
        port: number(&http["port"], ports)?,
        scheme: text(http, "scheme").unwrap_or("HTTP").to_uppercase(),
        http_headers: list(http, "httpHeaders").iter().filter_map(header).collect(),
    })
}

/// A port's number; a name is one of the same container's, as for the kubelet.
fn number(port: &Value, ports: &[Value]) -> Result<u16, String> {
    let valid = |number: u64| u16::try_from(number).ok().filter(|number| *number > 0);
    let found = match port {
        Value::Number(number) => number.as_u64().and_then(valid),
        Value::String(name) => {
            let declared = ports.iter().find(|declared| text(declared, "name") == Some(name));
            let declared = declared.and_then(|declared| declared["containerPort"].as_u64());
            declared.or_else(|| name.parse().ok()).and_then(valid)
        }
        _ => None,
    };
    found.ok_or_else(|| format!("port {port} is no port of its container; the kubelet asks past the proxy"))
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn header(header: &Value) -> Option<Header> {
    let name = text(header, "name")?.to_owned();
    Some(Header { name, value: header["value"].as_str().unwrap_or_default().to_owned() })
}
