//! What a table's names mean on real clusters: pods are workloads, and Services have the pods that they select.
//!
//! Invariant: read once, after all pods run.

use super::Mesh;
use super::directory::Directory;
use crate::cluster::command::output;
use crate::cluster::enter;
use fairlead_calls::Names;
use fairlead_calls::names::{long_form, short_form};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The gateway that `fairlead install` makes, as tables call it.
pub const EAST_WEST: &str = "east-west";

/// Names, and the Services behind addresses.
#[derive(Default)]
pub struct Known {
    pub names: Names,
    /// Addresses of nodes, by which gateways are entered, and the clusters they are of.
    nodes: BTreeMap<String, String>,
    /// By cluster and address, `NAMESPACE/SERVICE`.
    services: BTreeMap<(String, String), String>,
    /// Gateways at the edge: pods without a program.
    pub edges: BTreeSet<String>,
}

impl Known {
    pub fn read(mesh: &Mesh<'_>) -> anyhow::Result<Self> {
        let mut known =
            Self { names: Names::default(), nodes: BTreeMap::new(), services: BTreeMap::new(), edges: BTreeSet::new() };
        let plan = mesh.bed.plan(enter::shape(mesh.bed)?);
        for (cluster, name) in mesh.members {
            known.nodes.insert(plan.node(*cluster).to_string(), (*name).to_owned());
            known.names.workloads.insert(long_form(&format!("{name}/{EAST_WEST}")));
            let pods = items(mesh, *cluster, "pods")?;
            let is_edge = |pod: &&Value| {
                let containers = pod["spec"]["containers"].as_array();
                let proxy = containers.is_some_and(|all| all.len() == 1 && all[0]["name"] == super::inside::PROXY);
                proxy && pod["metadata"]["namespace"] != super::manifests::SYSTEM
            };
            known.edges.extend(pods.iter().filter(is_edge).map(|pod| full_name(name, pod)));
            known.names.clusters.insert((*name).to_owned());
            known.names.workloads.extend(pods.iter().map(|pod| full_name(name, pod)));
            for service in items(mesh, *cluster, "services")? {
                let selector = &service["spec"]["selector"];
                let chosen = |pod: &&Value| {
                    pod["metadata"]["namespace"] == service["metadata"]["namespace"]
                        && selector.is_object()
                        && selector.as_object().into_iter().flatten().all(|(k, v)| pod["metadata"]["labels"][k] == *v)
                };
                let behind: BTreeSet<String> = pods.iter().filter(chosen).map(|pod| full_name(name, pod)).collect();
                known.names.services.insert(full_name(name, &service), behind);
            }
            let rows = mesh.fairlead(&["get", "services", "--context", &format!("c{cluster}"), "-o", "json"])?;
            known.addresses(name, &rows)?;
        }
        if let Some(directory) = mesh.directory {
            known.add(mesh, directory)?;
        }
        Ok(known)
    }

    /// The cluster that is no Kubernetes.
    fn add(&mut self, mesh: &Mesh<'_>, directory: &Directory) -> anyhow::Result<()> {
        let cluster = &directory.cluster;
        self.nodes.insert(directory.address.clone(), cluster.clone());
        self.names.clusters.insert(cluster.clone());
        self.names.workloads.insert(long_form(&format!("{cluster}/{EAST_WEST}")));
        self.names.workloads.extend(directory.workloads.keys().cloned());
        let mut get = std::process::Command::new(&mesh.binary);
        let rows = output(get.args(["get", "services", "-o", "json", "--socket"]).arg(directory.socket()))?;
        self.addresses(cluster, &rows)
    }

    /// What addresses mean to a cluster, as its control plane lists them.
    fn addresses(&mut self, cluster: &str, rows: &str) -> anyhow::Result<()> {
        let rows: Vec<Value> = serde_json::from_str(rows)?;
        for row in &rows {
            // web.app.svc.cluster.local
            let host = row["host"].as_str().unwrap_or_default();
            let Some((service, namespace)) =
                host.split_once('.').and_then(|(s, rest)| Some((s, rest.split('.').next()?)))
            else {
                continue;
            };
            for address in row["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                self.services.insert((cluster.to_owned(), address.to_owned()), format!("{namespace}/{service}"));
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn with_node(address: &str, cluster: &str) -> Self {
        Self { nodes: [(address.to_owned(), cluster.to_owned())].into(), ..Self::default() }
    }

    /// The gateway between clusters that is entered at `ADDRESS:PORT`.
    pub fn gateway(&self, address: &str) -> Option<String> {
        let node = address.rsplit_once(':')?.0;
        Some(format!("{}/{EAST_WEST}", self.nodes.get(node)?))
    }

    /// A gateway that is dialled by its name, as a chain shows it.
    pub fn edge(&self, name: &str) -> Option<String> {
        let built_in = short_form(name).ends_with(&format!("/{EAST_WEST}"));
        (built_in || self.edges.contains(name)).then(|| short_form(name))
    }

    /// What a DNS question was answered with: addresses, and the services they mean to this cluster.
    pub fn resolved(&self, cluster: &str, addresses: &[String]) -> Vec<String> {
        let named = |address: &String| self.services.get(&(cluster.to_owned(), address.clone())).cloned();
        addresses.iter().cloned().chain(addresses.iter().filter_map(named)).collect()
    }
}

fn items(mesh: &Mesh<'_>, cluster: u8, kind: &str) -> anyhow::Result<Vec<Value>> {
    let text = output(enter::kubectl(mesh.bed, cluster)?.args(["get", kind, "-A", "-o", "json"]))?;
    let list: Value = serde_json::from_str(&text)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn full_name(cluster: &str, object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("{cluster}/{}/{}", text("namespace"), text("name"))
}
