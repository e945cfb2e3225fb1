//! Injection: a pod and the installation's settings in, the pod with its proxy out.
//!
//! Pure, and the same for the webhook and for `fairlead inject`. Never changes what the user wrote of his containers, volumes and
//! environment, but for probes and hooks over HTTP, which are asked through the proxy. Invariants: an injected pod is injected no second time; an
//! annotation is honoured, or refused, or named by a warning, never silently ignored.

mod annotations;
mod app_probes;
mod capture;
pub mod codes;
mod containers;
mod decide;
pub mod documents;
mod fields;
mod findings;
mod gateway;
mod hooks;
mod init;
mod metadata;
mod metrics;
mod options;
mod order;
pub mod patch;
mod probes;
mod proxy_config;
mod selector;
mod settings;
mod template;
mod values;
mod volumes;

pub use annotations::{ANNOTATIONS, Known, Treatment};
pub use app_probes::{AppProbe, AppProbes};
pub use decide::SkipReason;
pub use selector::LabelSelector;
pub use settings::{InjectSettings, Policy};

use fairlead_model::Diagnostic;
use findings::Findings;
use serde_json::Value;
use std::collections::BTreeMap;

/// Name of the sidecar's container.
pub const PROXY: &str = "fairlead-proxy";
/// Name of the init container that sets capture up.
pub const INIT: &str = "fairlead-init";
/// Name of the init container that finds out whether the CNI plugin has captured the pod.
pub const VALIDATION: &str = "fairlead-validation";
/// The uid that proxies run as; capture leaves its traffic alone.
pub const PROXY_UID: u32 = 1337;

/// Where a pod is to be.
#[derive(Clone, Copy, Debug)]
pub struct Namespace<'a> {
    pub name: &'a str,
    /// `None`: not known, which counts as selected. The API server has compared the labels with the webhook's selectors before it
    /// asks; offline nobody knows them.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The pod with its proxy.
    Inject { pod: Value, warnings: Vec<Diagnostic> },
    /// The pod stays as it is.
    Skip { reason: SkipReason, warnings: Vec<Diagnostic> },
    /// The pod must not start: without what it asks for it would run and not do what it says.
    Refuse { diagnostics: Vec<Diagnostic> },
}

/// Decides about a pod (or a pod template with `metadata` and `spec`), and injects it.
#[must_use]
pub fn inject(pod: &Value, namespace: Namespace<'_>, settings: &InjectSettings) -> Decision {
    let mut findings = Findings::of(pod, namespace.name, &settings.cluster);
    if let Err(reason) = decide::decide(pod, namespace, settings, &mut findings) {
        return Decision::Skip { reason, warnings: findings.all };
    }
    if let Err(problem) = settings.check() {
        findings.refuse(codes::SETTINGS, "", problem, "give the installation's settings: `cluster` and `trustDomain`");
        return Decision::Refuse { diagnostics: findings.all };
    }
    let options = options::Options::read(pod, settings, &mut findings);
    let injected = assemble(pod, namespace, settings, &options, &mut findings);
    match injected {
        Some(pod) if !findings.refused() => Decision::Inject { pod, warnings: findings.all },
        _ => Decision::Refuse { diagnostics: findings.all },
    }
}

fn assemble(
    pod: &Value,
    namespace: Namespace<'_>,
    settings: &InjectSettings,
    options: &options::Options,
    findings: &mut Findings,
) -> Option<Value> {
    let mut pod = pod.clone();
    metadata::contradiction(&pod, options, findings);
    let written = template::take(&mut pod, options.template, findings)?;
    if options.template == options::Template::Gateway {
        gateway::assemble(&mut pod, namespace.name, settings, options, written.proxy.as_ref(), findings);
        return Some(pod);
    }
    let probes =
        if options.rewrite_probes { probes::rewrite(&mut pod, options, findings) } else { AppProbes::default() };
    let identity = metadata::Canonical::of(&pod, namespace.name);
    volumes::add(&mut pod, settings, options, findings);
    let metrics = metrics::merge(&mut pod, options, findings);
    let asked = containers::Asked { probes: &probes, metrics: metrics.as_deref() };
    let proxy = containers::proxy(settings, options, &identity, &asked);
    let proxy = written.proxy.as_ref().map_or_else(|| proxy.clone(), |own| template::merge(&proxy, own));
    let init = init::init(settings, options);
    let init = written.init.as_ref().map_or_else(|| init.clone(), |own| template::merge(&init, own));
    order::place(&mut pod, proxy, init, options, settings, findings);
    metadata::mark(&mut pod, settings, options, &identity);
    Some(pod)
}
