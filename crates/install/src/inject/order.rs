//! Where the proxy's containers stand among the pod's own, and what follows from it.
//!
//! Native: capture, proxy, then the pod's own init containers, which use the mesh. Ordinary: capture after them, since nobody would
//! answer; the proxy last of the containers, or first where the program is held back. Invariant: the pod's own keep their order.

use super::fields::{annotation, is_native, items, list, text};
use super::findings::Findings;
use super::options::Options;
use super::settings::InjectSettings;
use super::{PROXY_UID, codes};
use serde_json::Value;

/// Ports that the proxy listens on in the pod.
const PROXY_PORTS: &[u64] = &[15000, 15001, 15006, 15020, 15021, 15053, 15090];

pub(super) fn place(
    pod: &mut Value,
    proxy: Value,
    init: Value,
    options: &Options,
    settings: &InjectSettings,
    findings: &mut Findings,
) {
    warn(pod, options, settings, findings);
    taken_ports(pod, findings);
    let spec = &mut pod["spec"];
    if options.native {
        let own = items(spec, "initContainers");
        own.splice(0..0, [init, proxy]);
        return;
    }
    let inits = items(spec, "initContainers");
    // With the CNI plugin capture holds from the first: whether it does is found out first.
    inits.insert(if settings.cni { 0 } else { inits.len() }, init);
    let own = items(spec, "containers");
    let at = if options.hold_application { 0 } else { own.len() };
    own.insert(at, proxy);
}

fn warn(pod: &Value, options: &Options, settings: &InjectSettings, findings: &mut Findings) {
    let spec = &pod["spec"];
    let runs_as = |container: &Value| {
        let own = container["securityContext"]["runAsUser"].as_u64();
        own.or_else(|| spec["securityContext"]["runAsUser"].as_u64())
    };
    for container in list(spec, "containers") {
        let name = text(container, "name").unwrap_or_default();
        if runs_as(container) == Some(PROXY_UID.into()) {
            let path = format!("spec.containers[{name}].securityContext.runAsUser");
            let message =
                format!("container {name} runs as user {PROXY_UID}, the proxy's: its traffic is not captured");
            findings.warn(codes::PROXY_UID, &path, message, "use another runAsUser");
        }
    }
    if options.native {
        return;
    }
    if ends_by_itself(pod) {
        let message = "the pod runs to completion and its sidecar is an ordinary container: it does not end by itself";
        let hint = "remove sidecar.istio.io/nativeSidecar: \"false\", or let the program end it: POST http://127.0.0.1:15020/quitquitquit";
        findings.warn(codes::JOB, "spec.restartPolicy", message, hint);
    }
    let early = list(spec, "initContainers").iter().filter(|own| !is_native(own));
    if settings.cni && early.clone().any(|own| runs_as(own) != Some(PROXY_UID.into())) {
        let message = "its init containers run while traffic is captured and the sidecar does not run yet";
        let hint = "use a native sidecar, or let init containers that need the network run as user 1337";
        findings.warn(codes::BEFORE_PROXY, "spec.initContainers", message, hint);
    }
}

/// Names containers beside the proxy that want a port of its.
pub(super) fn taken_ports(pod: &Value, findings: &mut Findings) {
    for container in list(&pod["spec"], "containers") {
        let name = text(container, "name").unwrap_or_default();
        for port in list(container, "ports").iter().filter_map(|port| port["containerPort"].as_u64()) {
            if PROXY_PORTS.contains(&port) {
                let message = format!("container {name} declares port {port}, which the proxy listens on");
                let hint = "use another port; 15000, 15001, 15006, 15020, 15021, 15053 and 15090 are the proxy's";
                findings.warn(codes::PORT_TAKEN, &format!("spec.containers[{name}].ports"), message, hint);
            }
        }
    }
}

fn ends_by_itself(pod: &Value) -> bool {
    let owners = list(&pod["metadata"], "ownerReferences");
    matches!(text(pod, "kind"), Some("Job" | "CronJob"))
        || owners.iter().any(|owner| text(owner, "kind") == Some("Job"))
        || annotation(pod, "batch.kubernetes.io/job-completion-index").is_some()
        || matches!(text(&pod["spec"], "restartPolicy"), Some("Never" | "OnFailure"))
}
