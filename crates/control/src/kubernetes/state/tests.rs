//! Control planes whose pods come and go, and two at a time, on one API server in memory.

use super::*;
use crate::authority::{Authority, Opening};
use crate::kubernetes::fake_api::FakeApi;
use crate::kubernetes::lease::Candidate;
use crate::status::Status;
use fairlead_identity::{JoinToken, Statement, SystemRandom, TokenId, TokenStore as _};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

const NAMESPACE: &str = "fairlead-system";

/// A pod: what it has is gone with it.
struct Pod {
    store: Arc<Store>,
    leadership: Leadership,
    heard: mpsc::UnboundedReceiver<BTreeSet<Bucket>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Pod {
    async fn start(api: &FakeApi, name: &str) -> Self {
        let store = Arc::new(Store::in_memory().unwrap());
        let state =
            State::open(Api::namespaced(api.client(), NAMESPACE), store.clone(), &Status::default()).await.unwrap();
        let (candidate, leadership) = Candidate::new(Api::namespaced(api.client(), NAMESPACE), name.into());
        let (tell, heard) = mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(candidate.run(watch::channel(false).1));
        tasks.spawn(state.run(leadership.clone(), move |buckets| drop(tell.send(buckets))));
        Self { store, leadership, heard, tasks }
    }

    fn authority(&self) -> Authority {
        let opening = Opening::plain("east", "east.shop.example");
        Authority::open(&opening, self.store.clone()).unwrap()
    }

    async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Waits until it is so; fails if it never is.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What an object of the state holds under an entry.
fn entry(api: &FakeApi, object: &str, entry: &str) -> Option<Value> {
    use base64::Engine as _;
    let secret = api.get("v1", "secrets", NAMESPACE, object)?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"]["entries.json"].as_str()?).ok()?;
    serde_json::from_slice::<Value>(&bytes).ok()?.get(entry).cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_pod_has_the_same_ca_names_and_members() {
    let api = FakeApi::new();
    let mut first = Pod::start(&api, "first").await;
    first.leadership.gained().await;
    let authority = first.authority();
    let root = authority.ca().root_fingerprint();
    let west = member("west");
    authority.declare(Statement::Introduce(west)).unwrap();
    first.store.replace(Bucket::VirtualIps, &[("*.reviews.shop".to_owned(), "240.240.0.7")]).unwrap();
    let at = shard::object(Bucket::VirtualIps, "*.reviews.shop").unwrap();
    until("the virtual IP is kept", || entry(&api, &at, "virtual-ips/*.reviews.shop").is_some()).await;
    let stored = first.store.all::<Value>(Bucket::Membership).unwrap();
    let kept = |key: &str| entry(&api, &shard::object(Bucket::Membership, key).unwrap(), &format!("membership/{key}"));
    until("members are kept", || stored.iter().all(|(key, _)| kept(key).is_some())).await;
    let ca = api.get("v1", "secrets", NAMESPACE, "fairlead-ca").unwrap();
    assert!(ca["data"]["ca-key.pem"].is_string() && ca["data"]["root-cert.pem"].is_string());
    drop(authority);
    first.end().await;

    let next = Pod::start(&api, "next").await;
    let authority = next.authority();
    assert_eq!(authority.ca().root_fingerprint(), root);
    assert!(authority.peers().iter().any(|m| m.cluster == "west"));
    let ips = next.store.all::<String>(Bucket::VirtualIps).unwrap();
    assert_eq!(ips, [("*.reviews.shop".to_owned(), "240.240.0.7".to_owned())]);
}

fn member(cluster: &str) -> fairlead_identity::Member {
    let domain = format!("{cluster}.shop.example");
    let opening = Opening::plain(cluster, &domain);
    Authority::open(&opening, Arc::new(Store::in_memory().unwrap())).unwrap().me()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_replicas_one_burns_a_token() {
    let api = FakeApi::new();
    let (a, b) = (Pod::start(&api, "a").await, Pod::start(&api, "b").await);
    for n in 0..20_u8 {
        let id = TokenId::from_bytes([n; 16]);
        let burn = |store: &Arc<Store>| {
            let (store, id) = (store.clone(), id);
            tokio::task::spawn_blocking(move || store.burn(&id, 4_000_000_000).unwrap())
        };
        let (one, other) = tokio::join!(burn(&a.store), burn(&b.store));
        assert_ne!(one.unwrap(), other.unwrap(), "token {n}");
    }
    // Both have read that it is free before either writes.
    for n in 100..110_u8 {
        let before = api.requests("/secrets/fairlead-state-burned") + api.requests("POST");
        api.set_open(false);
        let burn = |store: &Arc<Store>| {
            let store = store.clone();
            tokio::task::spawn_blocking(move || store.burn(&TokenId::from_bytes([n; 16]), 4_000_000_000).unwrap())
        };
        let (one, other) = (burn(&a.store), burn(&b.store));
        // Each reads and then writes.
        let asked = || api.requests("/secrets/fairlead-state-burned") + api.requests("POST");
        until("both write", || asked() >= before + 4).await;
        api.set_open(true);
        assert_ne!(one.await.unwrap(), other.await.unwrap(), "token {n}");
    }
    // A pod that comes later knows too.
    let later = Pod::start(&api, "later").await;
    assert!(!later.store.burn(&TokenId::from_bytes([3; 16]), 4_000_000_000).unwrap());
    // One that was made at the one is good at the other at once, also if that has not heard of it.
    let other = api.another_way();
    let mut deaf = Pod::start(&other, "deaf").await;
    deaf.tasks.shutdown().await;
    let root = a.authority().ca().root_fingerprint().unwrap();
    let (addresses, now) = (vec!["192.0.2.1:1".to_owned()], crate::authority::now());
    let made = JoinToken::create(addresses, root, "east", Duration::from_secs(60), now, &mut SystemRandom);
    let made = made.unwrap().1;
    let id = made.id;
    a.store.put(made).unwrap();
    let (store, wanted) = (deaf.store.clone(), id);
    let found = tokio::task::spawn_blocking(move || store.find(&wanted).unwrap()).await.unwrap();
    assert_eq!(found.map(|token| token.id), Some(id));
    // Without the API server none is burned, and so none is used: it is good afterwards.
    let id = TokenId::from_bytes([99; 16]);
    api.set_away(true);
    let error = a.store.burn(&id, 4_000_000_000).unwrap_err().to_string();
    assert!(error.contains("API server"), "{error}");
    api.set_away(false);
    assert!(a.store.burn(&id, 4_000_000_000).unwrap() && !a.store.burn(&id, 4_000_000_000).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_hear_of_each_other_and_only_the_holder_writes_what_is_derived() {
    let api = FakeApi::new();
    let mut a = Pod::start(&api, "a").await;
    a.leadership.gained().await;
    let mut b = Pod::start(&api, "b").await;
    let (one, other) = (a.authority(), b.authority());
    assert_eq!(one.ca().root_fingerprint(), other.ca().root_fingerprint(), "one CA, whoever made it");
    // Both learn something at once; neither loses it.
    one.declare(Statement::Introduce(member("west"))).unwrap();
    other.declare(Statement::Introduce(member("north"))).unwrap();
    for (authority, pod) in [(&one, &mut a), (&other, &mut b)] {
        let both = |authority: &Authority| {
            let peers = authority.peers();
            ["west", "north"].iter().all(|cluster| peers.iter().any(|m| m.cluster == *cluster))
        };
        while !both(authority) {
            let heard = tokio::time::timeout(Duration::from_secs(30), pod.heard.recv()).await;
            assert!(heard.unwrap().is_some());
            authority.reload().unwrap();
        }
    }
    // The other's virtual IP is heard of, the own one is kept to itself until it holds the lease.
    b.store.save(Bucket::VirtualIps, "of-b", &"240.240.0.2").unwrap();
    a.store.save(Bucket::VirtualIps, "of-a", &"240.240.0.1").unwrap();
    until("b hears of it", || b.store.has(Bucket::VirtualIps, "of-a").unwrap()).await;
    let of_b = shard::object(Bucket::VirtualIps, "of-b").unwrap();
    assert_eq!(entry(&api, &of_b, "virtual-ips/of-b"), None);
    // Both come to an address for one name at the same time, and not to the same: the holder's is everybody's.
    for n in 0..20 {
        let name = format!("of-both-{n}");
        b.store.save(Bucket::VirtualIps, &name, &"240.240.1.2").unwrap();
        a.store.save(Bucket::VirtualIps, &name, &"240.240.1.1").unwrap();
        let of = |pod: &Pod| pod.store.load::<String>(Bucket::VirtualIps, &name).unwrap().unwrap();
        until("b has what a has", || of(&b) == "240.240.1.1").await;
        assert_eq!(of(&a), "240.240.1.1");
    }
    // Somebody deletes an object: it comes back.
    let of_a = shard::object(Bucket::VirtualIps, "of-a").unwrap();
    api.delete("v1", "secrets", NAMESPACE, &of_a);
    until("it is back", || entry(&api, &of_a, "virtual-ips/of-a") == Some(json!("240.240.0.1"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_the_lease_goes_on_from_what_was_written() {
    let api = FakeApi::new();
    let mut a = Pod::start(&api, "a").await;
    a.leadership.gained().await;
    let other = api.another_way();
    let mut b = Pod::start(&other, "b").await;
    // The one hears nothing any more, and comes to another address for the name.
    other.set_away(true);
    b.store.save(Bucket::VirtualIps, "name", &"240.240.0.2").unwrap();
    b.store.save(Bucket::VirtualIps, "new", &"240.240.0.3").unwrap();
    a.store.save(Bucket::VirtualIps, "name", &"240.240.0.1").unwrap();
    let of = |key: &str| entry(&api, &shard::object(Bucket::VirtualIps, key).unwrap(), &format!("virtual-ips/{key}"));
    until("it is written", || of("name") == Some(json!("240.240.0.1"))).await;
    a.end().await;
    // As one that ends in order gives it back.
    let mut lease = api.get("coordination.k8s.io/v1", "leases", NAMESPACE, "fairlead-control").unwrap();
    lease["spec"]["holderIdentity"] = json!("");
    api.put("coordination.k8s.io/v1", "leases", NAMESPACE, "fairlead-control", lease);
    other.set_away(false);
    b.leadership.gained().await;
    until("what was missing is written", || of("new") == Some(json!("240.240.0.3"))).await;
    assert_eq!(of("name"), Some(json!("240.240.0.1")));
    assert_eq!(b.store.load::<String>(Bucket::VirtualIps, "name").unwrap().unwrap(), "240.240.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_while_the_api_server_is_away_is_written_when_it_is_back() {
    let api = FakeApi::new();
    let mut pod = Pod::start(&api, "a").await;
    pod.leadership.gained().await;
    api.set_away(true);
    pod.store.save(Bucket::Introduced, "west", &true).unwrap();
    assert!(!pod.store.is_safe(Duration::from_millis(200)).await);
    assert_eq!(entry(&api, "fairlead-state-introduced", "introduced/west"), None);
    api.set_away(false);
    assert!(pod.store.is_safe(Duration::from_secs(30)).await);
    until("it is written", || entry(&api, "fairlead-state-introduced", "introduced/west") == Some(json!(true))).await;
    pod.store.write([(Bucket::Introduced, "west".to_owned(), None)]).unwrap();
    until("and removed", || entry(&api, "fairlead-state-introduced", "introduced/west").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_replicas_one_lets_its_newcomer_have_a_name() {
    let api = FakeApi::new();
    let (a, b) = (Pod::start(&api, "a").await, Pod::start(&api, "b").await);
    let life = Duration::from_secs(60);
    let at = |seconds: u64| rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let hold = |pod: &Pod, name: String, holder: &'static str, now: u64| {
        let store = pod.store.clone();
        tokio::task::spawn_blocking(move || store.hold(Bucket::Names, &name, holder, life, at(now)).unwrap())
    };
    for n in 0..20 {
        let name = format!("west-{n}");
        let (one, other) = tokio::join!(hold(&a, name.clone(), "one", 1000), hold(&b, name.clone(), "other", 1000));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_ne!(one, other, "{name}");
        let (winner, loser) = if one { ("one", "other") } else { ("other", "one") };
        // Who has it may ask any replica again; the other waits until its time is over.
        assert!(hold(&b, name.clone(), winner, 1030).await.unwrap());
        assert!(!hold(&a, name.clone(), loser, 1089).await.unwrap());
        assert!(hold(&a, name.clone(), loser, 1090).await.unwrap());
        assert!(!hold(&b, name, winner, 1091).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_members_that_cannot_be_read_closes_and_is_left_as_it_is() {
    let api = FakeApi::new();
    let mut first = Pod::start(&api, "first").await;
    first.leadership.gained().await;
    let authority = first.authority();
    for cluster in ["west", "north"] {
        authority.declare(Statement::Introduce(member(cluster))).unwrap();
    }
    authority.detach("west").unwrap();
    assert!(first.store.is_safe(Duration::from_secs(30)).await);
    let entries = |secret: Value| Shard::read(&serde_json::from_value(secret).unwrap()).ok();
    let believed = |authority: &Authority| {
        let trust = authority.trust();
        trust.domains().filter(|(_, domain)| !domain.revoked).map(|(domain, _)| domain.to_string()).collect::<Vec<_>>()
    };
    // Which object has the revocation: with that one gone bad, a new pod would believe west again.
    let names: Vec<String> = (0..16).map(|n| format!("fairlead-state-membership-{n}")).collect();
    let good: Vec<(&String, Value)> =
        names.iter().filter_map(|name| Some((name, api.get("v1", "secrets", NAMESPACE, name)?))).collect();
    assert!(!good.is_empty());
    for damage in
        [json!({}), json!({"entries.json": "bm90IEpTT04="}), json!({"entries.json": "eyJtZW1iZXJzaGlwL3giOiB7fX0="})]
    {
        for (name, secret) in &good {
            let mut bad = secret.clone();
            bad["data"] = damage.clone();
            api.put("v1", "secrets", NAMESPACE, name, bad);
        }
        // Who knew what was in it goes on, and lets nobody join.
        until("the damage is heard of", || first.store.unreadable().len() == good.len()).await;
        authority.reload().unwrap();
        assert_eq!(authority.peers().iter().map(|m| m.cluster.as_str()).collect::<Vec<_>>(), ["north"]);
        let refused = authority.refuses_joins().unwrap();
        assert!(refused.contains("fairlead-state-membership-") && refused.contains("backup"), "{refused}");
        // Who did not believes nobody but its own cluster.
        let next = Pod::start(&api, "next").await;
        let later = next.authority();
        assert_eq!(later.ca().root_fingerprint(), authority.ca().root_fingerprint());
        assert!(later.peers().is_empty());
        assert_eq!(believed(&later), ["east.shop.example"]);
        assert!(later.absorb(&authority.statements(None).unwrap().unwrap().1).is_ok());
        assert!(later.peers().is_empty());
        assert_eq!(believed(&later), ["east.shop.example"], "whoever tells of them");
        next.end().await;
        for (name, _) in &good {
            assert_eq!(api.get("v1", "secrets", NAMESPACE, name).unwrap()["data"], damage, "never overwritten");
        }
        // Put back, it is believed again.
        for (name, secret) in &good {
            api.put("v1", "secrets", NAMESPACE, name, secret.clone());
        }
        until("it can be read again", || first.store.unreadable().is_empty()).await;
    }
    let next = Pod::start(&api, "next").await;
    let later = next.authority();
    assert_eq!(later.peers().iter().map(|m| m.cluster.as_str()).collect::<Vec<_>>(), ["north"]);
    assert!(later.refuses_joins().is_none());
    // Gone bad and deleted: an operator takes the loss, and who knew writes it again.
    for (name, secret) in &good {
        let mut bad = secret.clone();
        bad["data"] = json!({});
        api.put("v1", "secrets", NAMESPACE, name, bad);
    }
    until("the damage is heard of", || next.store.unreadable().len() == good.len()).await;
    for (name, _) in &good {
        api.delete("v1", "secrets", NAMESPACE, name);
    }
    until("and that it is gone", || [&first, &next].iter().all(|pod| pod.store.unreadable().is_empty())).await;
    let kept = || {
        let found = names.iter().filter_map(|name| api.get("v1", "secrets", NAMESPACE, name).and_then(entries));
        found.map(|shard| shard.entries().count()).sum::<usize>()
    };
    until("it is written again", || kept() == first.store.all::<Value>(Bucket::Membership).unwrap().len()).await;
    let last = Pod::start(&api, "last").await;
    assert_eq!(last.authority().peers().iter().map(|m| m.cluster.as_str()).collect::<Vec<_>>(), ["north"]);
    assert!(last.authority().revoked().contains("west"));
}
