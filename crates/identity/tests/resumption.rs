//! Resumed sessions: only while trust, certificates and time allow, and judged anew from the stored chain.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::sync::Arc;

use fairlead_identity::{ClientAuth, Expected, MeshTls, PeerVerifier};
use mesh::{Handshake, Mesh, domain, issue};
use rustls::{ClientConfig, ServerConfig};

struct Pair {
    mesh: Mesh,
    client_tls: MeshTls,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    judge: PeerVerifier,
}

/// East's frontend has called west's reviews once and holds tickets.
fn pair(client_life: u64, server_life: u64) -> Pair {
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let client_tls = mesh.tls(&mesh.handle("east", "frontend", client_life));
    let server_tls = mesh.tls(&mesh.handle("west", "reviews", server_life));
    let reviews = Expected::one(domain("west").service_account("shop", "reviews").unwrap());
    let client = client_tls.client_config(&reviews, &[b"istio-h2"]).unwrap();
    let server = server_tls.server_config(ClientAuth::Required, Expected::Any, &[b"istio-h2"]).unwrap();
    let first = Handshake::run(&client, &server);
    assert!(first.is_good() && !first.resumed());
    Pair { judge: server_tls.verifier(Expected::Any), mesh, client_tls, client, server }
}

#[test]
fn resumes_while_nothing_changes_and_the_chain_is_still_there_to_judge() {
    let pair = pair(3600, 3600);
    let second = Handshake::run(&pair.client, &pair.server);
    assert!(second.is_good() && second.resumed());
    let peer = pair.judge.judge(&second.client_chain(), pair.mesh.clock.now()).unwrap();
    assert_eq!(peer.spiffe_id, domain("east").service_account("shop", "frontend").unwrap());
    assert_eq!(peer.cluster.as_deref(), Some("east"));
}

#[test]
fn the_same_destination_gives_the_same_configuration_and_another_does_not() {
    let pair = pair(3600, 3600);
    let reviews = Expected::one(domain("west").service_account("shop", "reviews").unwrap());
    let again = pair.client_tls.client_config(&reviews, &[b"istio-h2"]).unwrap();
    assert!(Arc::ptr_eq(&again, &pair.client));
    let others = Expected::one(domain("west").service_account("shop", "ledger").unwrap());
    let other = pair.client_tls.client_config(&others, &[b"istio-h2"]).unwrap();
    // Under another expectation the session of the first does not count, and the full handshake is refused.
    let handshake = Handshake::run(&other, &pair.server);
    assert_eq!(handshake.client_reason().unwrap().reason(), "unexpected-identity");
}

#[test]
fn another_server_name_resumes_nothing() {
    let pair = pair(3600, 3600);
    let other = Handshake::named(&pair.client, &pair.server, "outbound_.9080_.ep-8_.reviews.shop.svc.cluster.local");
    assert!(other.is_good() && !other.resumed());
}

#[test]
fn every_change_of_trust_forces_full_handshakes() {
    let pair = pair(3600, 3600);
    let before = pair.mesh.trust.get();
    pair.mesh.trust.set(before.with_revoked_domain(&domain("north")).unwrap());
    assert_ne!(before.epoch(), pair.mesh.trust.get().epoch());
    let next = Handshake::run(&pair.client, &pair.server);
    assert!(next.is_good() && !next.resumed());
    assert!(Handshake::run(&pair.client, &pair.server).resumed());
}

#[test]
fn a_server_whose_trust_changed_does_not_open_older_tickets() {
    // Client and server have trust of their own; only the server's changes, the client still offers its ticket.
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let client_tls = mesh.tls(&mesh.handle("east", "frontend", 3600));
    let server_trust = mesh::Trust::new((*mesh.trust.get()).clone());
    let server_tls = MeshTls::new(mesh.handle("west", "reviews", 3600), server_trust.source(), mesh.clock.clone());
    let client = client_tls.client_config(&Expected::Any, &[]).unwrap();
    let server = server_tls.server_config(ClientAuth::Required, Expected::Any, &[]).unwrap();
    assert!(Handshake::run(&client, &server).is_good());
    assert!(Handshake::run(&client, &server).resumed());

    server_trust.set(server_trust.get().with_revoked_domain(&domain("north")).unwrap());
    let next = Handshake::run(&client, &server);
    assert!(next.is_good() && !next.resumed());

    server_trust.set(server_trust.get().with_revoked_domain(&domain("east")).unwrap());
    let refused = Handshake::run(&client, &server);
    assert_eq!(refused.server_reason().unwrap().reason(), "revoked-cluster");
}

#[test]
fn a_revoked_server_is_not_resumed_by_its_clients() {
    let pair = pair(3600, 3600);
    pair.mesh.trust.set(pair.mesh.trust.get().with_revoked_domain(&domain("west")).unwrap());
    let refused = Handshake::run(&pair.client, &pair.server);
    assert_eq!(refused.client_reason().unwrap().reason(), "revoked-cluster");
}

#[test]
fn a_new_certificate_of_the_client_forgets_its_sessions() {
    let pair = pair(60, 3600);
    let identity = domain("east").service_account("shop", "frontend").unwrap();
    pair.client_tls.credentials().swap(issue(pair.mesh.ca("east"), &identity, 60, pair.mesh.clock.now()));
    let next = Handshake::run(&pair.client, &pair.server);
    assert!(next.is_good() && !next.resumed());
}

#[test]
fn a_session_ends_with_the_servers_certificate() {
    let pair = pair(3600, 30);
    pair.mesh.clock.advance(29);
    let inside = Handshake::run(&pair.client, &pair.server);
    assert!(inside.resumed());
    pair.mesh.clock.advance(2);
    // The server's present certificate has ended too, and the full handshake finds it out.
    let after = Handshake::run(&pair.client, &pair.server);
    assert_eq!(after.client_reason().unwrap().reason(), "expired");
}

#[test]
fn a_resumed_session_of_an_expired_client_is_refused_by_its_stored_chain() {
    let pair = pair(30, 3600);
    pair.mesh.clock.advance(31);
    let next = Handshake::run(&pair.client, &pair.server);
    // TLS itself resumes: it looks at no certificate. That is why the acceptor judges.
    assert!(next.is_good() && next.resumed());
    let error = pair.judge.judge(&next.client_chain(), pair.mesh.clock.now()).unwrap_err();
    assert_eq!(error.reason(), "expired");
}
