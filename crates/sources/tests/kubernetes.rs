//! A cluster's objects from an API server that lists, streams, expires, denies, hangs and restarts: each case is a script in
//! `cases/kubernetes/`.
//!
//! A script's steps act on the API server, or wait for a state of the source. `steady` names objects that every state from then on
//! must hold.

#[path = "support/api_server.rs"]
mod api_server;

use api_server::{ApiServer, Streaming};
use fairlead_resources::yaml::{compose, documents};
use fairlead_runtime::Backoff;
use fairlead_sources::{ClusterObjects, Keep, KubernetesSource, KubernetesTimings, watch_kubernetes};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// Nothing here takes long; a machine under load may.
const SOON: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Script {
    why: String,
    /// Kinds that are not there at first.
    #[serde(default)]
    without: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
enum Step {
    /// What is done next happens before the source starts.
    Apply(String),
    /// So many Services `shop/many-<n>`, from 0.
    Many(usize),
    Delete(String),
    Lose(String),
    Define(String),
    DefineOlder(String),
    Undefine(String),
    /// `verb plural`
    Deny(String),
    Allow(String),
    Hang(String),
    Unhang(String),
    Fail(String),
    Repair(String),
    Streaming(String),
    Expire,
    Unready,
    Ready,
    Freeze,
    Thaw,
    Down,
    Up,
    /// The source starts, or starts anew with what it kept.
    Start,
    Until(Until),
    /// That a request was made whose path and query contain this.
    Asked(String),
    Steady(Vec<String>),
}

/// What the last state must become.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Until {
    #[serde(default)]
    objects: Vec<String>,
    #[serde(default)]
    gone: Vec<String>,
    #[serde(default)]
    stale: Vec<String>,
    /// Parts of diagnostics, each in another or the same.
    #[serde(default)]
    diagnostics: Vec<String>,
    #[serde(default)]
    no_diagnostics: bool,
    /// A part of why the source does not answer; absent: it answers.
    #[serde(default)]
    unavailable: Option<String>,
    /// `key label=value`
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Default)]
struct Kept(Mutex<BTreeMap<String, Vec<u8>>>);

impl Keep for Kept {
    fn keep(&self, key: &fairlead_model::ObjectKey, json: Vec<u8>) {
        self.0.lock().unwrap().insert(key.to_string(), json);
    }

    fn forget(&self, key: &fairlead_model::ObjectKey) {
        self.0.lock().unwrap().remove(&key.to_string());
    }
}

fn timings() -> KubernetesTimings {
    KubernetesTimings {
        coalesce: Duration::from_millis(2),
        probe: Duration::from_millis(50),
        probe_timeout: Duration::from_secs(1),
        discover: Duration::from_millis(100),
        stall: Duration::from_secs(1),
        backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(100)),
        give_up: Duration::from_millis(300),
        denied: Duration::from_millis(100),
        grace: Duration::from_millis(100),
        ..KubernetesTimings::default()
    }
}

struct Play {
    server: ApiServer,
    kept: Arc<Kept>,
    states: Option<mpsc::Receiver<ClusterObjects>>,
    last: Option<ClusterObjects>,
    steady: Vec<String>,
    name: String,
}

impl Play {
    fn start(&mut self) {
        let config = kube::Config::new(self.server.address().parse().unwrap());
        let source = KubernetesSource {
            client: kube::Client::try_from(config).unwrap(),
            cluster: "east".into(),
            namespace: "fairlead-system".into(),
            kept: self.kept.0.lock().unwrap().values().cloned().collect(),
            keep: Some(self.kept.clone()),
            timings: timings(),
        };
        let (states, received) = mpsc::channel(4);
        tokio::spawn(watch_kubernetes(source, states));
        (self.states, self.last) = (Some(received), None);
    }

    async fn until(&mut self, until: &Until) {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let wrong = match &self.last {
                Some(state) => until.wrong(state),
                None => Some("no state".to_owned()),
            };
            let Some(wrong) = wrong else { return };
            let states = self.states.as_mut().expect("the script starts the source first");
            let Ok(state) = tokio::time::timeout_at(deadline, states.recv()).await else {
                panic!("{}: never {until:?}: {wrong}; the last state is {}", self.name, text(self.last.as_ref()));
            };
            let state = state.expect("the source ended");
            for key in &self.steady {
                let there = state.objects.iter().any(|o| short(o) == *key);
                assert!(there, "{}: {key} was lost: {}", self.name, text(Some(&state)));
            }
            let sorted = state.objects.windows(2).all(|two| two[0].key() < two[1].key());
            assert!(sorted, "{}: not sorted: {}", self.name, text(Some(&state)));
            self.last = Some(state);
        }
    }
}

