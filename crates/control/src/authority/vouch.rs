//! What is said to peers about members: every statement held, and one's own word for those a peer may not be able to verify.
//!
//! A statement that a member signed itself is worth nothing to a peer that never met it; the introduction by somebody the peer
//! knows comes first. Invariant: equal content is signed once, so that what peers hold does not change by being said again.

use super::{Authority, now};
use fairlead_identity::introduction::Signer;
use fairlead_identity::{Member, SignedStatement, Statement, Tombstone};
use std::collections::BTreeMap;

/// Our word for others, by cluster.
#[derive(Debug, Default)]
pub(super) struct Vouched {
    members: BTreeMap<String, (Member, SignedStatement)>,
    tombstones: BTreeMap<String, (Tombstone, SignedStatement)>,
}

impl Authority {
    /// Everything to be told to peers, and a number that grows when it changes; nothing if it is still `known`.
    pub fn statements(&self, known: Option<u64>) -> anyhow::Result<Option<(u64, Vec<SignedStatement>)>> {
        if known == Some(self.state.lock().revision) {
            return Ok(None);
        }
        let chain = self.own.load().chain().to_vec();
        let signer = Signer { key: &self.key, chain: &chain };
        let trust = self.trust();
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut statements: Vec<SignedStatement> = state.membership.statements().cloned().collect();
        let mut members = std::mem::take(&mut state.vouched.members);
        let others = state.membership.members().filter(|m| m.cluster != self.cluster);
        let vouched: Vec<Member> = others.filter(|m| !state.is_out(m)).cloned().collect();
        for member in vouched {
            // Revision 0 is what anybody may say of another; the member's own, later word beats it.
            let said = Member { revision: 0, ..member };
            let signed = match members.remove(&said.cluster).filter(|(last, _)| *last == said) {
                Some((_, signed)) => signed,
                None => Statement::Introduce(said.clone()).sign(signer, now())?.signed().clone(),
            };
            statements.push(signed.clone());
            state.vouched.members.insert(said.cluster.clone(), (said, signed));
        }
        let mut tombstones = std::mem::take(&mut state.vouched.tombstones);
        for tombstone in state.membership.tombstones() {
            let held = state.membership.statements().find(|s| is_about(s, &tombstone.cluster));
            if held.is_some_and(|s| s.verify(&trust, now()).is_ok()) {
                continue;
            }
            // Whoever said it is no longer believed; the revocation stands by our word.
            let signed = match tombstones.remove(&tombstone.cluster).filter(|(last, _)| last == tombstone) {
                Some((_, signed)) => signed,
                None => Statement::Revoke(tombstone.clone()).sign(signer, now())?.signed().clone(),
            };
            statements.push(signed.clone());
            state.vouched.tombstones.insert(tombstone.cluster.clone(), (tombstone.clone(), signed));
        }
        Ok(Some((state.revision, statements)))
    }
}

fn is_about(statement: &SignedStatement, cluster: &str) -> bool {
    serde_json::from_str::<Statement>(&statement.body).is_ok_and(|s| s.cluster() == cluster)
}
