//! Links, addresses, routes and kernel settings of the calling thread's network namespace.
//!
//! Every function acts on the namespace of the thread that calls it (see [`crate::netns::NetNs::run`]). Must never leave a
//! half-configured veth: it is created with its peer already named and placed, attached to its bridge, and up, in one message.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use fairlead_capture::netlink::{Attributes, Batch, NetlinkError, Protocol, Socket};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use serde::Serialize;

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Route {
    /// Destination; `0.0.0.0/0` and `::/0` are the default routes.
    pub to: IpNet,
    /// What happens to a packet for it.
    pub action: RouteAction,
}

/// What a route does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteAction {
    /// The destination is a neighbour on this link.
    Link {
        /// Interface.
        device: String,
        /// Source address for packets without one.
        source: Option<IpAddr>,
    },
    /// A router on this link takes it, whatever the link's own prefixes are.
    Via {
        /// Interface.
        device: String,
        /// The router.
        router: IpAddr,
        /// Source address for packets without one.
        source: Option<IpAddr>,
    },
    /// The sender is told at once.
    Unreachable,
    /// Dropped without a word.
    Blackhole,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source =
            |f: &mut fmt::Formatter<'_>, source: &Option<IpAddr>| source.map_or(Ok(()), |s| write!(f, " src {s}"));
        match &self.action {
            RouteAction::Link { device, source: s } => {
                write!(f, "{} dev {device}", self.to)?;
                source(f, s)
            }
            RouteAction::Via { device, router, source: s } => {
                write!(f, "{} via {router} dev {device} onlink", self.to)?;
                source(f, s)
            }
            RouteAction::Unreachable => write!(f, "unreachable {}", self.to),
            RouteAction::Blackhole => write!(f, "blackhole {}", self.to),
        }
    }
}

/// Why a link, address, route or setting could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// An interface does not exist in this namespace.
    #[error("no interface {name} in this namespace: {errno}")]
    NoSuchInterface {
        /// Its name.
        name: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A setting below /proc/sys/net could not be written.
    #[error("write {value} to {path}: {source}")]
    Setting {
        /// The file.
        path: String,
        /// The value.
        value: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Creates a bridge and takes it up; one that exists is kept.
pub fn bridge(name: &str) -> Result<(), LinkError> {
    let mut batch = Batch::default();
    batch.push(format!("create bridge {name}"), RTM_NEWLINK, CREATE, &interface(0, true), |a| {
        a.text(IFLA_IFNAME, name);
        a.nested(IFLA_LINKINFO, |a| {
            a.text(IFLA_INFO_KIND, "bridge");
            // Without a querier on the link, snooping would stop neighbour discovery after some minutes.
            a.nested(IFLA_INFO_DATA, |a| a.raw(IFLA_BR_MCAST_SNOOPING, &[0]));
        });
    });
    Ok(Socket::open(Protocol::Route)?.send(&batch)?)
}

/// Creates a veth pair: `host` here, attached to `bridge` and up; `peer` (still down) in the namespace `there`.
pub fn veth(host: &str, bridge: &str, peer: &str, there: BorrowedFd<'_>) -> Result<(), LinkError> {
    let master = index(bridge)?;
    let mut batch = Batch::default();
    batch.push(
        format!("create veth {host} to {peer} on bridge {bridge}"),
        RTM_NEWLINK,
        CREATE | EXCL,
        &interface(0, true),
        |a| {
            a.text(IFLA_IFNAME, host);
            a.u32(IFLA_MASTER, master);
            a.nested(IFLA_LINKINFO, |a| {
                a.text(IFLA_INFO_KIND, "veth");
                a.nested(IFLA_INFO_DATA, |a| {
                    a.nested_after(VETH_INFO_PEER, &interface(0, false), |a| {
                        a.text(IFLA_IFNAME, peer);
                        a.u32(IFLA_NET_NS_FD, there.as_raw_fd() as u32);
                    });
                });
            });
        },
    );
    Ok(Socket::open(Protocol::Route)?.send(&batch)?)
}

/// Takes an interface up or down.
pub fn set_up(name: &str, up: bool) -> Result<(), LinkError> {
    let mut batch = Batch::default();
    let purpose = format!("take {name} {}", if up { "up" } else { "down" });
    batch.push(purpose, RTM_NEWLINK, 0, &interface(index(name)?, up), |_| ());
    Ok(Socket::open(Protocol::Route)?.send(&batch)?)
}

/// Removes an interface (and the other end of a veth pair).
pub fn remove(name: &str) -> Result<(), LinkError> {
    let mut batch = Batch::default();
    batch.push(format!("remove {name}"), RTM_DELLINK, 0, &interface(index(name)?, false), |_| ());
    Ok(Socket::open(Protocol::Route)?.send(&batch)?)
}

/// Gives an interface addresses; those it has are kept.
pub fn add_addresses(name: &str, addresses: &[IpAddr]) -> Result<(), LinkError> {
    let index = index(name)?;
    let mut batch = Batch::default();
    for address in addresses {
        let (family, prefix) = family(address);
        let mut fixed = vec![family, prefix, IFA_F_NODAD, 0];
        fixed.extend_from_slice(&index.to_ne_bytes());
        batch.push(format!("add {address} to {name}"), RTM_NEWADDR, CREATE | REPLACE, &fixed, |a| {
            put_address(a, IFA_LOCAL, address);
            put_address(a, IFA_ADDRESS, address);
        });
    }
    Ok(Socket::open(Protocol::Route)?.send(&batch)?)
}

/// Adds routes, replacing those for the same destinations.
pub fn add_routes(routes: &[Route]) -> Result<(), LinkError> {
    let mut batch = Batch::default();
    for route in routes {
        push_route(&mut batch, route, RTM_NEWROUTE, CREATE | REPLACE, "add")?;
    }
    Ok(Socket::open(Protocol::Route)?.send(&batch)?)
}

/// Removes routes; all must exist.
pub fn remove_routes(routes: &[Route]) -> Result<(), LinkError> {
    let mut batch = Batch::default();
    for route in routes {
        push_route(&mut batch, route, RTM_DELROUTE, 0, "remove")?;
    }
    Ok(Socket::open(Protocol::Route)?.send(&batch)?)
}

/// Writes a setting, named as sysctl does: `net.ipv4.ip_forward`. A dot inside a name is written `/`, as sysctl allows.
pub fn set(setting: &str, value: &str) -> Result<(), LinkError> {
    let path = format!(
        "/proc/sys/{}",
        setting
            .chars()
            .map(|c| if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            })
            .collect::<String>()
    );
    std::fs::write(&path, value).map_err(|source| LinkError::Setting { path, value: value.to_owned(), source })
}

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate detection: an IPv6 address would be unusable for a second, and the plan has none twice.
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

fn interface(index: u32, up: bool) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&(if up { IFF_UP } else { 0 }).to_ne_bytes());
    fixed[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    fixed
}

