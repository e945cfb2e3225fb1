//! What an installation says about injection: the file the webhook reads, and `fairlead inject --settings`.
//!
//! Invariant: every field has the default of `fairlead install`; an unknown field refuses the file.

use super::selector::LabelSelector;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Settings of one revision's injector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InjectSettings {
    /// The cluster; the control plane fills it in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The trust domain that the control plane's certificate is of; the control plane fills it in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trust_domain: String,
    /// This installation's revision.
    pub revision: String,
    /// Further names that mean this revision.
    pub tags: Vec<String>,
    /// Where the control plane runs.
    pub system_namespace: String,
    /// Where proxies find the control plane, HOST:PORT; empty: the Service in the system namespace.
    pub control_address: String,
    /// Image of the proxy and of the init container.
    pub image: String,
    pub image_pull_policy: String,
    /// Added to the pod's own.
    pub image_pull_secrets: Vec<String>,
    /// A CNI plugin captures: pods get no init container.
    pub cni: bool,
    /// Sidecars are init containers with `restartPolicy: Always`.
    pub native_sidecars: bool,
    /// What holds for pods that say nothing.
    pub policy: Policy,
    /// Pods that get none, whatever the policy; their own label comes first.
    pub never_inject_selector: Vec<LabelSelector>,
    /// Pods that get one, whatever the policy; `neverInjectSelector` comes first.
    pub always_inject_selector: Vec<LabelSelector>,
    /// Resources of the proxy's container, of pods that say nothing.
    pub resources: Value,
    /// Probes are asked through the proxy.
    pub rewrite_probes: bool,
    /// The proxy serves the program's metrics with its own.
    pub merge_metrics: bool,
    /// Ordinary sidecars hold the program back until they are ready.
    pub hold_application_until_proxy_starts: bool,
    /// How long an ordinary sidecar goes on serving after its pod's end began.
    pub termination_drain_seconds: u32,
    /// Names are resolved by the proxy.
    pub dns_capture: bool,
    /// The proxy's log filter; empty: its default.
    pub log_level: String,
    /// What a proxy remembers of its latest calls, for its admin interface; 0: nothing.
    pub records: u32,
    /// Captured outbound, unless the pod says otherwise; `*` is everything.
    pub include_outbound_ip_ranges: String,
    /// Not captured outbound.
    pub exclude_outbound_ip_ranges: String,
    /// Not captured outbound, by port.
    pub exclude_outbound_ports: String,
    /// Captured inbound; `*` is everything.
    pub include_inbound_ports: String,
    /// Not captured inbound.
    pub exclude_inbound_ports: String,
}

/// What holds for pods that say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// They are injected, in namespaces that are selected.
    #[default]
    Enabled,
    /// They are not.
    Disabled,
}

impl Default for InjectSettings {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            trust_domain: String::new(),
            revision: "default".into(),
            tags: Vec::new(),
            system_namespace: "fairlead-system".into(),
            control_address: String::new(),
            image: "fairlead.dev/fairlead:dev".into(),
            image_pull_policy: "IfNotPresent".into(),
            image_pull_secrets: Vec::new(),
            cni: false,
            native_sidecars: true,
            policy: Policy::Enabled,
            never_inject_selector: Vec::new(),
            always_inject_selector: Vec::new(),
            resources: json!({"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}}),
            rewrite_probes: true,
            merge_metrics: true,
            hold_application_until_proxy_starts: false,
            termination_drain_seconds: 5,
            dns_capture: true,
            log_level: String::new(),
            records: 0,
            include_outbound_ip_ranges: "*".into(),
            exclude_outbound_ip_ranges: String::new(),
            exclude_outbound_ports: String::new(),
            include_inbound_ports: "*".into(),
            exclude_inbound_ports: String::new(),
        }
    }
}

impl InjectSettings {
    /// Whether this installation is meant by a revision or tag.
    #[must_use]
    pub fn is_revision(&self, name: &str) -> bool {
        self.revision == name || self.tags.iter().any(|tag| tag == name)
    }

    /// Whether it takes what names no revision.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.is_revision("default")
    }

    /// Where proxies find their control plane.
    #[must_use]
    pub fn control(&self) -> String {
        if self.control_address.is_empty() {
            return format!("{}.{}.svc:15012", self.service(), self.system_namespace);
        }
        self.control_address.clone()
    }

    /// The Service of this revision's control plane, in the system namespace.
    #[must_use]
    pub fn service(&self) -> String {
        if self.revision == "default" {
            "fairlead-control".into()
        } else {
            format!("fairlead-control-{}", self.revision)
        }
    }

    /// What no pod can be injected without.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, value) in [("cluster", &self.cluster), ("trustDomain", &self.trust_domain), ("image", &self.image)] {
            if value.is_empty() {
                return Err(format!("the injector's settings have no {name}"));
            }
        }
        Ok(())
    }
}
