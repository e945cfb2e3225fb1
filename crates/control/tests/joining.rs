//! Several control planes: joining, what peers tell, and detaching.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use fairlead_identity::TrustBundleSet;
use fairlead_proto::ResourceType;
use serde_json::{Value, json};
use support::proxy::Identity;
use support::{Mesh, Plane, rows, service};

const MESH: &str = "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\nmetadata: {name: shop}\nspec:\n  trustDomain: shop.example\n  clusters:\n    east: {network: n1}\n    west: {network: n1}\n    north: {network: n1}\n";

fn mesh() -> Mesh {
    let mesh = Mesh::new(MESH);
    mesh.write("clusters/east/frontend.yaml", &service("frontend", "10.1.0.1", None));
    mesh.write("clusters/west/reviews.yaml", &service("reviews", "10.2.0.1", Some("")));
    mesh.write("clusters/west/cart.yaml", &service("cart", "10.2.0.2", Some("east")));
    mesh.write("clusters/west/private.yaml", &service("private", "10.2.0.3", None));
    mesh.write("clusters/north/ads.yaml", &service("ads", "10.3.0.1", Some("")));
    mesh
}

fn hosts(listing: &Value) -> Vec<String> {
    listing.as_array().into_iter().flatten().filter_map(|r| r["host"].as_str().map(str::to_owned)).collect()
}

fn sees(plane: &Plane, host: &str) {
    plane.until("/services", &format!("with {host}"), |all| hosts(all).iter().any(|h| h == host));
}

fn trust(plane: &Plane) -> TrustBundleSet {
    TrustBundleSet::from_json(&plane.get("/trust").to_string()).unwrap()
}

#[test]
fn membership_and_services_reach_everybody_who_may_know() {
    let mesh = mesh();
    let (east, west, north) = (mesh.start("east"), mesh.start("west"), mesh.start("north"));
    // West joins first; north later, at east, and meets west by east's word.
    west.join(&east);
    sees(&east, "cart.shop.svc.cluster.local");
    north.join(&east);
    for plane in [&east, &west, &north] {
        plane.until("/clusters", "whole", |all| {
            ["east", "west", "north"]
                .iter()
                .all(|c| rows(all, "cluster", c).iter().any(|r| r["stream"] == "self" || r["stream"] == "fresh"))
        });
        plane.until("/peers", "connected", |all| {
            all.as_array().is_some_and(|a| a.len() == 2 && a.iter().all(|r| r["connected"] == true))
        });
    }
    sees(&north, "reviews.shop.svc.cluster.local");
    sees(&west, "ads.shop.svc.cluster.local");
    sees(&east, "ads.shop.svc.cluster.local");
    // Told to east alone, and to nobody.
    assert!(!hosts(&north.get("/services")).iter().any(|h| h.starts_with("cart.")), "cart is for east only");
    for plane in [&east, &north] {
        assert!(!hosts(&plane.get("/services")).iter().any(|h| h.starts_with("private.")));
    }
    let endpoint = &east.rows("/endpoints", "service", "reviews.shop.svc.cluster.local")[0];
    assert_eq!(endpoint["address"], "10.2.0.1", "one network: addresses cross");
    assert_eq!(endpoint["identity"], "spiffe://west.shop.example/ns/shop/sa/reviews");
    // An edit in west is seen in north.
    mesh.write("clusters/west/reviews.yaml", &service("reviews", "10.2.0.9", Some("")));
    north.until("/endpoints", "moved", |all| !rows(all, "address", "10.2.0.9").is_empty());
    mesh.remove("clusters/west/reviews.yaml");
    north.until("/services", "without reviews", |all| !hosts(all).iter().any(|h| h.starts_with("reviews.")));
}

#[test]
fn who_cannot_be_dialled_holds_a_line_ready() {
    let mesh = mesh();
    let (mut east, west, north) = (mesh.start("east"), mesh.start("west"), mesh.start_undiallable("north"));
    west.join(&east);
    north.join(&east);
    // Both ways: who dials hears, and is heard.
    sees(&north, "reviews.shop.svc.cluster.local");
    for plane in [&east, &west] {
        sees(plane, "ads.shop.svc.cluster.local");
        plane.until("/peers", "connected", |all| {
            all.as_array().is_some_and(|a| a.len() == 2 && a.iter().all(|r| r["connected"] == true))
        });
        assert_eq!(plane.rows("/peers", "cluster", "north")[0]["addresses"], json!([]));
    }
    mesh.write("clusters/north/news.yaml", &service("news", "10.3.0.2", Some("")));
    sees(&west, "news.shop.svc.cluster.local");
    // It is found again by who was started anew, and is cut off like all others.
    east.kill();
    east.start();
    mesh.remove("clusters/north/news.yaml");
    east.until("/services", "without news", |all| !hosts(all).iter().any(|h| h.starts_with("news.")));
    west.post("/detach", json!({"cluster": "north"}));
    for plane in [&east, &west] {
        plane.until("/services", "without north's", |all| !hosts(all).iter().any(|h| h.starts_with("ads.")));
    }
}

