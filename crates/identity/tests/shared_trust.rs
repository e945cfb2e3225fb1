//! One root for the mesh: members are told apart, bounded and revoked by the key of their intermediate.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::collections::BTreeSet;
use std::time::Duration;

use fairlead_identity::{
    Ca, DomainTrust, IssuerTrust, LeafRequest, NamespaceBound, SharedRoot, SpiffeId, SystemRandom, TrustBundleSet,
    TrustDomain, VerifiedPeer, VerifyError, WorkloadKey, verdict,
};
use mesh::{START, at};
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;

struct Shared {
    domain: TrustDomain,
    root: SharedRoot,
    east: Ca,
    west: Ca,
}

fn shared() -> Shared {
    let domain = TrustDomain::new("cluster.local").unwrap();
    let root = SharedRoot::create(&domain, at(START), &mut SystemRandom).unwrap();
    let intermediate = |cluster: &str| root.intermediate(cluster, at(START), &mut SystemRandom).unwrap();
    Shared { east: intermediate("east"), west: intermediate("west"), domain, root }
}

impl Shared {
    fn trust(&self) -> DomainTrust {
        DomainTrust::new(self.root.bundle().clone(), None)
            .with_issuer(self.east.issuing_key(), IssuerTrust::new("east"))
            .unwrap()
            .with_issuer(self.west.issuing_key(), IssuerTrust::new("west"))
            .unwrap()
    }

    fn set(&self, trust: DomainTrust) -> TrustBundleSet {
        TrustBundleSet::new([(self.domain.clone(), trust)]).unwrap()
    }

    fn identity(&self) -> SpiffeId {
        self.domain.service_account("shop", "frontend").unwrap()
    }

    fn leaf(&self, ca: &Ca) -> Vec<CertificateDer<'static>> {
        let csr = WorkloadKey::generate().unwrap().csr().unwrap();
        let identity = self.identity();
        let request = LeafRequest {
            csr_der: &csr,
            identity: &identity,
            workload: None,
            pod_uid: None,
            lifetime: Duration::from_secs(60),
            now: at(START),
        };
        ca.issue(&request, &mut SystemRandom).unwrap()
    }
}

fn judge(chain: &[CertificateDer<'_>], set: &TrustBundleSet) -> Result<VerifiedPeer, VerifyError> {
    verdict(chain, set, at(START))
}

#[test]
fn equal_identities_of_two_members_are_told_apart() {
    let shared = shared();
    let set = shared.set(shared.trust());
    let east = judge(&shared.leaf(&shared.east), &set).unwrap();
    let west = judge(&shared.leaf(&shared.west), &set).unwrap();
    assert_eq!(east.spiffe_id, west.spiffe_id);
    assert_eq!((east.cluster.as_deref(), west.cluster.as_deref()), (Some("east"), Some("west")));
}

#[test]
fn a_revoked_issuer_takes_only_its_own_member() {
    let shared = shared();
    let before = shared.set(shared.trust());
    let set = before.with_revoked_issuer(&shared.domain, "west").unwrap();
    assert_ne!(before.epoch(), set.epoch());
    assert!(judge(&shared.leaf(&shared.east), &set).is_ok());
    assert!(matches!(
        judge(&shared.leaf(&shared.west), &set),
        Err(VerifyError::IssuerRevoked { cluster, .. }) if cluster == "west"
    ));
}

/// A CA below `ca` with a key of its own, made with `ca`'s key: what a compromised cluster can do.
fn sub_ca(
    ca_pem: &str,
    ca_key: &str,
    constraints: rcgen::BasicConstraints,
    name: &str,
) -> (rcgen::Certificate, KeyPair) {
    let der: CertificateDer<'static> = rustls::pki_types::pem::PemObject::from_pem_slice(ca_pem.as_bytes()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&der, KeyPair::from_pem(ca_key).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &issuer).unwrap(), key)
}

fn forged_leaf(identity: &SpiffeId, issuer: &(rcgen::Certificate, KeyPair)) -> CertificateDer<'static> {
    let issuer = Issuer::from_ca_cert_der(issuer.0.der(), &issuer.1).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, &issuer).unwrap().der().clone()
}

#[test]
fn our_intermediates_sign_no_further_ca() {
    let shared = shared();
    let west = shared.west.to_pem();
    let hidden = sub_ca(&west.ca_cert, &west.ca_key, rcgen::BasicConstraints::Unconstrained, "hidden");
    let mut chain = vec![forged_leaf(&shared.identity(), &hidden), hidden.0.der().clone()];
    chain.push(shared.leaf(&shared.west)[1].clone());
    assert!(matches!(judge(&chain, &shared.set(shared.trust())), Err(VerifyError::BadChain { .. })));
}

#[test]
fn a_revoked_member_cannot_hide_behind_an_intermediate_of_its_own() {
    // A plugged-in intermediate may be without our path length: then every key above the leaf counts.
    let shared = shared();
    let (root, root_key) = shared.root.to_pem();
    let free = rcgen::BasicConstraints::Unconstrained;
    let member = sub_ca(&root, &root_key, free, "member");
    let hidden = sub_ca(&member.0.pem(), &member.1.serialize_pem(), free, "hidden");
    let chain = [forged_leaf(&shared.identity(), &hidden), hidden.0.der().clone(), member.0.der().clone()];
    let key = fairlead_identity::SpkiHash::of_certificate(member.0.der()).unwrap();
    let trust = shared.trust().with_issuer(key, IssuerTrust::new("north")).unwrap();
    let set = shared.set(trust);
    assert_eq!(judge(&chain, &set).unwrap().cluster.as_deref(), Some("north"));
    let revoked = set.with_revoked_issuer(&shared.domain, "north").unwrap();
    assert!(matches!(judge(&chain, &revoked), Err(VerifyError::IssuerRevoked { .. })));
}

