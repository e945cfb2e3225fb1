//! Who this cluster is and whom it believes: its CA, its own control certificate, membership and the trust that follows.
//!
//! Invariants: trust is a function of membership, so that a revocation holds as soon as it is merged and after every restart; the
//! control plane's own certificate is renewed without dropping a connection; secrets stay in the store and in memory.

mod admission;
mod members;
mod own;
#[cfg(test)]
mod tests;
mod vouch;

pub use own::{cacerts, lost_root};

use crate::store::{Bucket, Store};
use arc_swap::ArcSwap;
use fairlead_identity::membership::Member;
use fairlead_identity::{
    Ca, CaPem, CertHandle, LeafRequest, Membership, MeshTls, NamespaceBound, SpiffeId, SystemRandom, TrustBundleSet,
    TrustConflict, TrustDomain, TrustSource, WorkloadKey, WorkloadTokenIssuer,
};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::DefaultTimeProvider;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Life of the control plane's own certificate.
const OWN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How members are told apart, and which are bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustSettings {
    /// `trust: shared`.
    pub shared: bool,
    /// `Peer.spec.namespaces` by cluster.
    pub namespaces: BTreeMap<String, NamespaceBound>,
    /// `Peer.spec.revoked`.
    pub revoked: BTreeSet<String>,
    /// `Mesh.spec.admission: approve`.
    pub approve: bool,
    /// Clusters with a Peer object.
    pub approved: BTreeSet<String>,
    /// What Peer objects say a peer must be.
    pub pins: BTreeMap<String, Pin>,
    /// `Peer.spec.addresses`, in place of what the peer says of itself.
    pub addresses: BTreeMap<String, Vec<String>>,
}

/// What a peer must be to be believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// `Peer.spec.trustDomain`.
    pub trust_domain: Option<String>,
    /// `Peer.spec.rootFingerprints`; empty: any.
    pub roots: BTreeSet<String>,
}

/// What an authority is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    pub cluster: &'a str,
    pub trust_domain: &'a str,
    /// `trust: shared`, as far as it is known before objects are read.
    pub shared: bool,
    /// `Mesh.spec.admission: approve`, likewise.
    pub approve: bool,
    /// A CA in Istio's `cacerts` layout instead of an own root.
    pub cacerts: Option<&'a CaPem>,
    /// Longest life of a workload's certificate.
    pub certificate_lifetime: Duration,
    /// Where peers are to dial.
    pub advertise: &'a [String],
}

impl<'a> Opening<'a> {
    /// With an own root, open to who is introduced, certificates of an hour, and no address that peers dial.
    pub fn plain(cluster: &'a str, trust_domain: &'a str) -> Self {
        Self {
            cluster,
            trust_domain,
            shared: false,
            approve: false,
            cacerts: None,
            certificate_lifetime: Duration::from_secs(3600),
            advertise: &[],
        }
    }
}

pub struct Authority {
    cluster: String,
    ca: Ca,
    key: WorkloadKey,
    own: CertHandle,
    trust: Arc<ArcSwap<TrustBundleSet>>,
    /// Epoch of the trust; a change wakes those who hold connections.
    changes: watch::Sender<u64>,
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
    /// Clusters that joined by a token of ours, or by whose token we joined.
    introduced_here: BTreeSet<String>,
    settings: TrustSettings,
    conflicts: Vec<TrustConflict>,
    /// Why no other cluster is believed: what says who is out cannot be read.
    closed: Option<String>,
    vouched: vouch::Vouched,
    /// Counts changes of what peers are told about members.
    revision: u64,
}

impl Authority {
    /// Loads the CA and membership from the store, or makes them: a root of its own, or the intermediate in `cacerts`.
    pub fn open(opening: &Opening<'_>, store: Arc<Store>) -> anyhow::Result<Self> {
        let domain = TrustDomain::new(opening.trust_domain)?;
        store.forget_expired(now())?;
        let ca = own::ca(opening.cluster, &domain, opening.cacerts, &store)?;
        let me = own::member(&ca, own::incarnation(&store)?, opening.advertise)?;
        let key = WorkloadKey::generate()?;
        let own = CertHandle::new(key.certified(own::chain(&ca, &key, &domain)?)?);
        let first = TrustBundleSet::of(ca.bundle().clone(), Some(opening.cluster.into()))?;
        let changes = watch::Sender::new(first.epoch());
        let trust = Arc::new(ArcSwap::from_pointee(first));
        let source: TrustSource = {
            let trust = trust.clone();
            Arc::new(move || trust.load_full())
        };
        let tls = MeshTls::new(own.clone(), source, Arc::new(DefaultTimeProvider));
        let detached_here = store.all::<bool>(Bucket::DetachedHere)?.into_iter().map(|(c, _)| c).collect();
        let introduced_here = store.all::<bool>(Bucket::Introduced)?.into_iter().map(|(c, _)| c).collect();
        let authority = Self {
            cluster: opening.cluster.into(),
            tokens: WorkloadTokenIssuer::new(&own::token_secret(&store)?),
            ca,
            key,
            own,
            trust,
            changes,
            tls,
            certificate_lifetime: opening.certificate_lifetime,
            state: Mutex::new(State {
                membership: Membership::new(opening.shared),
                me,
                detached_here,
                introduced_here,
                settings: TrustSettings {
                    shared: opening.shared,
                    approve: opening.approve,
                    ..TrustSettings::default()
                },
                conflicts: Vec::new(),
                closed: None,
                vouched: vouch::Vouched::default(),
                revision: 0,
            }),
            store,
        };
        authority.state.lock().closed = authority.closed();
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

    /// Wakes at each change of the trust.
    pub fn trust_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub fn me(&self) -> Member {
        self.state.lock().me.clone()
    }

    /// Renews the control plane's own certificate.
    pub fn renew(&self) -> anyhow::Result<()> {
        let chain = own::chain(&self.ca, &self.key, self.ca.trust_domain())?;
        self.own.swap(self.key.certified(chain)?);
        Ok(())
    }

    /// Half of the own certificate's life: when to call [`Authority::renew`] again.
    pub fn renew_every(&self) -> Duration {
        OWN_LIFETIME / 2
    }

    /// Issues a certificate for what a token or the caller's current certificate names. It lives as long as was wanted, and
    /// never longer than this control plane allows. `pod_uid`: of the pod that the workload is.
    pub fn issue(
        &self,
        csr: &[u8],
        identity: &SpiffeId,
        workload: &str,
        pod_uid: Option<&str>,
        wanted: Duration,
    ) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let lifetime = if wanted.is_zero() { self.certificate_lifetime } else { wanted.min(self.certificate_lifetime) };
        let request = LeafRequest { csr_der: csr, identity, workload: Some(workload), pod_uid, lifetime, now: now() };
        let random = &mut SystemRandom;
        let chain = if identity.is_reserved() {
            self.ca.issue_reserved(&request, random)
        } else {
            self.ca.issue(&request, random)
        };
        Ok(chain?)
    }
}

/// The clock of certificates and tokens.
pub fn now() -> UnixTime {
    UnixTime::now()
}
