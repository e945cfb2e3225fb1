//! Why a request goes where it goes: phase by phase, with every candidate and the reason it was taken or not.
//!
//! Invariant: the same decisions as [`crate::follow`], written down as they are made; the objects named are those that decided.

use crate::follow::caller;
use crate::inbound::{Accepted, choose_chain};
use crate::mesh::Mesh;
use crate::place::Place;
use crate::request::{Resolved, find, payload};
use crate::wire::{Payload, Security, Wire};
use crate::world::World;
use fairlead_calls::{Call, DecidedBy, Request};
use fairlead_engine::balance::EndpointState;
use fairlead_engine::listener::NetworkFilter;
use fairlead_engine::normalize::{self, Normalized};
use fairlead_engine::upstream::{Endpoint, EnvoyCluster};
use fairlead_engine::{RequestHead, Snapshot, decide};
use fairlead_model::Origin;
use fairlead_model::mesh::Workload;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub from: String,
    pub request: String,
    pub phases: Vec<Phase>,
}

/// One decision on the way.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub name: String,
    pub chosen: String,
    pub candidates: Vec<Candidate>,
    pub origin: Option<OriginRow>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    pub id: String,
    pub taken: bool,
    pub reason: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct OriginRow {
    pub object: String,
    pub file: String,
    pub line: u32,
}

/// Explains one request of one workload. `Err`: caller or request cannot be read.
pub fn explain(mesh: &Mesh, world: &World, from: &str, call: &Call) -> Result<Explanation, String> {
    let request = Request::parse(&call.request)?;
    let names = mesh.names().callers(from)?;
    let first = names.iter().next().cloned().unwrap_or_default();
    let workload = caller(world, &first).ok_or_else(|| format!("`{from}` is no workload of this mesh"))?;
    let mut teller = Teller { world, workload: &workload, phases: Vec::new() };
    teller.tell(call, &request)?;
    Ok(Explanation { from: first, request: request.to_string(), phases: teller.phases })
}

struct Teller<'a> {
    world: &'a World,
    workload: &'a Arc<Workload>,
    phases: Vec<Phase>,
}

