//! Packet filter rules as data, their text, and their way into the kernel.
//!
//! A [`Table`] is what one concern wants of one namespace: capture, masquerading, a fault. It is installed whole, replacing
//! what it was, in one transaction: there is never a moment without a rule that holds before and after. `Display` is nft's own
//! syntax, for people and goldens; the kernel gets the netlink form ([`encode`]), since a fresh machine has no `nft`.

mod encode;
mod text;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::netlink::{NetlinkError, Protocol, Socket};

/// A named set of chains for IPv4 and IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its name; tables of different names do not touch each other.
    pub name: String,
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// Rules that packets meet at one point of their way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Its name in the table.
    pub name: String,
    /// Where and for what it is called.
    pub hook: Hook,
    /// Tried in order until one gives a verdict; without one the packet goes on.
    pub rules: Vec<Rule>,
}

/// Where a chain is called. The priority follows from it, with nft's names (`dstnat`, `srcnat`, `raw`, `filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// First packet of a connection that arrives.
    NatPrerouting,
    /// First packet of a connection made here.
    NatOutput,
    /// First packet of a connection that leaves.
    NatPostrouting,
    /// Every packet that arrives, before anything else.
    FilterPrerouting,
    /// Every packet that is passed on.
    FilterForward,
    /// Every packet made here.
    FilterOutput,
    /// Every packet that leaves.
    FilterPostrouting,
}

/// All matches hold: the verdict applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Conditions.
    pub matches: Vec<Match>,
    /// What happens.
    pub verdict: Verdict,
}

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// The socket's or packet's mark.
    Mark(u32),
    /// The socket's owner (only where packets are made).
    Owner(u32),
    /// The group of the socket's owner (only where packets are made).
    Group(u32),
    /// It is of this family.
    Family(Family),
    /// It arrived by this interface.
    From(String),
    /// It arrived by another interface.
    NotFrom(String),
    /// It leaves by this interface.
    By(String),
    /// It leaves by another interface.
    NotBy(String),
    /// Its transport protocol.
    Transport(Transport),
    /// Its transport protocol and destination port.
    Port(Transport, u16),
    /// Its transport protocol and source port.
    SourcePort(Transport, u16),
    /// Its source address.
    Source(IpNet),
    /// Its destination address.
    Destination(IpNet),
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It is lost; nobody is told.
    Drop,
    /// The connection is made to this port of this machine instead.
    Redirect(u16),
    /// The connection leaves with the address of the interface it leaves by.
    Masquerade,
    /// The TCP connection is reset.
    Reset,
    /// The sender is told that there is no route.
    NoRoute,
    /// It goes on, tracked apart from the connections of other zones; only in filter chains of priority `raw`.
    Zone(u16),
}

impl Rule {
    /// A rule.
    pub fn new(matches: impl Into<Vec<Match>>, verdict: Verdict) -> Self {
        Self { matches: matches.into(), verdict }
    }
}

/// Installs a table in the calling thread's network namespace, replacing one of the same name.
pub fn install(table: &Table) -> Result<(), NetlinkError> {
    Socket::open(Protocol::Netfilter)?.transact(&encode::replace(table))
}

/// Removes a table, if it is there.
pub fn remove(name: &str) -> Result<(), NetlinkError> {
    Socket::open(Protocol::Netfilter)?.transact(&encode::remove(name))
}

/// The prefix that is this address alone.
pub fn only(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
