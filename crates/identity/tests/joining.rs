//! Joining over a real TLS session in memory: proofs, single use, expiry, clashes; and workload tokens.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod mesh;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fairlead_identity::join::{self, EXPORTER_BYTES, EXPORTER_LABEL, accept};
use fairlead_identity::join_token::StoreError;
use fairlead_identity::tls::joining_config;
use fairlead_identity::workload_token::WorkloadTokenError;
use fairlead_identity::{
    Ca, CertHandle, ClientAuth, Expected, JoinRefused, JoinRequest, JoinToken, Member, Membership, MemoryTokenStore,
    Roster, StoredToken, SystemRandom, TokenId, TokenStore, TrustBundle, VerifyError, WorkloadKey, WorkloadToken,
    WorkloadTokenIssuer,
};
use mesh::control::{self, Control};
use mesh::{Handshake, Mesh, START, at, domain};

const ALPN: &[&[u8]] = &[b"h2"];

fn member(ca: &Ca) -> Member {
    Member {
        networks: [(ca.cluster().to_owned(), vec!["198.51.100.2:15443".to_owned()])].into(),
        version: "0.1.0".to_owned(),
        ..control::member(ca, 1, 0)
    }
}

/// East issued a token; west dials.
struct Joining {
    mesh: Mesh,
    token: JoinToken,
    store: MemoryTokenStore,
    session: Handshake,
}

fn joining() -> Joining {
    let mesh = Mesh::per_cluster(&["east", "north", "west"]);
    let east = mesh.ca("east");
    let (token, stored) = JoinToken::create(
        vec!["198.51.100.1:15012".to_owned()],
        east.root_fingerprint().unwrap(),
        "east",
        Duration::from_secs(600),
        mesh.clock.now(),
        &mut SystemRandom,
    )
    .unwrap();
    let store = MemoryTokenStore::default();
    store.put(stored).unwrap();
    let session = session(&mesh, &token);
    assert!(session.is_good(), "{:?}", session.client_error);
    Joining { mesh, token, store, session }
}

fn control_handle(ca: &Ca, clock: &mesh::Clock) -> CertHandle {
    let key = WorkloadKey::generate().unwrap();
    let csr = key.csr().unwrap();
    let identity = ca.trust_domain().control();
    let request = fairlead_identity::LeafRequest {
        csr_der: &csr,
        identity: &identity,
        workload: None,
        pod_uid: None,
        lifetime: Duration::from_secs(3600),
        now: clock.now(),
    };
    let chain = ca.issue_reserved(&request, &mut SystemRandom).unwrap();
    CertHandle::new(key.certified(ca.with_root(chain)).unwrap())
}

fn session(mesh: &Mesh, token: &JoinToken) -> Handshake {
    let handle = control_handle(mesh.ca("east"), &mesh.clock);
    let server = mesh.tls(&handle).server_config(ClientAuth::Optional, Expected::Any, ALPN).unwrap();
    let clock: Arc<dyn rustls::time_provider::TimeProvider> = mesh.clock.clone();
    Handshake::run(&joining_config(token.root, &clock, ALPN).unwrap(), &server)
}

impl Joining {
    fn exporters(&self) -> ([u8; EXPORTER_BYTES], [u8; EXPORTER_BYTES]) {
        let export = |out: [u8; EXPORTER_BYTES]| out;
        let dialler =
            self.session.client.export_keying_material(export([0; EXPORTER_BYTES]), EXPORTER_LABEL, None).unwrap();
        let acceptor =
            self.session.server.export_keying_material(export([0; EXPORTER_BYTES]), EXPORTER_LABEL, None).unwrap();
        (dialler, acceptor)
    }

    fn accept(
        &self,
        request: &JoinRequest,
        membership: &Membership,
    ) -> Result<(fairlead_identity::JoinAnswer, Member), JoinRefused> {
        let me = member(self.mesh.ca("east"));
        let roster = Roster { me: &me, membership, shared: false };
        let exporter = self.exporters().1;
        accept(request, exporter, &self.store, roster, |_| Ok(Vec::new()), self.mesh.clock.now(), &mut SystemRandom)
    }

