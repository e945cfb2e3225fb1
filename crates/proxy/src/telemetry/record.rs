//! The story of one HTTP request.
//!
//! Every phase writes what it learned; nobody tells the story but `Drop`. Invariant: exactly one log line per log, one set
//! of metrics and one call record for each `RequestRecord`, also when the request was cancelled in any phase.

use super::access_log::Logger;
use super::flags::Flags;
use super::format::Captured;
use super::istio_metrics::Reporter;
use super::peer::PeerInfo;
use super::records::{CallRecord, EndpointRecord, OriginRecord};
use super::timestamp;
use crate::upstream::{Member, Upstream};
use crate::worker::{Busy, Connection, Worker};
use fairlead_engine::route::{DirectResponse, Redirect, RoutePlan};
use fairlead_model::Origin;
use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What is learned about a request.
pub struct RequestRecord {
    pub worker: Rc<Worker>,
    pub connection: Rc<Connection>,
    pub log: Option<Rc<Logger>>,
    pub started: Instant,
    pub started_wall: SystemTime,
    pub protocol: Option<&'static str>,
    /// 0 until an answer is known.
    pub code: u16,
    pub grpc: bool,
    pub grpc_status: Option<i32>,
    pub flags: Flags,
    pub details: Cow<'static, str>,
    pub termination: Option<Cow<'static, str>>,
    pub upstream_failure: Option<String>,
    pub received: Cell<u64>,
    pub sent: Cell<u64>,
    pub request_messages: Cell<u64>,
    pub response_messages: Cell<u64>,
    pub attempts: u32,
    /// Added by the route's fault.
    pub delay: Option<Duration>,
    pub plan: Option<Arc<RoutePlan>>,
    /// A route that is no plan.
    pub own: Option<OwnAnswer>,
    pub upstream: Option<Arc<Upstream>>,
    pub member: Option<Arc<Member>>,
    pub upstream_address: Option<SocketAddr>,
    pub upstream_local: Option<SocketAddr>,
    pub gateway: Option<SocketAddr>,
    pub upstream_tls: bool,
    /// The caller, told by certificate or header; only on the callee's side.
    pub source: Option<Rc<PeerInfo>>,
    pub denied_by: Option<Arc<str>>,
    /// The caller is a Fairlead proxy.
    pub from_fairlead: bool,
    pub captured_request: Vec<Captured>,
    pub captured_response: Vec<Captured>,
    /// Filled only when per-call records are kept.
    pub call: Option<Box<CallHead>>,
    _busy: Busy,
}

/// An answer that a rule gives itself.
#[derive(Clone, Debug)]
pub enum OwnAnswer {
    Direct(Arc<DirectResponse>),
    Redirect(Arc<Redirect>),
}

impl OwnAnswer {
    fn route_name(&self) -> &str {
        match self {
            Self::Direct(direct) => &direct.route_name,
            Self::Redirect(redirect) => &redirect.route_name,
        }
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Direct(direct) => direct.origin.as_ref(),
            Self::Redirect(redirect) => redirect.origin.as_ref(),
        }
    }
}

/// Parts of the head for the call record.
#[derive(Debug, Default)]
pub struct CallHead {
    pub method: String,
    pub path: String,
    pub authority: String,
    pub request_id: Option<String>,
}

impl RequestRecord {
    /// A record that begins now.
    pub fn begin(worker: &Rc<Worker>, connection: &Rc<Connection>, log: Option<Rc<Logger>>) -> Self {
        Self {
            worker: worker.clone(),
            connection: connection.clone(),
            log,
            started: Instant::now(),
            started_wall: SystemTime::now(),
            protocol: None,
            code: 0,
            grpc: false,
            grpc_status: None,
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            termination: None,
            upstream_failure: None,
            received: Cell::new(0),
            sent: Cell::new(0),
            request_messages: Cell::new(0),
            response_messages: Cell::new(0),
            attempts: 0,
            delay: None,
            plan: None,
            own: None,
            upstream: None,
            member: None,
            upstream_address: None,
            upstream_local: None,
            gateway: None,
            upstream_tls: false,
            source: None,
            denied_by: None,
            from_fairlead: false,
            captured_request: Vec::new(),
            captured_response: Vec::new(),
            call: None,
            _busy: worker.busy(),
        }
    }

