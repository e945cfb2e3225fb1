//! What is said of the objects in reviews.

use super::super::admission::Request;
use super::super::validation::Validator;
use super::{creating_pod, pod, serve};
use base64::Engine as _;
use fairlead_model::Diagnostic;
use fairlead_resources::fairlead::Profile;
use serde_json::{Value, json};

fn virtual_service(spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "spec": spec,
        "metadata": {
            "name": "reviews", "namespace": "shop", "uid": "a", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-11-21T19:00:00Z", "managedFields": [{"manager": "kubectl"}],
        },
    })
}

fn bad() -> Value {
    virtual_service(json!({
        "hosts": ["reviews"],
        "http": [{"route": [
            {"destination": {"host": "reviews", "subset": "v1"}, "weight": -1},
            {"destination": {"host": "reviews", "subset": "v2"}},
        ]}],
    }))
}

fn good() -> Value {
    virtual_service(json!({"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "nowhere"}}]}]}))
}

fn writing(operation: &str, object: Value, old: Value) -> Value {
    json!({
        "kind": {"group": "networking.istio.io", "version": "v1", "kind": "VirtualService"},
        "name": "reviews", "namespace": "shop", "operation": operation, "object": object, "oldObject": old,
    })
}

#[tokio::test]
async fn a_pod_gets_its_proxy() {
    let served = serve(None).await;
    let answer = served.review("/inject", pod()).await;
    assert_eq!((&answer["allowed"], &answer["patchType"]), (&json!(true), &json!("JSONPatch")), "{answer}");
    let patch = base64::engine::general_purpose::STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    let init = patch.iter().find(|one| one["path"] == "/spec/initContainers").unwrap();
    assert_eq!((&init["op"], &init["value"][1]["name"]), (&json!("add"), &json!("fairlead-proxy")));
    let args = init["value"][1]["args"].to_string();
    assert!(args.contains("spiffe://east.shop.example/fairlead/control"), "{args}");
    assert!(!patch.iter().any(|one| one["path"].as_str().unwrap().starts_with("/spec/containers")), "{patch:?}");
}

#[tokio::test]
async fn what_is_skipped_or_refused_says_why() {
    let served = serve(None).await;
    let network = json!({"hostNetwork": true, "containers": [{"name": "web", "image": "web"}]});
    let asks = json!({"name": "web", "labels": {"sidecar.istio.io/inject": "true"}});
    let answer = served.review("/inject", creating_pod(asks, network)).await;
    assert_eq!((&answer["allowed"], answer.get("patch")), (&json!(true), None));
    assert!(answer["warnings"][0].as_str().unwrap().starts_with("FL0605"), "{answer}");

    let annotations = json!({"name": "web", "annotations": {
        "sidecar.istio.io/proxyCPU": "a lot", "sidecar.istio.io/enableCoreDump": "true",
    }});
    let answer = served
        .review("/inject", creating_pod(annotations, json!({"containers": [{"name": "web", "image": "web"}]})))
        .await;
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(400)));
    let why = answer["status"]["message"].as_str().unwrap();
    assert!(why.contains("FL0601") && why.contains("Pod shop/web") && why.contains("100m"), "{why}");
    assert!(answer["warnings"][0].as_str().unwrap().contains("enableCoreDump"), "{answer}");

    let mut of_another_kind = pod();
    of_another_kind["kind"]["kind"] = json!("ReplicaSet");
    assert_eq!(served.review("/inject", of_another_kind).await["allowed"], true);
}

#[tokio::test]
async fn settings_are_read_as_they_are_now() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.json");
    let served = serve(Some(file.clone())).await;
    let answer = served.review("/inject", pod()).await;
    assert_eq!(answer["allowed"], false, "a pod without its proxy would be outside the mesh");
    assert!(answer["status"]["message"].as_str().unwrap().contains("settings.json"), "{answer}");

    let image = |answer: &Value| {
        let patch = base64::engine::general_purpose::STANDARD.decode(answer["patch"].as_str().unwrap()).unwrap();
        let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        patch.iter().find(|one| one["path"] == "/spec/initContainers").unwrap()["value"][0]["image"].clone()
    };
    std::fs::write(&file, r#"{"image": "registry.example/fairlead:1"}"#).unwrap();
    assert_eq!(image(&served.review("/inject", pod()).await), "registry.example/fairlead:1");
    std::fs::write(&file, r#"{"image": "registry.example/fairlead:2"}"#).unwrap();
    assert_eq!(image(&served.review("/inject", pod()).await), "registry.example/fairlead:2");
    std::fs::write(&file, r#"{"imag"#).unwrap();
    assert_eq!(image(&served.review("/inject", pod()).await), "registry.example/fairlead:2", "the last good ones hold");
}

#[tokio::test]
async fn a_bad_object_is_refused_with_what_analyze_prints() {
    let served = serve(None).await;
    let answer = served.review("/validate", writing("CREATE", bad(), Value::Null)).await;
    assert_eq!(answer["allowed"], false, "{answer}");
    let why = answer["status"]["message"].as_str().unwrap();
    let cluster = "east".into();
    let text = bad().to_string();
    let found = fairlead_resources::decode(&cluster, &"".into(), text.as_bytes()).diagnostics;
    let errors: Vec<&Diagnostic> = found.iter().filter(|one| one.is_error()).collect();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(why.contains(&error.to_string()), "{why}: {error}");
    }
    assert!(why.contains("\n    "), "a next step, also where the finding itself has none: {why}");
    assert!(why.contains("spec.http[0].route[0].weight"), "{why}");

    let mut unknown_field = good();
    unknown_field["spec"]["hots"] = json!(["reviews"]);
    let answer = served.review("/validate", writing("CREATE", unknown_field, Value::Null)).await;
    assert!(answer["status"]["message"].as_str().unwrap().contains("hots"), "{answer}");
}

#[tokio::test]
async fn what_must_pass_passes() {
    let served = serve(None).await;
    let allowed = async |request: Value| served.review("/validate", request).await["allowed"] == true;
    assert!(allowed(writing("CREATE", good(), Value::Null)).await, "references may come later");
    assert!(allowed(writing("DELETE", Value::Null, bad())).await);
    let mut status = writing("UPDATE", bad(), good());
    status["subResource"] = json!("status");
    assert!(allowed(status).await, "status");
    let mut told = bad();
    told["status"] = json!({"conditions": []});
    told["metadata"]["resourceVersion"] = json!("8");
    told["metadata"]["managedFields"] = json!([]);
    assert!(allowed(writing("UPDATE", told.clone(), bad())).await, "nothing that it says has changed");
    let mut leaving = bad();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-21T19:00:00Z");
    assert!(allowed(writing("UPDATE", leaving, good())).await, "it is on its way out");

    assert!(!allowed(writing("UPDATE", bad(), good())).await);
    told["spec"]["http"][0]["name"] = json!("other");
    assert!(!allowed(writing("UPDATE", told, bad())).await, "still bad, and touched");
}

#[test]
fn what_a_profile_refuses_is_refused_in_that_profile() {
    let object = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "r", "namespace": "shop"},
        "spec": {"host": "reviews", "trafficPolicy": {
            "outlierDetection": {"consecutive5xxErrors": 5},
            "loadBalancer": {"localityLbSetting": {
                "distribute": [{"from": "a/*", "to": {"a/*": 80, "b/*": 20}}], "failover": [{"from": "a", "to": "b"}],
            }},
        }},
    });
    let request = Request { operation: "CREATE".into(), object, ..Request::default() };
    let refused = |profile| Validator::new("east").answer(&request, profile).refused;
    assert_eq!(refused(Profile::Fairlead), None);
    assert!(refused(Profile::Istio).unwrap().contains("profile istio"));
}

#[tokio::test]
async fn warnings_are_admission_warnings() {
    let served = serve(None).await;
    let rule = json!({"route": [{"destination": {"host": "reviews"}}]});
    let twice = virtual_service(json!({"hosts": ["reviews"], "http": [rule, rule]}));
    let answer = served.review("/validate", writing("CREATE", twice, Value::Null)).await;
    assert_eq!(answer["allowed"], true, "{answer}");
    let warnings = answer["warnings"].to_string();
    assert!(warnings.contains("IST0130"), "{answer}");
}
