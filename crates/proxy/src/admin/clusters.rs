//! `/clusters` in Envoy's two forms, with what this proxy knows of each endpoint's way and share.

use crate::shared::Shared;
use crate::upstream::{Member, Upstream};
use fairlead_engine::balance::EndpointState;
use fairlead_engine::upstream::{EndpointAddress, EndpointHealth};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Envoy's text form: `cluster::endpoint::name::value`.
pub fn text(shared: &Shared) -> String {
    let mut out = String::new();
    for upstream in sorted(shared) {
        let name = &upstream.cluster.name;
        let limits = &upstream.cluster.limits;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}::observability_name::{name}");
        let _ = writeln!(out, "{name}::default_priority::max_connections::{}", limits.max_connections);
        let _ = writeln!(out, "{name}::default_priority::max_pending_requests::{}", limits.max_pending_requests);
        let _ = writeln!(out, "{name}::default_priority::max_requests::{}", limits.max_requests);
        let _ = writeln!(out, "{name}::default_priority::max_retries::{}", limits.max_retries);
        let _ = writeln!(out, "{name}::added_via_api::true");
        let shares = upstream.balancer().shares();
        for member in &upstream.members {
            let key = &member.endpoint.key;
            for (stat, value) in counters(member) {
                let _ = writeln!(out, "{name}::{key}::{stat}::{value}");
            }
            let e = &member.endpoint;
            let _ = writeln!(out, "{name}::{key}::hostname::{}", e.hostname);
            let _ = writeln!(out, "{name}::{key}::health_flags::{}", health_flags(&upstream, member));
            let _ = writeln!(out, "{name}::{key}::weight::{}", e.weight);
            let _ = writeln!(out, "{name}::{key}::region::{}", e.locality.region);
            let _ = writeln!(out, "{name}::{key}::zone::{}", e.locality.zone);
            let _ = writeln!(out, "{name}::{key}::sub_zone::{}", e.locality.subzone);
            let _ = writeln!(out, "{name}::{key}::priority::{}", e.priority);
            let _ = writeln!(out, "{name}::{key}::share::{:.6}", shares.get(member.index).copied().unwrap_or(0.0));
            let _ = writeln!(out, "{name}::{key}::path::{}", path_of(shared, member));
        }
    }
    out
}

/// Envoy's `cluster_statuses`, with a `fairlead` object for each host.
pub fn json(shared: &Shared) -> Value {
    let statuses: Vec<Value> = sorted(shared).iter().map(|upstream| cluster(shared, upstream)).collect();
    json!({ "cluster_statuses": statuses })
}

fn cluster(shared: &Shared, upstream: &Arc<Upstream>) -> Value {
    let balancer = upstream.balancer();
    let shares = balancer.shares();
    let hosts: Vec<Value> = upstream
        .members
        .iter()
        .map(|member| {
            let e = &member.endpoint;
            let condition = balancer.condition(member.index).unwrap_or_default();
            let own = e.fairlead.clone().unwrap_or_default();
            let address = match &e.address {
                EndpointAddress::Socket(address) => {
                    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
                }
                EndpointAddress::Named { host, port } => {
                    json!({"socket_address": {"address": **host, "port_value": port}})
                }
                EndpointAddress::Gateway { hop, endpoint_id } => {
                    json!({"envoy_internal_address": {"server_listener_name": **hop, "endpoint_id": **endpoint_id}})
                }
            };
            let stats: Vec<Value> = counters(member)
                .into_iter()
                .map(|(name, value)| json!({"name": name, "value": value.to_string()}))
                .collect();
            json!({
                "address": address,
                "stats": stats,
                "hostname": &*e.hostname,
                "health_status": {
                    "eds_health_status": eds(e.health),
                    "failed_outlier_check": condition.state == EndpointState::Ejected,
                },
                "weight": e.weight,
                "priority": e.priority,
                "locality": {"region": e.locality.region, "zone": e.locality.zone, "sub_zone": e.locality.subzone},
                "fairlead": {
                    "key": e.key.to_string(),
                    "id": &*own.id,
                    "cluster": e.cluster().map(|c| c.to_string()).unwrap_or_default(),
                    "namespace": &*own.namespace,
                    "workload": &*own.workload,
                    "network": &*own.network,
                    "identity": &*own.identity,
                    "state": state_name(condition.state),
                    "ramp": f64::from(condition.ramp.tenths()) / 10.0,
                    "share": shares.get(member.index).copied().unwrap_or(0.0),
                    "path": path_of(shared, member),
                },
            })
        })
        .collect();
    json!({ "name": &*upstream.cluster.name, "added_via_api": true, "host_statuses": hosts })
}

