//! Upgraded connections (WebSocket): after 101 both sides are relayed as bytes.
//!
//! Invariant: the request's record lives as long as the relay and counts its bytes.

use super::response_body::Borrowed;
use crate::telemetry::RequestRecord;
use crate::upstream::InUse;
use fairlead_transport::GuardSignals;
use fairlead_transport::relay::Counts;
use http::Request;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;

/// The downstream half, if the request may become one.
pub fn pending(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(request))
}

/// Relays once both sides have switched.
pub fn relay(
    downstream: OnUpgrade,
    upstream: OnUpgrade,
    record: Box<RequestRecord>,
    borrowed: Borrowed,
    in_use: InUse,
    signals: Option<Arc<GuardSignals>>,
    idle: Duration,
) {
    if let Some(signals) = signals {
        signals.upgraded();
    }
    let drain = record.worker.drain.clone();
    tokio::task::spawn_local(async move {
        let (_borrowed, _in_use) = (borrowed, in_use);
        let (Ok(downstream), Ok(upstream)) = tokio::join!(downstream, upstream) else { return };
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        let counts = Counts::default();
        tokio::select! {
            _ = fairlead_transport::relay(&mut downstream, &mut upstream, idle, &counts) => {}
            () = drain.reached(crate::worker::Stage::Cut) => {}
        }
        record.received.set(record.received.get() + counts.sent.get());
        record.sent.set(record.sent.get() + counts.received.get());
    });
}
