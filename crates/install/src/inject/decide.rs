//! Whether a pod gets a sidecar: Istio's ladder.
//!
//! The namespace first (`istio-injection` over `istio.io/rev`; the pod's `istio.io/rev` counts only where neither stands), as the
//! selectors of Istio's webhooks have it; then host network, system namespaces, the pod's label over its annotation, never and always
//! selectors, the policy. Invariant: a pod that has its sidecar is left alone.

use super::fields::{annotation, label, list, text};
use super::findings::Findings;
use super::settings::{InjectSettings, Policy};
use super::{Namespace, codes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The pod's own word.
pub(super) const INJECT: &str = "sidecar.istio.io/inject";
/// The namespace's word.
const NAMESPACE: &str = "istio-injection";
/// Which installation.
pub(super) const REVISION: &str = "istio.io/rev";
/// What an injection left behind.
pub(super) const STATUS: &str = "sidecar.istio.io/status";

/// Never injected, whatever anybody says: what a mesh itself, or its cluster, cannot start without.
const SYSTEM_NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason {
    HostNetwork,
    SystemNamespace(String),
    NamespaceDisabled,
    NamespaceNotSelected,
    OtherRevision(String),
    PodSaysNo,
    NeverSelected,
    PolicyDisabled,
    AlreadyInjected,
    Windows,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("it uses its node's network"),
            Self::SystemNamespace(name) => write!(f, "namespace {name} is the system's"),
            Self::NamespaceDisabled => write!(f, "its namespace says {NAMESPACE}=disabled"),
            Self::NamespaceNotSelected => {
                write!(f, "its namespace has neither {NAMESPACE}=enabled nor {REVISION}, and the pod does not ask")
            }
            Self::OtherRevision(name) => write!(f, "it is revision {name}'s"),
            Self::PodSaysNo => write!(f, "the pod says {INJECT}: \"false\""),
            Self::NeverSelected => f.write_str("neverInjectSelector selects it"),
            Self::PolicyDisabled => write!(f, "the policy is disabled and the pod does not say {INJECT}: \"true\""),
            Self::AlreadyInjected => f.write_str("it has its sidecar"),
            Self::Windows => f.write_str("it is for Windows nodes"),
        }
    }
}

/// `Ok`: inject it.
pub(super) fn decide(
    pod: &Value,
    namespace: Namespace<'_>,
    settings: &InjectSettings,
    findings: &mut Findings,
) -> Result<(), SkipReason> {
    if is_injected(pod) {
        return Err(SkipReason::AlreadyInjected);
    }
    let says = own_word(pod, findings);
    if let Some(labels) = namespace.labels {
        selected(pod, labels, says, settings, findings)?;
    }
    if pod["spec"]["hostNetwork"].as_bool() == Some(true) {
        if says == Some(true) {
            let message = "the pod asks for a sidecar and uses its node's network; it gets none";
            findings.warn(
                codes::NOT_INJECTED,
                "spec.hostNetwork",
                message,
                "capture would take the whole node's traffic; remove hostNetwork",
            );
        }
        return Err(SkipReason::HostNetwork);
    }
    if SYSTEM_NAMESPACES.contains(&namespace.name) || namespace.name == settings.system_namespace {
        return Err(SkipReason::SystemNamespace(namespace.name.to_owned()));
    }
    if is_windows(pod) {
        return Err(SkipReason::Windows);
    }
    match says {
        Some(true) => return Ok(()),
        Some(false) => return Err(SkipReason::PodSaysNo),
        None => {}
    }
    let get = |key: &str| label(pod, key);
    if settings.never_inject_selector.iter().any(|selector| selector.selects(get)) {
        return Err(SkipReason::NeverSelected);
    }
    if settings.always_inject_selector.iter().any(|selector| selector.selects(get)) {
        return Ok(());
    }
    match settings.policy {
        Policy::Enabled => Ok(()),
        Policy::Disabled => Err(SkipReason::PolicyDisabled),
    }
}

/// What the selectors of the four webhooks say.
fn selected(
    pod: &Value,
    namespace: &BTreeMap<String, String>,
    says: Option<bool>,
    settings: &InjectSettings,
    findings: &mut Findings,
) -> Result<(), SkipReason> {
    let ours = |name: &str| {
        if settings.is_revision(name) { Ok(()) } else { Err(SkipReason::OtherRevision(name.to_owned())) }
    };
    match namespace.get(NAMESPACE).map(String::as_str) {
        Some("enabled") => return if settings.is_default() { Ok(()) } else { ours("default") },
        Some("disabled") => return Err(SkipReason::NamespaceDisabled),
        Some(other) => {
            let message = format!("the namespace says {NAMESPACE}={other}; its pods get no sidecar");
            findings.warn(codes::NOT_INJECTED, "", message, "write `enabled` or `disabled`");
            return Err(SkipReason::NamespaceNotSelected);
        }
        None => {}
    }
    if let Some(revision) = namespace.get(REVISION) {
        return ours(revision);
    }
    match label(pod, REVISION) {
        Some(revision) => ours(revision),
        // An annotation alone does not reach a webhook: selectors see labels.
        None if label(pod, INJECT).is_some() && says == Some(true) => ours("default"),
        None => Err(SkipReason::NamespaceNotSelected),
    }
}

/// The label, or the annotation it replaces.
fn own_word(pod: &Value, findings: &mut Findings) -> Option<bool> {
    let (path, value) = match label(pod, INJECT) {
        Some(value) => ("metadata.labels", value),
        None => ("metadata.annotations", annotation(pod, INJECT)?),
    };
    match value {
        "true" => Some(true),
        "false" => Some(false),
        "" => None,
        other => {
            let message = format!("{INJECT}: {other:?} is neither \"true\" nor \"false\"; it counts as not written");
            findings.warn(codes::NOT_INJECTED, &format!("{path}[{INJECT}]"), message, "write \"true\" or \"false\"");
            None
        }
    }
}

/// The annotation alone proves nothing: it may have been copied.
fn is_injected(pod: &Value) -> bool {
    let Some(status) = annotation(pod, STATUS).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return false;
    };
    let has = |name: &str| {
        let all = list(&pod["spec"], "containers").iter().chain(list(&pod["spec"], "initContainers"));
        all.into_iter().any(|container| text(container, "name") == Some(name))
    };
    let mut named = list(&status, "initContainers").iter().chain(list(&status, "containers")).filter_map(Value::as_str);
    let first = named.next();
    first.is_some_and(has) && named.all(has)
}

fn is_windows(pod: &Value) -> bool {
    let spec = &pod["spec"];
    spec["os"]["name"].as_str() == Some("windows")
        || spec["nodeSelector"]["kubernetes.io/os"].as_str() == Some("windows")
}
