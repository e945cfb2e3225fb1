//! From a proxy to one of an Envoy cluster's endpoints, directly or over a gateway.
//!
//! Invariant: shares of endpoints are the balancer's own, on the conditions this proxy would have learnt.

use crate::arrival::{Arrival, Failure, merged};
use crate::inbound::{Accepted, named_elsewhere, place_of};
use crate::program::LastHop;
use crate::wire::{Certificate, Hello, Payload, Security, Wire};
use crate::world::World;
use fairlead_calls::DecidedBy;
use fairlead_engine::Snapshot;
use fairlead_engine::balance::{Balancer, Condition, EndpointState, Ramp, Tried};
use fairlead_engine::listener::{Mode, TlsContext};
use fairlead_engine::upstream::{
    ClusterKind, Endpoint, EndpointAddress, EnvoyCluster, UpstreamProtocol, UpstreamTransport,
};
use fairlead_model::service::ServiceSource;
use fairlead_model::{ClusterId, Health};
use std::net::SocketAddr;
use std::sync::Arc;

/// A target of one try.
#[derive(Clone)]
pub(crate) enum Target {
    Endpoint(Arc<Endpoint>),
    /// Wherever the connection was going.
    Original,
}

impl World {
    /// Whether an Envoy cluster has an endpoint that may be chosen.
    pub(crate) fn is_usable(&self, snapshot: &Snapshot, from: &ClusterId, cluster: &str) -> bool {
        let cluster = snapshot.cluster(cluster);
        cluster.is_some_and(|c| self.balancer(snapshot, from, c).is_none_or(|b| b.is_usable()))
    }

    /// Whether it has one, and not only such as were tried.
    pub(crate) fn has_more(&self, snapshot: &Snapshot, from: &ClusterId, cluster: &str, tried: &Tried) -> bool {
        let balancer = snapshot.cluster(cluster).and_then(|c| self.balancer(snapshot, from, c));
        balancer.is_some_and(|b| b.is_usable() && !b.is_used_up(tried))
    }

    /// The balancer of an Envoy cluster as the proxy of `from` would have it; `None` for ORIGINAL_DST.
    pub(crate) fn balancer(
        &self,
        snapshot: &Snapshot,
        from: &ClusterId,
        cluster: &Arc<EnvoyCluster>,
    ) -> Option<Balancer> {
        if matches!(cluster.kind, ClusterKind::OriginalDst) {
            return None;
        }
        let endpoints = snapshot.endpoints_of(cluster).cloned().unwrap_or_default();
        let condition = |_: usize, endpoint: &Arc<Endpoint>| self.condition(snapshot, from, cluster, endpoint);
        Some(Balancer::build(cluster, &endpoints, condition, 0))
    }

    /// What the proxy itself would have found out about an endpoint beside what it was told.
    fn condition(
        &self,
        snapshot: &Snapshot,
        from: &ClusterId,
        cluster: &EnvoyCluster,
        endpoint: &Endpoint,
    ) -> Condition {
        let mut ramp = Ramp::default();
        let mut ejected = false;
        let mut path_down = false;
        if let Some(own) = &endpoint.fairlead {
            let workload =
                crate::conditions::workload_ref(&format!("{}/{}/{}", own.cluster, own.namespace, own.workload));
            // Outlier detection finds a dead program by its failures; readiness and paths are told by the control plane.
            if let Some(workload) = workload
                && cluster.outlier.is_some()
            {
                let apart = endpoint.gateway_hop().is_none() && !self.conditions.linked(from, &workload.cluster);
                ejected = apart || self.conditions.is_down(&workload);
            }
            // Nobody is away from itself.
            let cluster = ClusterId::from(&*own.cluster);
            if let Some(since) = self.conditions.returned.get(&cluster).filter(|_| cluster != *from) {
                ramp = Ramp::since(*since);
            }
        }
        if let Some(hop) = endpoint.gateway_hop() {
            // Profile fairlead: proxies probe. Profile istio: the gateway is one more host to eject.
            path_down = (cluster.outlier.is_some() || self.probes(from)) && self.hop_is_dead(snapshot, from, hop);
        }
        Condition::new(EndpointState::of(endpoint.health, ejected, path_down), ramp)
    }

    fn probes(&self, from: &ClusterId) -> bool {
        self.meshes.get(from).is_some_and(|m| m.settings.profile == fairlead_model::Profile::Fairlead)
    }

