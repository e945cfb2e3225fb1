//! One call of a table, followed for each of its callers.
//!
//! Invariant: a call that cannot be decided says why and fails; it is never guessed.

use crate::arrival::{Arrival, Failure, merged};
use crate::inbound::{Accepted, choose_chain};
use crate::mesh::Mesh;
use crate::place::Place;
use crate::program::LastHop;
use crate::request::{Resolved, payload};
use crate::wire::{Hello, Payload, Security, Wire, certificate};
use crate::world::World;
use fairlead_calls::{Got, Outcome, RequestKind, TableCall};
use fairlead_engine::decide;
use fairlead_model::mesh::{GatewayKind, Workload};
use fairlead_model::{Endpoint, Health, WorkloadRef};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// What each caller of a call gets. `Err`: the table names something unknown.
pub fn follow(mesh: &Mesh, world: &World, call: &TableCall) -> Result<Vec<(String, Got)>, String> {
    let callers = mesh.names().callers(&call.call.from)?;
    let mut all = Vec::new();
    for caller in callers {
        let got = match call.call.undecidable_field() {
            Some(field) => Got::undecided(format!("{field} is not decided by this version")),
            None => one(world, &caller, call)?,
        };
        all.push((caller, got));
    }
    Ok(all)
}

fn one(world: &World, caller: &str, call: &TableCall) -> Result<Got, String> {
    let sent = if caller == "outside" { from_outside(world, call)? } else { from_workload(world, caller, call)? };
    let arrivals = match sent {
        Ok(arrivals) => arrivals,
        Err(reason) => return Ok(Got::undecided(reason)),
    };
    let mut decided: BTreeSet<_> = BTreeSet::new();
    let outcomes = merged(arrivals)
        .into_iter()
        .map(|arrival| {
            decided.extend(arrival.decided_by.iter().cloned());
            Outcome { share: arrival.share, ..arrival.outcome }
        })
        .collect();
    let undecided = world.refusals().into_iter().next().map(|r| format!("a proxy refuses its configuration: {r}"));
    Ok(Got { outcomes, undecided, decided_by: decided.into_iter().collect() })
}

/// The outer error is the table's, the inner one says why the call is undecided.
type Sent = Result<Result<Vec<Arrival>, String>, String>;

fn from_workload(world: &World, caller: &str, call: &TableCall) -> Sent {
    let key = crate::conditions::workload_ref(caller).ok_or_else(|| format!("`{caller}` is no workload"))?;
    let workload = world.workload(&key).ok_or_else(|| format!("`{caller}` is no workload"))?;
    if call.request.kind == RequestKind::Dns {
        return Ok(Ok(vec![question(world, workload, call)]));
    }
    let payload = match payload(&call.call, &call.request) {
        Ok(payload) => payload,
        Err(reason) => return Ok(Err(reason)),
    };
    let (destination, target) = match destination(world, workload, call)? {
        Ok(found) => found,
        Err(arrival) => return Ok(Ok(vec![arrival])),
    };
    let client = call.call.client.as_ref().filter(|c| c.bypasses_sidecar());
    let security = match client {
        Some(client) => security(world, client, Some(workload), call),
        None => Security::Plain,
    };
    let wire = Wire { place: Place::of(workload), destination, security, payload };
    if client.is_some() || !workload.sidecar {
        return Ok(Ok(bare(world, workload, target, &wire)));
    }
    Ok(Ok(captured(world, workload, &wire)))
}

fn question(world: &World, workload: &Workload, call: &TableCall) -> Arrival {
    let mut arrival = Arrival { share: 1.0, ..Arrival::default() };
    match world.answer(workload, &call.request.host) {
        Some(answer) => {
            arrival.outcome.status = "ok".into();
            arrival.outcome.resolves = Some(answer);
        }
        None => arrival.outcome.status = "unresolved".into(),
    }
    arrival
}

type Destination = (SocketAddr, Option<Arc<Workload>>);