    fn request(&self, me: &Member) -> (JoinRequest, join::PendingJoin) {
        join::request(&self.token, self.exporters().0, me, &mut SystemRandom).unwrap()
    }
}

#[test]
fn a_token_joins_two_clusters_once() {
    let joining = joining();
    // The token travels as text.
    let text = joining.token.to_string();
    assert!(text.starts_with("fl1."));
    assert_eq!(text.parse::<JoinToken>().unwrap(), joining.token);

    let west = member(joining.mesh.ca("west"));
    let (request, pending) = joining.request(&west);
    let (answer, newcomer) = joining.accept(&request, &Membership::default()).unwrap();
    assert_eq!(newcomer, west);
    let joined = pending.finish(&answer).unwrap();
    assert_eq!(joined.member, member(joining.mesh.ca("east")));

    let (again, _) = joining.request(&west);
    assert_eq!(joining.accept(&again, &Membership::default()).unwrap_err(), JoinRefused::BadToken);
    // The very same message again is no better.
    assert_eq!(joining.accept(&request, &Membership::default()).unwrap_err(), JoinRefused::BadToken);
}

#[test]
fn the_pinned_root_is_the_only_one_believed() {
    let joining = joining();
    let mut token = joining.token.clone();
    token.root = joining.mesh.ca("north").root_fingerprint().unwrap();
    let refused = session(&joining.mesh, &token);
    assert!(matches!(refused.client_reason(), Some(VerifyError::ForeignRoot { .. })));

    // A workload of the right cluster is not its control plane.
    let workload = joining.mesh.handle("east", "frontend", 3600);
    let with_root = joining.mesh.ca("east").with_root(workload.load().chain().to_vec());
    let judged = join::judge_pinned(&with_root[0], &with_root[1..], joining.token.root, joining.mesh.clock.now());
    assert!(matches!(judged, Err(VerifyError::UnexpectedIdentity { .. })));
}

#[test]
fn a_man_in_the_middle_and_a_changed_message_prove_nothing_and_burn_nothing() {
    let joining = joining();
    let west = member(joining.mesh.ca("west"));
    let other_connection = [7; EXPORTER_BYTES];
    let (relayed, _) = join::request(&joining.token, other_connection, &west, &mut SystemRandom).unwrap();
    assert_eq!(joining.accept(&relayed, &Membership::default()).unwrap_err(), JoinRefused::BadToken);
    let (mut changed, _) = joining.request(&west);
    changed.body = changed.body.replace("\"west\"", "\"evil\"");
    assert_eq!(joining.accept(&changed, &Membership::default()).unwrap_err(), JoinRefused::BadToken);
    let (mut unknown, _) = joining.request(&west);
    unknown.token = "00112233445566778899aabbccddeeff".parse::<TokenId>().unwrap();
    assert_eq!(joining.accept(&unknown, &Membership::default()).unwrap_err(), JoinRefused::BadToken);

    // Nothing is made for whoever has proven nothing; and who is refused then has burned nothing either.
    let (me, exporter) = (member(joining.mesh.ca("east")), joining.exporters().1);
    let accept = |request: &join::JoinRequest, introduce: &dyn Fn() -> JoinRefused| {
        let roster = Roster { me: &me, membership: &Membership::default(), shared: false };
        let introduce = |_: &Member| Err(introduce());
        join::accept(request, exporter, &joining.store, roster, introduce, joining.mesh.clock.now(), &mut SystemRandom)
    };
    assert_eq!(accept(&changed, &|| panic!("not proven")).unwrap_err(), JoinRefused::BadToken);
    let (held, _) = joining.request(&west);
    let refused = JoinRefused::NameHeld("west".into());
    assert_eq!(accept(&held, &|| JoinRefused::NameHeld("west".into())).unwrap_err(), refused);

    let (good, pending) = joining.request(&west);
    let (mut answer, _) = joining.accept(&good, &Membership::default()).unwrap();
    answer.body = answer.body.replace("198.51.100.2", "192.0.2.66");
    assert_eq!(pending.finish(&answer).unwrap_err(), JoinRefused::AnswerNotProven);
}