impl Until {
    fn wrong(&self, state: &ClusterObjects) -> Option<String> {
        let found = |key: &str| state.objects.iter().find(|o| short(o) == key);
        let missing = self.objects.iter().find(|key| found(key).is_none_or(|o| o.stale));
        let there = self.gone.iter().find(|key| found(key).is_some());
        let fresh = self.stale.iter().find(|key| found(key).is_none_or(|o| !o.stale));
        let untold = self.diagnostics.iter().find(|part| {
            !state.diagnostics.iter().any(|d| format!("{} {} {}", d.object, d.path, d.message).contains(*part))
        });
        let told = self.no_diagnostics && !state.diagnostics.is_empty();
        let available = match (&self.unavailable, &state.unavailable) {
            (None, None) => true,
            (Some(part), Some(why)) => why.contains(part),
            _ => false,
        };
        let unlabelled = self.labels.iter().find(|wanted| {
            let (key, label) = wanted.split_once(' ').unwrap();
            let (label, value) = label.split_once('=').unwrap();
            found(key).is_none_or(|o| o.decoded.object.meta().label(label) != Some(value))
        });
        missing
            .map(|key| format!("{key} is missing or stale"))
            .or_else(|| there.map(|key| format!("{key} is there")))
            .or_else(|| fresh.map(|key| format!("{key} is not stale")))
            .or_else(|| untold.map(|part| format!("nothing tells `{part}`")))
            .or_else(|| told.then(|| "there are diagnostics".to_owned()))
            .or_else(|| (!available).then(|| "availability".to_owned()))
            .or_else(|| unlabelled.map(|label| format!("not {label}")))
    }
}

fn short(object: &fairlead_sources::SourceObject) -> String {
    let key = object.key();
    format!("{}/{}/{}", key.kind, key.namespace, key.name)
}

fn text(state: Option<&ClusterObjects>) -> String {
    let Some(state) = state else { return "none".to_owned() };
    let objects: Vec<String> =
        state.objects.iter().map(|o| format!("{}{}", short(o), if o.stale { " (stale)" } else { "" })).collect();
    let diagnostics: Vec<&str> = state.diagnostics.iter().map(|d| d.message.as_str()).collect();
    format!("{objects:?}, {diagnostics:?}, unavailable {:?}", state.unavailable)
}

async fn play(path: &Path) {
    let written = std::fs::read_to_string(path).unwrap();
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let tree = compose(documents(&written)[0]).unwrap_or_else(|e| panic!("{name}:{}: {e}", e.line));
    let script: Script =
        serde_json::from_value(serde_json::to_value(&tree).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(!script.why.is_empty() && !script.steps.is_empty(), "{name} says nothing");
    let without: Vec<&str> = script.without.iter().map(String::as_str).collect();
    let (kept, steady) = (Arc::default(), Vec::new());
    let mut play = Play { server: ApiServer::start(&without), kept, states: None, last: None, steady, name };
    let handle = play.server.handle();
    for step in script.steps {
        match step {
            Step::Apply(yaml) => handle.apply(&yaml),
            Step::Many(count) => (0..count).for_each(|n| {
                let metadata = serde_json::json!({"name": format!("many-{n}"), "namespace": "shop"});
                handle.put(
                    serde_json::json!({"kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}),
                );
            }),
            Step::Delete(key) => handle.delete(&key),
            Step::Lose(key) => handle.lose(&key),
            Step::Define(kind) => handle.define(&kind, 0),
            Step::DefineOlder(kind) => handle.define(&kind, 1),
            Step::Undefine(kind) => handle.undefine(&kind),
            Step::Deny(what) => drop(handle.cluster().denied.insert(pair(&what))),
            Step::Allow(what) => drop(handle.cluster().denied.remove(&pair(&what))),
            Step::Hang(plural) => drop(handle.cluster().hanging.insert(plural)),
            Step::Unhang(plural) => drop(handle.cluster().hanging.remove(&plural)),
            Step::Fail(plural) => drop(handle.cluster().failing.insert(plural, 500)),
            Step::Repair(plural) => drop(handle.cluster().failing.remove(&plural)),
            Step::Streaming(how) => {
                handle.cluster().streaming = match how.as_str() {
                    "served" => Streaming::Served,
                    "refused" => Streaming::Refused,
                    "ignored" => Streaming::Ignored,
                    other => panic!("{other}?"),
                }
            }
            Step::Expire => handle.expire(),
            Step::Unready => handle.cluster().unready = true,
            Step::Ready => handle.cluster().unready = false,
            Step::Freeze => handle.cluster().frozen = true,
            Step::Thaw => handle.cluster().frozen = false,
            Step::Down => play.server.down(),
            Step::Up => play.server.up(),
            Step::Start => play.start(),
            Step::Until(until) => play.until(&until).await,
            Step::Asked(part) => {
                let asked = handle.cluster().asked.clone();
                assert!(asked.iter().any(|a| a.contains(&part)), "{}: nobody asked {part}: {asked:#?}", play.name);
            }
            Step::Steady(keys) => play.steady = keys,
        }
        handle.wake();
    }
}

fn pair(what: &str) -> (String, String) {
    let (verb, plural) = what.split_once(' ').unwrap();
    (verb.to_owned(), plural.to_owned())
}

#[test]
fn scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/kubernetes");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut plays = tokio::task::JoinSet::new();
        for path in paths {
            plays.spawn(async move { play(&path).await });
        }
        let mut failed = 0;
        while let Some(played) = plays.join_next().await {
            failed += usize::from(played.is_err());
        }
        assert_eq!(failed, 0, "scripts failed; each says above why");
    });
}