fn destination(world: &World, workload: &Workload, call: &TableCall) -> Result<Result<Destination, Arrival>, String> {
    if let Some(at) = &call.call.at {
        return world.at(at).map(Ok);
    }
    let unresolved = || {
        let outcome = Outcome { status: "unresolved".into(), ..Outcome::default() };
        Arrival { share: 1.0, outcome, ..Arrival::default() }
    };
    Ok(match world.resolve_name(workload, &call.request.host) {
        Resolved::Unknown => Err(unresolved()),
        Resolved::Addresses(addresses) => match addresses.first() {
            Some(address) => Ok((SocketAddr::new(*address, call.request.port), None)),
            None => Err(unresolved()),
        },
    })
}

/// The program's connection, taken by its own sidecar.
fn captured(world: &World, workload: &Arc<Workload>, wire: &Wire) -> Vec<Arrival> {
    let Some(snapshot) = world.snapshot(workload) else { return bare(world, workload, None, wire) };
    if workload.addresses.contains(&wire.destination.ip()) {
        // What a program sends to its own address never leaves the machine, and is captured nowhere.
        return world.bare(workload, wire, &wire.payload, LastHop::default());
    }
    let Some(capture) = snapshot.listener("virtualOutbound") else {
        return vec![Arrival::failed(Failure::Refused)];
    };
    let listener = decide::listener(&snapshot, capture, wire.destination);
    let Some(chain) = choose_chain(listener, wire) else {
        return vec![Arrival::failed(Failure::Closed)];
    };
    let accepted =
        Accepted { workload, snapshot: &snapshot, chain, wire, peer: None, terminated: false, outbound: true };
    world.accepted(&accepted, 0)
}

/// No sidecar on the way out: an address is dialled as it is; a virtual IP means a ready endpoint of the own cluster.
fn bare(world: &World, workload: &Arc<Workload>, target: Option<Arc<Workload>>, wire: &Wire) -> Vec<Arrival> {
    if let Some(target) = target
        && matches!(world.locate(&wire.place, wire.destination), crate::place::Found::Outside)
    {
        // Named by the table, but its network is out of reach from here.
        let _ = target;
        return vec![Arrival::failed(Failure::Timeout)];
    }
    let Some(endpoints) = kube_proxy(world, workload, wire.destination) else {
        return world.send(wire, 0);
    };
    if endpoints.is_empty() {
        return vec![Arrival::failed(Failure::Refused)];
    }
    let share = 1.0 / endpoints.len() as f64;
    let to = |destination| world.send(&Wire { destination, ..wire.clone() }, 0);
    endpoints.into_iter().flat_map(to).map(|a| a.scaled(share)).collect()
}

/// Addresses behind a virtual IP, as kube-proxy would choose; `None` when it is no virtual IP.
fn kube_proxy(world: &World, workload: &Workload, destination: SocketAddr) -> Option<Vec<SocketAddr>> {
    let cluster = &workload.key.cluster;
    let mesh = world.mesh(cluster)?;
    let service = mesh.services.values().find(|s| s.vips.contains(&destination.ip()))?;
    let local = service.endpoints.iter().filter(|e| e.workload.cluster == *cluster && e.health == Health::Healthy);
    let alike = |e: &Endpoint| e.addresses().find(|ip| ip.is_ipv4() == destination.is_ipv4()).or(e.address);
    Some(local.filter_map(|e| Some(SocketAddr::new(alike(e)?, *e.ports.get(&destination.port())?))).collect())
}

fn security(world: &World, client: &fairlead_calls::Client, own: Option<&Workload>, call: &TableCall) -> Security {
    use fairlead_calls::call::ClientTls;
    if client.tls == Some(ClientTls::None) {
        return Security::Plain;
    }
    let issuer = own.map(|w| w.key.cluster.clone());
    let own = own.and_then(|w| world.own_identity(w));
    let host = call.request.host.clone();
    Security::Tls(Arc::new(Hello {
        server_name: client.sni.clone().or_else(|| host.parse::<std::net::IpAddr>().is_err().then_some(host)),
        alpn: client.alpn.clone(),
        certificate: certificate(client, own.as_deref(), issuer),
        expect: None,
        names: None,
        anyone: true,
    }))
}

