//! What is said to peers about members: every statement held, and one's own word for those a peer may not be able to verify.
//!
//! A statement that a member signed itself is worth nothing to a peer that never met it; the introduction by somebody the peer
//! knows comes first. Invariant: equal content is signed once, so that what peers hold does not change by being said again.

use super::{Authority, State, now};
use fairlead_identity::introduction::Signer;
use fairlead_identity::{Member, SignedStatement, Statement, TrustBundleSet};
use std::collections::BTreeMap;

/// Our word for others, by what is said.
#[derive(Debug, Default)]
pub(super) struct Vouched(BTreeMap<String, SignedStatement>);

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
        let mut last = std::mem::take(&mut state.vouched.0);
        for said in state.own_word(&self.cluster, &trust) {
            let text = serde_json::to_string(&said)?;
            let signed = match last.remove(&text) {
                Some(signed) => signed,
                None => said.sign(signer, now())?.signed().clone(),
            };
            statements.push(signed.clone());
            state.vouched.0.insert(text, signed);
        }
        Ok(Some((state.revision, statements)))
    }
}

impl State {
    /// What we say ourselves.
    fn own_word(&self, own: &str, trust: &TrustBundleSet) -> Vec<Statement> {
        // Both claims to a contested name: a peer that believes the false one because it never met the real one hears of that too.
        let others = self.membership.introductions().filter(|m| m.cluster != own && !self.is_out(m));
        // Revision 0 is what anybody may say of another; the member's own, later word beats it.
        let members = others.map(|member| Statement::Introduce(Member { revision: 0, ..member.clone() }));
        // Whoever revoked may be believed no longer; the revocation stands by our word. Also of a cluster that came back since: a peer
        // that did not hear of it would take the two for claims to one name.
        let unproven = self.membership.revocations().filter(|(_, signed)| signed.verify(trust, now()).is_err());
        members.chain(unproven.map(|(tombstone, _)| Statement::Revoke(tombstone.clone()))).collect()
    }
}