    /// Which side of the hop this proxy is.
    pub fn reporter(&self) -> Reporter {
        if self.connection.inbound { Reporter::Destination } else { Reporter::Source }
    }

    pub fn upstream_host(&self) -> Option<String> {
        let member = self.member.as_ref()?;
        match self.upstream_address {
            Some(address) if member.endpoint.gateway_hop().is_none() => Some(address.to_string()),
            _ => Some(member.endpoint.key.to_string()),
        }
    }

    pub fn upstream_cluster(&self) -> Option<&str> {
        self.upstream.as_ref().map(|upstream| &*upstream.cluster.name)
    }

    pub fn route_name(&self) -> Option<&str> {
        let own = || self.own.as_ref().map(OwnAnswer::route_name);
        let name = self.plan.as_ref().map(|plan| &*plan.route_name).or_else(own)?;
        (!name.is_empty()).then_some(name)
    }

    /// The rule that took the request.
    fn route_origin(&self) -> Option<&Origin> {
        match &self.plan {
            Some(plan) => plan.origin.as_ref(),
            None => self.own.as_ref().and_then(OwnAnswer::origin),
        }
    }

    fn call_record(&self, head: &CallHead) -> CallRecord {
        let route = self.route_origin();
        let destination = self.upstream.as_ref().and_then(|upstream| upstream.cluster.origin.as_ref());
        CallRecord {
            seq: 0,
            time: timestamp::text(self.started_wall),
            direction: self.connection.direction_name().to_owned(),
            protocol: self.protocol.unwrap_or_default().to_owned(),
            request_id: head.request_id.clone(),
            method: Some(head.method.clone()),
            path: Some(head.path.clone()),
            authority: Some(head.authority.clone()),
            sni: self.connection.sni.clone(),
            listener: self.connection.listener.name.to_string(),
            filter_chain: self.connection.chain.name.to_string(),
            route: self.route_name().map(str::to_owned),
            route_object: route.map(ToString::to_string),
            decided_by: route.into_iter().chain(destination).map(OriginRecord::from).collect(),
            cluster: self.upstream_cluster().map(str::to_owned),
            endpoint: self.member.as_ref().map(|member| EndpointRecord::of(member)),
            gateway: self.gateway.map(|address| address.to_string()),
            upstream: self.upstream_address.map(|address| address.to_string()),
            upstream_tls: self.upstream_tls,
            downstream_tls: self.connection.tls,
            peer: self.connection.principal().map(str::to_owned),
            remote: self.connection.remote.to_string(),
            original_destination: self.connection.original.to_string(),
            attempts: self.attempts,
            injected_delay_ms: self.delay.map(|delay| delay.as_millis() as u64),
            status: self.code,
            grpc_status: self.grpc_status,
            flags: self.flags.names().map(str::to_owned).collect(),
            details: self.details.to_string(),
            denied_by: self.denied_by.as_deref().map(str::to_owned),
            received_bytes: self.received.get(),
            sent_bytes: self.sent.get(),
            duration_ms: self.started.elapsed().as_secs_f64() * 1000.0,
        }
    }
}

impl EndpointRecord {
    pub fn of(member: &Member) -> Self {
        let endpoint = &member.endpoint;
        let info = PeerInfo::of_endpoint(endpoint.workload.as_ref(), endpoint.fairlead.as_ref());
        let own = endpoint.fairlead.as_ref();
        Self {
            key: endpoint.key.to_string(),
            id: own.map(|own| own.id.to_string()).unwrap_or_default(),
            cluster: info.cluster,
            namespace: info.namespace,
            workload: info.workload,
            identity: own.map(|own| own.identity.to_string()).unwrap_or_default(),
            address: own.and_then(|own| own.address).map(|ip| ip.to_string()),
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if self.code == 0 && self.flags.is_empty() {
            // Nobody answered and nothing failed: the caller went away.
            self.flags.insert(Flags::DOWNSTREAM_CLOSED);
            self.details = Cow::Borrowed("downstream_remote_disconnect");
        }
        let worker = self.worker.clone();
        worker.telemetry.count_http(self);
        if let Some(log) = &self.log {
            log.write_http(&worker.telemetry, self);
        }
        if let Some(records) = &worker.telemetry.records {
            let head = self.call.take().unwrap_or_default();
            records.push(self.call_record(&head));
        }
    }
}
