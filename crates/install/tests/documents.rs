//! `fairlead inject` over YAML documents: what is changed, what stays byte for byte, what is told.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use fairlead_install::inject::InjectSettings;
use fairlead_install::inject::documents::{Outcome, Report, inject_documents};
use serde_json::Value;
use std::collections::BTreeMap;

fn settings() -> InjectSettings {
    InjectSettings { cluster: "east".into(), trust_domain: "east.example.org".into(), ..InjectSettings::default() }
}

fn run(input: &str) -> (String, Vec<Report>) {
    inject_documents(input, "default", None, &settings()).unwrap()
}

const MIXED: &str = r##"# A shop.
apiVersion: v1
kind: Service   # stays as it is
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: web, env: [{name: A, value: "yes"}, {name: B, value: "0755"}, {name: C, value: "1e3"}, {name: D, value: "null"}, {name: E, value: "y"}, {name: F, value: "1_000"}, {name: G, value: "12:30"}, {name: H, value: "a\nb\n"}, {name: I, value: ""}, {name: J, value: "# x"}, {name: K, value: "2024-01-01"}, {name: L, value: "0x1F"}, {name: M, value: ".5"}, {name: N, value: "+1"}, {name: O, value: "0o7"}, {name: P, value: "Off"}, {name: Q, value: "~"}, {name: R, value: "="}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: report}
spec:
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: work, image: work}]}
---
kind: List
apiVersion: v1
items:
- {apiVersion: v1, kind: Pod, metadata: {name: one}, spec: {containers: [{name: a, image: a}]}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: two}, data: {x: "1"}}
"##;

#[test]
fn templates_are_injected_and_the_rest_stays() {
    let (output, reports) = run(MIXED);
    assert!(output.starts_with(&MIXED[..MIXED.find("---").unwrap()]), "comments and all: {output}");
    let outcomes: Vec<(&str, &Outcome)> = reports.iter().map(|one| (one.object.as_str(), &one.outcome)).collect();
    assert_eq!(
        outcomes,
        [
            ("Deployment shop/web", &Outcome::Injected),
            ("CronJob default/report", &Outcome::Injected),
            ("Pod default/one", &Outcome::Injected)
        ]
    );
    let documents: Vec<Value> = serde_saphyr::from_multiple(&output).unwrap();
    assert_eq!(documents.len(), 4);
    let template = &documents[1]["spec"]["template"];
    assert_eq!(template["spec"]["initContainers"][1]["name"], "fairlead-proxy");
    assert_eq!(template["metadata"]["labels"]["service.istio.io/canonical-name"], "web");
    assert_eq!((template.get("kind"), template["metadata"].get("name")), (None, None));
    let cron = &documents[2]["spec"]["jobTemplate"]["spec"]["template"];
    assert_eq!(cron["metadata"]["labels"]["service.istio.io/canonical-name"], "report");
    assert!(reports[1].diagnostics.is_empty(), "native sidecars let jobs end");
    assert_eq!(documents[3]["items"][0]["spec"]["initContainers"][0]["name"], "fairlead-init");
    assert_eq!(documents[3]["items"][1]["data"]["x"], "1");
}

/// What kubectl reads is YAML 1.1: a text that looks like something else there must be quoted.
#[test]
fn texts_stay_texts() {
    let (output, _) = run(MIXED);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&output).unwrap();
    let before: Vec<Value> = serde_saphyr::from_multiple(MIXED).unwrap();
    let env = |documents: &[Value]| documents[1]["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    assert_eq!(env(&documents), env(&before));
    for line in output.lines().filter(|line| line.trim_start().starts_with("value: ")) {
        let value = line.trim_start().trim_start_matches("value: ");
        let plain = value.starts_with(|c: char| c.is_ascii_alphabetic()) && value.len() > 4;
        assert!(plain || value.starts_with(['"', '\'', '|', '$']) || value == "east", "{line}");
    }
}

#[test]
fn injected_again_nothing_changes() {
    let (output, _) = run(MIXED);
    let (again, reports) = run(&output);
    assert_eq!(again, output);
    assert!(reports.iter().all(|one| one.outcome == Outcome::Skipped("it has its sidecar".into())), "{reports:?}");
}

#[test]
fn namespaces_among_the_documents_count() {
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: NS}\nspec: {containers: [{name: a, image: a}]}\n";
    let input = format!(
        "kind: Namespace\nmetadata: {{name: in, labels: {{istio-injection: enabled}}}}\n---\nkind: Namespace\nmetadata: {{name: out}}\n---\n{}---\n{}---\n{}",
        pod.replace("NS", "in"),
        pod.replace("NS", "out"),
        pod.replace("NS", "unknown")
    );
    let injected = |labels: Option<&BTreeMap<String, String>>| -> Vec<bool> {
        let (_, reports) = inject_documents(&input, "default", labels, &settings()).unwrap();
        reports.iter().map(|one| one.outcome == Outcome::Injected).collect()
    };
    assert_eq!(injected(None), [true, false, true]);
    assert_eq!(injected(Some(&BTreeMap::new())), [true, false, false]);
}

#[test]
fn what_is_refused_is_written_as_it_was() {
    let input = "kind: Pod\nmetadata: {name: p, annotations: {sidecar.istio.io/proxyCPU: much}}\nspec: {containers: [{name: a, image: a}]}\n";
    let (output, reports) = run(input);
    assert_eq!(output, input);
    assert_eq!(reports[0].outcome, Outcome::Refused);
    assert_eq!(reports[0].diagnostics[0].path, "metadata.annotations[sidecar.istio.io/proxyCPU]");
}

#[test]
fn a_document_that_is_no_yaml_is_named_by_its_line() {
    let error = inject_documents("kind: A\n---\nkind: [\n", "default", None, &settings()).unwrap_err();
    assert_eq!(error.line, 2);
    assert!(error.to_string().contains("line 2"), "{error}");
}
