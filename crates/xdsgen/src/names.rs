//! Names of resources.
//!
//! They follow Istio's, so that its users recognise a `/config_dump`. Invariant: `Display` and `FromStr` are inverse; a
//! text that would not be written again in the same form is refused.

use fairlead_model::{ClusterId, EndpointId, NetworkId};
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The name of a listener, route configuration, Envoy cluster, load assignment or name index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceName {
    /// Listener that takes all captured outbound connections.
    VirtualOutbound,
    /// Listener that takes all captured inbound connections.
    VirtualInbound,
    /// Listener `<address>_<port>`; `0.0.0.0` means every address.
    Address {
        address: IpAddr,
        port: u16,
    },
    /// Route configuration of a sidecar's outbound port: `<port>`.
    PortRoutes {
        port: u16,
    },
    /// Route configuration of one sniffed service port: `<host>:<port>`.
    HostRoutes {
        host: String,
        port: u16,
    },
    /// Route configuration of a gateway's plaintext port: `http.<port>`.
    GatewayRoutes {
        port: u16,
    },
    /// Route configuration of a gateway server that terminates TLS: `https.<port>.<server>.<gateway>.<namespace>`.
    GatewayTlsRoutes {
        port: u16,
        server: String,
        gateway: String,
        namespace: String,
    },
    /// Envoy cluster `outbound|<port>|<subset>|<host>`.
    Outbound {
        port: u16,
        subset: Option<String>,
        host: String,
    },
    /// Aggregate Envoy cluster `siblings|<port>|<subset>,…|<host>`: the first subset, and the others when it is down. An empty
    /// subset is the service itself. For clients that cannot share out a weighted route themselves.
    Siblings {
        port: u16,
        subsets: Vec<String>,
        host: String,
    },
    /// Envoy cluster `inbound|<port>||`.
    Inbound {
        port: u16,
    },
    Passthrough,
    InboundPassthrough,
    BlackHole,
    /// Envoy cluster and internal listener `gateway|<network>|<cluster>`: the hop to another network's gateways.
    GatewayHop {
        network: NetworkId,
        cluster: ClusterId,
    },
    /// Envoy cluster named as the SNI that leads to it: `outbound_.<port>_.<target>_.<host>`.
    Sni {
        port: u16,
        target: SniTarget,
        host: String,
    },
    /// The name index.
    Names,
}

/// What an SNI of a mesh connection names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SniTarget {
    Service,
    /// Istio's form; the subset is the caller's.
    Subset(String),
    /// Fairlead's form `ep-<id>`: one endpoint. The prefix is reserved.
    Endpoint(EndpointId),
}

/// A text that names no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no resource name")]
pub struct NameError(pub String);

impl ResourceName {
    pub fn outbound(port: u16, subset: Option<&str>, host: &str) -> Self {
        Self::Outbound { port, subset: subset.map(str::to_owned), host: host.to_owned() }
    }

    /// The SNI form of the same destination (what a caller shows to a gateway).
    pub fn sni(port: u16, subset: Option<&str>, host: &str) -> Self {
        let target = subset.map_or(SniTarget::Service, |s| SniTarget::Subset(s.to_owned()));
        Self::Sni { port, target, host: host.to_owned() }
    }

    pub fn endpoint(port: u16, id: &EndpointId, host: &str) -> Self {
        Self::Sni { port, target: SniTarget::Endpoint(id.clone()), host: host.to_owned() }
    }
}

