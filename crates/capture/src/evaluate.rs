//! What rules do to the first packet of a connection: the kernel's reading of a table, without a kernel.
//!
//! For tests, and to choose a destination that a probe of the kernel can be made with. Pure. Invariant: the first rule whose matches all
//! hold decides, as in nf_tables; what nothing decides goes on.

use std::net::{IpAddr, SocketAddr};

use crate::rules::{Family, Hook, Match, Table, Transport, Verdict};

/// Where a packet is met, and what only that place knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Made here.
    Leaving {
        /// User of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
        /// Its mark.
        mark: u32,
        /// Interface it leaves by.
        by: String,
    },
    /// From elsewhere, by this interface.
    Arriving(String),
}

/// The first packet of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it is met.
    pub way: Way,
    /// Its transport protocol.
    pub transport: Transport,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
}

/// The verdict of the chains of this hook; `Verdict::Accept` where no rule decides.
pub fn evaluate(table: &Table, hook: Hook, packet: &Packet) -> Verdict {
    let rules = table.chains.iter().filter(|chain| chain.hook == hook).flat_map(|chain| &chain.rules);
    let mut deciding = rules.filter(|rule| rule.matches.iter().all(|condition| holds(condition, packet)));
    deciding.next().map_or(Verdict::Accept, |rule| rule.verdict)
}

/// The port that the connection is redirected to; None: it goes where it was meant to.
pub fn redirected(table: &Table, packet: &Packet) -> Option<u16> {
    let hook = match packet.way {
        Way::Leaving { .. } => Hook::NatOutput,
        Way::Arriving(_) => Hook::NatPrerouting,
    };
    match evaluate(table, hook, packet) {
        Verdict::Redirect(port) => Some(port),
        _ => None,
    }
}

fn holds(condition: &Match, packet: &Packet) -> bool {
    let from = match &packet.way {
        Way::Arriving(name) => name,
        Way::Leaving { .. } => "",
    };
    let (owner, by) = match &packet.way {
        Way::Leaving { uid, gid, mark, by } => (Some((*uid, *gid, *mark)), by.as_str()),
        Way::Arriving(_) => (None, ""),
    };
    match condition {
        Match::Mark(wanted) => owner.is_some_and(|(_, _, mark)| mark == *wanted),
        Match::Owner(wanted) => owner.is_some_and(|(uid, _, _)| uid == *wanted),
        Match::Group(wanted) => owner.is_some_and(|(_, gid, _)| gid == *wanted),
        Match::Family(family) => packet.destination.is_ipv4() == (*family == Family::V4),
        Match::From(name) => from == name,
        Match::NotFrom(name) => from != name,
        Match::By(name) => by == name,
        Match::NotBy(name) => by != name,
        Match::Transport(transport) => packet.transport == *transport,
        Match::Port(transport, port) => packet.transport == *transport && packet.destination.port() == *port,
        Match::SourcePort(transport, port) => packet.transport == *transport && packet.source.port() == *port,
        Match::Source(range) => range.contains(&address(packet.source)),
        Match::Destination(range) => range.contains(&address(packet.destination)),
    }
}

fn address(socket: SocketAddr) -> IpAddr {
    socket.ip()
}
