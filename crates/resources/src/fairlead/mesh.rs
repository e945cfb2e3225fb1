//! `Mesh`: mesh-wide settings of a mesh directory.
//!
//! Field names and defaults are an interface (mesh directories and call tables); change them by decision record only.

use std::collections::BTreeMap;

use crate::field::from_node::read_fields;
use crate::field::{FromNode, Reading, Shape};
use crate::istio::MeshConfig;
use crate::meta::Meta;
use crate::yaml::{Node, Value};

message! {
    /// Mesh-wide settings.
    pub struct Mesh {
        /// Identity; the name defaults to the folder's, so it may be empty here.
        metadata: Meta,
        /// The settings.
        spec: MeshSpec,
    }
}

message! {
    /// `Mesh.spec`.
    pub struct MeshSpec {
        /// Which defaults hold.
        profile: Profile,
        /// perCluster (fairlead) or shared (istio).
        trust: Option<TrustMode>,
        /// `<mesh>.mesh` (fairlead) or `cluster.local` (istio).
        trust_domain: Option<String>,
        /// explicit (fairlead) or all (istio).
        export: Option<ExportMode>,
        /// span (both).
        cluster_local_names: Option<ClusterLocalNames>,
        /// preferLocal (fairlead) or istio.
        locality: Option<LocalityMode>,
        /// Istio's MeshConfig; a cluster's ConfigMap overrides it field by field.
        mesh_config: Option<EmbeddedMeshConfig>,
        /// Clusters with settings; folders are members anyway.
        clusters: BTreeMap<String, MeshCluster>,
        /// Whether introductions are admitted: `open` (lab's default) or `approve` (Kubernetes' default).
        admission: Option<Admission>,
    }
}

words! {
    /// Which defaults hold.
    pub enum Profile {
        /// Ours.
        Fairlead = "fairlead",
        /// Istio 1.30's.
        Istio = "istio",
    }
}

words! {
    /// How roots and trust domains are laid out.
    pub enum TrustMode {
        /// A domain and root for each cluster.
        PerCluster = "perCluster",
        /// One domain, one issuing intermediate for each cluster.
        Shared = "shared",
    }
}

words! {
    /// Which services cross.
    pub enum ExportMode {
        /// Those with a ServiceExport.
        Explicit = "explicit",
        /// All.
        All = "all",
    }
}

words! {
    /// What `svc.ns.svc.cluster.local` covers.
    pub enum ClusterLocalNames {
        /// Other clusters too.
        Span = "span",
        /// The own cluster only.
        Local = "local",
    }
}

words! {
    /// How endpoints are ordered without any policy.
    pub enum LocalityMode {
        /// Own cluster and zone first.
        PreferLocal = "preferLocal",
        /// As Istio.
        Istio = "istio",
    }
}

words! {
    /// Whether introductions are admitted.
    pub enum Admission {
        /// At once.
        Open = "open",
        /// After approval.
        Approve = "approve",
    }
}

message! {
    /// Settings of one cluster.
    pub struct MeshCluster {
        /// Its network; default its name (fairlead) or empty (istio).
        network: Option<String>,
        /// `region/zone/subzone` of workloads that say nothing themselves.
        locality: Option<String>,
        /// Who runs its control plane.
        topology: Topology,
        /// Its east-west gateway.
        east_west_gateway: Option<EastWestGateway>,
    }
}

/// Who runs a cluster's control plane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Topology {
    /// It has its own.
    #[default]
    Primary,
    /// Another cluster's.
    Remote {
        /// That cluster.
        primary: String,
    },
}

message! {
    /// `topology: {remote: {primary: west}}`.
    pub struct RemoteTopology {
        /// The cluster that serves it.
        primary: String,
    }
}

message! {
    /// Where a cluster's east-west gateway is reached.
    pub struct EastWestGateway {
        /// Addresses.
        addresses: Vec<String>,
        /// Default 15443.
        port: Option<u16>,
    }
}

/// A MeshConfig inside another object; nulls are absent in it, as in Istio's ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct EmbeddedMeshConfig(pub Box<MeshConfig>);

impl FromNode for EmbeddedMeshConfig {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        Self(Box::new(MeshConfig::read(node, reading)))
    }

    fn shape() -> Shape {
        MeshConfig::shape()
    }
}

impl FromNode for Topology {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match &node.value {
            Value::String(word) if word == "primary" => Self::Primary,
            Value::Map(_) => {
                let mut remote = RemoteTopology::default();
                read_fields(node, reading, &["remote"], |key, value, reading| {
                    let known = key == "remote";
                    if known {
                        remote = RemoteTopology::from_node(value, reading);
                    }
                    known
                });
                if remote.primary.is_empty() {
                    reading.wrong("remote needs the name of its primary", "write topology: {remote: {primary: NAME}}");
                }
                Self::Remote { primary: remote.primary }
            }
            other => {
                let what = format!("must be `primary` or {{remote: {{primary: NAME}}}}, is {}", other.kind());
                reading.wrong(what, "");
                Self::Primary
            }
        }
    }

    fn shape() -> Shape {
        Shape::Any
    }
}
