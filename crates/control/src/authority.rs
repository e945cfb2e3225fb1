//! Who this cluster is and whom it believes: its CA, its own control certificate, membership and the trust that follows.
//!
//! Invariants: trust is a function of membership, so that a revocation holds as soon as it is merged and after every restart; the
//! control plane's own certificate is renewed without dropping a connection; secrets stay in the store and in memory.

use crate::store::{Bucket, Store};
use anyhow::Context as _;
use arc_swap::ArcSwap;
use fairlead_identity::introduction::Signer;
use fairlead_identity::membership::{Merged, TrustPolicy};
use fairlead_identity::{
    Ca, CaPem, CertHandle, Introduction, LeafRequest, Member, Membership, MeshTls, NamespaceBound, SignedStatement,
    SpiffeId, Statement, SystemRandom, TrustBundleSet, TrustDomain, TrustSource, WorkloadKey, WorkloadTokenIssuer,
};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::DefaultTimeProvider;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Life of the control plane's own certificate.
const OWN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How members are told apart, and which are bounded.
#[derive(Clone, Debug, Default)]
pub struct TrustSettings {
    /// `trust: shared`.
    pub shared: bool,
    /// `Peer.spec.namespaces` by cluster.
    pub namespaces: BTreeMap<String, NamespaceBound>,
    /// `Peer.spec.revoked`.
    pub revoked: BTreeSet<String>,
}

pub struct Authority {
    cluster: String,
    ca: Ca,
    key: WorkloadKey,
    own: CertHandle,
    trust: Arc<ArcSwap<TrustBundleSet>>,
    tls: MeshTls,
    tokens: WorkloadTokenIssuer,
    store: Arc<Store>,
    state: Mutex<State>,
    certificate_lifetime: Duration,
}

struct State {
    membership: Membership,
    me: Member,
    detached_here: BTreeSet<String>,
    settings: TrustSettings,
}

impl Authority {
    /// Loads the CA and membership from the store, or makes them: a root of its own, or the intermediate in `cacerts`.
    pub fn open(
        cluster: &str,
        trust_domain: &str,
        cacerts: Option<&Path>,
        certificate_lifetime: Duration,
        me: impl FnOnce(&Ca, u64) -> Member,
        store: Arc<Store>,
    ) -> anyhow::Result<Self> {
        let domain = TrustDomain::new(trust_domain)?;
        let ca = authority(cluster, &domain, cacerts, &store)?;
        let incarnation = incarnation(&store)?;
        let me = me(&ca, incarnation);
        let key = WorkloadKey::generate()?;
        let own = CertHandle::new(key.certified(own_chain(&ca, &key, &domain)?)?);
        let trust = Arc::new(ArcSwap::from_pointee(TrustBundleSet::of(ca.bundle().clone(), Some(cluster.into()))?));
        let source: TrustSource = {
            let trust = trust.clone();
            Arc::new(move || trust.load_full())
        };
        let tls = MeshTls::new(own.clone(), source, Arc::new(DefaultTimeProvider));
        let authority = Self {
            cluster: cluster.into(),
            tokens: WorkloadTokenIssuer::new(&token_secret(&store)?),
            ca,
            key,
            own,
            trust,
            tls,
            certificate_lifetime,
            state: Mutex::new(State {
                membership: Membership::default(),
                me,
                detached_here: store.all::<bool>(Bucket::DetachedHere)?.into_iter().map(|(c, _)| c).collect(),
                settings: TrustSettings::default(),
            }),
            store,
        };
        authority.load_membership()?;
        Ok(authority)
    }

    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    pub fn tls(&self) -> &MeshTls {
        &self.tls
    }

