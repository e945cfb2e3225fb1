//! Primary-remote: the objects of both sides, and what the primary may do in the remote.
//!
//! Goldens are in `objects/`; `UPDATE_GOLDEN=1` writes them.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use fairlead_install::object::PART_OF;
use fairlead_install::rbac::{Names, RULES, Reach, Rule};
use fairlead_install::remote::{ACCOUNT, HOME_RULES, HOSTED, REMOTE_RULES, home_rules, hosted, remote_rules, secret};
use fairlead_install::{Values, render};
use serde_json::{Value, json};
use std::path::Path;

fn values(pairs: &[&str]) -> Values {
    let given = ["cluster=west", "network=n2", "remote.primary=east", "remote.server=https://192.0.2.1:6443"];
    let pairs: Vec<String> = given.iter().chain(pairs).map(|p| (*p).to_owned()).collect();
    Values::default().set(&pairs).unwrap()
}

fn remote(values: &Values) -> Vec<Value> {
    render(values).unwrap().all().cloned().collect()
}

fn compare(name: &str, objects: &[Value]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/objects/{name}.yaml"));
    let text: String = objects.iter().map(|o| format!("---\n{}", serde_saphyr::to_string(o).unwrap())).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap();
    assert!(golden == text, "{} differs; UPDATE_GOLDEN=1 writes it anew", file.display());
}

#[test]
fn goldens() {
    compare("remote", &remote(&values(&[])));
    compare("remote-hosted", &hosted(&values(&["expose=nodeport", "remote.port=15112", "remote.tokenSeconds=7200"])));
}

fn names(objects: &[Value], kind: &str) -> Vec<String> {
    let of = objects.iter().filter(|o| o["kind"] == kind);
    of.map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_remote_holds_only_webhooks_and_the_gateway() {
    let objects = remote(&values(&[]));
    assert_eq!(names(&objects, "Deployment"), ["fairlead-eastwest"]);
    assert_eq!(names(&objects, "ServiceAccount"), [ACCOUNT, "fairlead-eastwest"]);
    assert_eq!(names(&objects, "Service"), ["fairlead-control", "fairlead-eastwest"]);
    assert_eq!(names(&objects, "MutatingWebhookConfiguration"), ["fairlead-injector"]);
    assert!(names(&objects, "Secret").is_empty());
    let service = objects.iter().find(|o| o["kind"] == "Service").unwrap();
    assert!(service["spec"]["selector"].is_null(), "its addresses are written by the control plane");
    for object in &objects {
        assert_eq!(object["metadata"]["labels"][PART_OF], "fairlead", "{object}");
    }
}

#[test]
fn what_the_primary_has_is_in_a_namespace_of_its_own_and_of_another_mark() {
    let values = values(&["expose=nodeport"]);
    let mut objects = hosted(&values);
    objects.push(secret(&values, "https://192.0.2.2:6443", None, "pem", "a.b.c"));
    for object in &objects {
        let meta = &object["metadata"];
        let at = if meta["namespace"].is_null() { &meta["name"] } else { &meta["namespace"] };
        assert_eq!(at, "fairlead-remote-west", "{object}");
        assert_eq!(meta["labels"][PART_OF], HOSTED, "an installation of the primary leaves it alone: {object}");
    }
    let deployment = objects.iter().find(|o| o["kind"] == "Deployment").unwrap();
    let selector = &deployment["spec"]["selector"]["matchLabels"];
    for (key, value) in selector.as_object().unwrap() {
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"][key], *value);
    }
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<&str> = container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for mount in container["volumeMounts"].as_array().unwrap() {
        let path = mount["mountPath"].as_str().unwrap();
        assert!(args.iter().any(|a| a.starts_with(path)), "nobody is told of {path}");
    }
    assert!(args.windows(2).any(|pair| pair == ["--home-namespace", "fairlead-remote-west"]), "{args:?}");
    let text = serde_json::to_string(&hosted(&values)).unwrap();
    assert!(!text.contains("a.b.c"), "the token is in the Secret alone");
}

#[test]
fn the_way_in_is_a_kubeconfig_that_names_the_mounted_token() {
    let values = values(&[]);
    let object = secret(&values, "https://192.0.2.2:6443", Some("kubernetes"), "pem", "a.b.c");
    let decoded = |key: &str| {
        use base64::Engine as _;
        let text = object["data"][key].as_str().unwrap();
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
    };
    assert_eq!(decoded("token"), "a.b.c");
    let kubeconfig: Value = serde_json::from_str(&decoded("kubeconfig")).unwrap();
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    assert_eq!(cluster["server"], "https://192.0.2.2:6443");
    assert_eq!(cluster["tls-server-name"], "kubernetes");
    let mounts = hosted(&values).into_iter().find(|o| o["kind"] == "Deployment").unwrap();
    let mounts = mounts["spec"]["template"]["spec"]["containers"][0]["volumeMounts"].clone();
    let mount = mounts.as_array().unwrap().iter().find(|m| m["name"] == "remote").unwrap().clone();
    let file = kubeconfig["users"][0]["user"]["tokenFile"].as_str().unwrap();
    assert_eq!(file, format!("{}/token", mount["mountPath"].as_str().unwrap()));
}

fn grants(rule: &Rule, resource: &str) -> bool {
    rule.resources.contains(&resource)
}

#[test]
fn each_account_may_what_its_code_needs_and_no_more() {
    let source = |file: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file));
    for rule in REMOTE_RULES.iter().chain(HOME_RULES) {
        let (file, word) = rule.reader;
        assert!(source(file).unwrap().contains(word), "{file} has no `{word}`: who needs {:?}?", rule.resources);
        let writes = rule.verbs.iter().any(|v| !["get", "list", "watch"].contains(v));
        assert!(!writes || rule.reach == Reach::Own && rule.names != Names::Any, "writes anything: {rule:?}");
    }
    // No secret and no lease of the remote; state alone in the primary.
    assert!(!remote_rules().any(|rule| grants(rule, "secrets") || grants(rule, "leases")));
    let state = RULES.iter().filter(|rule| grants(rule, "secrets") || grants(rule, "leases")).count();
    assert_eq!(remote_rules().count(), RULES.len() - state + REMOTE_RULES.len());
    let balanced: Vec<_> = home_rules(&values(&[])).collect();
    assert!(balanced.iter().all(|rule| rule.reach == Reach::Own), "{balanced:?}");
    let by_nodes = values(&["expose=nodeport"]);
    let on_nodes = home_rules(&by_nodes).filter(|rule| rule.reach == Reach::Cluster);
    assert!(on_nodes.map(|rule| rule.resources).eq([&["nodes"][..]]));
}

#[test]
fn refusals_name_field_and_remedy() {
    let text = |pairs: &[&str]| values(pairs).validate().unwrap_err().to_string();
    assert!(text(&["remote.primary=East_1"]).starts_with("remote.primary: "));
    assert!(text(&["cluster=east"]).contains("is its primary's name"));
    assert!(text(&["revision=canary"]).contains("leave --revision out"));
    assert!(text(&["expose=none"]).contains("--expose loadbalancer"));
    assert!(text(&["remote.webhookPort=15012"]).contains("is remote.port too"));
    assert!(text(&["remote.tokenSeconds=60"]).contains("600"));
    let long = format!("cluster={}", "w".repeat(48));
    assert!(text(&[&long]).contains("at most 47"));
    assert_eq!(values(&[]).tree()["remote"]["server"], json!("https://192.0.2.1:6443"));
    assert!(Values::default().tree().get("remote").is_none(), "the chart has no such value");
}
