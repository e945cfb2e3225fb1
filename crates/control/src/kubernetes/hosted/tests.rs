//! The credential and the address between two API servers, with time standing still: renewal, what is told, what comes back.

use super::credential::tests::token;
use super::*;
use crate::authority::now;
use crate::kubernetes::fake_api::FakeApi;
use crate::kubernetes::lease::Candidate;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::Api;
use serde_json::{Value, json};

const HOME: &str = "fairlead-remote-west";
const SYSTEM: &str = "fairlead-system";

struct Two {
    home: FakeApi,
    remote: FakeApi,
    hosting: Arc<Hosting>,
}

/// A token that is that many seconds old and good for that many more.
fn aged(ago: i64, left: i64) -> String {
    let now = i64::try_from(now().as_secs()).unwrap();
    token(now - ago, now + left)
}

fn two(first: &str) -> Two {
    let (home, remote) = (FakeApi::new(), FakeApi::new());
    home.put("v1", "secrets", HOME, SECRET, json!({"data": {TOKEN: STANDARD.encode(first)}}));
    let hosting = Arc::new(Hosting {
        cluster: "west".into(),
        namespace: SYSTEM.into(),
        remote: remote.client(),
        home: Home { client: home.client(), namespace: HOME.into() },
        credential: Credential::new(Token::read(first).unwrap()),
        lifetime: Duration::from_secs(3600),
        trouble: watch::Sender::new(None),
        door: watch::Sender::new(None),
    });
    Two { home, remote, hosting }
}

impl Two {
    fn offers(&self, token: &str) {
        let path = format!("/api/v1/namespaces/{SYSTEM}/serviceaccounts/fairlead-primary/token");
        let status = json!({"token": token, "expirationTimestamp": "2100-01-01T00:00:00Z"});
        self.remote.set_document(&path, json!({"metadata": {}, "spec": {"audiences": []}, "status": status}));
    }

    fn kept(&self) -> Value {
        self.home.get("v1", "secrets", HOME, SECRET).unwrap()["data"][TOKEN].clone()
    }

    fn slice(&self) -> Option<Value> {
        self.remote.get("discovery.k8s.io/v1", "endpointslices", SYSTEM, "fairlead-control-ipv4")
    }
}

/// Time is paused: all that can happen happens before it moves.
async fn soon(what: &str, holds: impl Fn() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), look).await.unwrap_or_else(|_| panic!("never {what}"));
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_while_the_primarys_api_server_is_away_and_kept_when_it_is_back() {
    let (first, second) = (aged(3000, 600), aged(0, 3600));
    let two = two(&first);
    two.offers(&second);
    two.home.set_away(true);
    // Nobody holds a lease that cannot be renewed.
    let lease = Api::namespaced(two.home.client(), HOME);
    let (_candidate, leadership) = Candidate::new(lease, "me".into());
    let hosting = two.hosting.clone();
    tokio::spawn(async move { hosting.renew(&leadership).await });
    soon("used", || two.hosting.credential.current().text == second).await;
    two.home.set_away(false);
    soon("kept", || two.kept() == STANDARD.encode(&second)).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_the_holder_of_the_lease_who_renews_at_half_of_the_life() {
    let (first, second) = (aged(2000, 1600), aged(0, 3600));
    let two = two(&first);
    two.offers(&second);
    let (candidate, leadership) = Candidate::new(Api::namespaced(two.home.client(), HOME), "me".into());
    let hosting = two.hosting.clone();
    let renewing = leadership.clone();
    tokio::spawn(async move { hosting.renew(&renewing).await });
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(two.hosting.credential.current().text, first, "another replica may be at it");
    tokio::spawn(candidate.run(watch::channel(false).1));
    soon("renewed", || two.kept() == STANDARD.encode(&second)).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_renewed_is_told_of_before_it_ends_and_ends_with_a_token_that_is_brought() {
    let two = two(&aged(3500, 100));
    let lease = Api::namespaced(two.home.client(), HOME);
    let (_candidate, leadership) = Candidate::new(lease, "me".into());
    tokio::spawn(two.hosting.clone().hear());
    let hosting = two.hosting.clone();
    tokio::spawn(async move { hosting.renew(&leadership).await });
    let trouble = two.hosting.trouble();
    soon("told", || trouble.borrow().as_ref().is_some_and(|told| told.starts_with("it ends in "))).await;
    let brought = aged(0, 3600);
    two.home.put("v1", "secrets", HOME, SECRET, json!({"data": {TOKEN: STANDARD.encode(&brought)}}));
    soon("silent", || trouble.borrow().is_none()).await;
    assert_eq!(two.hosting.credential.current().text, brought);
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_told_as_such() {
    let two = two(&aged(3600, -60));
    let (_candidate, leadership) = Candidate::new(Api::namespaced(two.home.client(), HOME), "me".into());
    let hosting = two.hosting.clone();
    tokio::spawn(async move { hosting.renew(&leadership).await });
    let trouble = two.hosting.trouble();
    soon("told", || trouble.borrow().as_ref().is_some_and(|told| told.starts_with("it has ended"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_somebody_deletes_comes_back_and_no_address_takes_none_away() {
    let two = two(&aged(0, 3600));
    let service = |ingress: Value| {
        json!({
            "spec": {"type": "LoadBalancer", "ports": [{"name": "tls-xds", "port": 15012}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        })
    };
    two.home.put("v1", "services", HOME, "fairlead-peering", service(json!([{"ip": "192.0.2.1"}])));
    let (candidate, leadership) = Candidate::new(Api::namespaced(two.home.client(), HOME), "me".into());
    tokio::spawn(candidate.run(watch::channel(false).1));
    let hosting = two.hosting.clone();
    tokio::spawn(async move { hosting.announce(leadership).await });
    soon("there", || two.slice().is_some()).await;
    assert_eq!(two.hosting.advertised().unwrap(), ["192.0.2.1:15012"]);
    two.remote.delete("discovery.k8s.io/v1", "endpointslices", SYSTEM, "fairlead-control-ipv4");
    soon("there again", || two.slice().is_some()).await;
    two.home.put("v1", "services", HOME, "fairlead-peering", service(json!([])));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(two.slice().unwrap()["endpoints"][0]["addresses"], json!(["192.0.2.1"]), "what was right may be again");
}
