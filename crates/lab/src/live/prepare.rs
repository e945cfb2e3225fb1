//! From a call of a table to what is sent, from where, and whose proxy decides.
//!
//! Must never look at more configuration than names and addresses. Invariant: what a caller without a sidecar, or past its own, can
//! reach is decided by the network it stands in, as for a program there.

use std::net::{IpAddr, SocketAddr};

use fairlead_calls::call::{Client, ClientTls};
use fairlead_calls::{RequestKind, TableCall};

use super::caller::{self, Identity, Place, Plan, Tls, Version};
use super::lab::Lab;
use super::lookup::Resolver;
use super::outcome::Origin;
use super::spec::{EAST_WEST, Part, SYSTEM_NAMESPACE};

/// What is to be sent from where; with the proxy whose state decides.
pub(super) fn plan(lab: &Lab, caller: &str, call: &TableCall) -> Result<(Plan, Origin, Option<String>), String> {
    let handle = lab.handle();
    let topology = handle.plan();
    let client = call.call.client.clone().unwrap_or_default();
    let outside = caller == "outside";
    if outside && call.request.kind == RequestKind::Dns {
        return Err("`outside` has no resolver of the mesh".into());
    }
    let own = lab.spec().workload(caller);
    let past_proxy = client.bypasses_sidecar();
    let through_sidecar = !outside && !past_proxy && own.is_some_and(|(_, w)| w.part == Part::Sidecar);
    let target = target(lab, caller, call)?;
    // A pod's address means something on its own network only, so an outsider stands there for such a call.
    let place = match (&target, outside) {
        (Some(Target { place: Some(place), .. }), true) => place.clone(),
        _ => caller.to_owned(),
    };
    let namespace = handle.namespace(&place).map_err(|e| e.to_string())?;
    let resolver = own.and_then(|(_, w)| {
        let server = lab.parts(&topology).name_server(caller)?;
        Some(Resolver::pod(server, &w.namespace, &lab.spec().domain))
    });
    let origin = Origin {
        caller: caller.to_owned(),
        through_sidecar,
        dialled: target.as_ref().and_then(|t| t.name.clone()),
        dialled_gateway: target.as_ref().is_some_and(|t| t.gateway),
        // What a program encrypts itself is a connection to the proxies.
        http: call.request.is_http() && (call.request.kind != RequestKind::Https || past_proxy),
        grpc: call.request.kind == RequestKind::Grpc,
    };
    let plan = Plan {
        request: call.request.clone(),
        headers: call.call.headers.clone(),
        body: call.call.body.clone(),
        version: match client.http.as_deref() {
            Some("1.0") => Version::Http10,
            Some("2") => Version::Http2,
            _ => Version::Http11,
        },
        at: target.as_ref().map(|t| t.address),
        tls: tls(lab, caller, call, &client)?,
        place: Place::new(namespace, past_proxy && !outside),
        resolver,
    };
    let gateway = origin.dialled.clone().filter(|_| origin.dialled_gateway);
    let decides =
        if through_sidecar { Some(caller.to_owned()) } else { gateway.filter(|g| handle.plan().find(g).is_some()) };
    let decides = decides.map(|name| topology.find(&name).map_or(name.clone(), str::to_owned));
    Ok((plan, origin, decides))
}

/// What is dialled instead of what the URL's host resolves to.
struct Target {
    address: SocketAddr,
    name: Option<String>,
    gateway: bool,
    /// Where an outsider stands to reach it.
    place: Option<String>,
}

fn target(lab: &Lab, caller: &str, call: &TableCall) -> Result<Option<Target>, String> {
    let host = &call.request.host;
    if let Some(at) = &call.call.at {
        if let Ok(address) = at.parse::<SocketAddr>() {
            return Ok(Some(by_address(lab, address)));
        }
        let (name, port) = at
            .rsplit_once(':')
            .ok_or_else(|| format!("`{at}`: write ADDRESS:PORT or CLUSTER/NAMESPACE/WORKLOAD:PORT"))?;
        let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
        let found = lab.names().callers(name)?;
        let name = found.into_iter().next().ok_or_else(|| format!("`{name}` is no workload"))?;
        return by_name(lab, caller, &name, port).map(Some);
    }
    if caller != "outside" {
        return Ok(None);
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some(by_address(lab, SocketAddr::new(ip, call.request.port))));
    }
    let written =
        call.call.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.as_str());
    let wanted = written.unwrap_or(host).split(':').next().unwrap_or_default().to_ascii_lowercase();
    match lab.spec().gateway_for(&wanted, call.request.port) {
        Some(gateway) => by_name(lab, caller, &gateway, call.request.port).map(Some),
        // Nobody listens for it anywhere: as on the caller's own loopback interface.
        None => Ok(Some(Target {
            address: SocketAddr::from(([127, 0, 0, 1], call.request.port)),
            name: None,
            gateway: false,
            place: None,
        })),
    }
}

