//! Which listener takes a connection that was accepted elsewhere and redirected.

use crate::listener::{Direction, Listener};
use crate::snapshot::Snapshot;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The listener for a connection that `accepted` took and that was going to `original_dst`.
///
/// Only a listener with `use_original_dst` hands over: to the listener of exactly that address, else to that of the
/// wildcard address with that port, else it keeps the connection (Envoy's `findActiveTcpListenerByAddress`). A listener at
/// `0.0.0.0` is there for both families, as its socket would be; one at `::` with its port comes before it. Inbound
/// connections are never handed to listeners for outbound traffic, which may have the same port.
pub fn listener<'a>(
    snapshot: &'a Snapshot,
    accepted: &'a Arc<Listener>,
    original_dst: SocketAddr,
) -> &'a Arc<Listener> {
    if !accepted.use_original_dst {
        return accepted;
    }
    let takes = |candidate: &&Arc<Listener>| {
        !candidate.bind_to_port
            && (accepted.direction != Direction::Inbound || candidate.direction == Direction::Inbound)
    };
    let ip = original_dst.ip().to_canonical();
    let at = |ip: IpAddr| snapshot.listener_at(SocketAddr::new(ip, original_dst.port())).filter(takes);
    let both = || at(Ipv4Addr::UNSPECIFIED.into());
    let found = match ip {
        IpAddr::V4(_) => at(ip).or_else(both),
        IpAddr::V6(_) => at(ip).or_else(|| at(Ipv6Addr::UNSPECIFIED.into())).or_else(both),
    };
    found.unwrap_or(accepted)
}
