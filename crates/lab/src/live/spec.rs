//! What is to run, as plain data: the binary fills it from the resolved mesh.
//!
//! Invariant: names are `cluster`, `namespace` and `name` as call tables write them; addresses are the mesh's own, so that offline
//! and live answers speak of the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::records::OriginRecord;
use crate::topology::{ClusterSpec, ExternalSpec, GatewaySpec, Spec, WorkloadSpec};

/// Namespace of the built-in gateway's workload.
pub const SYSTEM_NAMESPACE: &str = "fairlead-system";
/// Name of the built-in gateway.
pub const EAST_WEST: &str = "east-west";

/// A mesh to run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MeshSpec {
    /// Its name.
    pub name: String,
    /// The mesh directory; control planes read and watch it.
    pub directory: PathBuf,
    /// One root for all, an intermediate per cluster; else a root each.
    pub shared_trust: bool,
    /// The mesh's bare trust domain.
    pub trust_domain: String,
    /// DNS suffix of plain names.
    pub domain: String,
    /// Profile `fairlead`: a program's health is probed by its proxy, a peer's path is judged.
    pub judges: bool,
    /// Its members.
    pub clusters: BTreeMap<String, ClusterMesh>,
    /// Servers that are no workloads.
    pub externals: Vec<ExternalServer>,
}

/// One cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClusterMesh {
    /// The trust domain of its workloads.
    pub trust_domain: String,
    /// Its network.
    pub network: String,
    /// region/zone/subzone
    pub locality: Option<String>,
    /// Addresses of the built-in gateway; None: it has gateways of its own.
    pub gateway: Option<Vec<IpAddr>>,
    /// Port of its east-west gateways.
    pub gateway_port: u16,
    /// Written service addresses; the mesh's virtual range is always among those the node answers for.
    pub service_addresses: BTreeSet<IpAddr>,
    /// What virtual addresses mean here: `NAMESPACE/SERVICE`, for showing.
    pub names: BTreeMap<IpAddr, String>,
    /// Where its policies (`AuthorizationPolicy NAMESPACE/NAME`) are written, for showing.
    pub policies: BTreeMap<String, OriginRecord>,
    /// Its workloads.
    pub workloads: Vec<MeshWorkload>,
}

/// One workload.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MeshWorkload {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name; replica N of `w` is `w-N`.
    pub name: String,
    /// Its addresses on its network.
    pub addresses: Vec<IpAddr>,
    /// Its network when it is not the cluster's.
    pub network: Option<String>,
    /// region/zone/subzone
    pub locality: Option<String>,
    /// What stands in its namespace.
    pub part: Part,
    /// Its SPIFFE ID.
    pub identity: Option<String>,
    /// Istio's canonical service and revision, for metrics.
    pub canonical: (String, String),
    /// Ports the program listens on.
    pub ports: BTreeSet<u16>,
    /// Program and arguments; empty: the echo program. The word `fairlead` means this program.
    pub command: Vec<String>,
    /// Environment.
    pub environment: BTreeMap<String, String>,
    /// When the program is ready; None: the first port accepts.
    pub probe: Option<Probe>,
    /// A gateway's wide-area addresses; empty: one is assigned.
    pub wan: Vec<IpAddr>,
    /// A gateway's ports and the hosts it serves there (`*`, `*.example`, `shop.example`).
    pub servers: Vec<(u16, Vec<String>)>,
    /// A gateway's own ports by its Service's ports, where they differ.
    pub targets: BTreeMap<u16, u16>,
}

/// What stands in a workload's namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// A program behind a sidecar.
    #[default]
    Sidecar,
    /// A program alone.
    Plain,
    /// A gateway that Gateway objects select.
    Ingress,
    /// A gateway between clusters.
    EastWest,
}

/// A readiness probe. What is not written is the proxy's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked.
    pub kind: ProbeKind,
    /// Another loopback address than the lab's own for these questions.
    pub address: Option<Ipv4Addr>,
    /// Seconds before the first.
    pub delay: Option<u32>,
    /// Seconds between two.
    pub period: Option<u32>,
    /// Seconds for an answer.
    pub timeout: Option<u32>,
    /// Bad answers in a row that make it unready.
    pub failures: Option<u32>,
    /// Good answers in a row that make it ready.
    pub successes: Option<u32>,
}

/// What a readiness probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeKind {
    /// The port accepts.
    Tcp(u16),
    /// GET of the path answers 200 to 399.
    Http {
        /// Port.
        port: u16,
        /// Path with query.
        path: String,
        /// By TLS, whoever answers.
        tls: bool,
        /// Further headers, or others than those that are sent by themselves.
        headers: Vec<(String, String)>,
    },
}

impl Probe {
    /// The port accepts.
    pub fn tcp(port: u16) -> Self {
        Self::new(ProbeKind::Tcp(port))
    }

    /// With the defaults.
    pub fn new(kind: ProbeKind) -> Self {
        Self { kind, address: None, delay: None, period: None, timeout: None, failures: None, successes: None }
    }

    /// The longest that a change of the program may take to be noticed, beyond what the defaults take.
    pub fn slowest(&self) -> Duration {
        let rounds = self.failures.unwrap_or(1).max(self.successes.unwrap_or(1));
        let each = self.period.unwrap_or(0).max(self.timeout.unwrap_or(0));
        let seconds = u64::from(self.delay.unwrap_or(0)) + u64::from(rounds) * u64::from(each);
        // Who writes hours does not want to be waited for.
        Duration::from_secs(seconds.min(600))
    }
}

