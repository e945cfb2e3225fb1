//! The description of a lab, in plain strings and addresses: what the caller has read from a mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Everything that is to exist.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// The clusters by name. `outside` is reserved.
    pub clusters: BTreeMap<String, ClusterSpec>,
    /// Servers outside the mesh.
    pub externals: Vec<ExternalSpec>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// Its network; clusters with equal names share one bridge. An empty name is a network too, shared by all that have it.
    pub network: String,
    /// region/zone/subzone, carried through.
    pub locality: Option<String>,
    /// Whether it has a control plane of its own.
    pub control: bool,
    /// Its built-in gateways; each address becomes a namespace.
    pub gateways: Vec<GatewaySpec>,
    /// Its workloads.
    pub workloads: Vec<WorkloadSpec>,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self { network: String::new(), locality: None, control: true, gateways: Vec::new(), workloads: Vec::new() }
    }
}

/// A gateway with a leg on the network and one on the wide-area bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewaySpec {
    /// Its name in the cluster: `east-west`.
    pub name: String,
    /// Wide-area addresses as written; empty: one is assigned. Several are several instances.
    pub addresses: Vec<IpAddr>,
}

/// A workload: one namespace on its network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadSpec {
    /// `namespace/name`.
    pub name: String,
    /// Addresses on its network as written; empty: one is assigned. Two workloads of one network with an address in common
    /// share a namespace.
    pub addresses: Vec<IpAddr>,
    /// Its network when it is not the cluster's.
    pub network: Option<String>,
    /// region/zone/subzone, carried through.
    pub locality: Option<String>,
    /// A leg on the wide-area bridge, as a gateway's: with these addresses, or an assigned one when empty.
    pub wan: Option<Vec<IpAddr>>,
}

/// A server outside the mesh, reachable from everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExternalSpec {
    /// Its namespace is `outside/<name>`.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}
