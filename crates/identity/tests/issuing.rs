//! The CA: what it puts into certificates, what it refuses, how it is stored, plugged in and rotated.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::time::Duration;

use fairlead_identity::certificate::{CertificateFacts, certificates_to_pem};
use fairlead_identity::{
    Ca, CaError, CaPem, LeafRequest, SharedRoot, SystemRandom, TrustBundleSet, VerifyError, WorkloadKey, verdict,
};
use mesh::{START, at, domain, id};
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use x509_parser::prelude::FromDer;

fn east() -> Ca {
    Ca::create_root("east", &domain("east"), at(START), &mut SystemRandom).unwrap()
}

fn frontend() -> fairlead_identity::SpiffeId {
    id("spiffe://east.shop.example/ns/shop/sa/frontend")
}

fn request<'a>(csr: &'a [u8], identity: &'a fairlead_identity::SpiffeId, lifetime: u64) -> LeafRequest<'a> {
    LeafRequest {
        csr_der: csr,
        identity,
        workload: None,
        pod_uid: None,
        lifetime: Duration::from_secs(lifetime),
        now: at(START),
    }
}

#[test]
fn a_leaf_is_an_x509_svid() {
    let ca = east();
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let identity = frontend();
    let mut leaf_request = request(&csr, &identity, 3600);
    leaf_request.workload = Some("shop/frontend-0");
    leaf_request.pod_uid = Some("6b1ff8a1-3b0a-4c52-9e55-6d6b1a3c3d11");
    let chain = ca.issue(&leaf_request, &mut SystemRandom).unwrap();
    assert_eq!(chain.len(), 1, "the root is not sent");

    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf.version().0, 2);
    assert!(!leaf.is_ca());
    assert!(leaf.basic_constraints().unwrap().unwrap().critical);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any);
    assert_eq!(leaf.validity().not_before.timestamp() as u64, START - 300);
    assert_eq!(leaf.validity().not_after.timestamp() as u64, START + 3600);

    let facts = CertificateFacts::parse(&chain[0]).unwrap();
    assert_eq!(facts.uri_sans, ["spiffe://east.shop.example/ns/shop/sa/frontend"]);
    assert_eq!(facts.workload.as_deref(), Some("shop/frontend-0"));
    let trust = TrustBundleSet::of(ca.bundle().clone(), Some("east".to_owned())).unwrap();
    let peer = verdict(&chain, &trust, at(START)).unwrap();
    assert_eq!(peer.workload.as_deref(), Some("shop/frontend-0"));
    assert_eq!(peer.pod_uid.as_deref(), Some("6b1ff8a1-3b0a-4c52-9e55-6d6b1a3c3d11"));
    for no_uid in ["", "a,CN=b", &"a".repeat(65)] {
        let request = LeafRequest { pod_uid: Some(no_uid), ..leaf_request.clone() };
        assert!(matches!(ca.issue(&request, &mut SystemRandom), Err(CaError::PodUid(_))), "{no_uid}");
    }
    assert_eq!(peer.issuer, ca.issuing_key());

    let again = ca.issue(&leaf_request, &mut SystemRandom).unwrap();
    let (_, second) = x509_parser::certificate::X509Certificate::from_der(&again[0]).unwrap();
    assert_ne!(leaf.raw_serial(), second.raw_serial(), "serials are random");
}

#[test]
fn without_a_workload_the_names_are_critical() {
    // RFC 5280 4.2.1.6: an empty subject makes the alternative name critical.
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let chain = east().issue(&request(&csr, &frontend(), 60), &mut SystemRandom).unwrap();
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
    assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);
}

#[test]
fn nothing_a_request_asks_for_is_believed() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![
        SanType::URI("spiffe://east.shop.example/fairlead/control".try_into().unwrap()),
        SanType::DnsName("bank.example".try_into().unwrap()),
    ];
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let csr = params.serialize_request(&key).unwrap();
    let chain = east().issue(&request(csr.der(), &frontend(), 60), &mut SystemRandom).unwrap();
    let facts = CertificateFacts::parse(&chain[0]).unwrap();
    assert_eq!(facts.uri_sans, [frontend().as_str()]);
    assert!(!facts.is_ca && !facts.may_sign_certificates);
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names.len(), 1);
    assert_eq!(leaf.subject().iter().count(), 0);
}