fn index(name: &str) -> Result<u32, LinkError> {
    if_nametoindex(name).map_err(|errno| LinkError::NoSuchInterface { name: name.to_owned(), errno })
}

fn family(address: &IpAddr) -> (u8, u8) {
    if address.is_ipv4() { (AF_INET, 32) } else { (AF_INET6, 128) }
}

fn put_address(attributes: &mut Attributes<'_>, kind: u16, address: &IpAddr) {
    match address {
        IpAddr::V4(a) => attributes.raw(kind, &a.octets()),
        IpAddr::V6(a) => attributes.raw(kind, &a.octets()),
    }
}

fn push_route(batch: &mut Batch, route: &Route, kind: u16, flags: u16, verb: &str) -> Result<(), LinkError> {
    let (family, _) = family(&route.to.addr());
    let (scope, action, hop_flags) = match route.action {
        RouteAction::Link { .. } => (RT_SCOPE_LINK, RTN_UNICAST, 0),
        RouteAction::Via { .. } => (RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK),
        RouteAction::Unreachable => (RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0),
        RouteAction::Blackhole => (RT_SCOPE_UNIVERSE, RTN_BLACKHOLE, 0),
    };
    let mut fixed = vec![family, route.to.prefix_len(), 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, action];
    fixed.extend_from_slice(&hop_flags.to_ne_bytes());
    let (device, router, source) = match &route.action {
        RouteAction::Link { device, source } => (Some(index(device)?), None, *source),
        RouteAction::Via { device, router, source } => (Some(index(device)?), Some(*router), *source),
        RouteAction::Unreachable | RouteAction::Blackhole => (None, None, None),
    };
    batch.push(format!("{verb} route {route}"), kind, flags, &fixed, |a| {
        if route.to.prefix_len() > 0 {
            put_address(a, RTA_DST, &route.to.network());
        }
        if let Some(device) = device {
            a.u32(RTA_OIF, device);
        }
        if let Some(router) = &router {
            put_address(a, RTA_GATEWAY, router);
        }
        if let Some(source) = &source {
            put_address(a, RTA_PREFSRC, source);
        }
    });
    Ok(())
}
