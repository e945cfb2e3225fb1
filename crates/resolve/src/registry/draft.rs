//! A workload on the way from its object to the resolved mesh.
//!
//! Never knows which services select it. Invariant: `labels` already hold the injected topology labels.

use fairlead_model::endpoint::{Health, WorkloadRef};
use fairlead_model::ids::{Locality, NetworkId};
use fairlead_model::origin::Origin;
use fairlead_model::{Shared, Text, WorkloadLabels};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Where a workload was written, which decides how a Service's target port is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    WorkloadEntry,
    Process,
    Pod,
}

/// One workload.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub key: WorkloadRef,
    pub written: Written,
    pub labels: WorkloadLabels,
    pub service_account: Text,
    pub addresses: Vec<IpAddr>,
    pub network: NetworkId,
    pub locality: Shared<Locality>,
    pub weight: u32,
    pub sidecar: bool,
    /// Port names it declares.
    pub named_ports: BTreeMap<String, u16>,
    pub health: Health,
    pub origin: Origin,
}

impl Draft {
    /// The workload port behind a service port, if the workload has it.
    ///
    /// `target` is the Service's `targetPort`: a number, a name, or `None` for the service port itself. A WorkloadEntry's own
    /// entry for the service port's name beats it (Istio).
    pub fn target_port(&self, name: &str, number: u16, target: Option<&Target>) -> Option<u16> {
        if self.written == Written::WorkloadEntry
            && let Some(port) = self.named_ports.get(name)
        {
            return Some(*port);
        }
        match target {
            None => Some(number),
            Some(Target::Number(port)) => Some(*port),
            Some(Target::Name(name)) => self.named_ports.get(name).copied(),
        }
    }
}

/// A Service's `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Number(u16),
    Name(String),
}
