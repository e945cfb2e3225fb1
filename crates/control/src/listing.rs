//! The rows of each listing, from the owner's state.
//!
//! Invariant: sorted, and equal for equal states.

use crate::event::Client;
use crate::publisher::describe;
use crate::streams::Stream;
use crate::world::World;
use fairlead_model::listing::{ClusterRow, EndpointRow, PeerRow, ProxyRow, RouteRow, ServiceRow};
use fairlead_model::route::{Backend, HttpAction, RouteSet};
use fairlead_model::{ClusterId, Health, ResolvedMesh, WorkloadRef};
use serde_json::{Value, json};
use std::time::Instant;

pub fn ready(world: &World) -> Value {
    json!({"ready": world.resolved.is_some(), "cluster": world.cluster, "generation": mesh(world).map(|m| m.generation)})
}

/// Why nothing is published yet; `None` once something is.
pub fn why_not_ready(world: &World) -> Option<String> {
    if world.resolved.is_some() {
        return None;
    }
    Some(world.objects.unavailable.clone().unwrap_or_else(|| "the first generation is being resolved".into()))
}

pub fn clusters(world: &World) -> Value {
    let now = Instant::now();
    let Some(mesh) = mesh(world) else { return json!([]) };
    let mut rows: Vec<ClusterRow> = Vec::new();
    for member in mesh.members.values() {
        let own = member.cluster == world.cluster;
        let peer = world.peers.get(&member.cluster);
        let (services, endpoints) = held(mesh, &member.cluster);
        rows.push(ClusterRow {
            cluster: member.cluster.to_string(),
            state: format!("{:?}", member.state).to_lowercase(),
            trust_domain: member.trust_domain.clone(),
            networks: member.networks.iter().map(ToString::to_string).collect(),
            gateways: member.gateways.iter().map(|g| g.address.to_string()).collect(),
            stream: match peer {
                _ if own => "self",
                Some(peer) if peer.lease.is_stale(now) => "stale",
                Some(_) => "fresh",
                None => "unknown",
            }
            .into(),
            path: if own { "self".into() } else { path(seen(world, &member.cluster, now)).into() },
            services,
            endpoints,
        });
    }
    for cluster in world.authority.revoked() {
        if !rows.iter().any(|r| r.cluster == cluster) {
            rows.push(revoked(cluster));
        }
    }
    json!(rows)
}

pub fn peers(world: &World) -> Value {
    let now = Instant::now();
    let rows: Vec<PeerRow> = world
        .authority
        .peers()
        .into_iter()
        .map(|member| {
            let cluster = ClusterId::from(member.cluster.clone());
            let state = world.peers.get(&cluster);
            PeerRow {
                connected: state.is_some_and(|s| s.lease.is_connected()),
                stale: state.is_none_or(|s| s.lease.is_stale(now)),
                path: path(seen(world, &cluster, now)).into(),
                trust_domain: member.trust_domain().to_string(),
                clock_ahead: state.and_then(|s| s.ahead),
                addresses: member.control_addresses,
                incarnation: member.incarnation,
                version: member.version,
                cluster: member.cluster,
            }
        })
        .collect();
    json!(rows)
}

pub fn services(world: &World) -> Value {
    let Some(mesh) = mesh(world) else { return json!([]) };
    let rows: Vec<ServiceRow> = mesh
        .services
        .values()
        .map(|service| ServiceRow {
            namespace: service.key.namespace.clone(),
            host: service.key.host.clone(),
            ports: service
                .ports
                .iter()
                .map(|p| format!("{}/{}", p.number, format!("{:?}", p.protocol).to_lowercase()))
                .collect(),
            addresses: service.vips.iter().map(ToString::to_string).collect(),
            clusters: service.clusters.iter().map(ToString::to_string).collect(),
            ready: service.endpoints.iter().filter(|e| e.health == Health::Healthy).count(),
            total: service.endpoints.len(),
        })
        .collect();
    json!(rows)
}

pub fn endpoints(world: &World) -> Value {
    let Some(mesh) = mesh(world) else { return json!([]) };
    let mut rows = Vec::new();
    for service in mesh.services.values() {
        for endpoint in &service.endpoints {
            rows.push(EndpointRow {
                service: service.key.host.clone(),
                workload: endpoint.workload.to_string(),
                id: endpoint.id.to_string(),
                address: endpoint.address.map(|a| a.to_string()),
                network: endpoint.network.to_string(),
                locality: endpoint.locality.to_string(),
                health: format!("{:?}", endpoint.health).to_lowercase(),
                weight: endpoint.weight,
                ports: (*endpoint.ports).clone(),
                identity: endpoint.identity.clone().map(String::from),
                mutual_tls: !endpoint.mutual_tls.is_empty(),
            });
        }
    }
    json!(rows)
}

pub fn routes(world: &World) -> Value {
    let Some(mesh) = mesh(world) else { return json!([]) };
    let rows: Vec<RouteRow> = mesh.routes.iter().flat_map(|set| route_rows(set)).collect();
    json!(rows)
}

