//! The program's own probes and hooks over HTTP, which the kubelet asks through the proxy.
//!
//! A kubelet has no certificate of the mesh, so its questions could not reach a port that takes mutual TLS only. The injector writes what
//! the pod's probes were; here they are asked from the pod's own address. Invariant: 200 is answered only for what the kubelet itself
//! would have taken for an answer.

use crate::control::{ask, call_hook};
use crate::options::{ProbeKind, ProbeSpec, ProxyOptions};
use crate::upstream::passthrough;
use http::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// For connecting to a program whose hook is called; for its answer there is no limit but the pod's end, as for a kubelet.
const HOOK_CONNECT: Duration = Duration::from_secs(30);

/// Probes by the path they are asked by, `/app-health/CONTAINER/livez`, `readyz` or `startupz`; hooks by `/app-lifecycle/CONTAINER/poststartz`
/// or `prestopz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct AppProbes(pub BTreeMap<String, AppProbe>);

/// One probe as the pod had it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppProbe {
    #[serde(default)]
    http_get: Option<HttpGet>,
    #[serde(default)]
    tcp_socket: Option<TcpSocket>,
    #[serde(default)]
    grpc: Option<Grpc>,
    #[serde(default = "one")]
    timeout_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpGet {
    #[serde(default = "root")]
    path: String,
    port: u16,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    http_headers: Vec<HttpHeader>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Scheme {
    #[default]
    Http,
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpHeader {
    name: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TcpSocket {
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: Option<String>,
}

/// Where probes are asked.
pub const PROBES: &str = "/app-health/";
/// Where hooks are called.
pub const HOOKS: &str = "/app-lifecycle/";

fn one() -> u32 {
    1
}

fn root() -> String {
    "/".to_owned()
}

impl AppProbes {
    /// Reads the injector's form.
    ///
    /// # Errors
    /// It is none, or a probe asks nothing, or two things at once.
    pub fn read(text: &str) -> Result<Self, String> {
        let probes: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        for (path, probe) in &probes.0 {
            let kinds = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
            let is_hook = path.starts_with(HOOKS) && probe.http_get.is_some();
            if !(path.starts_with(PROBES) || is_hook) || kinds.iter().filter(|kind| **kind).count() != 1 {
                return Err(format!(
                    "`{path}`: write one of httpGet, tcpSocket and grpc under {PROBES}CONTAINER/KIND, or httpGet under {HOOKS}CONTAINER/HOOK"
                ));
            }
        }
        Ok(probes)
    }
}

impl AppProbe {
    fn kind(&self, agent: Option<&str>) -> Option<ProbeKind> {
        if let Some(get) = &self.http_get {
            let mut headers: Vec<(String, String)> = Vec::new();
            headers.extend(agent.map(|agent| ("user-agent".to_owned(), agent.to_owned())));
            headers.extend(get.http_headers.iter().map(|header| (header.name.clone(), header.value.clone())));
            let tls = get.scheme == Scheme::Https;
            return Some(ProbeKind::Http { port: get.port, path: get.path.clone(), tls, headers });
        }
        let tcp = self.tcp_socket.as_ref().map(|tcp| ProbeKind::Tcp { port: tcp.port });
        let grpc = || {
            let grpc = self.grpc.as_ref()?;
            Some(ProbeKind::Grpc { port: grpc.port, service: grpc.service.clone().unwrap_or_default() })
        };
        tcp.or_else(grpc)
    }

    /// Asks the program, in the name of the kubelet.
    ///
    /// # Errors
    /// Why the program is not well.
    pub async fn ask(&self, options: &ProxyOptions, agent: Option<&str>) -> Result<(), String> {
        let timeout = Duration::from_secs(u64::from(self.timeout_seconds.max(1)));
        let spec = self.spec(options, agent, timeout).ok_or("nothing to ask")?;
        match tokio::time::timeout(timeout, ask(&spec, options.mark)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }

    /// Calls the program's hook, in the name of the kubelet; its status.
    ///
    /// # Errors
    /// The program did not answer.
    pub async fn call(&self, options: &ProxyOptions, agent: Option<&str>) -> Result<StatusCode, String> {
        let spec = self.spec(options, agent, HOOK_CONNECT).ok_or("nothing to call")?;
        call_hook(&spec, options.mark).await
    }

    fn spec(&self, options: &ProxyOptions, agent: Option<&str>, timeout: Duration) -> Option<ProbeSpec> {
        let address = options.pod_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Some(ProbeSpec {
            kind: self.kind(agent)?,
            address,
            // Else capture would take it for a call of the workload to itself.
            source: passthrough(SocketAddr::new(address, 0)).map(|source| source.ip()),
            delay: Duration::ZERO,
            period: timeout,
            timeout,
            failure_threshold: 1,
            success_threshold: 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_injectors_form() {
        let text = r#"{"/app-health/web/readyz": {"httpGet": {"path": "/ready?a", "port": 8080, "scheme": "HTTPS",
                "httpHeaders": [{"name": "Host", "value": "x"}]}, "timeoutSeconds": 3},
            "/app-health/db/livez": {"tcpSocket": {"port": 5432}},
            "/app-health/api/startupz": {"grpc": {"port": 9000, "service": "s"}, "timeoutSeconds": 2}}"#;
        let probes = AppProbes::read(text).unwrap().0;
        let headers = vec![("user-agent".into(), "kube-probe/1.33".into()), ("Host".into(), "x".into())];
        let web = ProbeKind::Http { port: 8080, path: "/ready?a".into(), tls: true, headers };
        assert_eq!(probes["/app-health/web/readyz"].kind(Some("kube-probe/1.33")), Some(web));
        assert_eq!(probes["/app-health/db/livez"].kind(None), Some(ProbeKind::Tcp { port: 5432 }));
        assert_eq!(probes["/app-health/db/livez"].timeout_seconds, 1);
        let api = ProbeKind::Grpc { port: 9000, service: "s".into() };
        assert_eq!(probes["/app-health/api/startupz"].kind(None), Some(api));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for text in [
            r#"{"/app-health/web/readyz": {}}"#,
            r#"{"/app-health/web/readyz": {"tcpSocket": {"port": 1}, "grpc": {"port": 2}}}"#,
            r#"{"/elsewhere": {"tcpSocket": {"port": 1}}}"#,
            r#"{"/app-health/web/readyz": {"exec": {}}}"#,
            r#"{"/app-lifecycle/web/prestopz": {"tcpSocket": {"port": 1}}}"#,
            r#"{"/app-health/web/readyz": {"tcpSocket": {"port": 70000}}}"#,
        ] {
            assert!(AppProbes::read(text).is_err(), "{text}");
        }
    }
}
