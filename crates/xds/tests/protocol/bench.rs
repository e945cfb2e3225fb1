//! A session under test, and short ways to say things to it.

use fairlead_proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, HeldVersion,
};
use fairlead_xds::server::{Encoding, Event, Session, StreamId, Violation};
use fairlead_xds::{Limits, Resource, Snapshot, TypeRules};
use std::sync::Arc;

pub const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub const OWN: &str = "example/Member";

/// Resources written `name@version`.
pub fn resources(list: &str) -> Vec<Resource> {
    let one = |text: &str| {
        let (name, version) = text.split_once('@').expect("name@version");
        Resource::new(name, version, text.as_bytes().to_vec())
    };
    list.split_whitespace().map(one).collect()
}

pub fn view(generation: u64, types: &[(&str, &str)]) -> Snapshot {
    let start = Snapshot::new(generation).fresh(format!("g{generation}"));
    types.iter().fold(start, |view, (kind, list)| view.with(kind, resources(list)))
}

pub fn session(encoding: Encoding, view: Snapshot) -> Session {
    limited(encoding, view, Limits::default())
}

pub fn limited(encoding: Encoding, view: Snapshot, limits: Limits) -> Session {
    Session::new(StreamId(1), encoding, Arc::new(TypeRules::default()), limits, Arc::new(view))
}

/// A delta request that subscribes to and unsubscribes from names (`-name`).
pub fn ask(session: &mut Session, kind: &str, names: &str) -> Vec<Event> {
    ask_with(session, kind, names, "").expect("no violation")
}

/// The same with versions from an earlier stream, written `name@version`.
pub fn ask_with(session: &mut Session, kind: &str, names: &str, initial: &str) -> Result<Vec<Event>, Violation> {
    let (minus, plus): (Vec<&str>, Vec<&str>) = names.split_whitespace().partition(|n| n.starts_with('-'));
    let initial = initial.split_whitespace().filter_map(|text| text.split_once('@'));
    session.delta_request(DeltaDiscoveryRequest {
        type_url: kind.to_owned(),
        resource_names_subscribe: plus.into_iter().map(str::to_owned).collect(),
        resource_names_unsubscribe: minus.iter().map(|name| name[1..].to_owned()).collect(),
        initial_resource_versions: initial.map(|(n, v)| HeldVersion::new(n, v)).collect(),
        ..Default::default()
    })
}

pub fn ack(session: &mut Session, response: &DeltaDiscoveryResponse) -> Vec<Event> {
    let request = DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    };
    session.delta_request(request).expect("no violation")
}

/// The next response as text: `a@1 b@2 -gone !refused`, or `nothing`.
pub fn told(session: &mut Session) -> String {
    session.next_delta().map_or_else(|| "nothing".to_owned(), |response| text(&response))
}

/// As [`told`], and the response is acked.
pub fn told_and_acked(session: &mut Session) -> String {
    let Some(response) = session.next_delta() else {
        return "nothing".to_owned();
    };
    ack(session, &response);
    text(&response)
}

pub fn text(response: &DeltaDiscoveryResponse) -> String {
    let upserts = response.resources.iter().map(|r| format!("{}@{}", r.name, r.version));
    let removed = response.removed_resources.iter().map(|name| format!("-{name}"));
    let errors = response.resource_errors.iter().flat_map(|e| &e.resource_name);
    let all: Vec<String> = upserts.chain(removed).chain(errors.map(|e| format!("!{}", e.name))).collect();
    all.join(" ")
}

/// A state-of-the-world request; the nonce is empty at first.
pub fn list(session: &mut Session, kind: &str, names: &str, nonce: &str) -> Vec<Event> {
    let request = DiscoveryRequest {
        type_url: kind.to_owned(),
        resource_names: names.split_whitespace().map(str::to_owned).collect(),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    };
    session.sotw_request(request).expect("no violation")
}

/// The bodies of a state-of-the-world response (the tests write `name@version` into them), and its errors.
pub fn bodies(response: &DiscoveryResponse) -> String {
    let bodies = response.resources.iter().map(|body| String::from_utf8_lossy(body).into_owned());
    let errors = response.resource_errors.iter().flat_map(|e| &e.resource_name);
    let all: Vec<String> = bodies.chain(errors.map(|e| format!("!{}", e.name))).collect();
    all.join(" ")
}
