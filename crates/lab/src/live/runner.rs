//! Call tables, live: conditions are made, waited for, and undone; calls are made as often as their shares need.
//!
//! Calls with the same conditions share them. Invariant: calls are reported by their index, whatever the order in which they were
//! made; a condition that does not come about makes the call undecided, never passed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fairlead_calls::call::{Client, ClientTls};
use fairlead_calls::{Got, RequestKind, TableCall, times};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::caller::{self, Connections, Place, Plan, Seen, Tls, Version};
use super::given::State;
use super::lab::{Lab, LabError};
use super::lookup::Resolver;
use super::outcome::{Index, Origin, outcome};
use super::records::Reader;
use super::settle::{self, Watched};
use super::spec::{EAST_WEST, Part, SYSTEM_NAMESPACE};
use super::start::Progress;

/// Clients that share the calls of one entry.
const CLIENTS: u32 = 16;
/// Calls that are made beforehand where only failures tell that something is down: several times Istio's default of five errors in
/// a row.
const FINDING_OUT: u32 = 40;
/// Proxies write a record when a call has ended; it is there within milliseconds.
const RECORDS_WITHIN: Duration = Duration::from_secs(3);

/// What one call got, for each of its callers.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The call's number in the tables.
    pub index: usize,
    /// How often each caller made it.
    pub times: u32,
    /// By caller.
    pub got: Vec<(String, Got)>,
}

/// Runs calls, in an order of its own. The error is the table's: a name that means nothing.
pub async fn run(lab: &Lab, calls: &[TableCall], progress: Progress) -> Result<Vec<Ran>, LabError> {
    let mut prepared = Vec::new();
    for call in calls {
        prepared.push(Prepared::new(lab, call)?);
    }
    let mut groups: Vec<(State, Vec<Prepared<'_>>)> = Vec::new();
    for call in prepared {
        match groups.iter_mut().find(|(state, _)| *state == call.state) {
            Some((_, calls)) => calls.push(call),
            None => groups.push((call.state.clone(), vec![call])),
        }
    }
    groups.sort_by_key(|(state, _)| state.cost());
    let mut runner =
        Runner { lab, watched: watch(lab, &groups).await, reader: Reader::default(), progress, disturbed: false };
    let mut ran = Vec::new();
    for (state, calls) in &groups {
        ran.extend(runner.group(state, calls).await);
    }
    runner.make_whole().await;
    ran.sort_by_key(|r| r.index);
    Ok(ran)
}

/// A call with everything looked up.
struct Prepared<'c> {
    call: &'c TableCall,
    state: State,
    times: u32,
    /// By caller: the plan and where its records are; or why it cannot be made.
    callers: Vec<(String, Result<(Plan, Origin, Option<String>), String>)>,
}

impl<'c> Prepared<'c> {
    fn new(lab: &Lab, call: &'c TableCall) -> Result<Self, LabError> {
        let state = State::of(lab, &call.call.given)?;
        let times = times::times(&call.call).map_err(LabError::Unknown)?;
        let names = lab.names().callers(&call.call.from).map_err(LabError::Unknown)?;
        let mut callers = Vec::new();
        for name in names {
            let plan = match call.call.undecidable_field() {
                Some(field) => Err(format!("{field} is not decided by this version")),
                None => plan(lab, &name, call),
            };
            callers.push((name, plan));
        }
        Ok(Self { call, state, times, callers })
    }
}

