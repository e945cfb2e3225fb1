//! Which members are let in: all, or under `admission: approve` those that joined by a token here or have a Peer object; and of
//! those only the ones that are what their Peer object says.
//!
//! Invariant: who is not admitted is neither trusted nor dialled, and vouched for to nobody; nor is anybody while what says who is out
//! cannot be read.

use super::{Authority, Pin, State};
use crate::store::Bucket;
use fairlead_identity::{Member, Membership};
use std::collections::BTreeSet;

impl Authority {
    /// A cluster has joined by a token of ours, or we by one of its: that is approval.
    pub fn introduced_here(&self, cluster: &str) -> anyhow::Result<()> {
        self.store.save(Bucket::Introduced, cluster, &true)?;
        self.state.lock().introduced_here.insert(cluster.to_owned());
        Ok(())
    }

    /// Why no other cluster is believed now, if that is so.
    pub(super) fn closed(&self) -> Option<String> {
        let unknown = self.store.unreadable().into_iter().find(|damage| damage.of_members && damage.is_unknown)?;
        Some(format!("Secret {} cannot be read ({}), and may say that it was detached", unknown.object, unknown.why))
    }

    /// Why nobody may join now, with the remedy: a name or a revocation may be in what cannot be read.
    pub fn refuses_joins(&self) -> Option<String> {
        let damage = self.store.unreadable().into_iter().find(|damage| damage.of_members)?;
        let (object, why) = (&damage.object, &damage.why);
        Some(format!("no cluster joins while Secret {object} cannot be read ({why}); {}", damage.remedy()))
    }

    /// Members that are not let in, with the reason.
    pub fn not_admitted(&self) -> Vec<(String, String)> {
        let state = self.state.lock();
        let others = state.membership.members().filter(|m| m.cluster != self.cluster);
        others.filter_map(|m| Some((m.cluster.clone(), state.refuses(m)?))).collect()
    }
}

impl State {
    /// Why a member is not let in.
    pub(super) fn refuses(&self, member: &Member) -> Option<String> {
        if let Some(why) = self.closed.clone().filter(|_| member.cluster != self.me.cluster) {
            return Some(why);
        }
        let settings = &self.settings;
        let known = settings.approved.contains(&member.cluster) || self.introduced_here.contains(&member.cluster);
        if settings.approve && !known {
            return Some("it was introduced by another member and waits for approval (admission: approve)".into());
        }
        settings.pins.get(&member.cluster).and_then(|pin| differs(pin, member))
    }

    /// For the derivation of trust; `None` when all are let in.
    pub(super) fn admitted(&self, membership: &Membership) -> Option<BTreeSet<String>> {
        if !self.settings.approve && self.settings.pins.is_empty() && self.closed.is_none() {
            return None;
        }
        Some(membership.members().filter(|m| self.refuses(m).is_none()).map(|m| m.cluster.clone()).collect())
    }
}

fn differs(pin: &Pin, member: &Member) -> Option<String> {
    let domain = member.trust_domain().as_str();
    if let Some(expected) = pin.trust_domain.as_deref().filter(|expected| *expected != domain) {
        return Some(format!("its trust domain is {domain}, but its Peer object says {expected}"));
    }
    let roots: Vec<String> = member.bundle.fingerprints().map(|key| key.to_string()).collect();
    let foreign = roots.iter().find(|root| !pin.roots.contains(&root.to_ascii_lowercase()))?;
    (!pin.roots.is_empty()).then(|| format!("its root {foreign} is not among rootFingerprints of its Peer object"))
}
