//! From the resolved mesh to what the lab is told: plain data, no rules.
//!
//! Addresses, ports and identities come from the same resolved mesh that offline answers are made of; commands, environment and
//! probes from the `Workload` objects. Invariant: nothing is invented here; what is not written is the lab's to assign.

use anyhow::{Context as _, bail};
use fairlead_calls::{MeshDirectory, TableCall};
use fairlead_lab::live::records::OriginRecord;
use fairlead_lab::live::{ClusterMesh, ExternalServer, MeshSpec, MeshWorkload, Part, Probe, ProbeKind};
use fairlead_model::matching::selects;
use fairlead_model::mesh::{GatewayKind, Workload};
use fairlead_model::policy::ClientTls;
use fairlead_model::service::Resolution;
use fairlead_model::settings::Trust;
use fairlead_model::{ClusterId, Profile, ResolvedMesh, Service};
use fairlead_resources::fairlead::{WorkloadSpec, probe_address};
use fairlead_resources::field::IntOrString;
use fairlead_resources::{Object, decode};
use fairlead_walk::{Mesh, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Reads what is to run.
pub fn mesh_spec(directory: &Path, mesh: &Mesh, world: &World) -> anyhow::Result<MeshSpec> {
    let directory = directory.canonicalize().with_context(|| format!("cannot read {}", directory.display()))?;
    let programs = programs(&directory)?;
    let first = world.meshes.values().next().context("the mesh has no cluster: write clusters/<name>/*.yaml")?;
    let settings = &first.settings;
    if let Some((cluster, primary)) = settings.clusters.iter().find_map(|(c, s)| s.primary.as_ref().map(|p| (c, p))) {
        bail!(
            "clusters.{cluster}.topology: remote (primary {primary}) is not run by this version's lab; write `topology: primary`"
        );
    }
    let clusters = world.meshes.iter().map(|(id, view)| (id.to_string(), cluster(id, view, &programs))).collect();
    let mut spec = MeshSpec {
        name: mesh.name.clone(),
        directory,
        shared_trust: settings.trust == Trust::Shared,
        trust_domain: settings.trust_domain.clone(),
        domain: settings.domain.clone(),
        judges: settings.profile == Profile::Fairlead,
        clusters,
        externals: Vec::new(),
    };
    spec.externals = externals(&spec, world, &mesh.table.calls);
    Ok(spec)
}

/// The written parts of workloads that the resolved mesh does not carry, by cluster, namespace and name.
#[derive(Default)]
struct Programs {
    processes: BTreeMap<(String, String, String), WorkloadSpec>,
    entry_ports: BTreeMap<(String, String, String), BTreeSet<u16>>,
}

fn programs(directory: &Path) -> anyhow::Result<Programs> {
    let read = MeshDirectory::read(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut found = Programs::default();
    for (cluster, files) in &read.clusters {
        let id: ClusterId = cluster.as_str().into();
        for file in files {
            for decoded in decode(&id, &file.path.as_str().into(), &file.bytes).objects {
                let key = (cluster.clone(), decoded.key.namespace.to_string(), decoded.key.name.to_string());
                match decoded.object {
                    Object::Workload(workload) => drop(found.processes.insert(key, workload.spec)),
                    Object::WorkloadEntry(entry) => {
                        let ports = entry.spec.ports.values().filter_map(|p| u16::try_from(*p).ok()).collect();
                        found.entry_ports.insert(key, ports);
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

fn cluster(id: &ClusterId, view: &ResolvedMesh, programs: &Programs) -> ClusterMesh {
    let settings = &view.settings;
    let own = settings.clusters.get(id).cloned().unwrap_or_default();
    let entrances = view.members.get(id).map(|m| m.gateways.clone()).unwrap_or_default();
    let built_in: Vec<IpAddr> = entrances.iter().filter(|g| is_built_in(&g.workload)).map(|g| g.address.ip()).collect();
    let workloads = view
        .workloads
        .values()
        .filter(|w| !is_built_in(&w.key))
        .map(|w| workload(id, view, w, programs, &entrances, own.network.as_str()))
        .collect();
    let mut names = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for service in view.services.values() {
        for vip in &service.vips {
            names.insert(*vip, format!("{}/{}", service.key.namespace, service.name));
            if service.source == fairlead_model::service::ServiceSource::Kubernetes {
                addresses.insert(*vip);
            }
        }
    }
    ClusterMesh {
        trust_domain: settings.trust_domain_of(id),
        network: own.network.to_string(),
        locality: Some(own.locality.to_string()).filter(|l| !l.is_empty()),
        gateway: (!built_in.is_empty()).then_some(built_in),
        gateway_port: own.gateway_port,
        service_addresses: addresses,
        names,
        policies: policies(view),
        workloads,
    }
}

/// Where policies are written: a proxy's resources carry their names only.
fn policies(view: &ResolvedMesh) -> BTreeMap<String, OriginRecord> {
    let all = view.workloads.values().flat_map(|workload| &workload.security.policies);
    all.map(|policy| {
        let origin = &policy.origin;
        let written = OriginRecord {
            object: origin.object.to_string(),
            path: origin.path.clone(),
            file: origin.file.to_string(),
            line: origin.line,
        };
        (written.object.clone(), written)
    })
    .collect()
}

fn is_built_in(key: &fairlead_model::WorkloadRef) -> bool {
    use fairlead_lab::live::spec::{EAST_WEST, SYSTEM_NAMESPACE};
    key.namespace == SYSTEM_NAMESPACE && key.name == EAST_WEST
}

fn workload(
    cluster: &ClusterId,
    view: &ResolvedMesh,
    one: &Workload,
    programs: &Programs,
    entrances: &[fairlead_model::mesh::GatewayAddress],
    network: &str,
) -> MeshWorkload {
    let key = |name: &str| (cluster.to_string(), one.key.namespace.to_string(), name.to_owned());
    // Replica N of `w` is the workload `w-N`.
    let replica = one.key.name.rsplit_once('-').filter(|(_, n)| n.parse::<u32>().is_ok()).map(|(name, _)| name);
    let process = replica.and_then(|name| programs.processes.get(&key(name)));
    let mut ports: BTreeSet<u16> = one.ports.keys().copied().collect();
    ports.extend(programs.entry_ports.get(&key(&one.key.name)).into_iter().flatten());
    if let Some(process) = process {
        ports.extend(process.ports.iter().filter(|p| !p.protocol.eq_ignore_ascii_case("udp")).map(|p| p.port));
    }
    let part = match (one.gateway, one.sidecar) {
        (Some(GatewayKind::Ingress), _) => Part::Ingress,
        (Some(GatewayKind::EastWest), _) => Part::EastWest,
        (None, true) => Part::Sidecar,
        (None, false) => Part::Plain,
    };
    let label = |names: &[&str]| names.iter().find_map(|name| one.labels.get(*name)).cloned();
    let mut found = MeshWorkload {
        namespace: one.key.namespace.to_string(),
        name: one.key.name.to_string(),
        addresses: one.addresses.clone(),
        network: Some(one.network.to_string()).filter(|n| n != network),
        locality: Some(one.locality.to_string()).filter(|l| !l.is_empty()),
        part,
        identity: one.identity.clone().map(String::from),
        canonical: (
            label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
                .unwrap_or_else(|| one.key.name.to_string()),
            label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"])
                .unwrap_or_else(|| "latest".into()),
        ),
        ports,
        wan: entrances.iter().filter(|g| g.workload == one.key).map(|g| g.address.ip()).collect(),
        ..MeshWorkload::default()
    };
    if let Some(process) = process {
        found.command = process.command.iter().chain(&process.args).cloned().collect();
        found.environment = process.env.iter().map(|v| (v.name.clone(), v.value.clone())).collect();
        found.probe = probe(process);
        if let Some(port) = process.ports.first().filter(|p| !p.protocol.eq_ignore_ascii_case("udp")) {
            // The default probe is of the first port as written, not of the smallest.
            found.probe = found.probe.or(Some(Probe::tcp(port.port)));
        }
    }
    if part == Part::Ingress {
        found.servers = servers(view, one);
        for (port, services) in &one.ports {
            found
                .targets
                .extend(services.iter().filter(|(_, number)| number != port).map(|(_, number)| (*number, *port)));
        }
    }
    found
}

fn probe(process: &WorkloadSpec) -> Option<Probe> {
    let written = process.readiness_probe.as_ref()?;
    let number = |port: &IntOrString| match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => process.ports.iter().find(|p| p.name == *name).map(|p| p.port),
    };
    let (kind, host) = if let Some(http) = &written.http_get {
        let path = if http.path.is_empty() { "/".to_owned() } else { http.path.clone() };
        let host = (!http.host.is_empty()).then(|| ("host".to_owned(), http.host.clone()));
        let headers = host.into_iter().chain(http.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())));
        let (port, tls) = (number(&http.port)?, http.scheme == "HTTPS");
        (ProbeKind::Http { port, path, tls, headers: headers.collect() }, http.host.as_str())
    } else if let Some(tcp) = &written.tcp_socket {
        (ProbeKind::Tcp(number(&tcp.port)?), tcp.host.as_str())
    } else {
        // Whether the port accepts: the health service itself is not asked.
        (ProbeKind::Tcp(written.grpc.as_ref()?.port), "")
    };
    Some(Probe {
        address: probe_address(host).flatten(),
        delay: written.initial_delay_seconds,
        period: written.period_seconds,
        timeout: written.timeout_seconds,
        failures: written.failure_threshold,
        successes: written.success_threshold,
        ..Probe::new(kind)
    })
}

fn servers(view: &ResolvedMesh, gateway: &Workload) -> Vec<(u16, Vec<String>)> {
    let own = view.gateways.iter().filter(|g| selects(&g.selector, &gateway.labels));
    own.flat_map(|g| &g.servers).map(|s| (s.port, s.hosts.iter().map(|(_, host)| host.clone()).collect())).collect()
}

/// Servers that are no workloads: addresses of ServiceEntries, and addresses that tables dial.
fn externals(spec: &MeshSpec, world: &World, calls: &[TableCall]) -> Vec<ExternalServer> {
    let mut found: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut hosts: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for view in world.meshes.values() {
        for service in view.services.values() {
            names.extend(pinned(service));
            for endpoint in service.endpoints.iter().filter(|e| world.workload(&e.workload).is_none()) {
                // A name that is a service of the mesh needs no server.
                if let Some(host) = endpoint
                    .hostname
                    .as_ref()
                    .filter(|h| !h.ends_with(".cluster.local") && !h.ends_with(".clusterset.local"))
                {
                    hosts.entry(host.to_string()).or_default().extend(endpoint.ports.values());
                }
                if let Some(address) = endpoint.address {
                    found.entry(address).or_default().extend(endpoint.ports.values());
                }
            }
            if service.resolution == Resolution::Passthrough {
                for vip in &service.vips {
                    found.entry(*vip).or_default().extend(service.ports.iter().map(|p| p.number));
                }
            }
        }
    }
    for call in calls {
        let dialled = match &call.call.at {
            Some(at) => at.parse::<SocketAddr>().ok(),
            None => call.request.host.parse().ok().map(|ip| SocketAddr::new(ip, call.request.port)),
        };
        if let Some(address) = dialled {
            found.entry(address.ip()).or_default().insert(address.port());
        }
    }
    let mut taken: BTreeSet<IpAddr> = spec.clusters.values().flat_map(|c| c.names.keys().copied()).collect();
    let passthrough =
        world.meshes.values().flat_map(|m| m.services.values()).filter(|s| s.resolution == Resolution::Passthrough);
    for vip in passthrough.flat_map(|s| &s.vips) {
        taken.remove(vip);
    }
    taken.extend(spec.clusters.values().flat_map(|c| c.gateway.iter().flatten()));
    taken.extend(spec.workloads().flat_map(|(_, w)| w.addresses.iter().chain(&w.wan)));
    let usable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !taken.contains(ip);
    let server =
        |(address, ports): (IpAddr, BTreeSet<u16>)| ExternalServer { host: None, address, ports, names: names.clone() };
    let mut servers: Vec<ExternalServer> = found
        .iter()
        .filter(|(ip, ports)| usable(ip) && !ports.is_empty())
        .map(|(ip, ports)| server((*ip, ports.clone())))
        .collect();
    // RFC 5737: addresses for documentation are nobody's.
    let mut free = (1..=254).map(|n| IpAddr::from([203, 0, 113, n])).filter(|ip| usable(ip) && !found.contains_key(ip));
    for (host, ports) in hosts {
        if let Some(address) = free.next() {
            servers.push(ExternalServer { host: Some(host), address, ports, names: names.clone() });
        }
    }
    servers
}

/// Names that rules pin for the certificates of a service's servers, but for such as nobody can have (RFC 6761 `invalid`).
fn pinned(service: &Service) -> BTreeSet<String> {
    let policies = service.policies.iter().map(|scoped| &scoped.policy);
    let all = policies.flat_map(|p| std::iter::once(&p.policy).chain(p.subsets.values().map(|subset| &subset.policy)));
    let blocks = all.flat_map(|policy| std::iter::once(&policy.default).chain(policy.ports.values()));
    let simple = blocks.filter_map(|blocks| match &blocks.tls {
        Some(ClientTls::Simple { subject_alt_names, .. }) => Some(subject_alt_names),
        _ => None,
    });
    let names = simple.chain([&service.subject_alt_names]).flatten();
    names.filter(|name| !name.ends_with(".invalid")).cloned().collect()
}
