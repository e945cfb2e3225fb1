//! The mesh that is measured: services with pods and their slices, as an API server has them.
//!
//! Invariant: the same numbers make the same objects, but for the addresses of pods that were moved.

use super::api_server::Handle;
use serde_json::{Value, json};

/// Services of the mesh are spread over these.
pub const NAMESPACES: usize = 20;
/// The service's one port, and where pods listen.
const PORT: u16 = 80;
const TARGET: u16 = 8080;

/// So many services with so many pods each.
#[derive(Clone, Copy, Debug)]
pub struct Mesh {
    pub services: usize,
    pub pods: usize,
    /// Whether every service is exported to the other clusters.
    pub exported: bool,
}

pub fn namespace(service: usize) -> String {
    format!("ns-{}", service % NAMESPACES)
}

pub fn pod_name(service: usize, pod: usize) -> String {
    format!("s{service:04}-{pod}")
}

/// The service that a resource of endpoints is about: `outbound|80||s0042.ns-2.svc.cluster.local`.
pub fn service_of(resource: &str) -> Option<usize> {
    resource.rsplit_once("||s")?.1.split('.').next()?.parse().ok()
}

impl Mesh {
    pub fn endpoints(self) -> usize {
        self.services * self.pods
    }

    /// Writes everything.
    pub fn write(self, api: &Handle) {
        api.put(json!({"kind": "Mesh", "metadata": {"name": "mesh", "namespace": "fairlead-system"},
            "spec": {"trustDomain": "bench.example", "admission": "open"}}));
        for name in (0..NAMESPACES.min(self.services)).map(namespace).chain(["fairlead-system".into()]) {
            api.put(json!({"kind": "Namespace", "metadata": {"name": name}}));
        }
        for service in 0..self.services {
            self.write_service(api, service);
        }
    }

    /// Gives a pod another address, as a restart of it does; both objects change, as kubelet and slice controller do it.
    pub fn move_pod(self, api: &Handle, service: usize, pod: usize, times: usize) {
        api.put(self.pod(service, pod, times));
        api.put(self.slice(service, pod, times));
    }

    fn write_service(self, api: &Handle, service: usize) {
        let (name, namespace) = (format!("s{service:04}"), namespace(service));
        api.put(json!({"kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": format!("10.96.{}.{}", service / 250, service % 250 + 1), "selector": {"app": name},
                     "ports": [{"name": "http", "port": PORT, "targetPort": TARGET}]}}));
        if self.exported {
            api.put(json!({"kind": "ServiceExport", "metadata": {"name": name, "namespace": namespace}}));
        }
        for pod in 0..self.pods {
            api.put(self.pod(service, pod, 0));
        }
        api.put(self.slice(service, 0, 0));
    }

    fn pod(self, service: usize, pod: usize, moved: usize) -> Value {
        json!({"kind": "Pod", "metadata": {"name": pod_name(service, pod), "namespace": namespace(service),
                "labels": {"app": format!("s{service:04}"), "security.istio.io/tlsMode": "istio", "version": "v1",
                           "pod-template-hash": "6d5f7b9c4d"}},
            "spec": {"serviceAccountName": "default", "nodeName": format!("node-{}", pod % 10),
                     "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": TARGET}]}]},
            "status": {"phase": "Running", "podIP": self.address(service, pod, moved),
                       "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    /// The slice of a service, one of whose pods was moved so many times.
    fn slice(self, service: usize, moved_pod: usize, moved: usize) -> Value {
        let (name, namespace) = (format!("s{service:04}"), namespace(service));
        let endpoint = |pod: usize| {
            let moved = if pod == moved_pod { moved } else { 0 };
            json!({"addresses": [self.address(service, pod, moved)], "conditions": {"ready": true},
                "nodeName": format!("node-{}", pod % 10),
                "targetRef": {"kind": "Pod", "name": pod_name(service, pod), "namespace": namespace}})
        };
        json!({"kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-1"), "namespace": namespace,
                         "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": TARGET}],
            "endpoints": (0..self.pods).map(endpoint).collect::<Vec<_>>()})
    }

    fn address(self, service: usize, pod: usize, moved: usize) -> String {
        let number = service * self.pods + pod;
        format!("10.{}.{}.{}", 100 + (moved + number / 62_500) % 100, number / 250 % 250, number % 250 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_tells_its_service() {
        assert_eq!(service_of("outbound|80||s0042.ns-2.svc.cluster.local"), Some(42));
        assert_eq!(service_of("inbound|8080||"), None);
    }

    #[test]
    fn a_pod_that_moves_has_an_address_of_its_own() {
        let mesh = Mesh { services: 1000, pods: 20, exported: false };
        let mut all: Vec<String> = (0..20_000).map(|n| mesh.address(n / 20, n % 20, 0)).collect();
        all.push(mesh.address(7, 3, 1));
        all.sort();
        let told = all.len();
        all.dedup();
        assert_eq!(all.len(), told);
    }
}