/// As on Kubernetes, where objects name no cluster but their own: what each says of itself decides.
#[test]
fn addresses_cross_between_clusters_that_say_they_share_a_network() {
    let alone = |cluster: &str, network: &str, address: &str| {
        let text = format!(
            "apiVersion: fairlead.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: shop}}\nspec:\n  trustDomain: shop.example\n  clusters:\n    {cluster}: {{network: {network}}}\n"
        );
        let mesh = Mesh::new(&text);
        mesh.write(&format!("clusters/{cluster}/web.yaml"), &service(cluster, address, Some("")));
        mesh
    };
    let meshes =
        [alone("east", "lan", "10.1.0.1"), alone("west", "lan", "10.2.0.1"), alone("north", "far", "10.1.0.1")];
    let [east, west, north] = [(0, "east"), (1, "west"), (2, "north")].map(|(n, cluster)| meshes[n].start(cluster));
    west.join(&east);
    north.join(&east);
    let of = |all: &Value, cluster: &str| {
        rows(all, "service", &format!("{cluster}.shop.svc.cluster.local")).first().map(|row| row["address"].clone())
    };
    west.until("/endpoints", "with east's address", |all| of(all, "east") == Some("10.1.0.1".into()));
    east.until("/endpoints", "with west's address", |all| of(all, "west") == Some("10.2.0.1".into()));
    east.until("/endpoints", "with north's endpoint", |all| of(all, "north").is_some());
    assert_ne!(of(&east.get("/endpoints"), "north"), Some("10.1.0.1".into()), "it is on another network");
}

#[test]
fn a_token_is_good_once() {
    let mesh = mesh();
    let (east, west, north) = (mesh.start("east"), mesh.start("west"), mesh.start("north"));
    let token = east.post("/token", json!({}))["token"].clone();
    assert_eq!(west.post("/join", json!({"token": token}))["joined"], "east");
    let refused = north.post("/join", json!({"token": token}));
    assert!(refused["error"].as_str().is_some_and(|e| e.contains("not good here")), "{refused}");
    assert!(north.get("/peers").as_array().is_some_and(Vec::is_empty));
    let ended = east.post("/token", json!({"seconds": 0}))["token"].clone();
    assert!(north.post("/join", json!({"token": ended}))["error"].is_string());
}

#[test]
fn attempts_to_join_are_limited() {
    let mesh = mesh();
    let (east, west) = (mesh.start("east"), mesh.start("west"));
    let token = east.post("/token", json!({}))["token"].as_str().unwrap().to_owned();
    west.post("/join", json!({"token": token}));
    // At once, so that a slow machine makes them within the second too.
    let attempt = || west.post("/join", json!({"token": token}))["error"].to_string();
    let errors: Vec<String> = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..40).map(|_| scope.spawn(attempt)).collect();
        attempts.into_iter().map(|attempt| attempt.join().unwrap()).collect()
    });
    assert!(errors.iter().any(|e| e.contains("too many attempts")), "{errors:?}");
}

#[test]
fn of_two_that_join_under_one_name_at_once_one_does() {
    let (here, elsewhere) = (mesh(), mesh());
    let east = here.start("east");
    let wests = [here.start("west"), elsewhere.start("west")];
    let tokens = wests.each_ref().map(|_| east.post("/token", json!({}))["token"].clone());
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let joins = wests
            .iter()
            .zip(&tokens)
            .map(|(west, token)| scope.spawn(move || west.post("/join", json!({"token": token}))));
        let joins: Vec<_> = joins.collect();
        joins.into_iter().map(|join| join.join().unwrap()).collect()
    });
    let (joined, refused): (Vec<&Value>, Vec<&Value>) = answers.iter().partition(|answer| answer["joined"] == "east");
    assert_eq!((joined.len(), refused.len()), (1, 1), "{answers:?}");
    assert!(refused[0]["error"].to_string().contains("west"), "{answers:?}");
    // And that one is a member like any other.
    sees(&east, "reviews.shop.svc.cluster.local");
    assert!(rows(&east.get("/diagnostics"), "code", "FL0502").is_empty());
}

