//! The names by which a caller may mean a service: domains of virtual hosts.
//!
//! Source: Istio: short forms resolve in the caller's namespace, addresses stand for their service. Envoy refuses a route
//! configuration in which a domain stands twice, so every domain is handed out once: full names first.

use super::input::HostInput;
use crate::scope::Scope;
use fairlead_model::Service;
use fairlead_model::service::ServiceSource;
use std::collections::HashSet;
use std::net::IpAddr;

/// Names that mean the service for this caller, the full name left out.
pub fn aliases(scope: &Scope<'_>, service: &Service) -> Vec<String> {
    let mut names = Vec::new();
    let suffix = format!(".svc.{}", scope.mesh.settings.domain);
    if service.source == ServiceSource::Kubernetes
        && let Some(short) = service.key.host.strip_suffix(&suffix)
    {
        names.push(format!("{short}.svc"));
        names.push(short.to_owned());
        if service.key.namespace == scope.namespace() {
            names.push(service.name.clone());
        }
    }
    names.extend(service.vips.iter().map(|vip| match vip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }));
    names
}

/// Hands out domains, each once.
#[derive(Default)]
pub struct Domains {
    taken: HashSet<String>,
}

impl Domains {
    /// `name` and `name:port` for each port, as far as they are free.
    pub fn claim(&mut self, host: &mut HostInput, name: &str, ports: &[u16]) {
        if name == "*" {
            if self.taken.insert("*".to_owned()) {
                host.domains.push("*".to_owned());
            }
            return;
        }
        let name = name.to_ascii_lowercase();
        for domain in std::iter::once(name.clone()).chain(ports.iter().map(|port| format!("{name}:{port}"))) {
            if self.taken.insert(domain.clone()) {
                host.domains.push(domain);
            }
        }
    }

    /// Whether some virtual host has every domain.
    pub fn everything(&self) -> bool {
        self.taken.contains("*")
    }
}