#[test]
fn refusals() {
    let ca = east();
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let issue = |csr: &[u8], text: &str| ca.issue(&request(csr, &id(text), 60), &mut SystemRandom).unwrap_err();

    let mut broken = csr.clone();
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(issue(&broken, frontend().as_str()), CaError::RequestSignature);
    let mut longer = csr.clone();
    longer.push(0);
    assert!(matches!(issue(&longer, frontend().as_str()), CaError::Request(_)));
    assert!(matches!(issue(b"no request", frontend().as_str()), CaError::Request(_)));
    assert!(matches!(issue(&[0x30; 20_000], frontend().as_str()), CaError::Request(_)));

    for reserved in ["control", "gateway", "anything/else"] {
        let text = format!("spiffe://east.shop.example/fairlead/{reserved}");
        assert_eq!(issue(&csr, &text), CaError::Reserved(id(&text)));
    }
    for odd in ["", "/some/path", "/ns/shop/sa/frontend/more"] {
        let text = format!("spiffe://east.shop.example{odd}");
        assert_eq!(issue(&csr, &text), CaError::NotAServiceAccount(id(&text)));
    }
    assert!(matches!(issue(&csr, "spiffe://west.shop.example/ns/shop/sa/frontend"), CaError::ForeignDomain { .. }));
    assert_eq!(
        ca.issue_reserved(&request(&csr, &frontend(), 60), &mut SystemRandom).unwrap_err(),
        CaError::NotReserved(frontend())
    );
    assert!(ca.issue_reserved(&request(&csr, &domain("east").gateway(), 60), &mut SystemRandom).is_ok());
    let long = "x".repeat(257);
    let identity = frontend();
    let mut named = request(&csr, &identity, 60);
    named.workload = Some(&long);
    assert_eq!(ca.issue(&named, &mut SystemRandom).unwrap_err(), CaError::WorkloadTooLong(257));
}

#[test]
fn lifetimes_are_clamped_and_never_outlive_the_ca() {
    let ca = east();
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let identity = frontend();
    let end = |lifetime: u64, now: u64| {
        let mut leaf = request(&csr, &identity, lifetime);
        leaf.now = at(now);
        ca.issue(&leaf, &mut SystemRandom)
            .map(|chain| CertificateFacts::parse(&chain[0]).unwrap().not_after.as_secs() - now)
    };
    assert_eq!(end(1, START).unwrap(), 10);
    assert_eq!(end(20, START).unwrap(), 20);
    assert_eq!(end(u64::MAX, START).unwrap(), 7 * 24 * 3600);
    let ca_end = ca.not_after().as_secs();
    assert_eq!(end(3600, ca_end - 100).unwrap(), 100);
    assert!(matches!(end(3600, ca_end), Err(CaError::CaExpired { .. })));
}

#[test]
fn a_ca_survives_its_storage() {
    let ca = east();
    let stored = serde_json::to_string(&ca.to_pem()).unwrap();
    let pem: CaPem = serde_json::from_str(&stored).unwrap();
    let again = Ca::from_pem("east", &domain("east"), &pem).unwrap();
    assert_eq!(again.bundle(), ca.bundle());
    assert_eq!(again.issuing_key(), ca.issuing_key());
    assert!(again.is_root());
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let chain = again.issue(&request(&csr, &frontend(), 60), &mut SystemRandom).unwrap();
    let trust = TrustBundleSet::of(ca.bundle().clone(), None).unwrap();
    assert!(verdict(&chain, &trust, at(START)).is_ok());
    assert!(!format!("{ca:?} {pem:?}").contains("PRIVATE"), "keys stay out of logs");
}

