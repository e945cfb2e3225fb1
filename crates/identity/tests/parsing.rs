//! Parsers of foreign bytes: what they accept survives a round trip, and nothing makes them panic.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use fairlead_identity::certificate::{CertificateFacts, certificates_from_pem};
use fairlead_identity::{
    IdentityKind, JoinToken, SpiffeError, SpiffeId, SystemRandom, TrustBundle, TrustBundleSet, TrustDomain,
    WorkloadToken, verdict,
};
use mesh::{Mesh, START, at, domain};
use proptest::prelude::*;
use rustls::pki_types::CertificateDer;

#[test]
fn identities_by_table() {
    use SpiffeError as E;
    let refused: &[(&str, E)] = &[
        ("", E::Scheme),
        ("http://a/b", E::Scheme),
        ("SPIFFE://a/b", E::Scheme),
        ("spiffe:/a/b", E::Scheme),
        ("spiffe://", E::NoTrustDomain),
        ("spiffe:///path", E::NoTrustDomain),
        ("spiffe://East/a", E::TrustDomainCharacter('E')),
        ("spiffe://a:443/b", E::TrustDomainCharacter(':')),
        ("spiffe://user@a/b", E::TrustDomainCharacter('@')),
        ("spiffe://a?x=1", E::TrustDomainCharacter('?')),
        ("spiffe://a/", E::EmptySegment),
        ("spiffe://a/b/", E::EmptySegment),
        ("spiffe://a//b", E::EmptySegment),
        ("spiffe://a/./b", E::DotSegment),
        ("spiffe://a/b/..", E::DotSegment),
        ("spiffe://a/b%20c", E::PathCharacter('%')),
        ("spiffe://a/b?c", E::PathCharacter('?')),
        ("spiffe://a/b#c", E::PathCharacter('#')),
        ("spiffe://a/ä", E::PathCharacter('ä')),
    ];
    for (text, error) in refused {
        assert_eq!(SpiffeId::parse(text).as_ref(), Err(error), "{text}");
    }
    assert_eq!(SpiffeId::parse(&format!("spiffe://{}", "a".repeat(256))), Err(E::TrustDomainTooLong));
    let longest = format!("spiffe://a/{}", "b".repeat(2048 - 11));
    assert!(SpiffeId::parse(&longest).is_ok());
    assert_eq!(SpiffeId::parse(&format!("{longest}b")), Err(E::IdTooLong));

    let id = SpiffeId::parse("spiffe://east.shop.example/ns/shop/sa/front.end-1_X").unwrap();
    assert_eq!(id.domain(), "east.shop.example");
    assert_eq!(id.path(), "/ns/shop/sa/front.end-1_X");
    assert_eq!(id.principal(), "east.shop.example/ns/shop/sa/front.end-1_X");
    assert_eq!((id.namespace(), id.account()), (Some("shop"), Some("front.end-1_X")));
    assert!(!id.is_reserved());
    assert_eq!(TrustDomain::new("east.shop.example").unwrap().service_account("shop", "front.end-1_X").unwrap(), id);
}

#[test]
fn reserved_shapes_cannot_be_made_from_names() {
    let east = domain("east");
    assert_eq!(east.control().kind(), IdentityKind::Control);
    assert_eq!(east.gateway().kind(), IdentityKind::Gateway);
    for (path, kind) in [
        ("/fairlead", IdentityKind::Reserved),
        ("/fairlead/control/x", IdentityKind::Reserved),
        ("/ns/shop/sa", IdentityKind::Other),
        ("/ns/fairlead/sa/control/x", IdentityKind::Other),
        ("", IdentityKind::Domain),
    ] {
        let id = SpiffeId::parse(&format!("spiffe://east.shop.example{path}")).unwrap();
        assert_eq!(id.kind(), kind, "{path}");
    }
    assert!(east.service_account("..", "x").is_err());
    assert!(east.service_account("a/sa/b", "x").is_err());
    assert!(east.service_account("", "x").is_err());
}

proptest! {
    #[test]
    fn what_is_accepted_survives_a_round_trip(text in "(spiffe://)?[a-zA-Z0-9._/%-]{0,60}") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(&SpiffeId::parse(&id.to_string()).unwrap(), &id);
            let joined = format!("spiffe://{}{}", id.domain(), id.path());
            prop_assert_eq!(joined, text);
            prop_assert!(TrustDomain::new(id.domain()).is_ok());
        }
    }

    #[test]
    fn made_identities_are_accepted(ns in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", sa in "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?") {
        let id = domain("east").service_account(&ns, &sa).unwrap();
        let parsed = SpiffeId::parse(id.as_str()).unwrap();
        prop_assert_eq!(parsed.namespace(), Some(ns.as_str()));
        prop_assert_eq!(parsed.account(), Some(sa.as_str()));
        prop_assert!(!parsed.is_reserved());
    }

    #[test]
    fn arbitrary_text_is_refused_without_panic(text in any::<String>()) {
        let _ = SpiffeId::parse(&text);
        let _ = text.parse::<JoinToken>();
        let _ = WorkloadToken::parse(&text).map(|token| token.claimed());
        let _ = certificates_from_pem(&text);
        let _ = TrustBundle::from_json(&text);
        let _ = TrustBundleSet::from_json(&text);
        let prefixed = format!("fl1.{text}");
        prop_assert!(prefixed.parse::<JoinToken>().is_err());
    }

    #[test]
    fn damaged_certificates_are_refused_without_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static MADE: std::sync::OnceLock<(Vec<u8>, TrustBundleSet)> = std::sync::OnceLock::new();
        let (good, trust) = MADE.get_or_init(|| {
            let mesh = Mesh::per_cluster(&["east"]);
            let handle = mesh.handle("east", "frontend", 60);
            (handle.load().chain()[0].to_vec(), (*mesh.trust.get()).clone())
        });
        let mut der = good.clone();
        for (place, flip) in flips {
            let place = place.index(der.len());
            der[place] ^= flip;
        }
        if let Some(cut) = cut {
            der.truncate(cut.index(good.len()));
        }
        let _ = CertificateFacts::parse(&der);
        if der != *good {
            prop_assert!(verdict(&[CertificateDer::from(der)], trust, at(START)).is_err());
        }
    }
}

#[test]
fn tokens_survive_copying_and_nothing_else() {
    let mesh = Mesh::per_cluster(&["east"]);
    let (token, stored) = JoinToken::create(
        vec!["192.0.2.1:15012".to_owned(), "[2001:db8::1]:15012".to_owned()],
        mesh.ca("east").root_fingerprint().unwrap(),
        "east",
        std::time::Duration::from_secs(60),
        at(START),
        &mut SystemRandom,
    )
    .unwrap();
    let text = token.to_string();
    assert_eq!(format!("  {text}\n").parse::<JoinToken>().unwrap(), token);
    assert_eq!(token.id(), stored.id);
    assert!(text[..text.len() - 1].parse::<JoinToken>().is_err());
    let secret = text.split('.').nth(1).unwrap();
    assert!(!format!("{token:?}{stored:?}").contains(&secret[40..60]));
    assert!(
        JoinToken::create(
            Vec::new(),
            token.root,
            "east",
            std::time::Duration::from_secs(60),
            at(START),
            &mut SystemRandom
        )
        .is_err()
    );
}