#[test]
fn an_answer_to_another_request_is_none() {
    let joining = joining();
    let west = member(joining.mesh.ca("west"));
    let (first, _) = joining.request(&west);
    let (_, second) = joining.request(&west);
    let (answer, _) = joining.accept(&first, &Membership::default()).unwrap();
    assert_eq!(second.finish(&answer).unwrap_err(), JoinRefused::AnswerNotProven);
}

#[test]
fn a_token_ends_by_the_issuers_clock() {
    let joining = joining();
    let west = member(joining.mesh.ca("west"));
    let (request, _) = joining.request(&west);
    joining.mesh.clock.advance(600);
    assert_eq!(joining.accept(&request, &Membership::default()).unwrap_err(), JoinRefused::Expired);
}

#[test]
fn clashes_are_refused_before_the_token_is_burned() {
    let joining = joining();
    let signing = Control::of(joining.mesh.ca("east"));
    let mut membership = Membership::default();
    membership.merge(signing.introduce(member(joining.mesh.ca("north"))));

    let west = member(joining.mesh.ca("west"));
    let clash = |change: &dyn Fn(&mut Member)| {
        let mut newcomer = west.clone();
        change(&mut newcomer);
        let (request, _) = joining.request(&newcomer);
        joining.accept(&request, &membership).unwrap_err()
    };
    assert_eq!(clash(&|m| m.cluster = "east".to_owned()), JoinRefused::ClusterIdTaken("east".to_owned()));
    assert_eq!(clash(&|m| m.cluster = "north".to_owned()), JoinRefused::ClusterIdTaken("north".to_owned()));
    assert!(matches!(clash(&|m| m.cluster = "outside".to_owned()), JoinRefused::Malformed(_)));
    let roots: Vec<_> = joining.mesh.ca("west").bundle().roots().cloned().collect();
    assert_eq!(
        clash(&|m| m.bundle = TrustBundle::new(domain("north"), 1, roots.clone()).unwrap()),
        JoinRefused::TrustDomainTaken { domain: domain("north"), cluster: "north".to_owned() }
    );
    let norths = joining.mesh.ca("north").issuing_key();
    assert!(matches!(clash(&|m| m.issuing_keys = BTreeSet::from([norths])), JoinRefused::IssuingKeyShared { .. }));
    // Detached at incarnation 3: comes back with 4.
    let mut gone = west.clone();
    gone.incarnation = 3;
    membership.merge(signing.revoke(&gone));
    let (request, _) = joining.request(&gone);
    assert_eq!(
        joining.accept(&request, &membership).unwrap_err(),
        JoinRefused::Detached { cluster: "west".to_owned(), revoked: 3 }
    );
    gone.incarnation = 4;
    let (request, _) = joining.request(&gone);
    assert!(joining.accept(&request, &membership).is_ok(), "nothing was burned so far");
}

#[test]
fn the_same_cluster_may_join_again_through_a_new_token() {
    let joining = joining();
    let signing = Control::of(joining.mesh.ca("east"));
    let mut membership = Membership::default();
    membership.merge(signing.introduce(member(joining.mesh.ca("west"))));
    let mut west = member(joining.mesh.ca("west"));
    west.incarnation = 2;
    let (request, _) = joining.request(&west);
    assert!(joining.accept(&request, &membership).is_ok());
}

