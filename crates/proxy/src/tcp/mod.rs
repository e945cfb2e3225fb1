//! Opaque TCP: authorise, choose, connect, relay.
//!
//! A caller that is refused sees a reset. Invariant: bytes are relayed only after the connection was allowed.

use crate::telemetry::{Flags, TcpRecord};
use crate::upstream::{
    Call, ConnectFailure, Connected, Member, Purpose, Resource, Trouble, Upstream, World, connect, way,
};
use crate::worker::{Connection, Stage, Worker};
use fairlead_engine::RequestInfo;
use fairlead_engine::balance::{Avoid, Tried};
use fairlead_engine::decide::{self, Allowed};
use fairlead_engine::errors::ProxyError;
use fairlead_engine::listener::{FilterChain, TcpBackend, TcpProxy};
use fairlead_engine::outlier::TryResult;
use fairlead_transport::relay::{Counts, RelayEnd};
use fairlead_transport::{Stream, relay};
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Istio's `tcpReportingDuration`.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Serves one connection.
pub async fn serve(worker: Rc<Worker>, connection: Rc<Connection>, proxy: Arc<TcpProxy>, downstream: Stream) {
    let world = worker.world();
    let log = worker.telemetry.logs.logger(&worker.telemetry.sink, &proxy.access_log);
    let mut record = TcpRecord::begin(&worker, &connection, log);
    let chain = current_chain(&world, &connection);
    let info = RequestInfo { connection: connection.info(connection.remote.ip()), head: None };
    let allowed = match decide::authorize(chain.authorization(), &info) {
        Ok(allowed) => allowed,
        Err(denied) => {
            record.details = Cow::Owned(denied.details());
            record.denied_by = Some(match denied.authorization_policy() {
                Some((namespace, name)) => format!("AuthorizationPolicy {namespace}/{name}").into(),
                None => "no-allow".into(),
            });
            downstream.reset_on_close();
            return;
        }
    };
    drop(world);
    match reach(&worker, &connection, &proxy, &allowed, &mut record).await {
        Ok((connected, _admitted, _active)) => run(&worker, &proxy, downstream, connected, &mut record).await,
        Err(error) => {
            let meaning = error.meaning();
            record.flags.insert(Flags::parse(meaning.flag));
            if record.details.is_empty() {
                record.details = Cow::Borrowed(meaning.details);
            }
            downstream.reset_on_close();
        }
    }
}

type Reached = (Connected, crate::upstream::Admitted, crate::upstream::InUse);

async fn reach(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    proxy: &TcpProxy,
    allowed: &Allowed,
    record: &mut TcpRecord,
) -> Result<Reached, ProxyError> {
    let draw = fastrand::u64(..);
    let mut tried = Tried::default();
    let mut failed_gateway = None;
    loop {
        let world = worker.world();
        let usable = |to: &TcpBackend| world.is_usable(&to.cluster) && !world.is_used_up(&to.cluster, &tried);
        let backend = &decide::choose_tcp_backend(proxy, draw, usable).cluster;
        let upstream = world.upstream(backend).cloned().ok_or(ProxyError::ClusterNotFound)?;
        record.upstream = Some(upstream.clone());
        if upstream.is_itself(connection) {
            return Err(ProxyError::NoHealthyUpstream);
        }
        let picked = upstream.pick(allowed, &tried, Avoid::Elsewhere, connection.original);
        let member = picked.map_err(|_| ProxyError::NoHealthyUpstream)?;
        record.member = Some(member.clone());
        record.attempts += 1;
        let limits = &upstream.cluster.limits;
        let admitted = upstream.stats.admit(Resource::Connection, limits).ok_or(ProxyError::Overflow)?;
        let active = upstream.stats.request(limits, &member.state).ok_or(ProxyError::Overflow)?;
        let to_program = connection.inbound;
        let (upstream, member) = (&*upstream, &*member);
        let way = way(worker, &world, member, failed_gateway);
        record.gateway = way.as_ref().ok().and_then(|way| way.gateway);
        let connected: Result<Connected, ConnectFailure> = match way {
            Ok(way) => connect(Call { worker, upstream, member, way, purpose: Purpose::Tcp, to_program }).await,
            Err(failure) => Err(failure),
        };
        match connected {
            Ok(connected) => {
                observe(worker, upstream, member, TryResult::Connected);
                member.state.finished(true);
                record.upstream_address = Some(connected.address);
                record.gateway = connected.gateway;
                record.upstream_local = connected.local;
                record.upstream_tls = connected.tls.is_some();
                return Ok((connected, admitted, active));
            }
            Err(failure) => {
                observe(worker, upstream, member, TryResult::ConnectFailed);
                member.state.finished(false);
                record.upstream_failure = Some(failure.to_string());
                tried.note(&member.endpoint, true);
                failed_gateway = record.gateway;
                if record.attempts >= decide::connect_attempts(proxy, upstream.members.len()) {
                    record.flags.insert(Flags::RETRY_LIMIT);
                    return Err(if failure.is_timeout() {
                        ProxyError::ConnectTimeout
                    } else {
                        ProxyError::ConnectFailed
                    });
                }
            }
        }
    }
}

