//! TLS handshakes of the mesh over memory: the table of refusals in both directions, client authentication, what is
//! negotiated, and certificates swapped beneath live configurations.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use fairlead_identity::tls::client_config;
use fairlead_identity::{
    CertHandle, CertificateSpec, ClientAuth, Expected, Mint, NamespaceBound, PeerVerifier, SystemRandom,
    TrustBundleSet, VerifyError, still_believed,
};
use mesh::{Handshake, Mesh, domain, id, issue};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[allow(dead_code)] // for readers
    why: String,
    certificate: String,
    #[serde(default)]
    clock: i64,
    #[serde(default)]
    revoked: Vec<String>,
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeSet<String>>,
    expected: Option<Vec<String>>,
    verdict: String,
}

#[test]
fn every_row_of_the_table_in_both_directions() {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("cases/handshakes.yaml")).unwrap();
    assert!(cases.len() > 15);
    for case in cases {
        let (as_client, as_server) = run(&case);
        assert_eq!(as_client, case.verdict, "{}: presented by a client", case.name);
        assert_eq!(as_server, case.verdict, "{}: presented by a server", case.name);
    }
}

fn run(case: &Case) -> (String, String) {
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let frontend = domain("east").service_account("shop", "frontend").unwrap();
    let spec: CertificateSpec = case.certificate.parse().unwrap();
    let minted = Mint::new(mesh.ca("east"), Some(domain("north")))
        .mint(&spec, &frontend, mesh.clock.now(), &mut SystemRandom)
        .unwrap();
    let presented = CertHandle::new(minted.credentials().unwrap());
    let west = mesh.handle("west", "reviews", 7200);

    let mut set = (*mesh.trust.get()).clone();
    for cluster in &case.revoked {
        set = set.with_revoked_domain(&domain(cluster)).unwrap();
    }
    for (cluster, names) in &case.namespaces {
        let bounded = set.domain(domain(cluster).as_str()).unwrap().clone().within(NamespaceBound::Only(names.clone()));
        set = set.with(domain(cluster), bounded).unwrap();
    }
    let judge_trust = mesh::Trust::new(set);
    let judge_clock = mesh::Clock::new();
    judge_clock.advance(case.clock as u64); // wraps for negative steps
    let judge = fairlead_identity::MeshTls::new(west, judge_trust.source(), judge_clock);
    let expected = match &case.expected {
        None => Expected::Any,
        Some(ids) => Expected::one_of(ids.iter().map(|text| id(text))),
    };
    let other = mesh.tls(&presented);

    let as_client = Handshake::run(
        &other.client_config(&Expected::Any, &[b"istio-h2"]).unwrap(),
        &judge.server_config(ClientAuth::Required, expected.clone(), &[b"istio-h2"]).unwrap(),
    );
    let as_server = Handshake::run(
        &judge.client_config(&expected, &[b"istio-h2"]).unwrap(),
        &other.server_config(ClientAuth::Required, Expected::Any, &[b"istio-h2"]).unwrap(),
    );
    let word = |good: bool, reason: Option<VerifyError>| {
        if good {
            "accepted".to_owned()
        } else {
            reason.map_or_else(|| "refused without a reason".to_owned(), |reason| reason.reason().to_owned())
        }
    };
    (word(as_client.is_good(), as_client.server_reason()), word(as_server.is_good(), as_server.client_reason()))
}

#[test]
fn a_refusal_names_the_identity_and_the_peer_learns_nothing() {
    let mesh = Mesh::per_cluster(&["east", "west"]);
    let east = mesh.tls(&mesh.handle("east", "frontend", 3600));
    let west = mesh.tls(&mesh.handle("west", "reviews", 3600));
    let server =
        west.server_config(ClientAuth::Required, Expected::one(id("spiffe://a.example/ns/a/sa/b")), &[]).unwrap();
    let handshake = Handshake::run(&east.client_config(&Expected::Any, &[]).unwrap(), &server);
    let reason = handshake.server_reason().unwrap();
    assert_eq!(
        reason.to_string(),
        "the peer is spiffe://east.shop.example/ns/shop/sa/frontend, which is not the identity expected here \
         (spiffe://a.example/ns/a/sa/b)"
    );
    assert_eq!(reason.claimed().unwrap().account(), Some("frontend"));
    assert_eq!(
        handshake.client_error,
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::CertificateUnknown))
    );
    let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, handshake.server_error.clone().unwrap());
    assert_eq!(VerifyError::find_io(&wrapped), Some(reason));
}