#[test]
fn a_rehearsal_says_what_a_join_would_and_burns_nothing() {
    let joining = joining();
    let rehearse = |who: &Member, later: u64| {
        let (request, _) = joining.request(who);
        let me = member(joining.mesh.ca("east"));
        let roster = Roster { me: &me, membership: &Membership::default(), shared: false };
        join::rehearse(&request, joining.exporters().1, &joining.store, roster, at(START + later))
    };
    let west = member(joining.mesh.ca("west"));
    assert_eq!(rehearse(&west, 0), Ok(()));
    assert_eq!(rehearse(&west, 0), Ok(()), "nothing was burned by the first");
    assert_eq!(rehearse(&west, 600), Err(JoinRefused::Expired));
    let mut namesake = west.clone();
    namesake.cluster = "east".to_owned();
    assert_eq!(rehearse(&namesake, 0), Err(JoinRefused::ClusterIdTaken("east".to_owned())));
    let (request, _) = joining.request(&west);
    joining.accept(&request, &Membership::default()).unwrap();
    assert_eq!(rehearse(&west, 0), Err(JoinRefused::BadToken), "a join has used it up");
}

#[test]
fn a_store_that_fails_refuses() {
    struct Broken(MemoryTokenStore);
    impl TokenStore for Broken {
        fn put(&self, token: StoredToken) -> Result<(), StoreError> {
            self.0.put(token)
        }
        fn find(&self, id: &TokenId) -> Result<Option<StoredToken>, StoreError> {
            self.0.find(id)
        }
        fn burn(&self, _: &TokenId, _: u64) -> Result<bool, StoreError> {
            Err(StoreError("disk full".to_owned()))
        }
        fn is_burned(&self, id: &TokenId) -> Result<bool, StoreError> {
            self.0.is_burned(id)
        }
    }
    let joining = joining();
    let west = member(joining.mesh.ca("west"));
    let (request, _) = joining.request(&west);
    let stored = joining.store.find(&joining.token.id()).unwrap().unwrap();
    let broken = Broken(MemoryTokenStore::default());
    broken.put(stored).unwrap();
    let me = member(joining.mesh.ca("east"));
    let membership = Membership::default();
    let roster = Roster { me: &me, membership: &membership, shared: false };
    let refused =
        accept(&request, joining.exporters().1, &broken, roster, |_| Ok(Vec::new()), at(START), &mut SystemRandom);
    assert_eq!(refused.unwrap_err(), JoinRefused::Store("disk full".to_owned()));
}

#[test]
fn workload_tokens_are_exact_single_and_short() {
    let issuer = WorkloadTokenIssuer::new(&[3; 32]);
    let store = MemoryTokenStore::default();
    let identity = domain("east").service_account("shop", "frontend").unwrap();
    let issue =
        || issuer.issue(&identity, "shop/frontend-0", Duration::from_secs(60), at(START), &mut SystemRandom).unwrap();
    let token = WorkloadToken::parse(issue().as_str()).unwrap();
    assert_eq!(token.claimed().unwrap().workload, "shop/frontend-0");
    let claim = issuer.redeem(&token, &store, at(START + 59)).unwrap();
    assert_eq!(claim.spiffe_id, identity);
    let workload = "shop/frontend-0".to_owned();
    assert_eq!(
        issuer.redeem(&token, &store, at(START)).unwrap_err(),
        WorkloadTokenError::Used { workload: workload.clone() }
    );
    // A restart gets a new one.
    let next = issue();
    assert_eq!(issuer.redeem(&next, &store, at(START + 60)).unwrap_err(), WorkloadTokenError::Expired { workload });
    assert!(issuer.redeem(&next, &store, at(START)).is_ok());
    // Another control plane's, or a changed one, is no token.
    let foreign = WorkloadTokenIssuer::new(&[4; 32]);
    assert_eq!(foreign.redeem(&issue(), &store, at(START)).unwrap_err(), WorkloadTokenError::Invalid);
    let text = issue().as_str().replacen('A', "B", 1);
    let changed = WorkloadToken::parse(&text).unwrap();
    assert_eq!(issuer.redeem(&changed, &store, at(START)).unwrap_err(), WorkloadTokenError::Invalid);
    assert!(WorkloadToken::parse("fl1.abc").is_err());
    assert!(!format!("{:?}", issue()).contains("flw1"));
}
