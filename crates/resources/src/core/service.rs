//! `Service`.
//!
//! Never resolves selectors or protocols (see `crate::protocol`).

use std::collections::BTreeMap;

use crate::field::IntOrString;
use crate::meta::Meta;

message! {
    /// A Kubernetes `v1` Service.
    pub struct Service {
        /// Identity, labels, annotations.
        metadata: Meta,
        /// What is wanted.
        spec: ServiceSpec,
        /// Load-balancer addresses.
        status: ServiceStatus,
    }
}

message! {
    /// `Service.spec`.
    pub struct ServiceSpec {
        /// `ClusterIP` (default when empty), `NodePort`, `LoadBalancer` or `ExternalName`.
        service_type: String = "type",
        /// The virtual IP; `None` for headless; empty when not assigned.
        cluster_ip: String = "clusterIP",
        /// Virtual IPs of all families.
        cluster_ips: Vec<String> = "clusterIPs",
        /// `IPv4`, `IPv6`: its families, the first of which its endpoints are dialled by.
        ip_families: Vec<String>,
        /// Further addresses.
        external_ips: Vec<String> = "externalIPs",
        /// The name an `ExternalName` service points to.
        external_name: String,
        /// Ports.
        ports: Vec<ServicePort>,
        /// Labels of its pods; empty: endpoints come from EndpointSlices only.
        selector: BTreeMap<String, String>,
        /// Whether endpoints count before they are ready.
        publish_not_ready_addresses: bool,
        /// `Cluster` or `Local`; empty is `Cluster`.
        internal_traffic_policy: String,
        /// `PreferClose`, `PreferSameZone`, `PreferSameNode`; empty is none.
        traffic_distribution: String,
        /// `None` or `ClientIP`.
        session_affinity: String,
        /// A requested load-balancer address.
        load_balancer_ip: String = "loadBalancerIP",
    }
}

message! {
    /// One port of a Service.
    pub struct ServicePort {
        /// The name; may be empty if it is the only port.
        name: String,
        /// The port clients use.
        port: u16,
        /// `TCP` (default when empty), `UDP` or `SCTP`.
        protocol: String,
        /// Where the workload listens; default is `port`.
        target_port: Option<IntOrString>,
        /// The application protocol, see `crate::protocol`.
        app_protocol: Option<String>,
        /// The port on nodes.
        node_port: Option<u16>,
    }
}

message! {
    /// `Service.status`.
    pub struct ServiceStatus {
        /// Load-balancer addresses.
        load_balancer: LoadBalancerStatus,
    }
}

message! {
    /// `Service.status.loadBalancer`.
    pub struct LoadBalancerStatus {
        /// Addresses.
        ingress: Vec<LoadBalancerIngress>,
    }
}

message! {
    /// One load-balancer address.
    pub struct LoadBalancerIngress {
        /// An IP address.
        ip: String,
        /// A host name.
        hostname: String,
    }
}

impl Service {
    /// Whether the Service has no virtual IP by its own wish.
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }

    /// The virtual IPs written, without `None` and duplicates.
    pub fn virtual_ips(&self) -> Vec<&str> {
        let mut ips: Vec<&str> = Vec::new();
        for ip in std::iter::once(&self.spec.cluster_ip).chain(&self.spec.cluster_ips) {
            if !ip.is_empty() && ip != "None" && !ips.contains(&ip.as_str()) {
                ips.push(ip);
            }
        }
        ips
    }
}