#[test]
fn an_intermediate_under_a_shared_root_is_stored_in_istios_layout() {
    let shop = domain("mesh");
    let root = SharedRoot::create(&shop, at(START), &mut SystemRandom).unwrap();
    let east = root.intermediate("east", at(START), &mut SystemRandom).unwrap();
    assert!(!east.is_root());
    let pem = east.to_pem();
    assert_ne!(pem.ca_cert, pem.root_cert);
    let again = Ca::from_pem("east", &shop, &pem).unwrap();
    let identity = id("spiffe://mesh.shop.example/ns/shop/sa/frontend");
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let chain = again.issue(&request(&csr, &identity, 60), &mut SystemRandom).unwrap();
    assert_eq!(chain.len(), 2, "leaf and intermediate");
    let trust = TrustBundleSet::of(root.bundle().clone(), None).unwrap();
    assert_eq!(verdict(&chain, &trust, at(START)).unwrap().issuer, east.issuing_key());
    assert!(matches!(again.rotate_root(at(START), &mut SystemRandom), Err(CaError::NotARoot)));

    let (certificate, key) = root.to_pem();
    let restored = SharedRoot::from_pem(&shop, 1, &certificate, &key).unwrap();
    let west = restored.intermediate("west", at(START), &mut SystemRandom).unwrap();
    assert_ne!(west.issuing_key(), east.issuing_key());
}

#[test]
fn a_plugged_in_ca_two_levels_below_its_root_and_its_mistakes() {
    let (root, root_key) = plugged("Root", None, START + 9000);
    let (middle, middle_key) = plugged("Middle", Some((&root, &root_key)), START + 5000);
    let (issuing, issuing_key) = plugged("Issuing", Some((&middle, &middle_key)), START + 7000);
    let pem = |certificates: &[&rcgen::Certificate]| certificates.iter().map(|one| one.pem()).collect::<String>();
    let files =
        CaPem::of_files(pem(&[&issuing]), issuing_key.serialize_pem(), pem(&[&root]), pem(&[&issuing, &middle, &root]));
    let east = domain("east");
    let ca = Ca::from_pem("east", &east, &files).unwrap();
    assert_eq!(ca.not_after(), at(START + 5000), "nothing outlives the shortest above it");
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let chain = ca.issue(&request(&csr, &frontend(), 9000), &mut SystemRandom).unwrap();
    assert_eq!(chain.len(), 3);
    let trust = TrustBundleSet::of(ca.bundle().clone(), None).unwrap();
    assert!(verdict(&chain, &trust, at(START)).is_ok());
    // Sent without its root to one who knows only the fingerprint, it is sent with it.
    assert_eq!(ca.with_root(chain).len(), 4);

    let mistake = |change: &dyn Fn(&mut CaPem)| {
        let mut files = files.clone();
        change(&mut files);
        Ca::from_pem("east", &east, &files).unwrap_err().to_string()
    };
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    assert!(mistake(&|f| f.ca_key.clone_from(&other_key)).contains("ca-key.pem does not belong to ca-cert.pem"));
    assert!(mistake(&|f| f.cert_chain.clear()).contains("does not lead to a root"));
    assert!(mistake(&|f| f.ca_cert = "nothing".to_owned()).starts_with("ca-cert.pem"));
    assert!(mistake(&|f| f.root_cert = "nothing".to_owned()).starts_with("root-cert.pem"));
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().self_signed(&leaf_key).unwrap();
    assert!(
        mistake(&|f| {
            f.ca_cert = leaf.pem();
            f.ca_key = leaf_key.serialize_pem();
        })
        .contains("may not sign certificates")
    );
}

fn plugged(
    name: &str,
    parent: Option<(&rcgen::Certificate, &KeyPair)>,
    not_after: u64,
) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(not_after);
    let certificate = match parent {
        None => params.self_signed(&key).unwrap(),
        Some((parent, parent_key)) => {
            let issuer = rcgen::Issuer::from_ca_cert_der(parent.der(), parent_key).unwrap();
            params.signed_by(&key, &issuer).unwrap()
        }
    };
    (certificate, key)
}