impl Teller<'_> {
    fn tell(&mut self, call: &Call, request: &Request) -> Result<(), String> {
        let payload = payload(call, request)?;
        let Some(destination) = self.name(request) else { return Ok(()) };
        let wire = Wire { place: Place::of(self.workload), destination, security: Security::Plain, payload };
        if !self.workload.sidecar {
            self.push("capture", "none: the caller has no sidecar", Vec::new(), None);
            return Ok(());
        }
        let Some(snapshot) = self.world.snapshot(self.workload) else { return Ok(()) };
        let Some(capture) = snapshot.listener("virtualOutbound") else { return Ok(()) };
        let listener = decide::listener(&snapshot, capture, wire.destination);
        self.push("listener", &listener.name, Vec::new(), listener.origin.as_ref());
        let Some(chain) = choose_chain(listener, &wire) else {
            self.push("filter chain", "none: the connection is closed", Vec::new(), None);
            return Ok(());
        };
        self.push("filter chain", &chain.name, Vec::new(), chain.origin.as_ref());
        let accepted = Accepted {
            workload: self.workload,
            snapshot: &snapshot,
            chain,
            wire: &wire,
            peer: None,
            terminated: false,
            outbound: true,
        };
        match chain.filters.last() {
            Some(NetworkFilter::Http(manager)) => self.http(&snapshot, manager, &wire),
            Some(NetworkFilter::TcpProxy(proxy)) => {
                for (backend, share) in
                    proxy.backends.iter().zip(self.world.tcp_shares(self.workload, &snapshot, proxy))
                {
                    self.cluster(&snapshot, &backend.cluster, share);
                }
            }
            _ => {}
        }
        self.outcome(&accepted);
        Ok(())
    }

    fn name(&mut self, request: &Request) -> Option<SocketAddr> {
        match self.world.resolve_name(self.workload, &request.host) {
            Resolved::Addresses(addresses) => {
                let table = self.world.name_table(self.workload);
                let known = find(&table, &request.host, &self.workload.key.namespace);
                let chosen = match &known {
                    Some((host, entry)) => {
                        let clusters: Vec<_> = entry.clusters.iter().map(ToString::to_string).collect();
                        format!("{host} in {}", clusters.join(", "))
                    }
                    None => request.host.clone(),
                };
                let candidates = addresses
                    .iter()
                    .enumerate()
                    .map(|(i, a)| Candidate {
                        id: a.to_string(),
                        taken: i == 0,
                        reason: if i == 0 { "first address" } else { "a program may use any" }.into(),
                    })
                    .collect();
                self.push("name", &chosen, candidates, None);
                addresses.first().map(|a| SocketAddr::new(*a, request.port))
            }
            Resolved::Unknown => {
                let why =
                    "does not resolve: no service of this name is visible here (not exported, or no such service)";
                self.push("name", why, Vec::new(), None);
                None
            }
        }
    }

    fn http(&mut self, snapshot: &Arc<Snapshot>, manager: &fairlead_engine::listener::HttpManager, wire: &Wire) {
        let Payload::Http(request) = &wire.payload else { return };
        let Normalized::Forward(path) = normalize::path(&manager.path, &request.path) else {
            self.push("path", "refused", Vec::new(), None);
            return;
        };
        let Some(config) = snapshot.routes_of(manager) else { return };
        let head = RequestHead {
            method: &request.method,
            path: &path,
            authority: &request.authority,
            scheme: request.scheme,
            headers: &request.headers,
        };
        let Some(host) = config.virtual_host(head.authority) else {
            self.push("virtual host", "none", Vec::new(), None);
            return;
        };
        self.push("virtual host", &host.name, Vec::new(), None);
        let mut found = None;
        let mut candidates = Vec::new();
        for (route, matches) in decide::candidates(config, &head) {
            let reason = match (matches, found.is_some()) {
                (true, false) => "first that matches",
                (true, true) => "matches, but an earlier one took the request",
                (false, _) => "does not match",
            };
            let id = route.origin.as_ref().map_or_else(|| route.name.to_string(), ToString::to_string);
            candidates.push(Candidate { id, taken: matches && found.is_none(), reason: reason.into() });
            if matches && found.is_none() {
                found = Some(route);
            }
        }
        let chosen = found.map_or("none: 404", |r| &*r.name);
        let origin = found.and_then(|r| r.origin.as_ref());
        self.push("route", if chosen.is_empty() { "default" } else { chosen }, candidates, origin);
        if let decide::RouteOutcome::Plan(plan) = decide::route(config, &head) {
            let from = &self.workload.key.cluster;
            let world = self.world;
            let shares = decide::backend_shares(plan, |b| {
                snapshot
                    .cluster(&b.cluster)
                    .is_some_and(|c| world.balancer(snapshot, from, c).is_none_or(|b| b.is_usable()))
            });
            let candidates = plan
                .backends
                .iter()
                .zip(&shares)
                .map(|(b, share)| Candidate {
                    id: b.cluster.to_string(),
                    taken: *share > 0.0,
                    reason: format!(
                        "weight {} of {}: {}",
                        b.weight,
                        plan.total_weight,
                        fairlead_calls::got::percent(*share)
                    ),
                })
                .collect();
            let subset: Vec<_> = plan.backends.iter().map(|b| &*b.subset).filter(|s| !s.is_empty()).collect();
            let chosen = if subset.is_empty() {
                "the service as a whole".to_owned()
            } else {
                format!("subset {}", subset.join(", "))
            };
            self.push("backend", &chosen, candidates, plan.origin.as_ref());
            for (backend, share) in plan.backends.iter().zip(shares) {
                self.cluster(snapshot, &backend.cluster, share);
            }
        }
    }

    fn cluster(&mut self, snapshot: &Arc<Snapshot>, name: &str, share: f64) {
        if share <= 0.0 {
            return;
        }
        let Some(cluster) = snapshot.cluster(name) else {
            self.push("endpoints", &format!("{name}: no such subset or service"), Vec::new(), None);
            return;
        };
        let Some(balancer) = self.world.balancer(snapshot, &self.workload.key.cluster, cluster) else {
            self.push("endpoints", &format!("{name}: the address that was dialled"), Vec::new(), None);
            return;
        };
        let candidates = balancer
            .endpoints()
            .iter()
            .zip(balancer.shares())
            .enumerate()
            .map(|(i, (endpoint, share))| {
                let state = balancer.condition(i).map(|c| c.state).unwrap_or_default();
                Candidate { id: name_of(endpoint), taken: share > 0.0, reason: reason(cluster, endpoint, state, share) }
            })
            .collect();
        self.push("endpoints", name, candidates, cluster.origin.as_ref());
    }

    fn outcome(&mut self, accepted: &Accepted<'_>) {
        let arrivals = self.world.accepted(accepted, 0);
        let mut gateways = Vec::new();
        let mut policies = Vec::new();
        let mut ends = Vec::new();
        let mut decided: Option<DecidedBy> = None;
        for arrival in &arrivals {
            let to = arrival.outcome.to.as_deref().unwrap_or("nobody");
            let share = fairlead_calls::got::percent(arrival.share);
            ends.push(Candidate {
                id: to.to_owned(),
                taken: arrival.outcome.to.is_some(),
                reason: format!("{share} end with {}", arrival.outcome.status),
            });
            for gateway in &arrival.outcome.via {
                let known = gateways.iter().any(|c: &Candidate| c.id == *gateway);
                if !known {
                    gateways.push(Candidate {
                        id: gateway.clone(),
                        taken: true,
                        reason: "on the way to another network".into(),
                    });
                }
            }
            if let Some(denied) = &arrival.outcome.denied_by {
                policies.push(Candidate { id: denied.clone(), taken: true, reason: "refuses the request".into() });
                decided = arrival.decided_by.iter().find(|d| denied.starts_with(&d.object)).cloned();
            } else if let Some(to) = arrival.outcome.to.as_deref().and_then(|t| caller(self.world, t)) {
                for policy in &to.security.policies {
                    let reason = match policy.action {
                        fairlead_model::security::Action::Deny => "no rule of it matches",
                        fairlead_model::security::Action::Allow => "ALLOW policy; one of them matches",
                    };
                    let id = policy.origin.object.to_string();
                    if !policies.iter().any(|c: &Candidate| c.id == id) {
                        policies.push(Candidate { id, taken: false, reason: reason.into() });
                    }
                }
            }
        }
        let via =
            if gateways.is_empty() { "none: direct".to_owned() } else { format!("{} gateway(s)", gateways.len()) };
        self.push("gateways", &via, gateways, None);
        let refused = policies.iter().any(|p| p.taken);
        let verdict = if refused {
            "refused"
        } else if policies.is_empty() {
            "none selects the callee"
        } else {
            "allowed"
        };
        self.push("policies", verdict, policies, None);
        if let (Some(decided), Some(phase)) = (decided, self.phases.last_mut()) {
            phase.origin = Some(OriginRow { object: decided.object, file: decided.file, line: decided.line });
        }
        self.push("outcome", &format!("{} way(s)", ends.len()), ends, None);
    }

    fn push(&mut self, name: &str, chosen: &str, candidates: Vec<Candidate>, origin: Option<&Origin>) {
        let origin = origin.map(|o| OriginRow { object: o.to_string(), file: o.file.to_string(), line: o.line });
        self.phases.push(Phase { name: name.into(), chosen: chosen.into(), candidates, origin });
    }
}

fn name_of(endpoint: &Endpoint) -> String {
    match &endpoint.fairlead {
        Some(own) if !own.workload.is_empty() => format!("{}/{}/{}", own.cluster, own.namespace, own.workload),
        _ => endpoint.address.to_string(),
    }
}

fn reason(cluster: &EnvoyCluster, endpoint: &Endpoint, state: EndpointState, share: f64) -> String {
    let place = format!("priority {}, {}", endpoint.priority, endpoint.locality);
    let way = match endpoint.gateway_hop() {
        Some(hop) => format!("over {hop}"),
        None => "direct".into(),
    };
    let tls = if cluster.is_mesh_tls(endpoint) { "mutual TLS" } else { "plaintext" };
    if share > 0.0 {
        return format!("{} ({place}; {way}; {tls})", fairlead_calls::got::percent(share));
    }
    if state.is_usable() {
        format!("not taken: a better priority holds all ({place})")
    } else {
        format!("not taken: {} ({place})", format!("{state:?}").to_lowercase())
    }
}