    pub fn tokens(&self) -> &WorkloadTokenIssuer {
        &self.tokens
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub fn trust(&self) -> Arc<TrustBundleSet> {
        self.trust.load_full()
    }

    /// Longest life of a workload's certificate.
    pub fn certificate_lifetime(&self) -> Duration {
        self.certificate_lifetime
    }

    pub fn me(&self) -> Member {
        self.state.lock().me.clone()
    }

    /// The other members that are not revoked.
    pub fn peers(&self) -> Vec<Member> {
        let state = self.state.lock();
        let gone = |m: &Member| state.detached_here.contains(&m.cluster) || state.settings.revoked.contains(&m.cluster);
        state.membership.members().filter(|m| m.cluster != self.cluster && !gone(m)).cloned().collect()
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

    /// Every statement, to be told to peers.
    pub fn statements(&self) -> Vec<SignedStatement> {
        self.state.lock().membership.statements().cloned().collect()
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
        let introduction = statement.sign(Signer { key: &self.key, chain: &chain }, now())?;
        self.merge([introduction])
    }

    /// Takes in what a peer said; whether anything changed. What cannot be believed is reported and left out.
    pub fn absorb(&self, statements: &[SignedStatement]) -> anyhow::Result<bool> {
        let mut state = self.state.lock();
        let before = state.membership.clone();
        let mut membership = before.clone();
        let trust = |membership: &Membership| self.trust_of(&state, membership).unwrap_or_else(|_| self.trust().as_ref().clone());
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
        self.store.save(Bucket::DetachedHere, cluster, &true)?;
        let mut state = self.state.lock();
        state.detached_here.insert(cluster.into());
        self.settle(&mut state)
    }

    /// Revokes a cluster mesh-wide, also one that is dead.
    pub fn detach(&self, cluster: &str) -> anyhow::Result<()> {
        let tombstone = self
            .state
            .lock()
            .membership
            .member(cluster)
            .map(Member::tombstone)
            .with_context(|| format!("{cluster} is no member of this mesh"))?;
        self.declare(Statement::Revoke(tombstone))?;
        Ok(())
    }

    /// Applies the settings that Mesh and Peer objects give.
    pub fn configure(&self, settings: TrustSettings) -> anyhow::Result<()> {
        let mut state = self.state.lock();
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

    /// Renews the control plane's own certificate.
    pub fn renew(&self) -> anyhow::Result<()> {
        let chain = own_chain(&self.ca, &self.key, self.ca.trust_domain())?;
        self.own.swap(self.key.certified(chain)?);
        Ok(())
    }

    /// Half of the own certificate's life: when to call [`Authority::renew`] again.
    pub fn renew_every(&self) -> Duration {
        OWN_LIFETIME / 2
    }

    /// Issues a certificate for what a token or the caller's current certificate names.
    pub fn issue(
        &self,
        csr: &[u8],
        identity: &SpiffeId,
        workload: &str,
        wanted: Duration,
    ) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let lifetime = if wanted.is_zero() { self.certificate_lifetime } else { wanted.min(self.certificate_lifetime) };
        let request = LeafRequest { csr_der: csr, identity, workload: Some(workload), lifetime, now: now() };
        let random = &mut SystemRandom;
        let chain = if identity.is_reserved() {
            self.ca.issue_reserved(&request, random)
        } else {
            self.ca.issue(&request, random)
        };
        Ok(chain?)
    }

    fn merge(&self, introductions: impl IntoIterator<Item = Introduction>) -> anyhow::Result<bool> {
        let mut state = self.state.lock();
        let mut changed = false;
        for introduction in introductions {
            match state.membership.merge(introduction) {
                Merged::Unchanged => {}
                Merged::Clash { cluster } => {
                    changed = true;
                    tracing::error!("two clusters call themselves {cluster}: rename one of them");
                }
                Merged::Full => tracing::error!("the mesh has too many members; one is left out"),
                Merged::Changed { .. } => changed = true,
            }
        }
        if changed {
            self.settle(&mut state)?;
        }
        Ok(changed)
    }

    /// Stores membership and publishes the trust that follows.
    fn settle(&self, state: &mut State) -> anyhow::Result<()> {
        let statements: Vec<_> =
            state.membership.statements().enumerate().map(|(i, s)| (format!("{i:05}"), s.clone())).collect();
        self.store.replace(Bucket::Membership, &statements)?;
        let trust = self.trust_of(state, &state.membership)?;
        if trust.epoch() != self.trust.load().epoch() {
            tracing::info!(epoch = trust.epoch(), domains = trust.domains().count(), "trust changed");
            self.trust.store(Arc::new(trust));
        }
        Ok(())
    }

    fn trust_of(&self, state: &State, membership: &Membership) -> anyhow::Result<TrustBundleSet> {
        let detached: BTreeSet<String> = state.detached_here.union(&state.settings.revoked).cloned().collect();
        let policy = TrustPolicy {
            shared: state.settings.shared,
            namespaces: &state.settings.namespaces,
            detached_here: &detached,
            admitted: None,
        };
        Ok(membership.trust(&self.cluster, self.ca.bundle(), &BTreeSet::from([self.ca.issuing_key()]), policy)?)
    }

    fn load_membership(&self) -> anyhow::Result<()> {
        let stored = self.store.all::<SignedStatement>(Bucket::Membership)?;
        let mut known = Vec::new();
        for (_, statement) in stored {
            match statement.stored() {
                Ok(introduction) => known.push(introduction),
                Err(e) => tracing::error!("a stored statement about a member cannot be read: {e}"),
            }
        }
        self.merge(known)?;
        // What was told of ourselves before a restart has a revision; go on from there.
        let me = {
            let mut state = self.state.lock();
            let last = state.membership.member(&self.cluster).map_or(0, |m| m.revision);
            state.me.revision = last + 1;
            state.me.clone()
        };
        self.declare(Statement::Introduce(me))?;
        Ok(())
    }
}

/// The clock of certificates and tokens.
pub fn now() -> UnixTime {
    UnixTime::now()
}

fn authority(cluster: &str, domain: &TrustDomain, cacerts: Option<&Path>, store: &Store) -> anyhow::Result<Ca> {
    if let Some(folder) = cacerts {
        let read = |name: &str| {
            std::fs::read_to_string(folder.join(name)).with_context(|| format!("cannot read {}", folder.join(name).display()))
        };
        let pem = CaPem {
            ca_cert: read("ca-cert.pem")?,
            ca_key: read("ca-key.pem")?,
            root_cert: read("root-cert.pem")?,
            cert_chain: read("cert-chain.pem")?,
            sequence: 1,
        };
        return Ok(Ca::from_pem(cluster, domain, &pem)?);
    }
    if let Some(pem) = store.load::<CaPem>(Bucket::Authority, "ca")? {
        return Ok(Ca::from_pem(cluster, domain, &pem)?);
    }
    let ca = Ca::create_root(cluster, domain, now(), &mut SystemRandom)?;
    store.save(Bucket::Authority, "ca", &ca.to_pem())?;
    Ok(ca)
}

/// Unix seconds of the first start with this store.
fn incarnation(store: &Store) -> anyhow::Result<u64> {
    if let Some(incarnation) = store.load(Bucket::Authority, "incarnation")? {
        return Ok(incarnation);
    }
    let incarnation = now().as_secs();
    store.save(Bucket::Authority, "incarnation", &incarnation)?;
    Ok(incarnation)
}

fn token_secret(store: &Store) -> anyhow::Result<[u8; 32]> {
    if let Some(secret) = store.load(Bucket::Authority, "token-secret")? {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    use fairlead_identity::RandomSource as _;
    SystemRandom.fill(&mut secret)?;
    store.save(Bucket::Authority, "token-secret", &secret)?;
    Ok(secret)
}

/// The chain with its root: a joining control plane looks for the pinned root in it.
fn own_chain(ca: &Ca, key: &WorkloadKey, domain: &TrustDomain) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let csr = key.csr()?;
    let identity = domain.control();
    let request = LeafRequest { csr_der: &csr, identity: &identity, workload: None, lifetime: OWN_LIFETIME, now: now() };
    Ok(ca.with_root(ca.issue_reserved(&request, &mut SystemRandom)?))
}