const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
const VIRTUAL_INBOUND: &str = "virtualInbound";
const PASSTHROUGH: &str = "PassthroughCluster";
const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
const BLACK_HOLE: &str = "BlackHoleCluster";
const NAMES: &str = "names";

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VirtualOutbound => f.write_str(VIRTUAL_OUTBOUND),
            Self::VirtualInbound => f.write_str(VIRTUAL_INBOUND),
            Self::Address { address, port } => write!(f, "{address}_{port}"),
            Self::PortRoutes { port } => write!(f, "{port}"),
            Self::HostRoutes { host, port } => write!(f, "{host}:{port}"),
            Self::GatewayRoutes { port } => write!(f, "http.{port}"),
            Self::GatewayTlsRoutes { port, server, gateway, namespace } => {
                write!(f, "https.{port}.{server}.{gateway}.{namespace}")
            }
            Self::Outbound { port, subset, host } => {
                write!(f, "outbound|{port}|{}|{host}", subset.as_deref().unwrap_or_default())
            }
            Self::Siblings { port, subsets, host } => write!(f, "siblings|{port}|{}|{host}", subsets.join(",")),
            Self::Inbound { port } => write!(f, "inbound|{port}||"),
            Self::Passthrough => f.write_str(PASSTHROUGH),
            Self::InboundPassthrough => f.write_str(INBOUND_PASSTHROUGH),
            Self::BlackHole => f.write_str(BLACK_HOLE),
            Self::GatewayHop { network, cluster } => write!(f, "gateway|{network}|{cluster}"),
            Self::Sni { port, target, host } => match target {
                SniTarget::Service => write!(f, "outbound_.{port}_._.{host}"),
                SniTarget::Subset(subset) => write!(f, "outbound_.{port}_.{subset}_.{host}"),
                SniTarget::Endpoint(id) => write!(f, "outbound_.{port}_.ep-{id}_.{host}"),
            },
            Self::Names => f.write_str(NAMES),
        }
    }
}

impl FromStr for ResourceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        parse(text).filter(|name| name.to_string() == text).ok_or_else(|| NameError(text.to_owned()))
    }
}

