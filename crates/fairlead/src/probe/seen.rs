//! What a probe is asked, and what it saw: the form that crosses from the pod to whoever judges it.
//!
//! Invariant: facts only. Nothing here says whether they are good; `cli::check` does, and its cases are recordings of this form.

use fairlead_identity::Rehearsal;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// What to try, beside the peers, whom the control plane names itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Question {
    /// Names to look up.
    pub names: Vec<String>,
    /// This cluster's own gateway, `host:port`.
    pub gateway: Option<String>,
    /// Pods whose capture is tried.
    pub pods: Vec<PodAddress>,
    /// A join token whose way is tried.
    pub token: Option<String>,
}

/// A pod, and a port of it that no program listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodAddress {
    /// `namespace/name`
    pub pod: String,
    pub address: SocketAddr,
}

/// What one probe saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Seen {
    /// Its clock, unix seconds.
    pub now: i64,
    /// Largest packet of the interface that leads out.
    pub mtu: Option<u32>,
    pub names: Vec<NameSeen>,
    /// This cluster's own gateway first, then every peer's doors.
    pub peers: Vec<PeerSeen>,
    pub pods: Vec<PodSeen>,
    pub token: Option<TokenSeen>,
    /// Why the control plane could not be asked for its peers.
    pub silent: Option<String>,
}

/// A name that was looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NameSeen {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub error: Option<String>,
}

/// The doors of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PeerSeen {
    pub cluster: String,
    /// Fairlead's version there, as it told.
    pub version: String,
    /// Is it the probing cluster itself?
    pub own: bool,
    pub control: Vec<PathSeen>,
    pub gateways: Vec<PathSeen>,
    /// Endpoints in a network of our own: connected to, no more.
    pub endpoints: Vec<PathSeen>,
}

/// One way that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathSeen {
    /// `host:port`
    pub address: String,
    pub connection: Connection,
    /// Of a connection that was not made: other ports of the same host that answered, so that there is a route.
    #[serde(default)]
    pub answering: Vec<u16>,
    /// Small packets.
    #[serde(default)]
    pub handshake: Option<Handshake>,
    /// Packets as large as the way is said to carry.
    #[serde(default)]
    pub large: Option<Handshake>,
    /// Bytes of data in the largest packet.
    #[serde(default)]
    pub segment: Option<u32>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Connection {
    Accepted,
    /// A reset.
    Refused,
    /// A router, or this host, says that there is no way.
    NoRoute,
    /// Nobody answered.
    Silent,
    /// The host's name has no address.
    NoName(String),
    /// Anything else, as the system words it.
    Failed(String),
}

/// How a handshake ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Handshake {
    /// Finished, and the certificate believed.
    Good,
    /// The certificate is not believed: the verifier's stable word, and what it says.
    Distrusted {
        reason: String,
        detail: String,
    },
    /// Ended by the other side, or no TLS.
    Broken(String),
    Silent,
}

/// Whether a port on which no program listens took a connection: then the proxy did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSeen {
    pub pod: String,
    pub connection: Connection,
}

/// A join token's way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TokenSeen {
    /// Why it is no token.
    pub unreadable: Option<String>,
    /// Who issued it.
    pub cluster: String,
    /// Unix seconds, by the issuer's clock.
    pub expires: i64,
    /// Its addresses, its root pinned.
    pub paths: Vec<PathSeen>,
    /// What the issuer says.
    pub rehearsal: Option<Rehearsal>,
    /// Why the issuer said nothing.
    pub error: Option<String>,
}
