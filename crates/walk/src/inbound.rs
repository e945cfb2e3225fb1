//! What happens to a connection at the place it was sent to: a proxy accepts it, or the program itself.
//!
//! Invariant: a connection is closed before any byte when no filter chain wants it or the handshake fails; it is never passed on.

use crate::arrival::{Arrival, Failure, last_hop, merged, through};
use crate::place::{Found, Place};
use crate::program::LastHop;
use crate::wire::{Certificate, Hello, Payload, Security, Wire};
use crate::world::World;
use fairlead_calls::Outcome;
use fairlead_calls::names::short_form;
use fairlead_engine::listener::{FilterChain, Listener, NetworkFilter, SanMatch, Sniffed, TlsContext, Transport};
use fairlead_engine::matching::StringMatch;
use fairlead_engine::{ConnectionInfo, RequestInfo, Snapshot, decide};
use fairlead_model::mesh::{GatewayKind, Member, Workload};
use fairlead_model::settings::Trust;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// A connection inside a proxy, after its chain was chosen and its TLS terminated.
pub(crate) struct Accepted<'a> {
    pub workload: &'a Arc<Workload>,
    pub snapshot: &'a Arc<Snapshot>,
    pub chain: &'a Arc<FilterChain>,
    pub wire: &'a Wire,
    /// The other side's verified SPIFFE ID.
    pub peer: Option<String>,
    /// Whether this proxy terminated TLS.
    pub terminated: bool,
    /// Whether its own program sent it, captured on the way out.
    pub outbound: bool,
}

/// A chain of more proxies than this is a loop.
pub(crate) const MAX_PROXIES: u8 = 8;

impl World {
    /// Sends a connection and follows it.
    pub(crate) fn send(&self, wire: &Wire, depth: u8) -> Vec<Arrival> {
        if depth > MAX_PROXIES {
            return vec![Arrival::failed(Failure::Timeout)];
        }
        match self.locate(&wire.place, wire.destination) {
            Found::Unreachable => vec![Arrival::failed(Failure::Timeout)],
            Found::Dead => vec![Arrival::failed(Failure::Refused)],
            Found::Outside => vec![elsewhere(wire)],
            Found::Virtual(behind) if behind.is_empty() => vec![Arrival::failed(Failure::Refused)],
            Found::Virtual(behind) => {
                let share = 1.0 / behind.len() as f64;
                let to = |destination| self.send(&Wire { destination, ..wire.clone() }, depth + 1);
                merged(behind.into_iter().flat_map(to).map(|a| a.scaled(share)).collect())
            }
            Found::Workload(workload) => self.deliver(&workload, wire, depth),
        }
    }

    /// Hands a connection to a workload: to its proxy if it has one.
    pub(crate) fn deliver(&self, workload: &Arc<Workload>, wire: &Wire, depth: u8) -> Vec<Arrival> {
        let Some(snapshot) = self.snapshot(workload) else {
            return self.bare(workload, wire, &wire.payload, LastHop::default());
        };
        let Some(listener) = listener(&snapshot, workload, wire.destination) else {
            return vec![Arrival::failed(Failure::Refused)];
        };
        let Some(chain) = choose_chain(listener, wire) else {
            let mut closed = Arrival::failed(Failure::Closed);
            if workload.gateway == Some(GatewayKind::Ingress) {
                closed.outcome = Outcome { attempts: Some(0), flags: vec!["NR".to_owned()], ..closed.outcome };
            }
            return vec![closed];
        };
        let (peer, terminated) = match self.terminate(workload, chain, wire) {
            Ok(known) => known,
            Err(reason) => {
                let mut refused = Arrival::failed(Failure::Closed);
                refused.notes.push(format!("{}: handshake refused: {reason}", workload.key));
                return vec![refused];
            }
        };
        let accepted = Accepted { workload, snapshot: &snapshot, chain, wire, peer, terminated, outbound: false };
        let arrivals = self.accepted(&accepted, depth);
        let arrivals = if depth == 0 && workload.gateway.is_some() { accepted_first(arrivals) } else { arrivals };
        match workload.gateway {
            Some(_) => through(arrivals, &self.gateway_name(workload, wire.destination.ip())),
            None => arrivals,
        }
    }

    pub(crate) fn accepted(&self, accepted: &Accepted<'_>, depth: u8) -> Vec<Arrival> {
        for filter in &accepted.chain.filters {
            match filter {
                NetworkFilter::Rbac(_) => {}
                NetworkFilter::Http(manager) => return self.proxy_http(accepted, manager, depth),
                NetworkFilter::TcpProxy(proxy) => return self.proxy_tcp(accepted, proxy, depth),
            }
        }
        // A probe chain: the handshake is the answer.
        vec![Arrival::reset(&[])]
    }

