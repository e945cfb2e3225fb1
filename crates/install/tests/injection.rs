//! Invariants of injection over many pods: a table (`injection/pods.yaml`), each in four modes, and random ones.
//!
//! Goldens of a handful are in `injection/goldens`; `UPDATE_GOLDEN=1` writes them.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[path = "injection/admissible.rs"]
mod admissible;
#[path = "injection/changes.rs"]
mod changes;
#[path = "injection/gateway.rs"]
mod gateway;
#[path = "injection/generated.rs"]
mod generated;
#[path = "injection/restricted.rs"]
mod restricted;

use fairlead_install::inject::{ANNOTATIONS, Decision, InjectSettings, Namespace, Treatment, codes, inject};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    pod: Value,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    skipped: Option<String>,
    #[serde(default)]
    warns: BTreeSet<String>,
    #[serde(default)]
    warns_ordinary: BTreeSet<String>,
    #[serde(default)]
    warns_ordinary_cni: BTreeSet<String>,
    #[serde(default)]
    probes: Option<Value>,
    #[serde(default)]
    canonical: Option<String>,
    /// Fields of the proxy's container.
    #[serde(default)]
    proxy: BTreeMap<String, Value>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    capture: BTreeMap<String, String>,
    /// `port/path` that the pod's annotations lead scrapers to.
    #[serde(default)]
    scraped: Option<String>,
    #[serde(default)]
    restricted: bool,
    #[serde(default)]
    held: bool,
    #[serde(default)]
    drain: Option<u64>,
    #[serde(default)]
    dns: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Mode {
    native: bool,
    cni: bool,
}

const MODES: &[Mode] = &[
    Mode { native: true, cni: false },
    Mode { native: true, cni: true },
    Mode { native: false, cni: false },
    Mode { native: false, cni: true },
];

fn settings(mode: Mode) -> InjectSettings {
    InjectSettings {
        cluster: "east".into(),
        trust_domain: "east.example.org".into(),
        native_sidecars: mode.native,
        cni: mode.cni,
        image_pull_secrets: vec!["registry".into()],
        ..InjectSettings::default()
    }
}

fn table() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("injection/pods.yaml")).unwrap()
}

fn decide(case: &Case, settings: &InjectSettings) -> Decision {
    let name = case.namespace.as_deref().unwrap_or("shop");
    inject(&case.pod, Namespace { name, labels: None }, settings)
}

#[test]
fn every_pod_in_every_mode() {
    let table = table();
    let mut injected = 0;
    for case in &table {
        for mode in MODES {
            let about = format!("{} {mode:?}", case.name);
            match decide(case, &settings(*mode)) {
                Decision::Inject { pod, warnings } => {
                    assert!(case.refused.is_none() && case.skipped.is_none(), "{about}: injected");
                    let found: BTreeSet<String> = warnings.iter().map(|found| found.code.to_string()).collect();
                    assert_eq!(found, expected_warnings(case, &pod, *mode), "{about}: {warnings:?}");
                    changes::only_additions(&case.pod, &pod, &about);
                    changes::order(&case.pod, &pod, mode.cni, &about);
                    admissible::check(&pod, &about);
                    if case.restricted && mode.cni {
                        assert_eq!(restricted::violations(&case.pod), [""; 0], "{about}: the case itself");
                        assert_eq!(restricted::violations(&pod), [""; 0], "{about}");
                    }
                    details(case, &pod, *mode, &about);
                    let again = inject(&pod, Namespace { name: "shop", labels: None }, &settings(*mode));
                    assert!(
                        matches!(&again, Decision::Skip { reason, .. } if reason.to_string() == "it has its sidecar"),
                        "{about}: injected twice: {again:?}"
                    );
                    injected += 1;
                }
                Decision::Skip { reason, warnings } => {
                    let expected = case.skipped.as_deref().unwrap_or_else(|| panic!("{about}: skipped: {reason}"));
                    assert!(reason.to_string().contains(expected), "{about}: {reason}");
                    let found: BTreeSet<String> = warnings.iter().map(|found| found.code.to_string()).collect();
                    assert_eq!(found, case.warns, "{about}");
                }
                Decision::Refuse { diagnostics } => {
                    let expected = case.refused.as_deref().unwrap_or_else(|| panic!("{about}: {diagnostics:?}"));
                    assert!(diagnostics.iter().any(|found| &*found.code == expected), "{about}: {diagnostics:?}");
                    for found in &diagnostics {
                        assert!(!found.hint.is_empty() && !found.message.is_empty(), "{about}: {found:?}");
                    }
                }
            }
        }
    }
    assert!(table.len() >= 100 && injected >= 300, "{} pods, {injected} injected", table.len());
}

