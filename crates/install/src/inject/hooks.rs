//! Lifecycle hooks over HTTP are sent to the proxy, which calls the program: the kubelet has no certificate.
//!
//! As Istio since 1.25. Left as they are: `exec`, `sleep`, a hook with a `host` of its own, one of a port that the proxy serves. Invariant:
//! a hook that is called while no proxy runs is named by a warning.

use super::app_probes::{AppProbe, AppProbes};
use super::codes;
use super::fields::{list, text};
use super::findings::Findings;
use super::options::Options;
use super::probes::{self, PORT};
use super::template;
use serde_json::{Value, json};

const HOOKS: &[(&str, &str)] = &[("postStart", "poststartz"), ("preStop", "prestopz")];

/// Rewrites the hooks of a container of `group`.
pub(super) fn rewrite(
    container: &mut Value,
    group: &str,
    options: &Options,
    probes: &mut AppProbes,
    findings: &mut Findings,
) {
    let Some(name) = text(container, "name").map(str::to_owned) else { return };
    if template::is_ours(&name) {
        return;
    }
    let ports = list(container, "ports").to_vec();
    for (field, short) in HOOKS {
        let hook = &container["lifecycle"][field]["httpGet"];
        if !hook.is_object() || text(hook, "host").is_some() {
            continue;
        }
        let path = format!("spec.{group}[{name}].lifecycle.{field}");
        let get = match probes::request(hook, &ports) {
            Ok(get) if probes::is_own(get.port) => continue,
            Ok(get) => get,
            Err(message) => {
                let hint = "declare the port by that name in the container, or write its number";
                findings.warn(codes::PROBE, &path, message, hint);
                continue;
            }
        };
        if let Some(why) = without_proxy(field, group, options) {
            let message =
                format!("the {field} hook of {name} is called while the ordinary sidecar does not run: {why}");
            let hint = "use a native sidecar, or `exec`; for postStart of a container holdApplicationUntilProxyStarts";
            findings.warn(codes::PROBE, &path, message, hint);
        }
        let key = format!("/app-lifecycle/{name}/{short}");
        container["lifecycle"][field] = json!({"httpGet": {"path": key, "port": PORT}});
        probes.0.insert(key, AppProbe { http_get: Some(get), ..AppProbe::default() });
    }
}

/// Why nobody answers the hook; native sidecars begin before, and end after, everything that has hooks.
fn without_proxy(field: &str, group: &str, options: &Options) -> Option<&'static str> {
    if options.native {
        return None;
    }
    match (group, field) {
        ("initContainers", _) => Some("sidecars among the init containers begin before it and end after it"),
        ("containers", "postStart") if !options.hold_application => Some("it starts last"),
        _ => None,
    }
}
