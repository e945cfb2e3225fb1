//! The groups of values, with their defaults.
//!
//! Invariant: a group of which nothing is said is what an installation without it would have.

use super::{DEFAULT_REVISION, ValueError, Values, label};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where the control plane of a remote cluster is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RemoteValues {
    /// The cluster it runs in, as the mesh calls it.
    pub primary: String,
    /// That cluster's API server, by which commands find its context.
    pub server: String,
    /// Port at which proxies and peers reach it from outside the primary.
    pub port: u16,
    /// Port of its webhooks, likewise.
    pub webhook_port: u16,
    /// Life of the credential for the remote's API server; half of it is the time between two.
    pub token_seconds: u32,
}

/// When the kubelet asks a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Unless the node has it.
    IfNotPresent,
    /// For each start.
    Always,
    /// Not at all.
    Never,
}

/// How others reach in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expose {
    /// Services of type LoadBalancer.
    LoadBalancer,
    /// Services of type NodePort.
    NodePort,
    /// Services of type ClusterIP: this cluster only dials out.
    None,
}

/// Mesh-wide settings, written into the object `Mesh`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshValues {
    /// The mesh's trust domain; with `perCluster` trust a cluster's is `<cluster>.<this>`.
    pub trust_domain: String,
    /// One root per cluster, or one for all.
    pub trust: Trust,
    /// Whose defaults hold.
    pub profile: Profile,
    /// Whether clusters that a member introduces are admitted at once.
    pub admission: Admission,
}

/// How roots are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    /// A domain and root for each cluster.
    PerCluster,
    /// One domain for all.
    Shared,
}

/// Whose defaults hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Ours.
    Fairlead,
    /// Istio's.
    Istio,
}

/// What happens to a cluster that a member introduces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admission {
    /// It is a member at once.
    Open,
    /// It waits for a `Peer` object.
    Approve,
}

/// The control plane's Deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ControlValues {
    /// How many.
    pub replicas: u32,
    /// Kubernetes' `resources` of the container.
    pub resources: Value,
}

/// The east-west gateway's Deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayValues {
    /// False where every cluster is in one flat network, or where another revision's gateway serves.
    pub enabled: bool,
    /// How many.
    pub replicas: u32,
    /// Kubernetes' `resources` of the container.
    pub resources: Value,
}

/// The CNI plugin that captures pods, so that they need no privilege for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CniValues {
    /// Whether it captures; else an init container of each pod does.
    pub enabled: bool,
    /// Where the nodes' container runtime looks for plugins.
    pub bin_dir: String,
    /// Where it looks for their configuration.
    pub conf_dir: String,
}

impl Default for RemoteValues {
    fn default() -> Self {
        Self { primary: String::new(), server: String::new(), port: 15012, webhook_port: 443, token_seconds: 24 * 3600 }
    }
}

impl Default for MeshValues {
    fn default() -> Self {
        Self {
            trust_domain: "fairlead.mesh".into(),
            trust: Trust::PerCluster,
            profile: Profile::Fairlead,
            admission: Admission::Approve,
        }
    }
}

impl Default for ControlValues {
    fn default() -> Self {
        Self { replicas: 1, resources: requests("100m", "128Mi") }
    }
}

impl Default for GatewayValues {
    fn default() -> Self {
        Self { enabled: true, replicas: 1, resources: requests("50m", "64Mi") }
    }
}

impl Default for CniValues {
    fn default() -> Self {
        Self { enabled: false, bin_dir: "/opt/cni/bin".into(), conf_dir: "/etc/cni/net.d".into() }
    }
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}})
}

impl RemoteValues {
    pub(super) fn validate(&self, values: &Values) -> Result<(), ValueError> {
        let refused = |field: &str, problem: String, remedy: &str| {
            Err(ValueError { field: field.into(), problem, remedy: remedy.into() })
        };
        label("remote.primary", &self.primary, "install with --primary CONTEXT, which writes it")?;
        if self.primary == values.cluster {
            return refused("cluster", format!("`{}` is its primary's name", self.primary), "write --cluster west");
        }
        if crate::remote::home(&values.cluster).len() > 63 {
            return refused("cluster", "is too long for a remote cluster".into(), "write at most 47 letters");
        }
        if values.revision != DEFAULT_REVISION {
            let remedy = "leave --revision out; the image of a remote's control plane is rolled in place";
            return refused("revision", "a remote cluster has the default one only".into(), remedy);
        }
        if values.expose == Expose::None {
            let remedy = "write --expose loadbalancer or nodeport";
            return refused("expose", "a remote cluster must reach its control plane in the primary".into(), remedy);
        }
        if self.port == self.webhook_port {
            return refused("remote.webhookPort", format!("{} is remote.port too", self.port), "write another");
        }
        // The API server's own bound.
        if self.token_seconds < 600 {
            return refused("remote.tokenSeconds", "a token lives for 600 s at least".into(), "write 600 or more");
        }
        Ok(())
    }
}
