//! The ways between clusters, judged: route, port, certificate, size of packets.
//!
//! Must never guess: a port counts as blocked only where the same host answers on another one, else there is no route; a small handshake
//! that ends and a large one that does not is the size of packets. Invariant: one way, one finding of what is wrong first on it.

use super::codes;
use super::finding::Finding;
use crate::probe::seen::{Connection, Handshake, PathSeen, PeerSeen, Seen};

/// Findings for all peers that were tried.
pub fn judge(seen: &Seen) -> Vec<Finding> {
    if let Some(why) = &seen.silent {
        let remedy = "look at the control plane's log: its admin socket does not answer";
        return vec![Finding::bad(codes::UNASKED, "data path", why.clone(), remedy)];
    }
    let mut findings = Vec::new();
    for peer in &seen.peers {
        for way in &peer.control {
            findings.extend(one("control path", &format!("control plane of {}", peer.cluster), peer, way));
        }
        for way in &peer.gateways {
            findings.extend(one("data path", &format!("gateway of {}", peer.cluster), peer, way));
        }
        for way in &peer.endpoints {
            findings.extend(one("data path", &format!("pod of {}", peer.cluster), peer, way));
        }
        if !peer.own && peer.gateways.is_empty() && peer.endpoints.is_empty() {
            let what =
                format!("{} has told of no gateway, and has no endpoint in a network of this cluster", peer.cluster);
            let remedy =
                "deploy a program there, or look whether that cluster's gateway has an address (fairlead check there)";
            findings.push(Finding::skipped("data path", what, remedy));
        }
    }
    findings
}

/// What is wrong first on one way; or that it is good.
pub fn one(check: &'static str, what: &str, peer: &PeerSeen, way: &PathSeen) -> Vec<Finding> {
    let address = &way.address;
    let to = format!("the {what} at {address}");
    if let Some(finding) = connection(check, &to, peer, way) {
        return vec![finding];
    }
    let Some(handshake) = &way.handshake else {
        return vec![Finding::good(check, format!("{to} accepts"))];
    };
    if let Some(finding) = distrust(check, &to, peer, handshake) {
        return vec![finding];
    }
    let mut findings = vec![Finding::good(check, format!("{to} accepts, and proves itself"))];
    match (&way.large, way.segment) {
        (Some(Handshake::Good), Some(bytes)) => {
            findings.push(Finding::good("mtu", format!("packets with {bytes} bytes of data reach {to}")));
        }
        (Some(Handshake::Silent | Handshake::Broken(_)), bytes) => {
            let size = bytes.map_or(String::new(), |bytes| format!(" with {bytes} bytes of data"));
            let message = format!("small packets reach {to}, full ones{size} do not");
            let remedy = "lower the MTU of pods (CNI plugin) to what the way carries, or let ICMP `fragmentation needed` through";
            findings.push(Finding::bad(codes::MTU, "mtu", message, remedy));
        }
        _ => {}
    }
    findings
}

fn connection(check: &'static str, to: &str, peer: &PeerSeen, way: &PathSeen) -> Option<Finding> {
    let host = way.address.rsplit_once(':').map_or(way.address.as_str(), |(host, _)| host);
    let port = way.address.rsplit(':').next().unwrap_or_default();
    let others = way.answering.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let no_route = || {
        let remedy = format!(
            "from a pod, look where packets for {host} go (`ip route get {host}` on the node): add the route or the peering of the networks; the way back must exist too"
        );
        let how = match way.connection {
            Connection::NoRoute => "the network says that there is no way",
            _ => "nothing of that host answers, on any port",
        };
        Finding::bad(codes::NO_ROUTE, check, format!("no route to {to}: {how}"), remedy)
    };
    match &way.connection {
        Connection::Accepted => None,
        Connection::NoRoute | Connection::Silent if way.answering.is_empty() => Some(no_route()),
        Connection::NoRoute | Connection::Silent => {
            let message = format!(
                "port {port} is blocked on the way to {to}: no answer, while port {others} of the same host answers"
            );
            let remedy = format!(
                "open TCP port {port} of {host} for this cluster's nodes and pods (firewall, security group, NetworkPolicy)"
            );
            Some(Finding::bad(codes::PORT_BLOCKED, check, message, remedy))
        }
        Connection::Refused => {
            let message =
                format!("{to} refuses: the host answers, and nothing listens on port {port}, or a firewall rejects");
            let remedy = format!(
                "look whether it runs there and its Service has this address and port: fairlead check --context {}",
                peer.cluster
            );
            Some(Finding::bad(codes::PORT_REFUSED, check, message, remedy))
        }
        Connection::NoName(why) => {
            let remedy = format!("the name servers of this cluster must know {host}; or advertise an address instead");
            Some(Finding::bad(codes::NO_ADDRESS, check, format!("{host} has no address: {why}"), remedy))
        }
        Connection::Failed(why) => {
            let remedy = "try the same from a node of this cluster (`curl -v telnet://HOST:PORT`)";
            Some(Finding::bad(codes::NO_ROUTE, check, format!("{to} cannot be connected to: {why}"), remedy))
        }
    }
}

fn distrust(check: &'static str, to: &str, peer: &PeerSeen, handshake: &Handshake) -> Option<Finding> {
    match handshake {
        Handshake::Good => None,
        Handshake::Silent => {
            let remedy = "something in between takes connections and passes nothing on (a load balancer with no backend, a proxy): look at it";
            Some(Finding::bad(codes::NO_TLS, check, format!("{to} takes connections and says nothing"), remedy))
        }
        Handshake::Broken(why) => {
            let remedy = "who answers is no Fairlead, or ends TLS on the way: the load balancer must pass TCP through";
            Some(Finding::bad(codes::NO_TLS, check, format!("{to} makes no TLS handshake: {why}"), remedy))
        }
        Handshake::Distrusted { reason, detail } => {
            let message = format!("{to} is not believed: {detail}");
            Some(match reason.as_str() {
                "foreign-root" | "unknown-trust-domain" | "wrong-domain-root" | "bad-chain" | "unknown-issuer"
                    if peer.own =>
                {
                    let remedy =
                        "this cluster's CA was exchanged: restart the control plane, then the gateway and the pods";
                    Finding::bad(codes::WRONG_ROOT, check, format!("wrong root: {message}"), remedy)
                }
                "foreign-root" | "unknown-trust-domain" | "wrong-domain-root" | "bad-chain" | "unknown-issuer" => {
                    let remedy = format!(
                        "{0} was installed anew or its CA exchanged since it joined: fairlead detach {0}, then token create and join again; if nobody did that, somebody stands in between",
                        peer.cluster
                    );
                    Finding::bad(codes::WRONG_ROOT, check, format!("wrong root: {message}"), remedy)
                }
                "expired" | "not-yet-valid" => {
                    let remedy = "compare the clocks of both clusters (check `clock`); if they agree, look at the log of whom it belongs to: it does not renew";
                    Finding::bad(codes::CERTIFICATE, check, message, remedy)
                }
                _ => {
                    let remedy =
                        "another program or cluster answers at this address: look what its load balancer leads to";
                    Finding::bad(codes::CERTIFICATE, check, message, remedy)
                }
            })
        }
    }
}