impl Serialize for ResourceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn parse(text: &str) -> Option<ResourceName> {
    match text {
        VIRTUAL_OUTBOUND => return Some(ResourceName::VirtualOutbound),
        VIRTUAL_INBOUND => return Some(ResourceName::VirtualInbound),
        PASSTHROUGH => return Some(ResourceName::Passthrough),
        INBOUND_PASSTHROUGH => return Some(ResourceName::InboundPassthrough),
        BLACK_HOLE => return Some(ResourceName::BlackHole),
        NAMES => return Some(ResourceName::Names),
        _ => {}
    }
    if let Some(rest) = text.strip_prefix("outbound|") {
        let mut parts = rest.splitn(3, '|');
        let (port, subset, host) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?.to_owned());
        return Some(ResourceName::Outbound { port, subset: (!subset.is_empty()).then(|| subset.to_owned()), host });
    }
    if let Some(rest) = text.strip_prefix("siblings|") {
        let mut parts = rest.splitn(3, '|');
        let (port, subsets, host) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?.to_owned());
        let subsets = subsets.split(',').map(str::to_owned).collect();
        return Some(ResourceName::Siblings { port, subsets, host });
    }
    if let Some(rest) = text.strip_prefix("inbound|") {
        return Some(ResourceName::Inbound { port: rest.strip_suffix("||")?.parse().ok()? });
    }
    if let Some(rest) = text.strip_prefix("gateway|") {
        let (network, cluster) = rest.rsplit_once('|')?;
        return Some(ResourceName::GatewayHop { network: network.into(), cluster: cluster.into() });
    }
    if let Some(rest) = text.strip_prefix("outbound_.") {
        let (port, rest) = rest.split_once("_.")?;
        let (target, host) = if let Some(host) = rest.strip_prefix("_.") {
            (SniTarget::Service, host)
        } else {
            let (target, host) = rest.split_once("_.")?;
            let target = match target.strip_prefix("ep-") {
                Some(id) => SniTarget::Endpoint(EndpointId(id.into())),
                None => SniTarget::Subset(target.to_owned()),
            };
            (target, host)
        };
        return Some(ResourceName::Sni { port: port.parse().ok()?, target, host: host.to_owned() });
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && let Ok(port) = port.parse()
        && !text.contains('_')
    {
        return Some(ResourceName::HostRoutes { host: host.to_owned(), port });
    }
    if let Some(rest) = text.strip_prefix("https.") {
        let (port, rest) = rest.split_once('.')?;
        let (server, rest) = rest.split_once('.')?;
        let (gateway, namespace) = rest.rsplit_once('.')?;
        let port = port.parse().ok()?;
        return Some(ResourceName::GatewayTlsRoutes {
            port,
            server: server.to_owned(),
            gateway: gateway.to_owned(),
            namespace: namespace.to_owned(),
        });
    }
    if let Some(port) = text.strip_prefix("http.") {
        return Some(ResourceName::GatewayRoutes { port: port.parse().ok()? });
    }
    if let Some((address, port)) = text.rsplit_once('_') {
        return Some(ResourceName::Address { address: address.parse().ok()?, port: port.parse().ok()? });
    }
    Some(ResourceName::PortRoutes { port: text.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label() -> impl Strategy<Value = String> {
        "[a-z][a-z0-9-]{0,10}[a-z0-9]"
    }

    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::collection::vec(label(), 1..5).prop_map(|l| l.join(".")),
            proptest::collection::vec(label(), 1..3).prop_map(|l| format!("*.{}", l.join("."))),
        ]
    }

    fn any_name() -> impl Strategy<Value = ResourceName> {
        prop_oneof![
            Just(ResourceName::VirtualOutbound),
            Just(ResourceName::VirtualInbound),
            Just(ResourceName::Passthrough),
            Just(ResourceName::InboundPassthrough),
            Just(ResourceName::BlackHole),
            Just(ResourceName::Names),
            (any::<std::net::IpAddr>(), any::<u16>())
                .prop_map(|(address, port)| ResourceName::Address { address, port }),
            any::<u16>().prop_map(|port| ResourceName::PortRoutes { port }),
            (host(), any::<u16>()).prop_map(|(host, port)| ResourceName::HostRoutes { host, port }),
            any::<u16>().prop_map(|port| ResourceName::GatewayRoutes { port }),
            (any::<u16>(), label(), host().prop_filter("no wildcard", |h| !h.contains('*')), label()).prop_map(
                |(port, server, gateway, namespace)| ResourceName::GatewayTlsRoutes {
                    port,
                    server,
                    gateway,
                    namespace
                }
            ),
            (any::<u16>(), proptest::option::of(label()), host())
                .prop_map(|(port, subset, host)| ResourceName::Outbound { port, subset, host }),
            (any::<u16>(), proptest::collection::vec("([a-z][a-z0-9-]{0,5})?", 2..4), host())
                .prop_map(|(port, subsets, host)| ResourceName::Siblings { port, subsets, host }),
            any::<u16>().prop_map(|port| ResourceName::Inbound { port }),
            ("([a-z0-9-]{1,12})?", label())
                .prop_map(|(n, c)| ResourceName::GatewayHop { network: n.into(), cluster: c.into() }),
            (any::<u16>(), host()).prop_map(|(p, h)| ResourceName::sni(p, None, &h)),
            (any::<u16>(), label().prop_filter("reserved", |l| !l.starts_with("ep-")), host())
                .prop_map(|(p, s, h)| ResourceName::sni(p, Some(&s), &h)),
            (any::<u16>(), "[0-9a-f]{1,16}", host()).prop_map(|(p, id, h)| ResourceName::endpoint(
                p,
                &EndpointId(id.as_str().into()),
                &h
            )),
        ]
    }

    proptest! {
        #[test]
        fn names_survive_being_written_and_read(name in any_name()) {
            prop_assert_eq!(name.to_string().parse::<ResourceName>(), Ok(name));
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "[a-z0-9_.:|-]{0,30}") {
            if let Ok(name) = text.parse::<ResourceName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn istio_users_recognise_them() {
        assert_eq!(
            ResourceName::outbound(9080, Some("v1"), "reviews.shop.svc.cluster.local").to_string(),
            "outbound|9080|v1|reviews.shop.svc.cluster.local"
        );
        assert_eq!(ResourceName::sni(80, None, "a.b").to_string(), "outbound_.80_._.a.b");
        assert!("outbound|080||a".parse::<ResourceName>().is_err());
    }
}