fn by_address(lab: &Lab, address: SocketAddr) -> Target {
    let gateway = lab.gateway_at(address.ip());
    let name = gateway.as_ref().map(|g| fairlead_calls::names::long_form(g.split('@').next().unwrap_or(g)));
    Target { address, gateway: gateway.is_some(), name, place: None }
}

fn by_name(lab: &Lab, caller: &str, name: &str, port: u16) -> Result<Target, String> {
    let plan = lab.handle().plan();
    let built_in = name.ends_with(&format!("/{SYSTEM_NAMESPACE}/{EAST_WEST}"));
    let gateway =
        built_in || lab.spec().workload(name).is_some_and(|(_, w)| matches!(w.part, Part::Ingress | Part::EastWest));
    let cluster = name.split('/').next().unwrap_or_default();
    let instances = plan.gateways(cluster, EAST_WEST);
    let owner = if built_in { *instances.first().ok_or_else(|| format!("{name} does not run"))? } else { name };
    let namespace = plan.namespace(owner).ok_or_else(|| format!("{name} does not run"))?;
    let port = service_port(lab, name, port);
    let (address, place) = match (caller == "outside", namespace.wan_addresses().first()) {
        (true, Some(address)) => (*address, None),
        (true, None) => {
            let address = *namespace.network_addresses().first().ok_or_else(|| format!("{name} has no address"))?;
            (address, namespace.network.as_ref().map(|network| format!("outside@{network}")))
        }
        (false, _) => {
            let address = plan.address(caller, owner).or_else(|| namespace.network_addresses().first().copied());
            (address.ok_or_else(|| format!("{name} has no address"))?, None)
        }
    };
    Ok(Target { address: SocketAddr::new(address, port), name: Some(name.to_owned()), gateway, place })
}

/// The port of the gateway workload behind a server's port.
fn service_port(lab: &Lab, name: &str, port: u16) -> u16 {
    let gateway = lab.spec().workload(name).map(|(_, w)| w);
    gateway.and_then(|w| w.targets.get(&port).copied()).unwrap_or(port)
}

fn tls(lab: &Lab, caller: &str, call: &TableCall, client: &Client) -> Result<Option<Tls>, String> {
    let own_tls = matches!(call.request.kind, RequestKind::Https | RequestKind::Tls);
    let wanted = client.bypasses_sidecar() && client.tls != Some(ClientTls::None);
    if !wanted && !own_tls {
        return Ok(None);
    }
    let shows = client.tls != Some(ClientTls::Simple) && wanted;
    let minted = match shows {
        true => {
            let certificate = client.certificate.as_deref().unwrap_or("mesh");
            let (cluster, identity) = identity(lab, caller, call, certificate)?;
            Some(lab.authorities().mint(&cluster, &identity, certificate)?)
        }
        false => None,
    };
    let alpn = match (client.alpn.is_empty(), call.request.kind) {
        (true, RequestKind::Https) if client.http.as_deref() == Some("2") => vec!["h2".to_owned()],
        (true, RequestKind::Https) => vec!["http/1.1".to_owned()],
        _ => client.alpn.clone(),
    };
    let sni = client.sni.clone().unwrap_or_else(|| call.request.host.clone());
    caller::server_name(&sni)?;
    Ok(Some(Tls { config: caller::client_config(minted.as_ref().map(Identity::minted).transpose()?, &alpn)?, sni }))
}

/// Whose certificate is minted: the caller's own; for `outside` what a SPIFFE ID says, or nobody's of the dialled cluster.
fn identity(lab: &Lab, caller: &str, call: &TableCall, certificate: &str) -> Result<(String, String), String> {
    if let Some((_, workload)) = lab.spec().workload(caller) {
        // A SPIFFE ID is vouched for by the member whose domain it names.
        let domain = certificate.strip_prefix("spiffe://").and_then(|id| id.split('/').next());
        let vouches = domain
            .and_then(|d| lab.spec().clusters.iter().find(|(_, c)| !lab.spec().shared_trust && c.trust_domain == d));
        let own = || caller.split('/').next().unwrap_or_default().to_owned();
        let cluster = vouches.map_or_else(own, |(name, _)| name.clone());
        let identity = workload.identity.clone().ok_or_else(|| format!("{caller} has no identity to show"))?;
        return Ok((cluster, identity));
    }
    let dialled =
        call.call.at.as_deref().and_then(|at| at.split('/').next()).filter(|c| lab.spec().clusters.contains_key(*c));
    let claimed = certificate.strip_prefix("spiffe://").and_then(|id| id.split('/').next());
    let of_domain = claimed
        .and_then(|domain| lab.spec().clusters.iter().find(|(_, c)| c.trust_domain == domain).map(|(n, _)| n.as_str()));
    let first = || lab.spec().clusters.keys().next().map(String::as_str);
    let cluster = of_domain.or(dialled).or_else(first).ok_or("the mesh has no cluster")?;
    let domain = lab.spec().clusters.get(cluster).map(|c| c.trust_domain.as_str()).unwrap_or_default();
    Ok((cluster.to_owned(), format!("spiffe://{domain}/ns/outside/sa/outside")))
}
