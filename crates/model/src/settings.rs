//! Mesh-wide settings with every default applied (the `Mesh` object and MeshConfig).
//!
//! Invariant: no `Option` here means "look elsewhere for the default"; each default is settled once, by profile.

use crate::ids::{ClusterId, Locality, NetworkId};
use crate::policy::LocalityPolicy;
use crate::route::RetryPolicy;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Profile {
    #[default]
    Fairlead,
    Istio,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    #[default]
    PerCluster,
    Shared,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Export {
    #[default]
    Explicit,
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterLocalNames {
    #[default]
    Span,
    Local,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LocalityMode {
    /// Priorities: own cluster and zone; own cluster and region; own cluster; same zone; same region; rest.
    #[default]
    PreferLocal,
    /// Even spread unless outlierDetection, trafficDistribution or a locality setting says otherwise.
    Istio,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OutboundPolicy {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// MeshConfig.pathNormalization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathNormalization {
    None,
    #[default]
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// One cluster as `Mesh.spec.clusters` describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterSettings {
    pub network: NetworkId,
    pub locality: Locality,
    /// The primary that serves this cluster, if it is remote.
    pub primary: Option<ClusterId>,
    pub gateway_addresses: Vec<IpAddr>,
    /// Default 15443.
    pub gateway_port: u16,
}

/// As they hold in one cluster (`istio-system/istio` of a cluster overrides field by field).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MeshSettings {
    pub name: String,
    pub profile: Profile,
    pub trust: Trust,
    /// The mesh's bare trust domain. With `perCluster` trust a member's is `<cluster>.<trust_domain>`.
    pub trust_domain: String,
    pub trust_domain_aliases: BTreeSet<String>,
    pub export: Export,
    pub cluster_local_names: ClusterLocalNames,
    pub locality: LocalityMode,
    pub clusters: BTreeMap<ClusterId, ClusterSettings>,
    /// DNS suffix of plain names, `cluster.local`.
    pub domain: String,
    pub root_namespace: String,
    pub auto_mtls: bool,
    pub outbound: OutboundPolicy,
    pub connect_timeout: Duration,
    /// MeshConfig.defaultHttpRetryPolicy.
    pub default_retries: Option<RetryPolicy>,
    /// MeshConfig.localityLbSetting.
    pub locality_policy: LocalityPolicy,
    pub path_normalization: PathNormalization,
    /// Hosts (patterns) that never leave a cluster (MeshConfig.serviceSettings clusterLocal), most specific first, with
    /// the value that holds.
    pub cluster_local_hosts: Vec<(String, bool)>,
    /// MeshConfig.defaultConfig.gatewayTopology.numTrustedProxies.
    pub trusted_proxies: u32,
}

impl MeshSettings {
    /// The trust domain in which a member's workloads are named.
    pub fn trust_domain_of(&self, cluster: &ClusterId) -> String {
        match self.trust {
            Trust::PerCluster => format!("{cluster}.{}", self.trust_domain),
            Trust::Shared => self.trust_domain.clone(),
        }
    }

    /// SPIFFE ID of a service account of a member (Istio's form).
    pub fn spiffe_id(&self, cluster: &ClusterId, namespace: &str, account: &str) -> String {
        format!("spiffe://{}/ns/{namespace}/sa/{account}", self.trust_domain_of(cluster))
    }
}