/// The proxies that must show a state, with what they hold while all is well.
async fn watch(lab: &Lab, groups: &[(State, Vec<Prepared<'_>>)]) -> BTreeMap<String, Watched> {
    let owners = groups
        .iter()
        .flat_map(|(_, calls)| calls)
        .flat_map(|c| &c.callers)
        .filter_map(|(_, plan)| plan.as_ref().ok()?.2.clone());
    let mut watched = BTreeMap::new();
    for owner in owners {
        if watched.contains_key(&owner) {
            continue;
        }
        // One that cannot be read shows itself when a state is waited for.
        let baseline = settle::rotation(lab, &owner).await.unwrap_or_default().into_keys().collect();
        let cluster = owner.split('/').next().unwrap_or_default().to_owned();
        watched.insert(owner.clone(), Watched { owner, cluster, baseline });
    }
    watched
}

struct Runner<'l> {
    lab: &'l Lab,
    watched: BTreeMap<String, Watched>,
    reader: Reader,
    progress: Progress,
    /// Something was broken and healed, and nobody has waited for the effect yet.
    disturbed: bool,
}

impl Runner<'_> {
    async fn group(&mut self, state: &State, calls: &[Prepared<'_>]) -> Vec<Ran> {
        let began = Instant::now();
        let whole = state.is_whole();
        let ready = self.make(state, calls).await;
        let settled = began.elapsed();
        let mut ran = Vec::new();
        for call in calls {
            let mut got = Vec::new();
            for (caller, plan) in &call.callers {
                let one = match (&ready, plan) {
                    (_, Err(reason)) => Got::undecided(reason.clone()),
                    (Err(e), _) => Got::undecided(format!("the state of `given` did not come about: {e}")),
                    (Ok(()), Ok((plan, origin, _))) => {
                        if state.is_found_by_failures() {
                            drop(many(plan, FINDING_OUT).await);
                        }
                        self.call(plan, origin, call.times).await
                    }
                };
                got.push((caller.clone(), one));
            }
            ran.push(Ran { index: call.call.index, times: call.times, got });
        }
        let healed = Instant::now();
        if !whole {
            if let Err(e) = self.lab.heal_all().await {
                (self.progress)(format!("healing: {e}"));
            }
            self.disturbed = true;
        }
        let names: Vec<String> = calls.iter().map(|c| c.call.index.to_string()).collect();
        (self.progress)(format!(
            "call{} {}: state after {:.1} s, made after {:.1} s, healed in {:.1} s",
            if names.len() == 1 { "" } else { "s" },
            names.join(" "),
            settled.as_secs_f64(),
            (healed - began).as_secs_f64(),
            healed.elapsed().as_secs_f64()
        ));
        ran
    }

    /// Makes the state and waits until the callers' proxies show it.
    async fn make(&mut self, state: &State, calls: &[Prepared<'_>]) -> Result<(), LabError> {
        let owners = calls.iter().flat_map(|c| &c.callers).filter_map(|(_, plan)| plan.as_ref().ok()?.2.as_ref());
        let watched: Vec<Watched> = owners.filter_map(|owner| self.watched.get(owner).cloned()).collect();
        if self.disturbed {
            // What the calls before have broken must be forgotten first: a ramp would change shares.
            settle::settle(self.lab, &watched, &State::whole(self.lab), true).await?;
            self.disturbed = false;
        }
        for (cluster, since) in &state.returned {
            self.bring_back(cluster, *since, &watched).await?;
        }
        state.apply(self.lab).await?;
        match state.returned.is_empty() {
            true => settle::settle(self.lab, &watched, state, false).await,
            false => Ok(()),
        }
    }

    /// Takes a cluster down, lets everyone notice, and brings it back so long ago.
    async fn bring_back(&self, cluster: &str, since: Duration, watched: &[Watched]) -> Result<(), LabError> {
        let fault = self.lab.kill_of(cluster);
        let down = fairlead_calls::Given { down: vec![cluster.to_owned()], ..fairlead_calls::Given::default() };
        self.lab.fault(fault).await?;
        settle::settle(self.lab, watched, &State::of(self.lab, &down)?, false).await?;
        self.lab.heal(cluster).await?;
        settle::settle(self.lab, watched, &State::whole(self.lab), false).await?;
        sleep(since).await;
        Ok(())
    }

    async fn make_whole(&mut self) {
        if let Err(e) = self.lab.heal_all().await {
            (self.progress)(format!("healing: {e}"));
        }
    }

    /// Makes a call so many times, and puts together what is told of it.
    async fn call(&mut self, plan: &Plan, origin: &Origin, times: u32) -> Got {
        let proxies = self.lab.proxies();
        // What was written before is not about this call.
        drop(self.reader.read(self.lab.handle(), proxies.clone()).await);
        let seen = many(plan, times).await;
        let mut index = Index::default();
        let deadline = Instant::now() + RECORDS_WITHIN;
        loop {
            index.add(self.reader.read(self.lab.handle(), proxies.clone()).await);
            let proxied = |name: &str| proxies.iter().any(|p| p == name);
            if seen.iter().all(|s| index.complete(origin, s, proxied)) || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let cluster = origin.caller.split('/').next().unwrap_or_default();
        let names = self.lab.spec().clusters.get(cluster).map(|c| c.names.clone()).unwrap_or_default();
        let gateway_at = |address: IpAddr| self.lab.gateway_at(address);
        let named = |address: IpAddr| names.get(&address).cloned();
        let outcomes = seen.iter().map(|s| outcome(origin, s, &mut index, &gateway_at, &named)).collect();
        Got::from_samples(outcomes)
    }
}

/// A number of calls by several clients, each with a connection of its own.
async fn many(plan: &Plan, times: u32) -> Vec<Seen> {
    let left = Arc::new(AtomicU32::new(times));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS.min(times) {
        let (plan, left) = (plan.clone(), left.clone());
        clients.spawn(async move {
            let mut connections = Connections::new();
            let mut all = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                all.push(plan.call(&mut connections).await);
            }
            all
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

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
        http: call.request.is_http(),
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
        (true, RequestKind::Https) => vec!["http/1.1".to_owned()],
        _ => client.alpn.clone(),
    };
    let sni = client.sni.clone().unwrap_or_else(|| call.request.host.clone());
    caller::server_name(&sni)?;
    Ok(Some(Tls { config: caller::client_config(minted.as_ref(), &alpn)?, sni }))
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
