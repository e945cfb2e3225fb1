//! What peers export, by service.
//!
//! Never accepts an endpoint that is not the peer's own, an identity outside its trust domain, or a namespace that
//! `Peer.spec.namespaces` leaves out. Invariant: the offers of a service are sorted oldest export first, then by cluster.

use super::Peers;
use super::members::state_of;
use crate::analyze::codes;
use crate::registry::ClusterState;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::endpoint::{Endpoint, Health};
use fairlead_model::ids::ClusterId;
use fairlead_model::mesh::MemberState;
use fairlead_model::origin::{ObjectKey, Origin};
use fairlead_model::settings::Profile;
use fairlead_model::summary::ServiceSummary;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One peer's export of one service.
pub(super) struct Offer<'a> {
    pub cluster: &'a ClusterId,
    pub service: &'a Arc<ServiceSummary>,
    pub endpoints: Vec<Arc<Endpoint>>,
    pub draining: bool,
}

/// By (namespace, name).
pub(super) type Offers<'a> = BTreeMap<(&'a str, &'a str), Vec<Offer<'a>>>;

pub(super) fn offers<'a>(state: &ClusterState, peers: &'a Peers, diagnostics: &mut Vec<Diagnostic>) -> Offers<'a> {
    let mut found: Offers<'a> = BTreeMap::new();
    // In profile istio only failing calls tell, where outlier detection listens.
    let judges = state.settings.profile == Profile::Fairlead;
    for (cluster, (summary, status)) in peers {
        let member = state_of(state, cluster, &summary.member);
        if cluster == &state.cluster || member == MemberState::Revoked {
            continue;
        }
        let allowed = state.peers.get(cluster).and_then(|limit| limit.namespaces.as_ref());
        let prefix = format!("spiffe://{}/", summary.member.trust_domain);
        let mut strangers = 0_usize;
        for (key, service) in &summary.services {
            if allowed.is_some_and(|allowed| !allowed.contains(&service.namespace)) {
                continue;
            }
            let told = summary.endpoints.get(key).map(Vec::as_slice).unwrap_or_default();
            let genuine = |endpoint: &&Arc<Endpoint>| {
                let id = endpoint.identity.as_deref();
                &endpoint.workload.cluster == cluster && id.is_none_or(|id| id.starts_with(&prefix))
            };
            let endpoints: Vec<Arc<Endpoint>> =
                told.iter().filter(genuine).map(|one| judged(one, judges && status.unreachable)).collect();
            strangers += told.len() - endpoints.len();
            let draining = member == MemberState::Draining;
            found.entry((service.namespace.as_str(), service.name.as_str())).or_default().push(Offer {
                cluster,
                service,
                endpoints,
                draining,
            });
        }
        if strangers > 0 {
            let object = ObjectKey::new(state.cluster.clone(), "Peer", "", cluster.as_str());
            let at = Origin { object, path: String::new(), file: Arc::from(""), line: 0 };
            let message = format!("{cluster} offers {strangers} endpoints that are not its own; they are not used");
            diagnostics.push(
                Diagnostic::error(codes::STRANGE_ENDPOINTS, at, message)
                    .hint("detach the cluster if this is not a mistake"),
            );
        }
    }
    for offers in found.values_mut() {
        offers.sort_by(|a, b| (a.service.created, a.cluster).cmp(&(b.service.created, b.cluster)));
    }
    found
}

/// Out of rotation while the path to its cluster is down.
fn judged(endpoint: &Arc<Endpoint>, unreachable: bool) -> Arc<Endpoint> {
    if !unreachable || endpoint.health == Health::Unhealthy {
        return endpoint.clone();
    }
    Arc::new(Endpoint { health: Health::Unhealthy, ..(**endpoint).clone() })
}