#[test]
fn a_root_rotates_without_a_moment_of_mistrust() {
    let old = east();
    let rotation = old.rotate_root(at(START), &mut SystemRandom).unwrap();
    let trusts = |ca: &Ca| TrustBundleSet::of(ca.bundle().clone(), None).unwrap();
    let leaf = |ca: &Ca| {
        let csr = WorkloadKey::generate().unwrap().csr().unwrap();
        ca.issue(&request(&csr, &frontend(), 60), &mut SystemRandom).unwrap()
    };
    let steps = [&old, &rotation.announcing, &rotation.switched, &rotation.finished];
    let sequences: Vec<u64> = steps.iter().map(|ca| ca.bundle().sequence()).collect();
    assert_eq!(sequences, [1, 2, 2, 3]);
    // Neighbouring steps believe each other's leaves: while one is being taken up both are about.
    for pair in steps.windows(2) {
        for issuer in pair {
            for believer in pair {
                assert!(verdict(&leaf(issuer), &trusts(believer), at(START)).is_ok());
            }
        }
    }
    assert!(matches!(
        verdict(&leaf(&old), &trusts(&rotation.finished), at(START)),
        Err(VerifyError::ForeignRoot { .. })
    ));
    // A rotation survives a restart in the middle of it.
    let again = Ca::from_pem("east", &domain("east"), &rotation.switched.to_pem()).unwrap();
    assert_eq!(again.bundle(), rotation.switched.bundle());
    assert_eq!(again.issuing_key(), rotation.switched.issuing_key());
}

#[test]
fn expired_roots_vouch_for_nobody() {
    let ca = east();
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let identity = frontend();
    let trust = TrustBundleSet::of(ca.bundle().clone(), None).unwrap();
    let chain = ca.issue(&request(&csr, &identity, 60), &mut SystemRandom).unwrap();
    let late = at(ca.not_after().as_secs() + 1);
    assert!(matches!(verdict(&chain, &trust, late), Err(VerifyError::Expired { .. })));
}

#[test]
fn bundles_survive_pem_and_json_and_refuse_what_is_no_root() {
    use fairlead_identity::TrustBundle;
    let ca = east();
    let bundle = ca.bundle();
    assert_eq!(&TrustBundle::from_json(&bundle.to_json().unwrap()).unwrap(), bundle);
    assert_eq!(&TrustBundle::from_pem(domain("east"), 1, &bundle.to_pem()).unwrap(), bundle);
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let leaf = ca.issue(&request(&csr, &frontend(), 60), &mut SystemRandom).unwrap();
    let error = TrustBundle::from_pem(domain("east"), 1, &certificates_to_pem(&leaf)).unwrap_err();
    assert!(error.to_string().contains("no CA certificate"), "{error}");
    assert!(TrustBundle::from_pem(domain("east"), 1, "").is_err());
    assert!(TrustBundle::from_json(r#"{"trustDomain":"A","sequence":1,"roots":[]}"#).is_err());
}

#[test]
fn a_serving_certificate_has_names_and_is_nobody() {
    let ca = east();
    let csr = WorkloadKey::generate().unwrap().csr().unwrap();
    let names = ["fairlead-control.fairlead-system.svc", "fairlead-control.fairlead-system.svc.cluster.local"];
    let chain = ca.issue_serving(&csr, &names, Duration::from_secs(3600), at(START), &mut SystemRandom).unwrap();
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&chain[0]).unwrap();
    let sans = leaf.subject_alternative_name().unwrap().unwrap();
    let found: Vec<String> = sans.value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(found, names.map(|name| format!("DNSName({name})")));
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !leaf.is_ca());

    let trust = TrustBundleSet::of(ca.bundle().clone(), None).unwrap();
    let judged = verdict(&chain, &trust, at(START));
    assert!(judged.is_err(), "nobody in the mesh is called by a name: {judged:?}");

    let ended = ca.issue_serving(&csr, &names, Duration::from_secs(3600), ca.not_after(), &mut SystemRandom);
    assert!(matches!(ended, Err(CaError::CaExpired { .. })), "{ended:?}");
}
