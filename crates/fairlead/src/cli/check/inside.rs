//! What was seen from inside the cluster: names, capture of pods, a join token's way.
//!
//! Invariant: a pod counts as captured only where a port that no program listens on took a connection.

use super::finding::Finding;
use super::{codes, paths};
use crate::probe::seen::{Connection, PeerSeen, PodSeen, Seen, TokenSeen};
use fairlead_identity::JoinRefused;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Names that were looked up, against what they should be.
pub fn names(seen: &Seen, wanted: &BTreeMap<String, Vec<IpAddr>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for looked in &seen.names {
        let name = &looked.name;
        let want = wanted.get(name).cloned().unwrap_or_default();
        let list = |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        findings.push(match &looked.error {
            Some(why) => Finding::bad(
                codes::DNS,
                "dns",
                format!("{name} is not found in a pod: {why}"),
                "proxies cannot find their control plane: look at the cluster's DNS (kubectl -n kube-system get pods -l k8s-app=kube-dns)",
            ),
            None if looked.addresses.iter().any(|address| want.contains(address)) => {
                Finding::good("dns", format!("{name} is {} in a pod", list(&looked.addresses)))
            }
            None => Finding::bad(
                codes::DNS,
                "dns",
                format!("{name} is {} in a pod, and its Service is {}", list(&looked.addresses), list(&want)),
                "look at the cluster's DNS: it answers for this name from somewhere else",
            ),
        });
    }
    findings
}

/// Pods of the mesh. `untried` could not be: all their ports may be a program's.
pub fn capture(seen: &[PodSeen], untried: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut good = 0;
    for pod in seen {
        match &pod.connection {
            Connection::Accepted => good += 1,
            Connection::Refused => {
                let message = format!(
                    "pod {} is not captured: a port that no program listens on refuses, so its traffic goes past its proxy",
                    pod.pod
                );
                let remedy = "delete the pod, so that its init container or the CNI plugin sets the rules; with --cni: kubectl -n fairlead-system get pods -l app=fairlead-cni -o wide";
                findings.push(Finding::bad(codes::CAPTURE, "capture", message, remedy));
            }
            _ => {
                let message = format!("pod {} cannot be reached from the control plane's pod", pod.pod);
                findings.push(Finding::skipped(
                    "capture",
                    message,
                    "a NetworkPolicy may forbid it; else look at the pod network",
                ));
            }
        }
    }
    if good > 0 {
        findings.push(Finding::good("capture", format!("{good} pods that were tried are captured")));
    } else if seen.is_empty() {
        let message = match untried {
            0 => "no pod of the mesh runs yet".to_owned(),
            n => format!("{n} pods take only some ports through their proxy, and were not tried"),
        };
        findings.push(Finding::skipped(
            "capture",
            message,
            "label a namespace istio-injection=enabled and restart its pods",
        ));
    }
    findings
}

/// A join token: readable, reachable, of the root it names, good at its issuer.
pub fn token(token: &TokenSeen, cluster: &str, now: i64) -> Vec<Finding> {
    let again = "make a new one on the other side: fairlead token create";
    if let Some(why) = &token.unreadable {
        return vec![Finding::bad(
            codes::TOKEN_REFUSED,
            "token",
            why.clone(),
            "copy it whole; or make a new one: fairlead token create",
        )];
    }
    let issuer = PeerSeen { cluster: token.cluster.clone(), ..PeerSeen::default() };
    let mut findings = Vec::new();
    for way in &token.paths {
        findings.extend(paths::one("token", &format!("control plane of {}", token.cluster), &issuer, way));
    }
    match (&token.rehearsal, &token.error) {
        (Some(rehearsal), _) => {
            let theirs = i64::try_from(rehearsal.now).unwrap_or(i64::MAX);
            findings.extend(clock(theirs - now, &token.cluster));
            findings.push(match &rehearsal.refused {
                None => Finding::good("token", format!("{} would let {cluster} join", token.cluster)),
                Some(JoinRefused::Expired) => expired(token, theirs),
                Some(why @ JoinRefused::ClusterIdTaken(_)) => {
                    let remedy =
                        "install this cluster under another --cluster name: identities and membership go by it";
                    Finding::bad(codes::CLUSTER_NAME, "token", format!("{} says: {why}", token.cluster), remedy)
                }
                Some(why @ JoinRefused::TrustDomainTaken { .. }) => {
                    let remedy = "install this cluster with a --mesh-trust-domain of its own";
                    Finding::bad(codes::TRUST_DOMAINS, "token", format!("{} says: {why}", token.cluster), remedy)
                }
                Some(why) => {
                    Finding::bad(codes::TOKEN_REFUSED, "token", format!("{} says: {why}", token.cluster), again)
                }
            });
        }
        // Not asked: what the token itself says, by our own clock.
        (None, _) if token.expires <= now => findings.push(expired(token, now)),
        (None, Some(why)) => {
            findings.push(Finding::bad(codes::TOKEN_REFUSED, "token", format!("{} says: {why}", token.cluster), again));
        }
        (None, None) => {}
    }
    findings
}

fn expired(token: &TokenSeen, now: i64) -> Finding {
    let message = format!("the token of {} ended {} s ago", token.cluster, now.saturating_sub(token.expires).max(0));
    let remedy =
        format!("make a new one: fairlead token create --context {} (an hour by default, --seconds)", token.cluster);
    Finding::bad(codes::TOKEN_EXPIRED, "token", message, remedy)
}

/// Certificates are backdated by five minutes; peers complain from one minute on.
pub const SKEW: i64 = 60;

/// A clock that is further ahead or behind than is served.
pub fn clock(ahead: i64, of: &str) -> Option<Finding> {
    (ahead.abs() > SKEW).then(|| {
        let how = if ahead > 0 { format!("{ahead} s ahead") } else { format!("{} s behind", -ahead) };
        let message = format!(
            "the clock of {of} is {how}: certificates and tokens of one look not yet, or no longer, good to the other"
        );
        Finding::bad(codes::CLOCK, "clock", message, "set the clocks of both by NTP (chronyc tracking; timedatectl)")
    })
}