#[test]
fn a_detached_cluster_is_out_everywhere_and_stays_out() {
    let mesh = mesh();
    let (mut east, west, north) = (mesh.start("east"), mesh.start("west"), mesh.start("north"));
    west.join(&east);
    north.join(&east);
    sees(&north, "reviews.shop.svc.cluster.local");
    let of_west = Identity::of(&west, "west/shop/reviews-1");
    for plane in [&east, &north] {
        plane.until("/trust", "trusting west", |_| of_west.verify_by(&trust(plane)).is_ok());
    }
    assert_eq!(east.post("/detach", json!({"cluster": "west"}))["detached"], "west");
    for plane in [&east, &north] {
        plane.until("/trust", "without west", |_| of_west.verify_by(&trust(plane)).is_err());
        plane.until("/clusters", "without west", |all| {
            rows(all, "cluster", "west").iter().all(|r| r["state"] == "revoked")
        });
        plane.until("/services", "without west's", |all| !hosts(all).iter().any(|h| h.starts_with("reviews.")));
    }
    // West still believes them, and is put out of its streams and not let in again.
    west.until("/peers", "cut off", |all| {
        all.as_array().is_some_and(|a| a.len() == 2 && a.iter().all(|r| r["connected"] == false))
    });
    east.kill();
    east.start();
    assert!(of_west.verify_by(&trust(&east)).is_err(), "after a restart too");
    assert_eq!(east.rows("/clusters", "cluster", "west")[0]["state"], "revoked");
    west.until("/peers", "still cut off", |all| rows(all, "cluster", "east").iter().all(|r| r["connected"] == false));
    // North goes on.
    east.until("/peers", "with north", |all| rows(all, "cluster", "north").iter().any(|r| r["connected"] == true));
    // By a new token it comes back, as a new incarnation.
    west.join(&east);
    sees(&east, "reviews.shop.svc.cluster.local");
    sees(&north, "reviews.shop.svc.cluster.local");
}

#[test]
fn detaching_here_is_local() {
    let mesh = mesh();
    let (mut east, west, north) = (mesh.start("east"), mesh.start("west"), mesh.start("north"));
    west.join(&east);
    north.join(&east);
    sees(&north, "reviews.shop.svc.cluster.local");
    sees(&east, "reviews.shop.svc.cluster.local");
    let of_west = Identity::of(&west, "west/shop/reviews-1");
    east.post("/detach", json!({"cluster": "west", "here": true}));
    east.until("/services", "without west's", |all| !hosts(all).iter().any(|h| h.starts_with("reviews.")));
    assert!(of_west.verify_by(&trust(&east)).is_err());
    east.kill();
    east.start();
    assert!(of_west.verify_by(&trust(&east)).is_err());
    assert!(of_west.verify_by(&trust(&north)).is_ok());
    sees(&north, "reviews.shop.svc.cluster.local");
    assert!(east.post("/detach", json!({"cluster": "east"}))["error"].is_string(), "not oneself");
    assert!(east.post("/detach", json!({"cluster": "south"}))["error"].is_string(), "nobody");
}

#[test]
fn a_change_of_trust_reaches_proxies() {
    let mesh = mesh();
    let (east, west) = (mesh.start("east"), mesh.start("west"));
    let proxy = Identity::of(&east, "east/shop/frontend-1").subscribe(None);
    proxy.synced();
    let before = proxy.version(ResourceType::TrustBundles, "trust").unwrap();
    west.join(&east);
    proxy.until("told of west's root", |r| {
        r.versions.get(&(ResourceType::TrustBundles.url().to_owned(), "trust".to_owned())).is_some_and(|v| *v != before)
    });
    // A proxy of another cluster has no business here.
    west.until("/peers", "connected", |all| all[0]["connected"] == true);
    assert!(Identity::of(&west, "west/shop/reviews-1").at(&east).is_refused());
}

#[test]
fn approval_is_asked_for_where_the_mesh_says_so() {
    let mesh = mesh();
    mesh.write("mesh.yaml", &format!("{MESH}  admission: approve\n"));
    let (east, west, north) = (mesh.start("east"), mesh.start("west"), mesh.start("north"));
    // A token is approval on both sides; north and west meet by east's word alone.
    west.join(&east);
    north.join(&east);
    sees(&east, "reviews.shop.svc.cluster.local");
    north.until("/diagnostics", "asking for approval", |all| rows(all, "code", "FL0503").len() == 1);
    let of_west = Identity::of(&west, "west/shop/reviews-1");
    assert!(of_west.verify_by(&trust(&north)).is_err());
    let peer = |rest: &str| {
        format!("apiVersion: fairlead.dev/v1alpha1\nkind: Peer\nmetadata: {{name: west}}\nspec: {{{rest}}}\n")
    };
    mesh.write("clusters/north/peer.yaml", &peer("trustDomain: other.example"));
    north.until("/diagnostics", "naming the trust domain", |all| {
        rows(all, "code", "FL0503").iter().any(|r| r["message"].as_str().is_some_and(|m| m.contains("other.example")))
    });
    assert!(of_west.verify_by(&trust(&north)).is_err());
    mesh.write("clusters/north/peer.yaml", &peer("trustDomain: west.shop.example"));
    north.until("/trust", "trusting west", |_| of_west.verify_by(&trust(&north)).is_ok());
    north.until("/diagnostics", "content", |all| rows(all, "code", "FL0503").is_empty());
    mesh.write(
        "clusters/west/peer.yaml",
        &peer("").replace("name: west", "name: north").replace("spec: {}", "spec: {namespaces: [shop]}"),
    );
    sees(&north, "reviews.shop.svc.cluster.local");
    // The object revokes, too.
    mesh.write("clusters/north/peer.yaml", &peer("revoked: true"));
    north.until("/trust", "without west", |_| of_west.verify_by(&trust(&north)).is_err());
    north.until("/services", "without west's", |all| !hosts(all).iter().any(|h| h.starts_with("reviews.")));
}
