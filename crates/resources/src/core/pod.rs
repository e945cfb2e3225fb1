//! `Pod`.
//!
//! Never decides whether a pod is in the mesh: that is resolving.

use crate::meta::Meta;
use fairlead_model::{Shared, Text};

message! {
    /// A Kubernetes Pod.
    pub struct Pod {
        /// Identity, labels, annotations.
        metadata: Meta,
        /// What runs.
        spec: PodSpec,
        /// Its addresses and readiness.
        status: PodStatus,
    }
}

message! {
    /// `Pod.spec`.
    pub struct PodSpec {
        /// The account it runs as; empty means `default`.
        service_account_name: Text,
        /// Its node.
        node_name: Text,
        /// Whether it uses its node's network.
        host_network: bool,
        /// Its host name.
        hostname: Text,
        /// The headless service its name is under.
        subdomain: Text,
        /// Its containers.
        containers: Shared<Vec<Container>>,
        /// Containers that run before, or beside with `restartPolicy: Always`.
        init_containers: Shared<Vec<Container>>,
    }
}

message! {
    /// One container.
    pub struct Container {
        /// Its name.
        name: String,
        /// Declared ports.
        ports: Vec<ContainerPort>,
    }
}

message! {
    /// A declared port; a Service's named `targetPort` refers to it.
    pub struct ContainerPort {
        /// Its name.
        name: String,
        /// Its number.
        container_port: u16,
        /// `TCP` (default when empty), `UDP` or `SCTP`.
        protocol: String,
    }
}

message! {
    /// `Pod.status`.
    pub struct PodStatus {
        /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
        phase: Text,
        /// Its address.
        pod_ip: String = "podIP",
        /// Addresses of all families.
        pod_ips: Vec<PodIp> = "podIPs",
        /// Its node's address.
        host_ip: Text = "hostIP",
        /// `Ready` and others.
        conditions: Shared<Vec<PodCondition>>,
    }
}

message! {
    /// One address.
    pub struct PodIp {
        /// The address.
        ip: String,
    }
}

message! {
    /// One condition.
    pub struct PodCondition {
        /// For example `Ready`.
        condition: String = "type",
        /// `True`, `False` or `Unknown`.
        status: String,
    }
}

impl Pod {
    /// The account the pod runs as.
    pub fn service_account(&self) -> &str {
        if self.spec.service_account_name.is_empty() { "default" } else { &self.spec.service_account_name }
    }

    /// The container port named so.
    pub fn named_port(&self, name: &str) -> Option<u16> {
        self.spec
            .init_containers
            .iter()
            .chain(self.spec.containers.iter())
            .flat_map(|container| &container.ports)
            .find(|port| port.name == name)
            .map(|port| port.container_port)
    }

    /// Whether the `Ready` condition is true; a pod without conditions (written by hand) counts as ready unless it ended.
    pub fn is_ready(&self) -> bool {
        match self.status.conditions.iter().find(|condition| condition.condition == "Ready") {
            Some(condition) => condition.status == "True",
            None => !matches!(self.status.phase.as_str(), "Failed" | "Succeeded" | "Pending"),
        }
    }
}