    /// Whether no address of a gateway hop answers.
    fn hop_is_dead(&self, snapshot: &Snapshot, from: &ClusterId, hop: &str) -> bool {
        let Some(cluster) = snapshot.cluster(hop) else { return true };
        let Some(endpoints) = snapshot.endpoints_of(cluster) else { return true };
        endpoints.iter().all(|e| match &e.address {
            EndpointAddress::Socket(address) => self.gateway_is_dead(from, *address),
            EndpointAddress::Named { .. } | EndpointAddress::Gateway { .. } => true,
        })
    }

    fn gateway_is_dead(&self, from: &ClusterId, address: SocketAddr) -> bool {
        self.conditions.down_addresses.contains(&address.ip())
            || self
                .gateway_addresses
                .get(&address.ip())
                .is_some_and(|g| self.conditions.is_down(g) || !self.conditions.linked(from, &g.cluster))
    }

    /// One try at one target. `wary`: a gateway on this way has failed before, so its dead addresses are known.
    pub(crate) fn attempt(
        &self,
        accepted: &Accepted<'_>,
        cluster: &Arc<EnvoyCluster>,
        target: &Target,
        payload: &Payload,
        depth: u8,
        wary: bool,
    ) -> Vec<Arrival> {
        let mut arrivals = match target {
            Target::Original if !accepted.outbound => {
                let version = match cluster.protocol {
                    UpstreamProtocol::Http1 => Some("1.1"),
                    UpstreamProtocol::Http2 => Some("2"),
                    UpstreamProtocol::UseDownstream | UpstreamProtocol::Auto => None,
                };
                let hop = LastHop { tls: accepted.terminated, peer: accepted.peer.clone(), version };
                let mut arrivals = match accepted.terminated {
                    true => self.program(accepted.workload, accepted.wire.destination.port(), payload, &hop),
                    // TLS that no proxy ended is the program's to end.
                    false => self.bare(accepted.workload, accepted.wire, payload, hop),
                };
                for arrival in &mut arrivals {
                    arrival.not_delivered = arrival.failure == Some(Failure::Refused);
                }
                arrivals
            }
            Target::Original => {
                let wire = Wire {
                    place: place_of(accepted),
                    destination: accepted.wire.destination,
                    security: if accepted.terminated { Security::Plain } else { accepted.wire.security.clone() },
                    payload: payload.clone(),
                };
                self.send(&wire, depth + 1)
            }
            Target::Endpoint(endpoint) => self.dial(accepted, cluster, endpoint, payload, depth, wary),
        };
        if let Some(origin) = &cluster.origin {
            for arrival in &mut arrivals {
                arrival.decided_by.push(DecidedBy::from(origin));
            }
        }
        arrivals
    }

    fn dial(
        &self,
        accepted: &Accepted<'_>,
        cluster: &Arc<EnvoyCluster>,
        endpoint: &Endpoint,
        payload: &Payload,
        depth: u8,
        wary: bool,
    ) -> Vec<Arrival> {
        let security = match cluster.transport_of(endpoint) {
            // TLS that did not end here goes on as it came.
            UpstreamTransport::Raw if !accepted.terminated => accepted.wire.security.clone(),
            UpstreamTransport::Raw => Security::Plain,
            UpstreamTransport::Tls(tls) => Security::Tls(Arc::new(self.hello(accepted, tls, endpoint, payload))),
        };
        let wire = |destination| Wire {
            place: place_of(accepted),
            destination,
            security: security.clone(),
            payload: payload.clone(),
        };
        match &endpoint.address {
            EndpointAddress::Socket(address) => self.send(&wire(*address), depth + 1),
            EndpointAddress::Named { host, port } => self.dial_name(accepted, host, *port, &wire, depth),
            EndpointAddress::Gateway { hop, .. } => {
                let Some(gateway) = accepted.snapshot.cluster(hop) else {
                    return vec![Arrival::failed(Failure::Refused)];
                };
                let from = &accepted.workload.key.cluster;
                let Some(balancer) = self.gateway_balancer(accepted.snapshot, from, cluster, gateway, wary) else {
                    return vec![Arrival::failed(Failure::Refused)];
                };
                let mut arrivals = Vec::new();
                for (gateway, share) in balancer.endpoints().iter().zip(balancer.shares()) {
                    let EndpointAddress::Socket(address) = &gateway.address else { continue };
                    if share > 0.0 {
                        arrivals.extend(self.send(&wire(*address), depth + 1).into_iter().map(|a| a.scaled(share)));
                    }
                }
                if arrivals.is_empty() { vec![Arrival::failed(Failure::Timeout)] } else { merged(arrivals) }
            }
        }
    }