async fn run(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    mut downstream: Stream,
    mut connected: Connected,
    record: &mut TcpRecord,
) {
    let close = Rc::new(tokio::sync::Notify::new());
    if let Some(peer) = &connected.peer {
        worker.live.watch(peer.clone(), &close);
    }
    let counts = Counts::default();
    record.report(0, 0);
    let idle = proxy.idle_timeout.unwrap_or_default();
    let mut report = tokio::time::interval_at(tokio::time::Instant::now() + REPORT_EVERY, REPORT_EVERY);
    let longest = proxy.max_connection_duration.map(|limit| tokio::time::Instant::now() + limit);
    let end = {
        let relaying = relay(&mut downstream, &mut connected.stream, idle, &counts);
        let mut relaying = std::pin::pin!(relaying);
        loop {
            tokio::select! {
                biased;
                outcome = &mut relaying => break Some(outcome.end),
                () = close.notified() => break None,
                () = worker.drain.reached(Stage::Cut) => break None,
                () = until(longest) => {
                    record.flags.insert(Flags::DURATION_TIMEOUT);
                    break None;
                }
                _ = report.tick() => record.report(counts.sent.get(), counts.received.get()),
            }
        }
    };
    record.report(counts.sent.get(), counts.received.get());
    match end {
        Some(RelayEnd::Upstream(error)) => {
            record.flags.insert(Flags::UPSTREAM_CLOSED);
            record.termination = Some(Cow::Owned(error.to_string().replace(' ', "_")));
            downstream.reset_on_close();
        }
        Some(RelayEnd::Downstream(_)) => {
            record.flags.insert(Flags::DOWNSTREAM_CLOSED);
            connected.stream.reset_on_close();
        }
        Some(RelayEnd::Idle) => record.details = Cow::Borrowed("idle_timeout"),
        Some(RelayEnd::Finished) => {}
        None => {
            downstream.reset_on_close();
            connected.stream.reset_on_close();
        }
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn observe(worker: &Worker, upstream: &Upstream, member: &Member, result: TryResult) {
    let (Some(monitor), Some(config)) = (&member.monitor, &upstream.cluster.outlier) else { return };
    if let Some(cause) = monitor.record(config, result) {
        let (cluster, endpoint) = (upstream.cluster.name.clone(), member.endpoint.key.clone());
        let _ = worker.shared.trouble.send(Trouble::Outlier { cluster, endpoint, cause });
    }
}

/// The policy that holds now for a connection that was accepted a moment ago.
fn current_chain(world: &World, connection: &Connection) -> Arc<FilterChain> {
    let listener = world.snapshot.listener(&connection.listener.name);
    let mut chains = listener.iter().flat_map(|listener| listener.chains.iter().chain(listener.default_chain.as_ref()));
    chains.find(|chain| chain.name == connection.chain.name).unwrap_or(&connection.chain).clone()
}