fn from_outside(world: &World, call: &TableCall) -> Sent {
    if call.request.kind == RequestKind::Dns {
        return Ok(Err("`outside` has no resolver of the mesh".into()));
    }
    let payload = match payload(&call.call, &call.request) {
        Ok(payload) => payload,
        Err(reason) => return Ok(Err(reason)),
    };
    let client = call.call.client.clone().unwrap_or_default();
    let security = if client.bypasses_sidecar() { security(world, &client, None, call) } else { Security::Plain };
    let mut wire = Wire { place: Place::Outside, destination: SocketAddr::from(([0, 0, 0, 0], 0)), security, payload };
    if let Some(at) = &call.call.at {
        let (address, workload) = world.at(at)?;
        wire.destination = address;
        return Ok(Ok(match workload {
            Some(workload) => named(world, &workload, &wire),
            None => world.send(&wire, 0),
        }));
    }
    if let Ok(address) = call.request.host.parse() {
        wire.destination = SocketAddr::new(address, call.request.port);
        return Ok(Ok(world.send(&wire, 0)));
    }
    match first_gateway(world, call, &wire.payload) {
        Some((gateway, port)) => {
            let Some(address) = gateway.addresses.first() else {
                return Ok(Err(format!("{} has no address", gateway.key)));
            };
            wire.destination = SocketAddr::new(*address, port);
            Ok(Ok(named(world, &gateway, &wire)))
        }
        None => Ok(Ok(vec![Arrival::failed(Failure::Refused)])),
    }
}

/// Dials a workload that a table names, whichever network it is in.
fn named(world: &World, workload: &Arc<Workload>, wire: &Wire) -> Vec<Arrival> {
    if world.conditions.down_clusters.contains(&workload.key.cluster)
        || (workload.gateway.is_some() && world.conditions.is_down(&workload.key))
    {
        return vec![Arrival::failed(Failure::Timeout)];
    }
    if world.dies_whole(workload) {
        return vec![Arrival::failed(Failure::Refused)];
    }
    world.deliver(workload, wire, 0)
}

/// The first gateway (by cluster, namespace, name) with a server for the URL's host and port, and its workload port.
fn first_gateway(world: &World, call: &TableCall, payload: &Payload) -> Option<(Arc<Workload>, u16)> {
    let host = match payload {
        Payload::Http(request) => request.authority.split(':').next().unwrap_or_default().to_ascii_lowercase(),
        _ => call.request.host.to_ascii_lowercase(),
    };
    for mesh in world.meshes.values() {
        let mut gateways: Vec<&Arc<Workload>> =
            mesh.workloads.values().filter(|w| w.gateway == Some(GatewayKind::Ingress)).collect();
        gateways.sort_by(|a, b| a.key.cmp(&b.key));
        for workload in gateways {
            let serves = mesh
                .gateways
                .iter()
                .filter(|g| fairlead_model::matching::selects(&g.selector, &workload.labels))
                .flat_map(|g| &g.servers)
                .any(|s| s.port == call.request.port && covers(&s.hosts, &host));
            if serves {
                return Some((workload.clone(), workload_port(workload, call.request.port)));
            }
        }
    }
    None
}

fn covers(hosts: &[(Option<String>, String)], host: &str) -> bool {
    hosts.iter().any(|(_, pattern)| fairlead_model::matching::host_covers(pattern, host))
}

/// The port the gateway's Service sends its port to.
fn workload_port(workload: &Workload, service_port: u16) -> u16 {
    let targets = |(_, services): &(&u16, &Vec<(fairlead_model::ServiceKey, u16)>)| {
        services.iter().any(|(_, port)| *port == service_port)
    };
    workload.ports.iter().find(targets).map_or(service_port, |(port, _)| *port)
}

/// Parses a caller for `explain`.
pub(crate) fn caller(world: &World, name: &str) -> Option<Arc<Workload>> {
    let key: WorkloadRef = crate::conditions::workload_ref(name)?;
    world.workload(&key).cloned()
}