    /// A name that the proxy resolves as the resolver of its machine does: a Service of its own cluster, or somebody outside.
    fn dial_name(
        &self,
        accepted: &Accepted<'_>,
        host: &str,
        port: u16,
        wire: &dyn Fn(SocketAddr) -> Wire,
        depth: u8,
    ) -> Vec<Arrival> {
        let cluster = &accepted.workload.key.cluster;
        let services = self.mesh(cluster).into_iter().flat_map(|mesh| mesh.services.values());
        let known = services
            .into_iter()
            .find(|s| s.source == ServiceSource::Kubernetes && s.key.host == host && s.clusters.contains(cluster));
        let Some(service) = known else {
            return vec![named_elsewhere(host, port, &wire(SocketAddr::from(([0, 0, 0, 0], port))))];
        };
        let ready = service.endpoints.iter().filter(|e| e.workload.cluster == *cluster && e.health == Health::Healthy);
        // A headless name is its pods' addresses at the port written; a virtual address leads to the pods' own ports.
        let target =
            |e: &fairlead_model::Endpoint| if service.headless { Some(port) } else { e.ports.get(&port).copied() };
        let found: Vec<SocketAddr> = ready.filter_map(|e| Some(SocketAddr::new(e.address?, target(e)?))).collect();
        if found.is_empty() {
            return vec![Arrival::failed(Failure::Refused)];
        }
        let share = 1.0 / found.len() as f64;
        merged(found.into_iter().flat_map(|at| self.send(&wire(at), depth + 1)).map(|a| a.scaled(share)).collect())
    }

    /// A gateway's addresses: those that are known not to answer are out of rotation. Profile istio: nobody knows unless
    /// outlier detection of the `destination` finds out.
    fn gateway_balancer(
        &self,
        snapshot: &Snapshot,
        from: &ClusterId,
        destination: &EnvoyCluster,
        gateway: &Arc<EnvoyCluster>,
        wary: bool,
    ) -> Option<Balancer> {
        let endpoints = snapshot.endpoints_of(gateway)?;
        let finds_out = wary || destination.outlier.is_some() || self.probes(from);
        let condition = |_: usize, endpoint: &Arc<Endpoint>| {
            let dead = finds_out
                && match &endpoint.address {
                    EndpointAddress::Socket(address) => self.gateway_is_dead(from, *address),
                    EndpointAddress::Named { .. } | EndpointAddress::Gateway { .. } => true,
                };
            Condition::new(EndpointState::of(endpoint.health, false, dead), Ramp::default())
        };
        Some(Balancer::build(gateway, endpoints, condition, 0))
    }

    fn hello(&self, accepted: &Accepted<'_>, tls: &Arc<TlsContext>, endpoint: &Endpoint, payload: &Payload) -> Hello {
        let server_name =
            if tls.auto_host_sni && !endpoint.hostname.is_empty() { &endpoint.hostname } else { &tls.sni };
        let mesh = tls.mode == Mode::Mesh;
        let own = self.own_identity(accepted.workload);
        Hello {
            server_name: (!server_name.is_empty()).then(|| server_name.to_string()),
            // A sniffed service has one list for both; a proxy offers what it is about to speak.
            alpn: match payload {
                Payload::Http(_) => tls.alpn.iter().map(ToString::to_string).collect(),
                _ if mesh => vec!["istio-peer-exchange".to_owned(), "istio".to_owned()],
                _ => Vec::new(),
            },
            certificate: match own {
                Some(id) if mesh => Certificate::Valid { id, issuer: Some(accepted.workload.key.cluster.clone()) },
                _ => Certificate::None,
            },
            expect: endpoint.identity().filter(|_| mesh).map(ToString::to_string),
            names: (mesh || !tls.required_sans.is_empty()).then(|| tls.clone()),
            anyone: !mesh && tls.ca_file.is_none() && !tls.system_roots && tls.required_sans.is_empty(),
        }
    }
}