fn sorted(shared: &Shared) -> Vec<Arc<Upstream>> {
    let world = shared.world.load();
    let mut upstreams: Vec<_> = world.upstreams.values().cloned().collect();
    upstreams.sort_by(|a, b| a.cluster.name.cmp(&b.cluster.name));
    upstreams
}

fn counters(member: &Member) -> [(&'static str, u64); 9] {
    let s = &member.state;
    [
        ("cx_active", u64::from(s.cx_active.load(Relaxed))),
        ("cx_connect_fail", s.cx_connect_fail.load(Relaxed)),
        ("cx_total", s.cx_total.load(Relaxed)),
        ("rq_active", u64::from(s.rq_active.load(Relaxed))),
        ("rq_error", s.rq_error.load(Relaxed)),
        ("rq_success", s.rq_success.load(Relaxed)),
        ("rq_timeout", s.rq_timeout.load(Relaxed)),
        ("rq_total", s.rq_total.load(Relaxed)),
        ("slot", s.slot),
    ]
}

fn health_flags(upstream: &Upstream, member: &Member) -> String {
    let mut flags = String::new();
    match member.endpoint.health {
        EndpointHealth::Unhealthy => flags.push_str("/failed_eds_health"),
        EndpointHealth::Draining => flags.push_str("/eds_status_draining"),
        EndpointHealth::Degraded => flags.push_str("/degraded_eds_health"),
        EndpointHealth::Healthy => {}
    }
    match upstream.balancer().condition(member.index).map(|condition| condition.state) {
        Some(EndpointState::Ejected) => flags.push_str("/failed_outlier_check"),
        Some(EndpointState::PathDown) => flags.push_str("/path_down"),
        _ => {}
    }
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

fn eds(health: EndpointHealth) -> &'static str {
    match health {
        EndpointHealth::Healthy => "HEALTHY",
        EndpointHealth::Degraded => "DEGRADED",
        EndpointHealth::Draining => "DRAINING",
        EndpointHealth::Unhealthy => "UNHEALTHY",
    }
}

fn state_name(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Healthy => "healthy",
        EndpointState::Degraded => "degraded",
        EndpointState::Draining => "draining",
        EndpointState::Unhealthy => "unhealthy",
        EndpointState::Ejected => "ejected",
        EndpointState::PathDown => "path-down",
    }
}

/// State of the way to an endpoint: its own, or the best of its gateway's addresses.
fn path_of(shared: &Shared, member: &Member) -> String {
    match &member.endpoint.address {
        EndpointAddress::Socket(address) => shared.paths.state_name(*address).to_owned(),
        EndpointAddress::Named { .. } => "unresolved".to_owned(),
        EndpointAddress::Gateway { hop, .. } => {
            let world = shared.world.load();
            let Some(gateway) = world.upstream(hop) else { return "no gateway".to_owned() };
            let states: Vec<String> = gateway
                .members
                .iter()
                .filter_map(|member| match member.endpoint.address {
                    EndpointAddress::Socket(address) => Some(format!("{address}={}", shared.paths.state_name(address))),
                    EndpointAddress::Named { .. } | EndpointAddress::Gateway { .. } => None,
                })
                .collect();
            states.join(",")
        }
    }
}
