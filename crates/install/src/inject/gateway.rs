//! A pod of Istio's template `gateway`: the proxy is its program, and takes what comes to its own ports.
//!
//! As a sidecar it proves itself by the pod's token and passes the `restricted` Pod Security level. Invariants: nothing is captured, and
//! no probe rewritten, as nothing stands before the pod's other containers; the pod says by a label that it is a gateway, so that it is
//! one before any Gateway object selects it.

use super::app_probes::AppProbes;
use super::containers::{self, Asked};
use super::fields::{items, text};
use super::findings::Findings;
use super::metadata::{self, Canonical};
use super::options::Options;
use super::settings::InjectSettings;
use super::{metrics, order, template, volumes};
use serde_json::{Value, json};

/// Where ports begin that need no privilege; it is the pod's own, and among those that the `restricted` level allows.
const UNPRIVILEGED: &str = "net.ipv4.ip_unprivileged_port_start";

pub(super) fn assemble(
    pod: &mut Value,
    namespace: &str,
    settings: &InjectSettings,
    options: &Options,
    written: Option<&Value>,
    findings: &mut Findings,
) {
    let canonical = Canonical::of(pod, namespace);
    volumes::add(pod, settings, options, findings);
    let metrics = metrics::merge(pod, options, findings);
    let asked = Asked { probes: &AppProbes::default(), metrics: metrics.as_deref() };
    let made = containers::proxy(settings, options, &canonical, &asked);
    let proxy = written.map_or_else(|| made.clone(), |own| template::merge(&made, own));
    order::taken_ports(pod, findings);
    items(&mut pod["spec"], "containers").insert(0, proxy);
    low_ports(&mut pod["spec"]);
    metadata::mark(pod, settings, options, &canonical);
}

/// Servers of Gateways are often on 80 and 443, and the proxy is not root.
fn low_ports(spec: &mut Value) {
    if !spec["securityContext"].is_object() {
        spec["securityContext"] = json!({});
    }
    let sysctls = items(&mut spec["securityContext"], "sysctls");
    if !sysctls.iter().any(|own| text(own, "name") == Some(UNPRIVILEGED)) {
        sysctls.push(json!({"name": UNPRIVILEGED, "value": "0"}));
    }
}
