//! One worker's telemetry: cached metric handles, its log buffers, the record ring.
//!
//! Invariant: caches hold what their keys point at, so a key can never come to mean something else; they are emptied when
//! the configuration changes.

use super::access_log::{LogPlan, LogSink};
use super::flags::Flags;
use super::istio_metrics::{Ends, Families, HttpSeries, Reporter, TcpSeries};
use super::peer::PeerInfo;
use super::record::RequestRecord;
use super::records::Records;
use super::tcp_record::TcpRecord;
use crate::upstream::{Member, Upstream};
use ahash::AHashMap;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Distinct outcomes cached; beyond that the cache starts anew.
const MAX_SERIES: usize = 4096;

/// A worker's telemetry.
pub struct Telemetry {
    pub records: Option<Arc<Records>>,
    pub sink: LogSink,
    pub logs: LogPlan,
    families: Arc<Families>,
    own: Arc<PeerInfo>,
    http: RefCell<AHashMap<HttpKey, Held<HttpSeries>>>,
}

#[derive(PartialEq, Eq, Hash)]
struct HttpKey {
    upstream: usize,
    member: usize,
    source: usize,
    flags: Flags,
    code: u16,
    grpc: Option<i32>,
    is_grpc: bool,
    inbound: bool,
    tls: bool,
}

/// Keeps alive what the key's addresses stand for.
struct Held<S> {
    series: Rc<S>,
    _upstream: Option<Arc<Upstream>>,
    _member: Option<Arc<Member>>,
    _source: Option<Rc<PeerInfo>>,
}

impl Telemetry {
    pub fn new(families: Arc<Families>, own: Arc<PeerInfo>, sink: LogSink, records: Option<Arc<Records>>) -> Self {
        Self { records, sink, logs: LogPlan::default(), families, own, http: RefCell::default() }
    }

    /// Forgets handles of an old configuration.
    pub fn forget(&self) {
        self.http.borrow_mut().clear();
    }

    pub(super) fn count_http(&self, record: &RequestRecord) {
        let key = HttpKey {
            upstream: record.upstream.as_ref().map_or(0, |u| Arc::as_ptr(u) as usize),
            member: record.member.as_ref().map_or(0, |m| Arc::as_ptr(m) as usize),
            source: record.source.as_ref().map_or(0, |s| Rc::as_ptr(s) as usize),
            flags: record.flags,
            code: record.code,
            grpc: record.grpc_status,
            is_grpc: record.grpc,
            inbound: record.connection.inbound,
            tls: record.connection.tls,
        };
        let mut cache = self.http.borrow_mut();
        if cache.len() >= MAX_SERIES {
            cache.clear();
        }
        let held = cache.entry(key).or_insert_with(|| Held {
            series: Rc::new(self.http_series(record)),
            _upstream: record.upstream.clone(),
            _member: record.member.clone(),
            _source: record.source.clone(),
        });
        let series = &held.series;
        series.requests.increment();
        series.duration.observe(record.started.elapsed().as_secs_f64() * 1000.0);
        series.request_bytes.observe(record.received.get() as f64);
        series.response_bytes.observe(record.sent.get() as f64);
        if record.grpc {
            series.request_messages.add(record.request_messages.get());
            series.response_messages.add(record.response_messages.get());
        }
    }

    fn http_series(&self, record: &RequestRecord) -> HttpSeries {
        let remote = match record.reporter() {
            Reporter::Source => self.destination(record.upstream.as_deref(), record.member.as_deref()),
            Reporter::Destination => record.source.as_deref().cloned().unwrap_or_default(),
        };
        let ends = self.ends(record.reporter(), &remote, record.upstream.as_deref(), record.connection.tls);
        let protocol = if record.grpc { "grpc" } else { "http" };
        self.families.http(&ends, protocol, record.flags, record.code, record.grpc_status)
    }

    pub(super) fn tcp_series(&self, record: &TcpRecord) -> TcpSeries {
        let remote = match record.reporter() {
            Reporter::Source => self.destination(record.upstream.as_deref(), record.member.as_deref()),
            Reporter::Destination => (*record.connection.peer_info(None)).clone(),
        };
        let ends = self.ends(record.reporter(), &remote, record.upstream.as_deref(), record.connection.tls);
        self.families.tcp(&ends, record.flags)
    }

    fn ends<'a>(
        &'a self,
        reporter: Reporter,
        remote: &'a PeerInfo,
        upstream: Option<&'a Upstream>,
        mutual_tls: bool,
    ) -> Ends<'a> {
        let (source, destination) = match reporter {
            Reporter::Source => (&*self.own, remote),
            Reporter::Destination => (remote, &*self.own),
        };
        let cluster = upstream.map(|u| &u.cluster);
        Ends {
            reporter,
            source,
            destination,
            service: cluster.map_or("", |c| if c.host.is_empty() { &c.name } else { &c.host }),
            service_name: cluster.map_or("", |c| if c.service_name.is_empty() { &c.name } else { &c.service_name }),
            service_namespace: cluster.map_or("", |c| &c.service_namespace),
            mutual_tls,
        }
    }

    /// The callee as far as it is known. Where no endpoint was chosen, the cluster is that of the first endpoint there
    /// would have been, else the caller's own: a failure belongs to some cluster, too.
    fn destination(&self, upstream: Option<&Upstream>, member: Option<&Member>) -> PeerInfo {
        let first = || upstream.and_then(|u| u.members.first().map(|m| &**m));
        let mut info = match member {
            Some(member) => of_member(member),
            None => PeerInfo {
                cluster: first().map(|m| of_member(m).cluster).unwrap_or_default(),
                namespace: upstream.map(|u| u.cluster.service_namespace.to_string()).unwrap_or_default(),
                ..PeerInfo::default()
            },
        };
        if info.cluster.is_empty() {
            info.cluster = first().map(|m| of_member(m).cluster).unwrap_or_default();
        }
        if info.cluster.is_empty() {
            info.cluster.clone_from(&self.own.cluster);
        }
        info
    }
}

fn of_member(member: &Member) -> PeerInfo {
    PeerInfo::of_endpoint(member.endpoint.workload.as_ref(), member.endpoint.fairlead.as_ref())
}