    /// The program gets the bytes as they came over the wire, and ends TLS itself. That of the mesh means nothing to it.
    pub(crate) fn bare(
        &self,
        workload: &Arc<Workload>,
        wire: &Wire,
        payload: &Payload,
        mut hop: LastHop,
    ) -> Vec<Arrival> {
        if let Security::Tls(hello) = &wire.security {
            match hello.with_program() {
                Ok(version) => hop = LastHop { tls: true, version: version.or(hop.version), ..hop },
                Err(reason) => {
                    let mut refused = Arrival::failed(Failure::Closed);
                    refused.notes.push(format!("{}: handshake refused: {reason}", workload.key));
                    return vec![refused];
                }
            }
        }
        self.program(workload, wire.destination.port(), payload, &hop)
    }

    /// The peer's identity after this chain's handshake, and whether TLS ended here.
    fn terminate(
        &self,
        workload: &Workload,
        chain: &FilterChain,
        wire: &Wire,
    ) -> Result<(Option<String>, bool), String> {
        let Some(tls) = &chain.tls else { return Ok((None, false)) };
        let Security::Tls(hello) = &wire.security else { return Err("plaintext where TLS is demanded".into()) };
        let peer = self.judge_client(workload, tls, hello)?;
        let own = self.own_identity(workload);
        if let Some(expected) = &hello.expect
            && own.as_deref() != Some(expected)
        {
            return Err(format!("the caller expects {expected}, this is {}", own.unwrap_or_default()));
        }
        if let Some(names) = &hello.names
            && !names.accepts_uri(own.as_deref().unwrap_or_default())
        {
            return Err(format!("{} is not among the names that the caller's rule accepts", own.unwrap_or_default()));
        }
        Ok((peer, true))
    }

    fn judge_client(&self, workload: &Workload, tls: &TlsContext, hello: &Hello) -> Result<Option<String>, String> {
        match &hello.certificate {
            Certificate::None if tls.require_client_certificate => Err("no client certificate".into()),
            Certificate::None => Ok(None),
            Certificate::Invalid(why) => Err((*why).into()),
            Certificate::Valid { id, issuer } => {
                let domain = id.strip_prefix("spiffe://").and_then(|r| r.split('/').next()).unwrap_or_default();
                let mesh = self.meshes.get(&workload.key.cluster);
                let of_domain = |m: &&Arc<Member>| m.trust_domain == domain;
                // One domain for all: members are told apart by the intermediate that signed.
                let shared = mesh.is_some_and(|m| m.settings.trust == Trust::Shared);
                let signed = |m: &&Arc<Member>| !shared || issuer.as_ref().is_none_or(|issuer| *issuer == m.cluster);
                let member = mesh.and_then(|m| m.members.values().filter(of_domain).find(signed));
                match member {
                    None => Err(format!("nobody of trust domain {domain} who is trusted here vouches for it")),
                    Some(member)
                        if self.conditions.revoked.contains(&member.cluster)
                            && member.cluster != workload.key.cluster =>
                    {
                        Err(format!("cluster {} is revoked", member.cluster))
                    }
                    Some(member) => self.within_bounds(workload, member, id),
                }
            }
        }
    }

    /// Reserved identities stand outside namespaces.
    fn within_bounds(&self, workload: &Workload, member: &Member, id: &str) -> Result<Option<String>, String> {
        let parties = (workload.key.cluster.clone(), member.cluster.clone());
        let namespace = id.split_once("/ns/").and_then(|(_, rest)| rest.split('/').next());
        match (self.written.bounds.get(&parties), namespace) {
            (Some(bounds), Some(namespace)) if !bounds.contains(namespace) => {
                Err(format!("identities of {id}'s namespace are not accepted from {}", member.cluster))
            }
            (Some(_), None) if !id.contains("/fairlead/") => {
                Err(format!("identities without a namespace are not accepted from {}", member.cluster))
            }
            _ => Ok(Some(id.to_owned())),
        }
    }

    pub(crate) fn own_identity(&self, workload: &Workload) -> Option<String> {
        if workload.gateway == Some(GatewayKind::EastWest) {
            let mesh = self.meshes.get(&workload.key.cluster)?;
            let member = mesh.members.get(&workload.key.cluster)?;
            return Some(format!("spiffe://{}/fairlead/gateway", member.trust_domain));
        }
        workload.identity.as_ref().map(ToString::to_string)
    }

    /// `west/east-west@ADDRESS`, or the workload's name.
    fn gateway_name(&self, workload: &Workload, address: IpAddr) -> String {
        let name = short_form(&workload.key.to_string());
        if workload.gateway == Some(GatewayKind::EastWest) { format!("{name}@{address}") } else { name }
    }
}

