//! The story of one TCP connection that was relayed or refused.
//!
//! Bytes are counted every few seconds while it lives (Istio's reporting interval), the rest when it ends. Invariant: one
//! `opened` and one `closed` for each record, one log line per log.

use super::access_log::Logger;
use super::flags::Flags;
use super::istio_metrics::{Reporter, TcpSeries};
use super::records::{CallRecord, EndpointRecord, OriginRecord};
use super::timestamp;
use crate::upstream::{Member, Upstream};
use crate::worker::{Busy, Connection, Worker};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// What is learned about a connection.
pub struct TcpRecord {
    pub worker: Rc<Worker>,
    pub connection: Rc<Connection>,
    pub log: Option<Rc<Logger>>,
    pub started: Instant,
    pub started_wall: SystemTime,
    pub flags: Flags,
    pub details: Cow<'static, str>,
    pub termination: Option<Cow<'static, str>>,
    pub upstream_failure: Option<String>,
    /// From the caller.
    pub received: u64,
    /// To the caller.
    pub sent: u64,
    pub attempts: u32,
    pub upstream: Option<Arc<Upstream>>,
    pub member: Option<Arc<Member>>,
    pub upstream_address: Option<SocketAddr>,
    pub upstream_local: Option<SocketAddr>,
    pub gateway: Option<SocketAddr>,
    pub upstream_tls: bool,
    pub denied_by: Option<Arc<str>>,
    series: Option<TcpSeries>,
    counted: (u64, u64),
    _busy: Busy,
}

impl TcpRecord {
    /// A record that begins now.
    pub fn begin(worker: &Rc<Worker>, connection: &Rc<Connection>, log: Option<Rc<Logger>>) -> Self {
        Self {
            worker: worker.clone(),
            connection: connection.clone(),
            log,
            started: Instant::now(),
            started_wall: SystemTime::now(),
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            termination: None,
            upstream_failure: None,
            received: 0,
            sent: 0,
            attempts: 0,
            upstream: None,
            member: None,
            upstream_address: None,
            upstream_local: None,
            gateway: None,
            upstream_tls: false,
            denied_by: None,
            series: None,
            counted: (0, 0),
            _busy: worker.busy(),
        }
    }

    pub fn reporter(&self) -> Reporter {
        if self.connection.inbound { Reporter::Destination } else { Reporter::Source }
    }

    /// Counts what has moved so far.
    pub fn report(&mut self, received: u64, sent: u64) {
        (self.received, self.sent) = (received, sent);
        if self.series.is_none() {
            let series = self.worker.clone().telemetry.tcp_series(self);
            series.opened.increment();
            self.series = Some(series);
        }
        if let Some(series) = &self.series {
            series.received.add(received - self.counted.0);
            series.sent.add(sent - self.counted.1);
            self.counted = (received, sent);
        }
    }

    pub fn upstream_host(&self) -> Option<String> {
        let member = self.member.as_ref()?;
        match self.upstream_address {
            Some(address) if member.endpoint.gateway_hop().is_none() => Some(address.to_string()),
            _ => Some(member.endpoint.key.to_string()),
        }
    }

    fn call_record(&self) -> CallRecord {
        // Only outbound chains stand for rules; the callee's are its own.
        let rule = self.connection.chain.origin.as_ref().filter(|_| !self.connection.inbound);
        let destination = self.upstream.as_ref().and_then(|upstream| upstream.cluster.origin.as_ref());
        CallRecord {
            time: timestamp::text(self.started_wall),
            direction: self.connection.direction_name().to_owned(),
            protocol: "tcp".to_owned(),
            sni: self.connection.sni.clone(),
            listener: self.connection.listener.name.to_string(),
            filter_chain: self.connection.chain.name.to_string(),
            route_object: rule.map(ToString::to_string),
            decided_by: rule.into_iter().chain(destination).map(OriginRecord::from).collect(),
            cluster: self.upstream.as_ref().map(|upstream| upstream.cluster.name.to_string()),
            endpoint: self.member.as_ref().map(|member| EndpointRecord::of(member)),
            gateway: self.gateway.map(|address| address.to_string()),
            upstream: self.upstream_address.map(|address| address.to_string()),
            upstream_tls: self.upstream_tls,
            downstream_tls: self.connection.tls,
            peer: self.connection.principal().map(str::to_owned),
            remote: self.connection.remote.to_string(),
            original_destination: self.connection.original.to_string(),
            attempts: self.attempts,
            flags: self.flags.names().map(str::to_owned).collect(),
            details: self.details.to_string(),
            denied_by: self.denied_by.as_deref().map(str::to_owned),
            received_bytes: self.received,
            sent_bytes: self.sent,
            duration_ms: self.started.elapsed().as_secs_f64() * 1000.0,
            ..CallRecord::default()
        }
    }
}

impl Drop for TcpRecord {
    fn drop(&mut self) {
        let (received, sent) = (self.received, self.sent);
        self.report(received, sent);
        if let Some(series) = &self.series {
            series.closed.increment();
        }
        let worker = self.worker.clone();
        if let Some(log) = &self.log {
            log.write_tcp(&worker.telemetry, self);
        }
        if let Some(records) = &worker.telemetry.records {
            records.push(self.call_record());
        }
    }
}
