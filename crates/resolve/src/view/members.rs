//! The members as this cluster knows them.
//!
//! Never forgets a revoked member: it stays, without gateways, so that its identities are refused by name. Invariant: the
//! own cluster is always a member.

use super::Peers;
use crate::registry::ClusterState;
use fairlead_model::ids::ClusterId;
use fairlead_model::mesh::{Member, MemberState};
use fairlead_model::summary::{MemberSummary, PeerStatus};
use std::collections::BTreeMap;

pub(super) fn members(state: &ClusterState, peers: &Peers) -> BTreeMap<ClusterId, Member> {
    let mut found = BTreeMap::new();
    found.insert(state.cluster.clone(), member(&state.member, state.member.state, PeerStatus::default()));
    for (cluster, (summary, status)) in peers {
        if cluster != &state.cluster {
            found.insert(cluster.clone(), member(&summary.member, state_of(state, cluster, &summary.member), *status));
        }
    }
    found
}

/// A `Peer` object with `revoked: true` revokes as well as a tombstone.
pub(super) fn state_of(state: &ClusterState, peer: &ClusterId, told: &MemberSummary) -> MemberState {
    if state.peers.get(peer).is_some_and(|limit| limit.revoked) { MemberState::Revoked } else { told.state }
}

fn member(told: &MemberSummary, state: MemberState, status: PeerStatus) -> Member {
    let revoked = state == MemberState::Revoked;
    Member {
        cluster: told.cluster.clone(),
        state,
        trust_domain: told.trust_domain.clone(),
        networks: told.networks.clone(),
        gateways: if revoked { Vec::new() } else { told.gateways.clone() },
        locality: told.locality.clone(),
        stale: status.stale,
        unreachable: status.unreachable,
    }
}
