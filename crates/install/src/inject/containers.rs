//! The proxy's container.
//!
//! Invariant: it passes the `restricted` Pod Security level, whatever the pod's own containers may do.

use super::app_probes::AppProbes;
use super::metadata::Canonical;
use super::options::{Options, Template};
use super::settings::InjectSettings;
use super::{PROXY, PROXY_UID, volumes};
use serde_json::{Value, json};

/// Where readiness is asked.
const READY_PORT: u16 = 15021;
/// The kubelet gives up after ten minutes of no answer.
const STARTUP_TRIES: u32 = 600;

/// What the proxy asks of the program for others.
pub(super) struct Asked<'a> {
    pub probes: &'a AppProbes,
    /// Where its metrics are.
    pub metrics: Option<&'a str>,
}

/// The container, as init container with `restartPolicy: Always` or as an ordinary one.
pub(super) fn proxy(settings: &InjectSettings, options: &Options, canonical: &Canonical, asked: &Asked<'_>) -> Value {
    let ready = json!({"path": "/healthz/ready", "port": READY_PORT});
    let mut readiness = json!({
        "httpGet": ready, "periodSeconds": options.ready_period, "timeoutSeconds": 3,
        "failureThreshold": options.ready_failures,
    });
    if let Some(delay) = options.ready_delay {
        readiness["initialDelaySeconds"] = json!(delay);
    }
    let mut container = json!({
        "name": PROXY,
        "image": options.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": arguments(settings, options, canonical, asked),
        "env": environment(settings, options, asked.probes),
        "resources": options.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "runAsUser": PROXY_UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": STARTUP_TRIES},
        "readinessProbe": readiness,
        "volumeMounts": volumes::mounts(options),
    });
    if options.native {
        // The kubelet starts it before, and ends it after, the program's containers: no hook is needed.
        container["restartPolicy"] = json!("Always");
        return container;
    }
    // Everybody is told to end at once, and whoever leads callers here only learns of it: calls still arrive for a while.
    container["lifecycle"] = json!({"preStop": {"sleep": {"seconds": options.termination_drain_seconds}}});
    if options.hold_application && options.template == Template::Sidecar {
        // Containers are started in order, and the next one only after the hook of the one before.
        container["lifecycle"]["postStart"] = json!({"exec": {"command": ["/usr/local/bin/fairlead", "wait"]}});
    }
    container
}

fn arguments(settings: &InjectSettings, options: &Options, canonical: &Canonical, asked: &Asked<'_>) -> Vec<String> {
    let identity = format!("spiffe://{}/fairlead/control", settings.trust_domain);
    let control = settings.control();
    let mut arguments: Vec<String> = [
        "proxy",
        "--role",
        match options.template {
            Template::Sidecar => "sidecar",
            Template::Gateway => "gateway",
        },
        "--workload",
        "$(CLUSTER)/$(POD_NAMESPACE)/$(POD_NAME)",
        "--canonical-service",
        &canonical.name,
        "--canonical-revision",
        &canonical.revision,
        "--control",
        &control,
        "--control-identity",
        &identity,
        "--token-file",
        "/var/run/secrets/fairlead/token",
        "--trust-file",
        "/var/run/fairlead/trust/bundles.json",
        "--state",
        volumes::STATE_PATH,
        "--status",
        "0.0.0.0:15021",
        "--resolvers-from",
        "/etc/resolv.conf",
    ]
    .map(str::to_owned)
    .into();
    if let Some(threads) = options.concurrency {
        arguments.extend(["--concurrency".to_owned(), threads.to_string()]);
    }
    if settings.records > 0 {
        arguments.extend(["--records".to_owned(), settings.records.to_string()]);
    }
    if let Some(metrics) = asked.metrics {
        arguments.extend(["--app-metrics".to_owned(), literal(metrics)]);
    }
    arguments
}

fn environment(settings: &InjectSettings, options: &Options, probes: &AppProbes) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut environment = vec![
        json!({"name": "CLUSTER", "value": settings.cluster}),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("HOST_IP", "status.hostIP"),
    ];
    if !options.log_level.is_empty() {
        environment.push(json!({"name": "FAIRLEAD_LOG", "value": options.log_level}));
    }
    // Headers of probes are often secrets: whoever may see processes reads their arguments, and not their environment.
    if !probes.0.is_empty() {
        let text = serde_json::to_string(probes).unwrap_or_default();
        environment.push(json!({"name": "FAIRLEAD_APP_PROBES", "value": literal(&text)}));
    }
    environment
}

/// The kubelet replaces `$(NAME)` in values; `$$` stands for `$`.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}