/// A server outside the mesh.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExternalServer {
    /// The DNS name it goes by, when it is known by one; else its address is its name.
    pub host: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: BTreeSet<u16>,
    /// Names that rules pin for its certificate, beside the one that a caller asks for.
    pub names: BTreeSet<String>,
}

impl MeshSpec {
    /// What the substrate is to build.
    pub fn topology(&self) -> Spec {
        let clusters = self.clusters.iter().map(|(name, cluster)| (name.clone(), cluster.topology())).collect();
        let external = |server: &ExternalServer| ExternalSpec { name: server.name(), addresses: vec![server.address] };
        Spec { clusters, externals: self.externals.iter().map(external).collect() }
    }

    /// A workload by `cluster/namespace/name`.
    pub fn workload(&self, name: &str) -> Option<(&ClusterMesh, &MeshWorkload)> {
        let (cluster, rest) = name.split_once('/')?;
        let cluster = self.clusters.get(cluster)?;
        let found = cluster.workloads.iter().find(|w| rest.split_once('/') == Some((&w.namespace, &w.name)))?;
        Some((cluster, found))
    }

    /// All workloads with their full names.
    pub fn workloads(&self) -> impl Iterator<Item = (String, &MeshWorkload)> {
        self.clusters.iter().flat_map(|(cluster, mesh)| mesh.workloads.iter().map(move |w| (w.full_name(cluster), w)))
    }

    /// The longest that a readiness probe of this mesh may take beyond what the default takes.
    pub fn slowest_probe(&self) -> Duration {
        self.workloads().filter_map(|(_, workload)| Some(workload.probe.as_ref()?.slowest())).max().unwrap_or_default()
    }

    /// The first gateway (by cluster, namespace, name) that serves a host on a port.
    pub fn gateway_for(&self, host: &str, port: u16) -> Option<String> {
        let serves = |w: &MeshWorkload| {
            w.servers.iter().any(|(p, hosts)| *p == port && hosts.iter().any(|h| host_matches(h, host)))
        };
        let mut found: Vec<String> =
            self.workloads().filter(|(_, w)| w.part == Part::Ingress && serves(w)).map(|(name, _)| name).collect();
        found.sort();
        found.into_iter().next()
    }
}

impl ClusterMesh {
    fn topology(&self) -> ClusterSpec {
        let gateway = |addresses: &Vec<IpAddr>| GatewaySpec { name: EAST_WEST.into(), addresses: addresses.clone() };
        ClusterSpec {
            network: self.network.clone(),
            locality: self.locality.clone(),
            control: true,
            gateways: self.gateway.iter().map(gateway).collect(),
            workloads: self.workloads.iter().map(MeshWorkload::topology).collect(),
        }
    }

    /// The destinations that a node answers for callers without a sidecar.
    pub fn service_ranges(&self) -> Vec<IpNet> {
        let mut ranges: Vec<IpNet> = "240.240.0.0/16".parse().into_iter().collect();
        ranges.extend(
            self.service_addresses
                .iter()
                .map(|address| IpNet::from(*address))
                .filter(|one| !ranges.iter().any(|r| r.contains(one)))
                .collect::<Vec<_>>(),
        );
        ranges
    }
}

impl ExternalServer {
    /// As call tables write it after `outside/`, without the port.
    pub fn name(&self) -> String {
        self.host.clone().unwrap_or_else(|| self.address.to_string())
    }
}

impl MeshWorkload {
    /// `cluster/namespace/name`.
    pub fn full_name(&self, cluster: &str) -> String {
        format!("{cluster}/{}/{}", self.namespace, self.name)
    }

    /// Whether it has a proxy.
    pub fn has_proxy(&self) -> bool {
        self.part != Part::Plain
    }

    fn topology(&self) -> WorkloadSpec {
        let gateway = matches!(self.part, Part::Ingress | Part::EastWest);
        WorkloadSpec {
            name: format!("{}/{}", self.namespace, self.name),
            addresses: self.addresses.clone(),
            network: self.network.clone(),
            locality: self.locality.clone(),
            wan: gateway.then(|| self.wan.clone()),
        }
    }
}

/// Istio's host patterns: exact, `*`, or `*.` and a suffix.
fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.len() >= suffix.len() && host.ends_with(suffix),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gateway_that_serves_the_host() {
        let gateway = |name: &str, port: u16, host: &str| MeshWorkload {
            namespace: "edge".into(),
            name: name.into(),
            part: Part::Ingress,
            servers: vec![(port, vec![host.to_owned()])],
            ..MeshWorkload::default()
        };
        let mut spec = MeshSpec::default();
        spec.clusters
            .insert("west".into(), ClusterMesh { workloads: vec![gateway("a", 80, "*")], ..ClusterMesh::default() });
        let east = vec![gateway("z", 80, "*.shop.example"), gateway("b", 8080, "*")];
        spec.clusters.insert("east".into(), ClusterMesh { workloads: east, ..ClusterMesh::default() });
        assert_eq!(spec.gateway_for("www.shop.example", 80).as_deref(), Some("east/edge/z"));
        assert_eq!(spec.gateway_for("other.example", 80).as_deref(), Some("west/edge/a"));
        assert_eq!(spec.gateway_for("other.example", 8080).as_deref(), Some("east/edge/b"));
        assert_eq!(spec.gateway_for("other.example", 443), None);
    }
}
