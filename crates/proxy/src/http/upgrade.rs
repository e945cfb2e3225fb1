//! Upgraded connections (WebSocket): after 101 both sides are relayed as bytes.
//!
//! hyper's connections end with the 101, and whoever watched them sees nothing more. Invariants: the request's record lives as long as
//! the relay and counts its bytes; a relay ends when either of its connections is told to, as HTTP would.

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
use tokio::sync::Notify;

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
    // Both stay listed among the live connections: the record and the lease hold them, and live as long as the relay.
    let close_downstream = record.connection.close.clone();
    let close_upstream = borrowed.lease.as_ref().map(|lease| lease.connection().closer());
    tokio::task::spawn_local(async move {
        let (_borrowed, _in_use) = (borrowed, in_use);
        let counts = Counts::default();
        let relaying = async {
            let (Ok(downstream), Ok(upstream)) = tokio::join!(downstream, upstream) else { return };
            let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
            fairlead_transport::relay(&mut downstream, &mut upstream, idle, &counts).await;
        };
        tokio::select! {
            () = relaying => {}
            () = close_downstream.notified() => {}
            () = told(close_upstream.as_deref()) => {}
            () = drain.reached(crate::worker::Stage::Cut) => {}
        }
        record.received.set(record.received.get() + counts.sent.get());
        record.sent.set(record.sent.get() + counts.received.get());
    });
}

async fn told(close: Option<&Notify>) {
    match close {
        Some(close) => close.notified().await,
        None => std::future::pending().await,
    }
}
