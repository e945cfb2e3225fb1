//! Who belongs to the mesh, as this control plane holds it: what is said, believed, stored and told on.
//!
//! Invariant: every change is stored before it takes effect, and the trust that follows is published with it.

use super::{Authority, State, TrustSettings, now};
use crate::store::{Bucket, Write};
use anyhow::{Context as _, bail};
use fairlead_identity::introduction::Signer;
use fairlead_identity::membership::Merged;
use fairlead_identity::{
    Introduction, Member, Membership, SignedStatement, Statement, TrustBundleSet, TrustConflict, TrustPolicy,
};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Authority {
    /// The other members that are in, with the addresses to dial.
    pub fn peers(&self) -> Vec<Member> {
        let state = self.state.lock();
        let peers = state.membership.members().filter(|m| m.cluster != self.cluster && !state.is_out(m));
        let dialled = |member: &Member| match state.settings.addresses.get(&member.cluster) {
            Some(addresses) => Member { control_addresses: addresses.clone(), ..member.clone() },
            None => member.clone(),
        };
        peers.map(dialled).collect()
    }

    /// Clusters that are out: by tombstone, detached here, or by a Peer object.
    pub fn revoked(&self) -> BTreeSet<String> {
        let state = self.state.lock();
        let tombstones = state.membership.tombstones().map(|t| t.cluster.clone());
        tombstones.chain(state.detached_here.iter().cloned()).chain(state.settings.revoked.iter().cloned()).collect()
    }

    pub fn with_membership<T>(&self, read: impl FnOnce(&Member, &Membership) -> T) -> T {
        let state = self.state.lock();
        read(&state.me, &state.membership)
    }

    /// Everything known, said anew in our name: for a newcomer.
    pub fn reintroduce(&self) -> anyhow::Result<Vec<SignedStatement>> {
        let chain = self.own.load().chain().to_vec();
        let signer = Signer { key: &self.key, chain: &chain };
        Ok(self.state.lock().membership.reintroduce(signer, now())?)
    }

    /// Says something in our name and takes it in.
    pub fn declare(&self, statement: Statement) -> anyhow::Result<bool> {
        let chain = self.own.load().chain().to_vec();
        let statement = match statement {
            // Of others only their first record may be told; later ones are theirs to tell.
            Statement::Introduce(member) if member.cluster != self.cluster => {
                Statement::Introduce(Member { revision: 0, ..member })
            }
            own => own,
        };
        if statement.cluster() != self.cluster {
            statement.check_incarnation(now())?;
        }
        let introduction = statement.sign(Signer { key: &self.key, chain: &chain }, now())?;
        self.merge([introduction])
    }

    /// Takes in what a peer said; whether anything changed. What cannot be believed is reported and left out.
    pub fn absorb(&self, statements: &[SignedStatement]) -> anyhow::Result<bool> {
        let mut state = self.state.lock();
        let before = state.membership.clone();
        let mut membership = before.clone();
        let trust = |membership: &Membership| {
            self.trust_of(&state, membership).map_or_else(|_| self.trust().as_ref().clone(), |(trust, _)| trust)
        };
        let (_, refused) = membership.absorb(statements, &trust, now());
        for (_, error) in refused {
            tracing::warn!("a statement about a member is not believed: {error}");
        }
        if membership == before {
            return Ok(false);
        }
        state.membership = membership;
        self.settle(&mut state)?;
        Ok(true)
    }

    /// Detaches a cluster here only.
    pub fn detach_here(&self, cluster: &str) -> anyhow::Result<()> {
        self.refuse_ambiguous(cluster)?;
        self.store.save(Bucket::DetachedHere, cluster, &true)?;
        let mut state = self.state.lock();
        state.detached_here.insert(cluster.into());
        self.settle(&mut state)
    }

    /// A cluster that was detached here only has joined again.
    pub fn attach_here(&self, cluster: &str) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        if state.detached_here.remove(cluster) {
            self.store.write([(Bucket::DetachedHere, cluster.to_owned(), None)])?;
            self.settle(&mut state)?;
        }
        Ok(())
    }

    /// Where trust is shared, members are told apart by issuing key alone: detaching one of two that use the same key would put
    /// out both, or the own cluster.
    fn refuse_ambiguous(&self, cluster: &str) -> anyhow::Result<()> {
        if cluster == self.cluster {
            bail!("{cluster} is this cluster; detach it from another one");
        }
        let state = self.state.lock();
        let shares = |c: &TrustConflict| match c {
            TrustConflict::IssuingKey { clusters, .. } => clusters.contains(cluster),
            TrustConflict::DetachedWithOthers { cluster: detached, .. } => detached == cluster,
            TrustConflict::TrustDomain { .. } | TrustConflict::NotShared { .. } | TrustConflict::Contested { .. } => {
                false
            }
        };
        match state.conflicts.iter().find(|c| state.settings.shared && shares(c)) {
            Some(conflict) => bail!(
                "{cluster} cannot be told from others by its certificates, so it cannot be detached alone: {conflict}"
            ),
            None => Ok(()),
        }
    }

    /// Joining counts as a new incarnation, so that it beats a revocation of the one before, and whatever else was said of this cluster.
    pub fn reincarnate(&self) -> anyhow::Result<()> {
        let me = {
            let mut state = self.state.lock();
            let said = state.membership.standing().find(|(cluster, _)| *cluster == self.cluster);
            let last = said.map_or(0, |(_, said)| said.incarnation).max(state.me.incarnation);
            let incarnation = now().as_secs().max(last + 1);
            self.store.save(Bucket::Authority, "incarnation", &incarnation)?;
            state.me.incarnation = incarnation;
            state.me.revision += 1;
            state.me.clone()
        };
        self.declare(Statement::Introduce(me))?;
        Ok(())
    }

    /// Why some members are not believed.
    pub fn conflicts(&self) -> Vec<TrustConflict> {
        self.state.lock().conflicts.clone()
    }

    /// `trust: shared`.
    pub fn is_shared(&self) -> bool {
        self.state.lock().settings.shared
    }

    /// Revokes a cluster mesh-wide, also one that is dead, and whoever claims its name.
    pub fn detach(&self, cluster: &str) -> anyhow::Result<()> {
        self.refuse_ambiguous(cluster)?;
        let tombstone = self
            .state
            .lock()
            .membership
            .tombstone_of(cluster)
            .with_context(|| format!("{cluster} is no member of this mesh"))?;
        self.declare(Statement::Revoke(tombstone))?;
        Ok(())
    }

    /// Applies the settings that Mesh and Peer objects give.
    pub fn configure(&self, settings: TrustSettings) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        if state.settings == settings {
            return Ok(());
        }
        state.membership = std::mem::take(&mut state.membership).with_shared(settings.shared);
        state.settings = settings;
        self.settle(&mut state)
    }

    /// Changes what this cluster tells of itself.
    pub fn update_me(&self, change: impl FnOnce(&mut Member)) -> anyhow::Result<()> {
        let me = {
            let mut state = self.state.lock();
            let mut me = state.me.clone();
            change(&mut me);
            if me == state.me {
                return Ok(());
            }
            me.revision = state.me.revision + 1;
            state.me = me.clone();
            me
        };
        self.declare(Statement::Introduce(me))?;
        Ok(())
    }

    fn merge(&self, introductions: impl IntoIterator<Item = Introduction>) -> anyhow::Result<bool> {
        let mut state = self.state.lock();
        let mut changed = false;
        for introduction in introductions {
            match state.membership.merge(introduction) {
                Merged::Unchanged => {}
                Merged::Full => tracing::error!("the mesh has too many members; one is left out"),
                // A clash is reported with the other conflicts.
                Merged::Changed { .. } | Merged::Clash { .. } => changed = true,
            }
        }
        if changed {
            self.settle(&mut state)?;
        }
        Ok(changed)
    }

    /// Stores membership and publishes the trust that follows.
    fn settle(&self, state: &mut State) -> anyhow::Result<()> {
        state.closed = self.closed();
        // Another replica may have stored something that is not taken in yet: it must not be taken for what was beaten.
        let stored: BTreeMap<String, SignedStatement> = self.store.all(Bucket::Membership)?.into_iter().collect();
        let known: BTreeSet<String> = state.membership.statements().map(content_key).collect();
        for statement in stored.iter().filter(|(key, _)| !known.contains(*key)).map(|(_, statement)| statement) {
            match statement.clone().stored() {
                Ok(introduction) => drop(state.membership.merge(introduction)),
                Err(e) => tracing::error!("a stored statement about a member cannot be read: {e}"),
            }
        }
        let statements: BTreeMap<String, SignedStatement> =
            state.membership.statements().map(|s| (content_key(s), s.clone())).collect();
        let beaten = stored.keys().filter(|key| !statements.contains_key(*key));
        let mut writes: Vec<Write> = beaten.map(|key| (Bucket::Membership, key.clone(), None)).collect();
        for (key, statement) in statements.iter().filter(|(key, _)| !stored.contains_key(*key)) {
            writes.push((Bucket::Membership, key.clone(), Some(serde_json::to_vec(statement)?)));
        }
        self.store.write(writes)?;
        state.revision += 1;
        let (trust, conflicts) = self.trust_of(state, &state.membership)?;
        for conflict in conflicts.iter().filter(|c| !state.conflicts.contains(c)) {
            tracing::error!("{conflict}");
        }
        state.conflicts = conflicts;
        let epoch = trust.epoch();
        if epoch != self.trust.load().epoch() {
            tracing::info!(epoch, domains = trust.domains().count(), "trust changed");
            self.trust.store(Arc::new(trust));
            self.changes.send_replace(epoch);
        }
        Ok(())
    }

    fn trust_of(&self, state: &State, membership: &Membership) -> anyhow::Result<(TrustBundleSet, Vec<TrustConflict>)> {
        let detached: BTreeSet<String> = state.detached_here.union(&state.settings.revoked).cloned().collect();
        let admitted = state.admitted(membership);
        let policy = TrustPolicy {
            namespaces: &state.settings.namespaces,
            detached_here: &detached,
            admitted: admitted.as_ref(),
        };
        let own = BTreeSet::from([self.ca.issuing_key()]);
        Ok(membership.trust_and_conflicts(&self.cluster, self.ca.bundle(), &own, policy)?)
    }

    /// Takes what another replica has stored, and tells of it. Membership is merged: of two replicas that learnt different things at the
    /// same time both are right.
    pub fn reload(&self) -> anyhow::Result<()> {
        let detached_here = self.store.all::<bool>(Bucket::DetachedHere)?.into_iter().map(|(c, _)| c).collect();
        let introduced_here = self.store.all::<bool>(Bucket::Introduced)?.into_iter().map(|(c, _)| c).collect();
        let mut state = self.state.lock();
        state.detached_here = detached_here;
        state.introduced_here = introduced_here;
        self.settle(&mut state)?;
        // What another replica said in the name of this cluster is said: what follows must be newer.
        let shared = state.settings.shared;
        let last = state.membership.claims(&self.cluster).find(|said| said.same_authority(&state.me, shared)).cloned();
        if let Some(last) = last.filter(|said| said.incarnation >= state.me.incarnation) {
            let newer = last.incarnation > state.me.incarnation;
            state.me.revision = if newer { last.revision } else { state.me.revision.max(last.revision) };
            state.me.incarnation = last.incarnation;
        }
        Ok(())
    }

    pub(super) fn load_membership(&self) -> anyhow::Result<()> {
        let stored = self.store.all::<SignedStatement>(Bucket::Membership)?;
        let mut known = Vec::new();
        for (_, statement) in stored {
            match statement.stored() {
                Ok(introduction) => known.push(introduction),
                Err(e) => tracing::error!("a stored statement about a member cannot be read: {e}"),
            }
        }
        self.merge(known)?;
        // What was told of ourselves before a restart has a revision; it stands if nothing changed, else the next follows.
        let me = {
            let mut state = self.state.lock();
            let shared = state.settings.shared;
            let of_us = |said: &&Member| said.same_authority(&state.me, shared);
            let last = state.membership.claims(&self.cluster).find(of_us).cloned();
            // Another member told our record anew as of a later incarnation: what we say of ourselves must not stay behind it.
            if let Some(last) = last.as_ref().filter(|last| last.incarnation > state.me.incarnation) {
                let incarnation = last.incarnation + 1;
                self.store.save(Bucket::Authority, "incarnation", &incarnation)?;
                state.me.incarnation = incarnation;
            }
            // Networks are known when the objects are, and so is where peers dial, unless it was given. To say until then that they
            // cannot would be believed by those who hear nothing later.
            state.me.networks = last.as_ref().map(|m| m.networks.clone()).unwrap_or_default();
            if state.me.control_addresses.is_empty() {
                state.me.control_addresses = last.as_ref().map(|m| m.control_addresses.clone()).unwrap_or_default();
            }
            state.me.revision = last.as_ref().map_or(1, |m| m.revision);
            if last.as_ref() == Some(&state.me) {
                self.settle(&mut state)?;
                return Ok(());
            }
            state.me.revision = last.map_or(1, |m| m.revision + 1);
            state.me.clone()
        };
        self.declare(Statement::Introduce(me))?;
        Ok(())
    }
}

impl State {
    /// Whether a member is out here: detached, revoked by its Peer object, or not let in.
    pub(super) fn is_out(&self, member: &Member) -> bool {
        self.detached_here.contains(&member.cluster)
            || self.settings.revoked.contains(&member.cluster)
            || self.refuses(member).is_some()
    }
}

/// The same statement has the same key at every replica, and another one another: replicas that write at the same time lose nothing.
fn content_key(statement: &SignedStatement) -> String {
    let text = serde_json::to_vec(statement).unwrap_or_default();
    let digest: [u8; 32] = Sha256::digest(&text).into();
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