#[test]
fn client_authentication_required_optional_none() {
    let mesh = Mesh::per_cluster(&["east", "west"]);
    let west = mesh.tls(&mesh.handle("west", "reviews", 3600));
    let clock: std::sync::Arc<dyn rustls::time_provider::TimeProvider> = mesh.clock.clone();
    let nobody = || client_config(None, PeerVerifier::new(mesh.trust.source(), Expected::Any), &clock, &[]).unwrap();
    let refused = Handshake::run(&nobody(), &west.server_config(ClientAuth::Required, Expected::Any, &[]).unwrap());
    assert_eq!(refused.server_reason(), Some(VerifyError::NoCertificate));
    for auth in [ClientAuth::Optional, ClientAuth::None] {
        let server = west.server_config(auth, Expected::Any, &[]).unwrap();
        let handshake = Handshake::run(&nobody(), &server);
        assert!(handshake.is_good(), "{auth:?}");
        assert!(handshake.client_chain().is_empty());
    }
    // Optional does not mean anything goes: a certificate that is shown is judged.
    let stranger = Mesh::per_cluster(&["south"]);
    let south = stranger.handle("south", "spy", 3600);
    let config =
        client_config(Some(&south), PeerVerifier::new(mesh.trust.source(), Expected::Any), &clock, &[]).unwrap();
    let server = west.server_config(ClientAuth::Optional, Expected::Any, &[]).unwrap();
    let handshake = Handshake::run(&config, &server);
    assert_eq!(handshake.server_reason().unwrap().reason(), "unknown-trust-domain");
}

#[test]
fn negotiates_tls13_with_the_hybrid_group_and_alpn() {
    let mesh = Mesh::per_cluster(&["east"]);
    let east = mesh.tls(&mesh.handle("east", "frontend", 3600));
    let server = east.server_config(ClientAuth::Required, Expected::Any, &[b"istio-h2", b"istio-http/1.1"]).unwrap();
    let client = east.client_config(&Expected::Any, &[b"istio-http/1.1"]).unwrap();
    let handshake = Handshake::run(&client, &server);
    assert!(handshake.is_good());
    assert_eq!(handshake.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(handshake.client.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(
        handshake.client.negotiated_cipher_suite().unwrap().suite(),
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    );
    assert_eq!(handshake.server.alpn_protocol(), Some(&b"istio-http/1.1"[..]));
    assert_eq!(handshake.server.server_name(), Some("outbound_.9080_.ep-7_.reviews.shop.svc.cluster.local"));
}

#[test]
fn a_swapped_certificate_serves_the_next_handshake_and_disturbs_no_connection() {
    let mesh = Mesh::per_cluster(&["east", "west"]);
    let handle = mesh.handle("west", "reviews", 20);
    let server = mesh.tls(&handle).server_config(ClientAuth::Required, Expected::Any, &[]).unwrap();
    let client_handle = mesh.handle("east", "frontend", 20);
    let client = mesh.tls(&client_handle).client_config(&Expected::Any, &[]).unwrap();
    let mut old = Handshake::run(&client, &server);
    assert!(old.is_good());

    let old_leaf = handle.load().chain()[0].clone();
    for (handle, cluster, account) in [(&handle, "west", "reviews"), (&client_handle, "east", "frontend")] {
        let identity = domain(cluster).service_account("shop", account).unwrap();
        handle.swap(issue(mesh.ca(cluster), &identity, 20, mesh.clock.now()));
    }
    assert_eq!(handle.generation(), 2);
    let new = Handshake::run(&client, &server);
    assert!(new.is_good() && !new.resumed());
    assert_ne!(new.client.peer_certificates().unwrap()[0], old_leaf);

    // Long after the first certificates ended the first connection still carries data, and its verdict, taken at the
    // time of its handshake, holds as long as the trust does.
    mesh.clock.advance(600);
    old.client.writer().write_all(b"still here").unwrap();
    old.pump();
    let mut got = [0_u8; 10];
    old.server.reader().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here");
    let verifier = PeerVerifier::new(mesh.trust.source(), Expected::Any);
    let chain = old.client_chain();
    assert!(verifier.judge(&chain, mesh::at(mesh::START)).is_ok());
    assert_eq!(verifier.judge(&chain, mesh.clock.now()).unwrap_err().reason(), "expired");
    let peer = verifier.judge(&chain, mesh::at(mesh::START)).unwrap();
    assert_eq!(still_believed(&peer, &mesh.trust.get()), Ok(()));
    mesh.trust.set(mesh.trust.get().with_revoked_domain(&domain("east")).unwrap());
    assert_eq!(still_believed(&peer, &mesh.trust.get()).unwrap_err().reason(), "revoked-cluster");
    assert_eq!(verifier.judge(&chain, mesh::at(mesh::START)).unwrap_err().reason(), "revoked-cluster");
}

#[test]
fn an_empty_trust_believes_nobody() {
    let mesh = Mesh::per_cluster(&["east"]);
    let east = mesh.tls(&mesh.handle("east", "frontend", 3600));
    let client = east.client_config(&Expected::Any, &[]).unwrap();
    let server = east.server_config(ClientAuth::Required, Expected::Any, &[]).unwrap();
    mesh.trust.set(TrustBundleSet::empty());
    let handshake = Handshake::run(&client, &server);
    assert_eq!(handshake.client_reason().unwrap().reason(), "unknown-trust-domain");
}
