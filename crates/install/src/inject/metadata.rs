//! Labels and annotations of an injected pod.
//!
//! Invariant: a label or annotation that the user wrote stays; `sidecar.istio.io/status` names everything that was added.

use super::codes;
use super::decide::{REVISION, STATUS};
use super::fields::{label, list, object, text};
use super::findings::Findings;
use super::options::{Options, Template};
use super::settings::InjectSettings;
use super::{INIT, PROXY, VALIDATION, volumes};
use fairlead_model::gateway::GATEWAY_POD;
use serde_json::{Value, json};

/// Istio's canonical service: what metrics and policies call the workload.
pub(super) struct Canonical {
    pub name: String,
    pub revision: String,
}

/// Longest value of a label.
const LABEL_CHARS: usize = 63;

impl Canonical {
    pub fn of(pod: &Value, namespace: &str) -> Self {
        let first = |keys: &[&str]| keys.iter().find_map(|key| label(pod, key)).filter(|value| !value.is_empty());
        let name = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision = first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        let name = name.map_or_else(|| workload(pod).unwrap_or_else(|| namespace.to_owned()), str::to_owned);
        Self { name: short(name), revision: revision.unwrap_or("latest").to_owned() }
    }
}

/// What made the pod, as far as its name and owner tell.
fn workload(pod: &Value) -> Option<String> {
    let metadata = &pod["metadata"];
    let owner = list(metadata, "ownerReferences").iter().find(|owner| owner["controller"].as_bool() == Some(true));
    if let Some(owner) = owner {
        let name = text(owner, "name")?;
        let hash = label(pod, "pod-template-hash");
        let stripped = match text(owner, "kind") {
            Some("ReplicaSet") => hash.and_then(|hash| name.strip_suffix(hash)).and_then(|name| name.strip_suffix('-')),
            // A CronJob's: name and minutes since 1970.
            Some("Job") => name.rsplit_once('-').filter(|(_, end)| is_minutes(end)).map(|(name, _)| name),
            _ => None,
        };
        return Some(stripped.unwrap_or(name).to_owned());
    }
    let name = text(metadata, "name").or_else(|| text(metadata, "generateName"))?;
    Some(name.trim_end_matches('-').to_owned())
}

fn is_minutes(text: &str) -> bool {
    text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn short(mut name: String) -> String {
    if name.len() > LABEL_CHARS {
        let end = (0..=LABEL_CHARS).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
        name.truncate(end);
    }
    name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// What says that a pod has a sidecar, that it takes mutual TLS.
const SIDECAR_POD: (&str, &str) = ("security.istio.io/tlsMode", "istio");

/// Refuses what would say both that the pod is a gateway and that it has a sidecar.
pub(super) fn contradiction(pod: &Value, options: &Options, findings: &mut Findings) {
    let ((key, value), what) = match options.template {
        Template::Sidecar => (GATEWAY_POD, "gets a sidecar and says that it is a gateway"),
        Template::Gateway => (SIDECAR_POD, "is to be a gateway and says that it has a sidecar"),
    };
    if label(pod, key) == Some(value) {
        let message = format!("the pod {what} by its label {key}");
        let hint = "remove the label, which injection writes";
        findings.refuse(codes::TEMPLATE, &format!("metadata.labels[{key}]"), message, hint);
    }
}

/// Writes them.
pub(super) fn mark(pod: &mut Value, settings: &InjectSettings, options: &Options, canonical: &Canonical) {
    if !pod["metadata"].is_object() {
        pod["metadata"] = json!({});
    }
    let program = list(&pod["spec"], "containers").iter().filter_map(|container| text(container, "name"));
    let is_gateway = options.template == Template::Gateway;
    let program = program.into_iter().find(|name| *name != PROXY && !is_gateway).unwrap_or(PROXY).to_owned();
    let labels = object(&mut pod["metadata"], "labels");
    for (key, value) in [
        match options.template {
            Template::Sidecar => SIDECAR_POD,
            Template::Gateway => GATEWAY_POD,
        },
        ("service.istio.io/canonical-name", &canonical.name),
        ("service.istio.io/canonical-revision", &canonical.revision),
        (REVISION, &settings.revision),
    ] {
        labels.entry(key).or_insert_with(|| json!(value));
    }
    let capture = if settings.cni { VALIDATION } else { INIT };
    let (init, containers) = match options.template {
        Template::Gateway => (vec![], vec![PROXY]),
        Template::Sidecar if options.native => (vec![capture, PROXY], vec![]),
        Template::Sidecar => (vec![capture], vec![PROXY]),
    };
    let mut added: Vec<&str> = vec![volumes::TOKEN, volumes::TRUST, volumes::STATE];
    added.extend(options.volumes.iter().filter_map(|volume| text(volume, "name")));
    let status = json!({
        "initContainers": init,
        "containers": containers,
        "volumes": added,
        "imagePullSecrets": settings.image_pull_secrets,
        "revision": settings.revision,
    });
    let annotations = object(&mut pod["metadata"], "annotations");
    annotations.insert(STATUS.into(), json!(status.to_string()));
    if settings.cni && !is_gateway {
        let arguments = options.capture.arguments();
        annotations.insert("fairlead.dev/capture".into(), json!(json!(arguments).to_string()));
    }
    let metrics = [
        ("kubectl.kubernetes.io/default-container", program.as_str()),
        ("kubectl.kubernetes.io/default-logs-container", program.as_str()),
    ];
    for (key, value) in metrics {
        annotations.entry(key).or_insert_with(|| json!(value));
    }
}
