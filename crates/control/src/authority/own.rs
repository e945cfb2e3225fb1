//! What a control plane has of its own: CA, incarnation, token secret, control certificate; from the store, or made.
//!
//! Invariant: made once, and found again at every later start.

use super::{OWN_LIFETIME, now};
use crate::store::{Bucket, Store};
use anyhow::Context as _;
use fairlead_identity::membership::Member;
use fairlead_identity::{
    Ca, CaPem, LeafRequest, Membership, RandomSource as _, SignedStatement, SystemRandom, TrustBundle, TrustDomain,
    WorkloadKey,
};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::path::Path;

pub(super) fn ca(cluster: &str, domain: &TrustDomain, cacerts: Option<&CaPem>, store: &Store) -> anyhow::Result<Ca> {
    if let Some(pem) = cacerts {
        return Ok(Ca::from_pem(cluster, domain, pem)?);
    }
    if let Some(pem) = store.load::<CaPem>(Bucket::Authority, "ca")? {
        return Ok(Ca::from_pem(cluster, domain, &pem)?);
    }
    let ca = Ca::create_root(cluster, domain, now(), &mut SystemRandom)?;
    let pem = store.first(Bucket::Authority, "ca", ca.to_pem())?;
    Ok(Ca::from_pem(cluster, domain, &pem)?)
}

/// Why a control plane must not start with the CA that it would have: this cluster is known by another root, whose CA is gone. `replaceable`:
/// the fingerprint of the root that an operator gives up; `namespace`: where it is to be looked for.
///
/// # Errors
/// When the store cannot be read.
pub fn lost_root(
    cluster: &str,
    cacerts: Option<&CaPem>,
    replaceable: Option<&str>,
    namespace: &str,
    store: &Store,
) -> anyhow::Result<Option<String>> {
    if cacerts.is_some() {
        return Ok(None);
    }
    let mut membership = Membership::new(false);
    for (_, statement) in store.all::<SignedStatement>(Bucket::Membership)? {
        if let Ok(introduction) = statement.stored() {
            membership.merge(introduction);
        }
    }
    let newest = membership.claims(cluster).max_by_key(|me| (me.incarnation, me.revision)).cloned();
    let Some(me) = newest else {
        let unknown = store.unreadable().into_iter().find(|damage| damage.of_members);
        let unknown = unknown.filter(|_| !store.has(Bucket::Authority, "ca").unwrap_or_default());
        return Ok(unknown.map(|damage| {
            let (object, remedy) = (&damage.object, damage.remedy());
            format!("there is none, and Secret {object}, which may say by which root this cluster is known, cannot be read; {remedy}")
        }));
    };
    let known: BTreeSet<String> = me.bundle.fingerprints().map(|root| root.to_string()).collect();
    let first = me.bundle.fingerprints().next().map(|root| root.to_string()).unwrap_or_default();
    if replaceable == Some(first.as_str()) {
        return Ok(None);
    }
    let kept = store.load::<CaPem>(Bucket::Authority, "ca")?;
    let gone = match kept.map(|pem| Ca::from_pem(cluster, me.trust_domain(), &pem)) {
        Some(Ok(ca)) if ca.root_fingerprint().is_some_and(|root| known.contains(&root.to_string())) => return Ok(None),
        Some(Ok(_)) => "Secret cacerts is gone, and Secret fairlead-ca is another CA".to_owned(),
        Some(Err(e)) => format!("Secret fairlead-ca cannot be used: {e}"),
        None => "Secret fairlead-ca is gone, and there is no Secret cacerts".to_owned(),
    };
    Ok(Some(format!(
        "this cluster is known by the root {first}, but {gone}; put the Secret back into {namespace} from a backup. To give the root up \
         (every proxy needs a new certificate, and every other cluster must detach this one and be joined anew): \
         kubectl -n {namespace} annotate secret -l fairlead.dev/state=true fairlead.dev/replace-root={first}"
    )))
}

/// A CA in Istio's `cacerts` layout, from a folder.
pub fn cacerts(folder: &Path) -> anyhow::Result<CaPem> {
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name))
            .with_context(|| format!("cannot read {}", folder.join(name).display()))
    };
    let [certificate, key, root, chain] = fairlead_identity::cacerts::FILES;
    Ok(CaPem::of_files(read(certificate)?, read(key)?, read(root)?, read(chain)?))
}

/// Unix seconds of the first start with this store.
pub(super) fn incarnation(store: &Store) -> anyhow::Result<u64> {
    if let Some(incarnation) = store.load(Bucket::Authority, "incarnation")? {
        return Ok(incarnation);
    }
    store.first(Bucket::Authority, "incarnation", now().as_secs())
}

pub(super) fn token_secret(store: &Store) -> anyhow::Result<[u8; 32]> {
    if let Some(secret) = store.load(Bucket::Authority, "token-secret")? {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    SystemRandom.fill(&mut secret)?;
    store.first(Bucket::Authority, "token-secret", secret)
}

/// The chain with its root: a joining control plane looks for the pinned root in it.
pub(super) fn chain(ca: &Ca, key: &WorkloadKey, domain: &TrustDomain) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let csr = key.csr()?;
    let identity = domain.control();
    let request = LeafRequest {
        csr_der: &csr,
        identity: &identity,
        workload: None,
        pod_uid: None,
        lifetime: OWN_LIFETIME,
        now: now(),
    };
    Ok(ca.with_root(ca.issue_reserved(&request, &mut SystemRandom)?))
}

/// The record in which this cluster introduces itself.
pub(super) fn member(ca: &Ca, incarnation: u64, advertise: &[String]) -> anyhow::Result<Member> {
    Ok(Member {
        cluster: ca.cluster().to_owned(),
        incarnation,
        revision: 0,
        state: Default::default(),
        bundle: issuing_first(ca)?,
        issuing_keys: BTreeSet::from([ca.issuing_key()]),
        control_addresses: advertise.to_vec(),
        networks: Default::default(),
        version: env!("CARGO_PKG_VERSION").into(),
        capabilities: BTreeSet::new(),
    })
}

/// The CA's roots, first the one it issues under: by that one the others know this cluster, whatever the order of the file.
fn issuing_first(ca: &Ca) -> anyhow::Result<TrustBundle> {
    let issuing = ca.root_fingerprint();
    let mut roots: Vec<_> = ca.bundle().roots().cloned().zip(ca.bundle().fingerprints()).collect();
    roots.sort_by_key(|(_, key)| Some(*key) != issuing);
    Ok(TrustBundle::new(ca.trust_domain().clone(), ca.bundle().sequence(), roots.into_iter().map(|(root, _)| root))?)
}
