//! Validation of one object: what Istio's webhook, CRD schemas and their CEL rules demand, and our own kinds' rules.
//!
//! Never looks at another object: dangling references and conflicts are `resolve`'s. Invariant: an error refuses the object
//! (for guards see `crate::guard`), a warning never does.

mod authorization;
mod check;
mod destination_rule;
mod durations;
mod export_to;
mod gateway;
mod http_action;
mod http_match;
mod http_route;
mod jwt;
mod kubernetes;
mod labels;
mod mesh;
mod names;
mod overlap;
mod peer_authentication;
mod policy_target;
mod ports;
mod regexes;
mod server_tls;
mod service_entry;
mod sidecar;
mod telemetry;
mod traffic_policy;
mod virtual_service;
mod workload;
mod workload_entry;

pub use names::matches_host;

use crate::field::{FieldPath, Finding};
use crate::object::Object;
use check::Check;

/// Validates an object that could be read.
pub fn object(object: &Object, findings: &mut Vec<Finding>) {
    let mut check = Check::new(findings);
    let spec = FieldPath::root().key("spec");
    kubernetes::meta(object, &mut check);
    match object {
        Object::VirtualService(o) => virtual_service::check(&o.spec, &o.metadata, &spec, &mut check),
        Object::DestinationRule(o) => destination_rule::check(&o.spec, &o.metadata, &spec, &mut check),
        Object::Gateway(o) => gateway::check(&o.spec, &spec, &mut check),
        Object::ServiceEntry(o) => service_entry::check(&o.spec, &o.metadata, &spec, &mut check),
        Object::WorkloadEntry(o) => workload_entry::check(&o.spec, &spec, &mut check),
        Object::WorkloadGroup(o) => workload_entry::check_group(&o.spec, &spec, &mut check),
        Object::Sidecar(o) => sidecar::check(&o.spec, &o.metadata.namespace, &spec, &mut check),
        Object::PeerAuthentication(o) => peer_authentication::check(&o.spec, &spec, &mut check),
        Object::RequestAuthentication(o) => jwt::check(&o.spec, &o.metadata, &spec, &mut check),
        Object::AuthorizationPolicy(o) => authorization::check(&o.spec, &o.metadata, &spec, &mut check),
        Object::Telemetry(o) => telemetry::check(&o.spec, &spec, &mut check),
        Object::ProxyConfig(o) => telemetry::check_proxy_config(&o.spec, &spec, &mut check),
        Object::Service(o) => kubernetes::service(o, &spec, &mut check),
        Object::EndpointSlice(o) => kubernetes::endpoint_slice(o, &mut check),
        Object::Mesh(o) => mesh::check(&o.spec, &spec, &mut check),
        Object::Peer(o) => mesh::check_peer(o, &spec, &mut check),
        Object::Workload(o) => workload::check(&o.spec, &spec, &mut check),
        Object::ConfigMap(o) => {
            if let Some(config) = &o.mesh {
                mesh::check_config(config, &FieldPath::root().key("data").key("mesh"), &mut check);
            }
        }
        Object::Namespace(_)
        | Object::Pod(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Secret(_)
        | Object::ServiceExport(_)
        | Object::ServiceImport(_) => {}
    }
}
