//! `ServiceEntry`: services that are not Kubernetes'.

use super::{LabelSelector, Port, WorkloadEntrySpec};
use crate::meta::Meta;

message! {
    /// A service described by hand.
    pub struct ServiceEntry {
        /// Identity.
        metadata: Meta,
        /// The service.
        spec: ServiceEntrySpec,
    }
}

message! {
    /// `ServiceEntry.spec`.
    pub struct ServiceEntrySpec {
        /// Names, a leading `*` allowed.
        hosts: Vec<String>,
        /// Virtual IPs or CIDRs.
        addresses: Vec<String>,
        /// Ports.
        ports: Vec<Port>,
        /// Inside the mesh (mTLS) or outside.
        location: ServiceLocation,
        /// How endpoints are found.
        resolution: Resolution,
        /// Endpoints; not together with `workload_selector`.
        endpoints: Vec<WorkloadEntrySpec>,
        /// Pods and WorkloadEntries of its namespace.
        workload_selector: Option<LabelSelector>,
        /// Namespaces that see it.
        export_to: Vec<String>,
        /// Names the endpoints' certificates may have.
        subject_alt_names: Vec<String>,
    }
}

words! {
    /// Where a service is.
    pub enum ServiceLocation {
        /// Outside: no mesh TLS.
        MeshExternal = "MESH_EXTERNAL",
        /// Inside.
        MeshInternal = "MESH_INTERNAL",
    }
}

words! {
    /// How endpoints are found.
    pub enum Resolution {
        /// The address the caller dialled.
        None = "NONE",
        /// `endpoints` or `workload_selector`.
        Static = "STATIC",
        /// Not implemented: all addresses of a name.
        Dns = "DNS",
        /// Not implemented: one address of a name.
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        /// Not implemented: the name of each request.
        DynamicDns = "DYNAMIC_DNS",
    }
}
