//! What is captured of a workload's connections, as options: the one description that the lab, the init container, the CNI plugin
//! and the injector share.
//!
//! Names and defaults are those of Istio's `traffic.sidecar.istio.io` annotations. Must never know how a rule is written; see
//! `generate`. Invariant: equal options give equal rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Serialize;

/// The proxies' socket mark in the lab: 1337, the number Istio gives its proxy's user.
pub const PROXY_MARK: u32 = 0x539;

/// User and group of the proxy in a pod.
pub const PROXY_UID: u32 = 1337;

/// Inbound ports that belong to the proxy itself: merged metrics and probes, readiness, its own metrics.
pub const PROXY_PORTS: [u16; 3] = [15020, 15021, 15090];

/// Tunnelled mesh traffic: never captured on its way in, and no call of a program to itself.
pub const TUNNEL_PORT: u16 = 15008;

/// How the proxy's own traffic is told from the program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopGuard {
    /// By `SO_MARK`: the lab, where everything runs as one user.
    Mark(u32),
    /// By user or group id: Kubernetes, where the proxy may not set marks.
    Owner {
        /// The proxy's user.
        uid: u32,
        /// The proxy's group; a program that runs in it is taken for the proxy.
        gid: u32,
    },
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// All but these.
    AllBut(Vec<u16>),
    /// These only; an empty list is none.
    Only(Vec<u16>),
}

/// Which destinations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ranges {
    /// Every address.
    All,
    /// These only; an empty list is none.
    Only(Vec<IpNet>),
}

/// Whose questions about names are captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsServers {
    /// To any server.
    Any,
    /// To these servers (those of `/etc/resolv.conf`): what else speaks DNS in the pod is left alone.
    Only(Vec<IpAddr>),
}

/// Captured questions about names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// Where they go.
    pub port: u16,
    /// Which are meant.
    pub servers: DnsServers,
    /// Whether the proxy's own questions are tracked apart (conntrack zones), so that one from a source port that the program used a
    /// moment ago is not taken for the program's and sent back to the proxy.
    pub zones: bool,
}

/// Which families of addresses the pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Families {
    /// IPv4 only; IPv6 goes by uncaptured.
    V4,
    /// IPv6 only; IPv4 goes by uncaptured.
    V6,
    /// Both. Right in every pod: what a pod does not have is never met.
    Both,
}

/// Addresses of the documentation ranges (RFC 5737, RFC 3849).
pub const NOBODYS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// What is captured, and to where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaptureSpec {
    /// How the proxy's own traffic is told.
    pub guard: LoopGuard,
    /// Where outgoing TCP connections go.
    pub outbound: u16,
    /// Where incoming TCP connections go; None: they are not captured.
    pub inbound: Option<u16>,
    /// Captured questions about names; None: they are not captured.
    pub dns: Option<Dns>,
    /// Which incoming ports are captured (`includeInboundPorts`, `excludeInboundPorts`).
    pub inbound_ports: Ports,
    /// Destinations that are captured (`includeOutboundIPRanges`). A loopback range among them captures what programs of the pod say to
    /// each other by it.
    pub outbound_ranges: Ranges,
    /// Destinations that are not captured (`excludeOutboundIPRanges`).
    pub exclude_outbound_ranges: Vec<IpNet>,
    /// Outgoing ports that are captured whatever the destination (`includeOutboundPorts`).
    pub include_outbound_ports: Vec<u16>,
    /// Outgoing ports that are not captured (`excludeOutboundPorts`).
    pub exclude_outbound_ports: Vec<u16>,
    /// Users whose traffic is not captured.
    pub exclude_uids: Vec<u32>,
    /// Interfaces whose traffic is not captured (`excludeInterfaces`).
    pub exclude_interfaces: Vec<String>,
    /// Interfaces of virtual machines: what arrives by them is outgoing traffic (`kubevirtInterfaces`).
    pub virtual_interfaces: Vec<String>,
    /// The families of addresses meant.
    pub families: Families,
}

impl CaptureSpec {
    /// Everything, to Istio's ports, but the proxy's own ports.
    pub fn new(guard: LoopGuard) -> Self {
        Self {
            guard,
            outbound: 15001,
            inbound: Some(15006),
            dns: Some(Dns { port: 15053, servers: DnsServers::Any, zones: false }),
            inbound_ports: Ports::AllBut(PROXY_PORTS.to_vec()),
            outbound_ranges: Ranges::All,
            exclude_outbound_ranges: Vec::new(),
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_uids: Vec::new(),
            exclude_interfaces: Vec::new(),
            virtual_interfaces: Vec::new(),
            families: Families::Both,
        }
    }

    /// Whether nothing at all is captured.
    pub fn is_off(&self) -> bool {
        let inbound = self.inbound.is_some() && self.inbound_ports != Ports::Only(Vec::new());
        !inbound && !self.takes_outbound()
    }

    fn takes_outbound(&self) -> bool {
        self.outbound_ranges != Ranges::Only(Vec::new())
            || !self.include_outbound_ports.is_empty()
            || self.dns.is_some()
            || !self.virtual_interfaces.is_empty()
    }

    /// Where only incoming connections are captured, whether rules are in force could not be tried from inside the pod: then two addresses
    /// that nobody has are captured too.
    #[must_use]
    pub fn provable(mut self) -> Self {
        if !self.takes_outbound() && !self.is_off() {
            self.outbound_ranges = Ranges::Only(NOBODYS.iter().map(|address| IpNet::from(*address)).collect());
        }
        self
    }

    /// A pod's: the proxy is told by user and group 1337, and its own questions about names are tracked apart.
    pub fn pod() -> Self {
        let mut spec = Self::new(LoopGuard::Owner { uid: PROXY_UID, gid: PROXY_UID });
        if let Some(dns) = &mut spec.dns {
            dns.zones = true;
        }
        spec
    }
}