pub fn proxies(world: &World) -> Value {
    let row = |(workload, stream): (&WorkloadRef, &Stream)| {
        let Client::Proxy { identity, kind, version, .. } = &stream.slot.client else { return None };
        let report = world.reports.get(workload);
        let role = mesh(world).and_then(|mesh| describe(mesh, workload, identity, *kind)).map(|d| d.role);
        Some(ProxyRow {
            workload: workload.to_string(),
            role: role.map_or_else(|| "unknown".into(), |r| format!("{r:?}").to_lowercase()),
            client: version.clone(),
            offered: stream.slot.offered(),
            generation: stream.taken.generation,
            at_ms: stream.taken.at_ms,
            rejected: stream.taken.rejected,
            nacks: stream.taken.nacks,
            last_nack: stream.taken.last_nack.clone(),
            ready: report.is_some_and(|r| r.status.ready),
            reason: report.map_or_else(|| "has not reported".into(), |r| r.status.reason.clone()),
            held_back: None,
        })
    };
    let mut rows: Vec<ProxyRow> = world.streams.proxies().filter_map(row).collect();
    let served: Vec<String> = rows.iter().map(|row| row.workload.clone()).collect();
    for (workload, held) in &world.held_back {
        if !served.contains(&workload.to_string()) {
            rows.push(held_back(workload, world, held.why.clone()));
        }
    }
    rows.sort_by(|a, b| a.workload.cmp(&b.workload));
    json!(rows)
}

pub fn diagnostics(world: &World) -> Value {
    world.resolved.as_ref().map_or_else(|| json!([]), |r| json!(&*r.diagnostics))
}

/// What was generated since the start, by type.
pub fn counters(world: &World) -> Value {
    let counters = world.memo.counters();
    let by_type: serde_json::Map<String, Value> = counters
        .by_type
        .iter()
        .map(|(kind, c)| (kind.to_string(), json!({"hits": c.hits, "generated": c.generated})))
        .collect();
    json!({"entries": counters.entries, "evicted": counters.evicted, "byType": by_type})
}

/// What names mean to a workload without a sidecar: those of the own cluster, with their ready endpoints.
pub fn names(world: &World) -> Value {
    mesh(world).map_or_else(|| json!({}), |m| json!(fairlead_resolve::kubernetes_names(m)))
}

/// The identity that a proxy of the workload gets: a gateway's is reserved.
pub fn identity(world: &World, workload: &WorkloadRef) -> Option<String> {
    let found = mesh(world)?.workloads.get(workload)?;
    match found.gateway {
        Some(fairlead_model::mesh::GatewayKind::EastWest) => {
            Some(world.authority.ca().trust_domain().gateway().to_string())
        }
        _ => found.identity.clone().map(String::from),
    }
}

fn mesh(world: &World) -> Option<&ResolvedMesh> {
    world.resolved.as_ref().map(|r| &*r.mesh)
}

fn held(mesh: &ResolvedMesh, cluster: &ClusterId) -> (usize, usize) {
    let services = mesh.services.values().filter(|s| s.clusters.contains(cluster)).count();
    let endpoints =
        mesh.services.values().flat_map(|s| &s.endpoints).filter(|e| e.workload.cluster == *cluster).count();
    (services, endpoints)
}

fn seen(world: &World, cluster: &ClusterId, now: Instant) -> Option<bool> {
    world.path(cluster, &world.resolved.as_ref()?.state.workloads, now)
}

fn path(path: Option<bool>) -> &'static str {
    match path {
        Some(true) => "up",
        Some(false) => "down",
        None => "unknown",
    }
}

/// A proxy that has no stream because it knows more than this control plane.
fn held_back(workload: &WorkloadRef, world: &World, why: String) -> ProxyRow {
    ProxyRow {
        workload: workload.to_string(),
        role: "unknown".into(),
        client: String::new(),
        offered: 0,
        generation: 0,
        at_ms: 0,
        rejected: 0,
        nacks: 0,
        last_nack: None,
        ready: world.reports.get(workload).is_some_and(|r| r.status.ready),
        reason: format!("held back: {why}"),
        held_back: Some(why),
    }
}

fn revoked(cluster: String) -> ClusterRow {
    ClusterRow {
        cluster,
        state: "revoked".into(),
        trust_domain: String::new(),
        networks: Vec::new(),
        gateways: Vec::new(),
        stream: "unknown".into(),
        path: "unknown".into(),
        services: 0,
        endpoints: 0,
    }
}

fn route_rows(set: &RouteSet) -> Vec<RouteRow> {
    let row = |origin: &fairlead_model::Origin, matches: usize, to: Vec<String>| RouteRow {
        object: set.origin.object.to_string(),
        rule: origin.path.strip_prefix("spec.").unwrap_or(&origin.path).to_owned(),
        hosts: set.hosts.clone(),
        gateways: set.gateways.iter().map(|g| format!("{g:?}")).collect(),
        matches,
        to,
        file: origin.file.to_string(),
        line: origin.line,
    };
    let targets = |backends: &[Backend]| backends.iter().map(target).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for rule in &set.http {
        let to = match &rule.action {
            HttpAction::Route(backends) => targets(backends),
            other => vec![format!("{other:?}")],
        };
        rows.push(row(&rule.origin, rule.matches.len(), to));
    }
    rows.extend(set.tls.iter().map(|r| row(&r.origin, r.matches.len(), targets(&r.backends))));
    rows.extend(set.tcp.iter().map(|r| row(&r.origin, r.matches.len(), targets(&r.backends))));
    rows
}

fn target(backend: &Backend) -> String {
    let subset = backend.subset.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
    let port = backend.port.map(|p| format!(":{p}")).unwrap_or_default();
    format!("{}{subset}{port} {}", backend.host, backend.weight)
}