impl Accepted<'_> {
    /// The first proxy on the way tells of routes and tries: the caller's sidecar, or a gateway at the edge.
    pub fn is_first(&self) -> bool {
        self.outbound || self.workload.gateway == Some(GatewayKind::Ingress)
    }

    pub fn connection(&self, remote: IpAddr) -> ConnectionInfo<'_> {
        ConnectionInfo {
            tls: self.terminated,
            peer: self.peer.as_deref(),
            direct_remote: self.wire.place.address(),
            remote,
            local: self.wire.destination,
            server_name: self.wire.server_name(),
        }
    }

    /// Access at the network level.
    pub fn authorize_connection(&self) -> Result<decide::Allowed, decide::Denied> {
        let info = RequestInfo { connection: self.connection(self.wire.place.address()), head: None };
        let filters = self.chain.filters.iter().filter_map(|f| match f {
            NetworkFilter::Rbac(filter) => Some(filter),
            _ => None,
        });
        decide::authorize(filters, &info)
    }
}

/// The listener that has the connection: capture at 15006 for a sidecar, a bound port for a gateway.
fn listener<'a>(snapshot: &'a Snapshot, workload: &Workload, destination: SocketAddr) -> Option<&'a Arc<Listener>> {
    if workload.gateway.is_none() {
        let capture = snapshot.listener("virtualInbound")?;
        return Some(decide::listener(snapshot, capture, destination));
    }
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), destination.port());
    snapshot.listener_at(destination).or_else(|| snapshot.listener_at(any)).filter(|l| l.bind_to_port)
}

/// A caller whose connection a gateway took sees it cut, whatever the gateway met beyond.
fn accepted_first(mut arrivals: Vec<Arrival>) -> Vec<Arrival> {
    for arrival in arrivals.iter_mut().filter(|arrival| arrival.failure.is_some()) {
        arrival.outcome.status = Failure::Closed.word().into();
    }
    arrivals
}

pub(crate) fn choose_chain<'a>(listener: &'a Listener, wire: &Wire) -> Option<&'a Arc<FilterChain>> {
    let protocols = wire.application_protocols();
    let protocols: Vec<&[u8]> = protocols.iter().map(Vec::as_slice).collect();
    let server_name = wire.server_name().map(str::to_ascii_lowercase);
    decide::filter_chain(
        listener,
        &Sniffed {
            destination: wire.destination,
            source: SocketAddr::new(wire.place.address(), 40_000),
            transport: if wire.is_tls() { Transport::Tls } else { Transport::RawBuffer },
            server_name: server_name.as_deref(),
            application_protocols: &protocols,
        },
    )
}

/// An address outside the mesh: it is taken to answer.
fn elsewhere(wire: &Wire) -> Arrival {
    outside(wire.destination.to_string(), wire)
}

/// Somebody outside whose address only a resolver knows.
pub(crate) fn named_elsewhere(host: &str, port: u16, wire: &Wire) -> Arrival {
    outside(format!("{host}:{port}"), wire)
}

fn outside(destination: String, wire: &Wire) -> Arrival {
    if let Security::Tls(hello) = &wire.security
        && hello.names.as_ref().is_some_and(|names| pins_nobody(names))
    {
        let mut refused = Arrival::failed(Failure::Closed);
        refused.notes.push(format!("{destination}: handshake refused: nobody has a name the caller's rule takes"));
        return refused;
    }
    let request = match &wire.payload {
        Payload::Http(request) | Payload::ProgramTls { inside: Some(request), .. } => Some(request),
        Payload::Bytes | Payload::ProgramTls { inside: None, .. } => None,
    };
    let status = if request.is_some() { "200" } else { "ok" };
    let grpc_status = request.filter(|request| request.grpc).map(|_| 0);
    let tls = match &wire.security {
        Security::Tls(hello) => last_hop(true, hello.certificate != Certificate::None),
        Security::Plain => last_hop(wire.is_tls(), false),
    };
    let to = Some(format!("outside/{destination}"));
    let outcome = Outcome { status: status.into(), grpc_status, to, tls: Some(tls), ..Outcome::default() };
    Arrival { share: 1.0, outcome, ..Arrival::default() }
}

/// A server outside is taken to be who it should be, but names below `.invalid` are nobody's (RFC 2606): a refused TLS block pins one.
fn pins_nobody(names: &TlsContext) -> bool {
    let of_nobody =
        |san: &SanMatch| matches!(&san.value, StringMatch::Exact { text, .. } if text.ends_with(b".invalid"));
    !names.required_sans.is_empty() && names.required_sans.iter().all(of_nobody)
}

/// Where a proxy's own connections leave from.
pub(crate) fn place_of(accepted: &Accepted<'_>) -> Place {
    Place::of(accepted.workload)
}