fn expected_warnings(case: &Case, pod: &Value, mode: Mode) -> BTreeSet<String> {
    let mut expected = case.warns.clone();
    let native = changes::proxy(pod).1;
    if !native {
        expected.extend(case.warns_ordinary.clone());
        if mode.cni {
            expected.extend(case.warns_ordinary_cni.clone());
        }
    }
    expected
}

fn details(case: &Case, pod: &Value, mode: Mode, about: &str) {
    let (proxy, native) = changes::proxy(pod);
    let env = |name: &str| {
        let found = proxy["env"].as_array().unwrap().iter().find(|variable| variable["name"] == name);
        found.and_then(|variable| variable["value"].as_str()).map(str::to_owned)
    };
    let probes: Value = env("FAIRLEAD_APP_PROBES")
        .map_or_else(|| json!({}), |text| serde_json::from_str(&text.replace("$$", "$")).unwrap());
    if let Some(expected) = &case.probes {
        assert_eq!(&probes, expected, "{about}");
    }
    let args: Vec<&str> = proxy["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    // Arguments can be read by whoever sees processes; headers of probes may be secrets.
    assert!(!args.contains(&"--app-probes"), "{about}");
    if let Some(canonical) = &case.canonical {
        assert_eq!(pod["metadata"]["labels"]["service.istio.io/canonical-name"], json!(canonical), "{about}");
        assert!(args.windows(2).any(|pair| pair == ["--canonical-service", canonical]), "{about}: {args:?}");
    }
    for (field, value) in &case.proxy {
        assert_eq!(&proxy[field], value, "{about}: {field}");
    }
    for (name, value) in &case.env {
        assert_eq!(env(name).as_ref(), Some(value), "{about}: {name}");
    }
    for pair in case.args.chunks(2) {
        assert!(args.windows(2).any(|window| window == pair), "{about}: {args:?}");
    }
    if let Some(scraped) = &case.scraped {
        let said = |key: &str| pod["metadata"]["annotations"][format!("prometheus.io/{key}")].as_str().unwrap();
        assert_eq!(&format!("{}{}", said("port"), said("path")), scraped, "{about}");
    }
    let capture = changes::capture(pod, mode.cni);
    for (flag, value) in &case.capture {
        let found = capture.windows(2).find(|window| &window[0] == flag).map(|window| window[1].as_str());
        assert_eq!(found, Some(value.as_str()), "{about}: {capture:?}");
    }
    assert_eq!(capture.iter().any(|flag| flag == "--dns"), case.dns.unwrap_or(true), "{about}: {capture:?}");
    if !native {
        let first = pod["spec"]["containers"][0]["name"] == "fairlead-proxy";
        assert_eq!(first, case.held, "{about}: the proxy's place");
        assert_eq!(proxy["lifecycle"].get("postStart").is_some(), case.held, "{about}");
        assert_eq!(proxy["lifecycle"]["preStop"]["sleep"]["seconds"], json!(case.drain.unwrap_or(5)), "{about}");
    } else {
        assert_eq!(proxy.get("lifecycle"), None, "{about}: a native sidecar needs no hooks");
    }
}

#[test]
fn every_honoured_annotation_is_in_the_table_of_pods() {
    let written = include_str!("injection/pods.yaml");
    for known in ANNOTATIONS.iter().filter(|known| known.treatment == Treatment::Honoured) {
        assert!(written.contains(known.name), "no pod has {}", known.name);
    }
}

#[test]
fn what_is_not_honoured_is_named() {
    for known in ANNOTATIONS {
        let Treatment::NotHonoured(instead) = known.treatment else { continue };
        let pod = json!({
            "metadata": {"annotations": {known.name: "1"}},
            "spec": {"containers": [{"name": "web", "image": "web"}]},
        });
        let place = Namespace { name: "shop", labels: None };
        let Decision::Inject { warnings, .. } = inject(&pod, place, &settings(MODES[0])) else {
            panic!("{} must not refuse", known.name);
        };
        assert_eq!(warnings.len(), 1, "{}", known.name);
        assert!(warnings[0].message.contains(known.name) && warnings[0].hint == instead, "{:?}", warnings[0]);
        assert_eq!(&*warnings[0].code, codes::NOT_HONOURED);
    }
}

#[test]
fn the_document_has_every_annotation() {
    let document = include_str!("../../../docs/injection.md");
    for known in ANNOTATIONS {
        let row = document.lines().find(|line| line.contains(&format!("`{}`", known.name)));
        let row = row.unwrap_or_else(|| panic!("docs/injection.md has no row for {}", known.name));
        let says_not = row.contains("not honoured");
        assert_eq!(says_not, matches!(known.treatment, Treatment::NotHonoured(_)), "{row}");
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    namespace: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    settings: Value,
    injected: bool,
}

#[test]
fn the_ladder() {
    let table: Vec<Choice> = serde_saphyr::from_str(include_str!("injection/ladder.yaml")).unwrap();
    assert!(table.len() >= 30);
    for choice in table {
        let pod = json!({
            "metadata": {"labels": choice.labels, "annotations": choice.annotations},
            "spec": {"containers": [{"name": "web", "image": "web"}]},
        });
        let mut all = serde_json::to_value(settings(MODES[0])).unwrap();
        for (key, value) in choice.settings.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        let settings: InjectSettings = serde_json::from_value(all).unwrap();
        let place = Namespace { name: "shop", labels: Some(&choice.namespace) };
        let decision = inject(&pod, place, &settings);
        assert_eq!(matches!(decision, Decision::Inject { .. }), choice.injected, "{choice:?}: {decision:?}");
    }
}

#[test]
fn settings_that_say_too_little_refuse() {
    let pod = json!({"spec": {"containers": [{"name": "web", "image": "web"}]}});
    let decision = inject(&pod, Namespace { name: "shop", labels: None }, &InjectSettings::default());
    let Decision::Refuse { diagnostics } = decision else { panic!("{decision:?}") };
    assert_eq!(&*diagnostics[0].code, codes::SETTINGS);
}

#[test]
fn goldens() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injection/goldens");
    let table = table();
    let chosen: &[(&str, Mode, &str)] = &[
        ("one container", MODES[0], "native-init.yaml"),
        ("restricted pod", MODES[1], "native-cni-restricted.yaml"),
        ("http probes of each kind", MODES[0], "probes.yaml"),
        ("hooks over http", MODES[0], "hooks.yaml"),
        ("hold the program", MODES[2], "ordinary-held.yaml"),
        ("three init containers in order", MODES[2], "ordinary-init-containers.yaml"),
    ];
    let in_shop = |pod: &Value, mode: Mode| {
        let Decision::Inject { pod, .. } = inject(pod, Namespace { name: "shop", labels: None }, &settings(mode))
        else {
            panic!("{pod}")
        };
        pod
    };
    let pod = |name: &str| &table.iter().find(|case| case.name == name).unwrap().pod;
    let mut pods: Vec<_> = chosen.iter().map(|(name, mode, file)| (in_shop(pod(name), *mode), *file)).collect();
    pods.push((in_shop(&gateway::of_a_chart(), MODES[1]), "gateway.yaml"));
    for (pod, file) in pods {
        let written = serde_saphyr::to_string(&pod).unwrap();
        let path = folder.join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &written).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written, "{file}: run with UPDATE_GOLDEN=1");
    }
}