#[test]
fn an_issuer_of_no_member_is_refused() {
    let shared = shared();
    let stranger = shared.root.intermediate("north", at(START), &mut SystemRandom).unwrap();
    assert!(matches!(
        judge(&shared.leaf(&stranger), &shared.set(shared.trust())),
        Err(VerifyError::UnknownIssuer { key, .. }) if key == stranger.issuing_key()
    ));
}

#[test]
fn a_bound_holds_per_issuer() {
    let shared = shared();
    let bounded = IssuerTrust {
        namespaces: NamespaceBound::Only(BTreeSet::from(["cart".to_owned()])),
        ..IssuerTrust::new("west")
    };
    let trust = shared.trust().with_issuer(shared.west.issuing_key(), bounded).unwrap();
    let set = shared.set(trust);
    assert!(judge(&shared.leaf(&shared.east), &set).is_ok());
    assert!(matches!(
        judge(&shared.leaf(&shared.west), &set),
        Err(VerifyError::NamespaceNotAllowed { cluster, .. }) if cluster == "west"
    ));
}

#[test]
fn what_cannot_be_told_apart_is_an_error_and_not_a_silent_success() {
    let shared = shared();
    assert!(shared.trust().with_issuer(shared.east.issuing_key(), IssuerTrust::new("north")).is_err());
    let set = shared.set(shared.trust());
    let error = set.with_revoked_issuer(&shared.domain, "north").unwrap_err();
    assert!(error.to_string().contains("no issuing key of its own"), "{error}");
}

#[test]
fn a_set_survives_its_transport_with_the_same_epoch() {
    let shared = shared();
    let set = shared
        .set(shared.trust())
        .with_revoked_issuer(&shared.domain, "west")
        .unwrap()
        .with_revoked_domain(&TrustDomain::new("gone.example").unwrap())
        .unwrap();
    let again = TrustBundleSet::from_json(&set.to_json().unwrap()).unwrap();
    assert_eq!(again, set);
    assert_eq!(again.epoch(), set.epoch());
    assert!(TrustBundleSet::from_json(r#"{"domains":{"a.example":{}}}"#).is_err());
    assert!(TrustBundleSet::from_json(r#"{"domains":{},"more":1}"#).is_err());
}

/// For every change of trust: what is said of a live connection without cryptography is what a new handshake is told.
#[test]
fn live_connections_get_the_verdict_of_a_new_handshake() {
    let shared = shared();
    let before = shared.set(shared.trust());
    let chain = shared.leaf(&shared.west);
    let peer = judge(&chain, &before).unwrap();
    let other_root = SharedRoot::create(&shared.domain, at(START), &mut SystemRandom).unwrap();
    let roots = |names: &[&SharedRoot]| {
        let ders = names.iter().flat_map(|root| root.bundle().roots().cloned());
        fairlead_identity::TrustBundle::new(shared.domain.clone(), 2, ders.collect::<Vec<_>>()).unwrap()
    };
    let with_roots = |names: &[&SharedRoot]| shared.set(DomainTrust { bundle: Some(roots(names)), ..shared.trust() });
    let bounded = IssuerTrust { namespaces: NamespaceBound::Only(BTreeSet::new()), ..IssuerTrust::new("west") };
    let changes = [
        before.clone(),
        before.with_revoked_issuer(&shared.domain, "east").unwrap(),
        before.with_revoked_issuer(&shared.domain, "west").unwrap(),
        before.with_revoked_domain(&shared.domain).unwrap(),
        with_roots(&[&shared.root, &other_root]),
        with_roots(&[&other_root]),
        shared.set(shared.trust().with_issuer(shared.west.issuing_key(), bounded).unwrap()),
        shared.set(shared.trust().within(NamespaceBound::Only(BTreeSet::from(["cart".to_owned()])))),
        TrustBundleSet::empty(),
    ];
    let mut refusals = 0;
    for after in changes {
        let new = judge(&chain, &after).map(|_| ());
        assert_eq!(fairlead_identity::still_believed(&peer, &after), new);
        refusals += usize::from(new.is_err());
    }
    assert_eq!(refusals, 6);
}

#[test]
fn an_older_set_takes_no_revocation_back() {
    let mesh = shared();
    let leaf = mesh.leaf(&mesh.west);
    let believed = |set: &TrustBundleSet| verdict(&leaf, set, at(START)).is_ok();
    let says = |west: (u64, bool)| [("east".to_owned(), (3, false)), ("west".to_owned(), west)];
    let before = mesh.set(mesh.trust()).made_of(says((5, false)));
    assert!(believed(&before));
    // What a control plane tells after the revocation, and then one that was restored from before it, or knows nothing.
    let revoked = before.with_revoked_issuer(&mesh.domain, "west").unwrap().made_of(says((5, true)));
    for older in [before.clone(), mesh.set(mesh.trust())] {
        let kept = older.clone().keeping_revocations_of(&revoked);
        assert!(!believed(&kept));
        assert_eq!(TrustBundleSet::from_json(&kept.to_json().unwrap()).unwrap(), kept);
        // Told again, it stays, and is the same set.
        assert_eq!(older.keeping_revocations_of(&kept).epoch(), kept.epoch());
    }
    // West begins anew: a younger incarnation comes in, and then stays in.
    let anew = before.clone().made_of(says((6, false)));
    let kept = anew.clone().keeping_revocations_of(&revoked);
    assert_eq!(kept, anew);
    assert!(believed(&before.keeping_revocations_of(&kept)), "nothing is held against it any more");
}
