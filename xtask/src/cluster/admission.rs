//! A real API server asks the webhooks: pods of every kind get their proxy and start, bad objects are refused, and what holds without them.
//!
//! The table of pods is that of the crate `install`'s tests. Invariant: the cluster is left as it was found.

use super::bed::Bed;
use super::command::{output, output_of};
use super::enter;
use crate::tally::Tally;
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "admission";
const RESTRICTED: &str = "admission-restricted";
/// How long something may take to become true.
const PATIENCE: Duration = Duration::from_secs(120);
const PODS: &str = "crates/install/tests/injection/pods.yaml";
const STARTED: &str = "testbed/manifests/admission.yaml";
const UNPRIVILEGED: &str = "testbed/manifests/unprivileged.yaml";
const VALIDATOR: &str = "validatingwebhookconfiguration/fairlead-validator";

/// Istio's own check refuses it, too.
const BAD: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad, namespace: admission}\nspec:\n  hosts: [web]\n  http:\n  - route:\n    - {destination: {host: web}, weight: 0}\n    - {destination: {host: web, subset: v2}, weight: 0}\n";

struct Run<'a> {
    bed: &'a Bed,
    tally: Tally,
}

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let mut run = Run { bed, tally: Tally::default() };
    run.fairlead(&["install", "--context", "c1", "--cluster", "east"])?;
    let result = run.facts();
    run.kubectl(&["delete", "namespace", NAMESPACE, RESTRICTED, "--ignore-not-found", "--timeout=120s"])?;
    run.fairlead(&["uninstall", "--context", "c1", "--crds"])?;
    result?;
    Ok(run.tally)
}

impl Run<'_> {
    fn kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        output(enter::kubectl(self.bed, 1)?.args(words))
    }

    fn apply(&self, words: &[&str], text: &str) -> anyhow::Result<String> {
        output_of(enter::kubectl(self.bed, 1)?.args(words).args(["-f", "-"]), text)
    }

    fn fairlead(&self, words: &[&str]) -> anyhow::Result<String> {
        output(enter::fairlead(self.bed)?.args(words))
    }

    /// Asks until it is so.
    fn within(&self, holds: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match holds() {
                Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(300)),
                answer => return answer,
            }
        }
    }

    fn facts(&mut self) -> anyhow::Result<()> {
        self.kubectl(&["create", "namespace", NAMESPACE])?;
        self.kubectl(&["label", "namespace", NAMESPACE, "istio-injection=enabled"])?;
        self.kubectl(&["create", "serviceaccount", "quiet", "-n", NAMESPACE])?;
        let table = table()?;
        let admitted = self.admitted(&table);
        self.tally.note("pods of every kind are admitted with their proxy", admitted);
        let refused = self.refused(&table);
        self.tally.note("pods that ask for what cannot be are refused, with the code", refused);
        let started = self.started();
        self.tally.note("a native sidecar, an ordinary one that holds its program, and a Job start and end", started);
        let restricted = self.restricted();
        self.tally
            .note("with the CNI plugin a pod of level restricted starts with its sidecar, and is reached", restricted);
        let objects = self.objects();
        self.tally.note("a bad object is refused with what analyze prints, a good one is taken", objects);
        let bundle = self.bundle();
        self.tally.note("an emptied caBundle is put right", bundle);
        let away = self.away();
        self.tally.note("without the webhook a pod waits and a bad object is taken; then it can go", away);
        Ok(())
    }

    fn admitted(&self, table: &[Value]) -> anyhow::Result<()> {
        let mut expected = Vec::new();
        let mut pods = Vec::new();
        for (number, case) in table.iter().enumerate().filter(|(_, case)| case["refused"].is_null()) {
            pods.push(pod(case, number));
            expected.push((case["name"].as_str().unwrap_or_default(), case["skipped"].is_null()));
        }
        if expected.iter().filter(|(_, injected)| *injected).count() < 90 {
            bail!("{PODS} has too few pods");
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string();
        let words = ["create", "--dry-run=server", "-o", "json", "-n", NAMESPACE];
        // One object after the other, not a list of them.
        let answer = self.apply(&words, &list)?;
        let items: Vec<Value> = serde_json::Deserializer::from_str(&answer).into_iter().collect::<Result<_, _>>()?;
        anyhow::ensure!(items.len() == expected.len(), "{} of {} came back", items.len(), expected.len());
        for ((name, injected), item) in expected.iter().zip(&items) {
            let groups = ["initContainers", "containers"];
            let all = groups.iter().filter_map(|group| item["spec"][*group].as_array()).flatten();
            let proxies = all.filter(|container| container["name"] == "fairlead-proxy").count();
            anyhow::ensure!(proxies == usize::from(*injected), "{name}: {proxies} proxies");
        }
        Ok(())
    }

    fn refused(&self, table: &[Value]) -> anyhow::Result<()> {
        for (number, case) in table.iter().enumerate().filter(|(_, case)| case["refused"].is_string()) {
            let code = case["refused"].as_str().unwrap_or_default();
            let words = ["create", "--dry-run=server", "-n", NAMESPACE];
            match self.apply(&words, &pod(case, number).to_string()) {
                Ok(_) => bail!("{} was taken", case["name"]),
                Err(error) if format!("{error:#}").contains(code) => {}
                Err(error) => return Err(error.context(format!("{} lacks {code}", case["name"]))),
            }
        }
        Ok(())
    }

    fn started(&self) -> anyhow::Result<()> {
        let manifest = std::fs::read_to_string(STARTED).context(STARTED)?;
        self.apply(&["apply", "-n", NAMESPACE], &manifest)?;
        let waiting = "--timeout=120s";
        self.kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/native", "pod/ordinary", waiting])?;
        self.kubectl(&["wait", "-n", NAMESPACE, "--for=condition=Complete", "job/once", waiting])?;
        let restarts = "jsonpath={.status.containerStatuses[*].restartCount}";
        let restarted = self.kubectl(&["get", "pod", "ordinary", "-n", NAMESPACE, "-o", restarts])?;
        anyhow::ensure!(restarted == "0 0", "its program did not wait for its proxy: {restarted} restarts");
        let answer = "for i in 1 2 3 4 5 6 7 8 9 10; do timeout 5 wget -qO- http://native/ && exit; done";
        let words = ["exec", "ordinary", "-n", NAMESPACE, "-c", "program", "--", "sh", "-c", answer];
        anyhow::ensure!(self.kubectl(&words)?.trim() == "native", "from sidecar to sidecar");
        Ok(())
    }

    fn restricted(&self) -> anyhow::Result<()> {
        self.kubectl(&["create", "namespace", RESTRICTED])?;
        let labels = ["istio-injection=enabled", "pod-security.kubernetes.io/enforce=restricted"];
        self.kubectl(&[&["label", "namespace", RESTRICTED][..], &labels].concat())?;
        let manifest = std::fs::read_to_string(UNPRIVILEGED).context(UNPRIVILEGED)?;
        match self.apply(&["create", "--dry-run=server", "-n", RESTRICTED], &manifest) {
            Ok(_) => bail!("without the plugin it was taken, though its init container has NET_ADMIN"),
            Err(error) => anyhow::ensure!(format!("{error:#}").contains("fairlead-init"), "{error:#}"),
        }
        self.fairlead(&["install", "--context", "c1", "--cni"])?;
        // The injector hears of it when the kubelet renews the file of its settings.
        self.within(|| self.apply(&["create", "--dry-run=server", "-n", RESTRICTED], &manifest).map(drop))?;
        self.apply(&["create", "-n", RESTRICTED], &manifest)?;
        self.kubectl(&["wait", "-n", RESTRICTED, "--for=condition=Ready", "pod/unprivileged", "--timeout=120s"])?;
        let call = format!("timeout 5 wget -qO- http://unprivileged.{RESTRICTED}/");
        let words = ["exec", "ordinary", "-n", NAMESPACE, "-c", "program", "--", "sh", "-c", &call];
        self.within(|| {
            anyhow::ensure!(self.kubectl(&words)?.trim() == "unprivileged", "another answer");
            Ok(())
        })
    }

    fn objects(&self) -> anyhow::Result<()> {
        let folder = self.bed.cluster(1).join("admission-mesh");
        let file = folder.join("clusters/east/bad.yaml");
        std::fs::create_dir_all(folder.join("clusters/east"))?;
        std::fs::write(&file, BAD)?;
        let analyzed = std::process::Command::new(crate::suites::build()?).arg("analyze").arg(&folder).output()?;
        std::fs::remove_dir_all(&folder)?;
        let text = String::from_utf8_lossy(&analyzed.stdout).into_owned();
        let found = text.split_once("error ").context("analyze finds nothing wrong")?.1.trim().to_owned();
        match self.apply(&["create"], BAD) {
            Ok(_) => bail!("it was taken"),
            Err(error) => anyhow::ensure!(format!("{error:#}").contains(&found), "{error:#} lacks: {found}"),
        }
        self.apply(&["apply"], &BAD.replace("weight: 0", "weight: 1")).map(drop)
    }

    fn bundle(&self) -> anyhow::Result<()> {
        let path = "/webhooks/0/clientConfig/caBundle";
        let patch = json!([{"op": "replace", "path": path, "value": ""}]).to_string();
        let bundle = || self.kubectl(&["get", VALIDATOR, "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}"]);
        let before = bundle()?;
        anyhow::ensure!(!before.is_empty(), "there is none");
        self.kubectl(&["patch", VALIDATOR, "--type=json", "-p", &patch])?;
        self.within(|| {
            anyhow::ensure!(bundle()? == before, "it is another");
            Ok(())
        })
    }

    /// Nobody answers for the webhooks, and then somebody does again.
    fn away(&self) -> anyhow::Result<()> {
        let scale = |replicas: &str| {
            self.kubectl(&["scale", "deployment/fairlead-control", "-n", "fairlead-system", "--replicas", replicas])
        };
        scale("0")?;
        let pods = "app=fairlead-control";
        self.kubectl(&["wait", "-n", "fairlead-system", "--for=delete", "pod", "-l", pods, "--timeout=60s"])?;
        let without = (|| {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late"},
                "spec": {"containers": [{"name": "program", "image": "testbed.local/tools:1"}]},
            });
            let taken = self.apply(&["create", "--dry-run=server", "-n", NAMESPACE], &pod.to_string());
            anyhow::ensure!(taken.is_err(), "a pod was taken without its proxy");
            self.within(|| self.apply(&["apply"], BAD).map(drop)).context("the bad object")
        })();
        scale("1")?;
        let rollout = ["rollout", "status", "deployment/fairlead-control", "-n", "fairlead-system", "--timeout=120s"];
        self.kubectl(&rollout)?;
        without?;
        self.within(|| {
            let taken = self.apply(&["create", "--dry-run=server"], &BAD.replace("name: bad", "name: worse")).is_ok();
            anyhow::ensure!(!taken, "the webhook is not asked again");
            Ok(())
        })?;
        self.kubectl(&["delete", "virtualservice", "bad", "-n", NAMESPACE]).map(drop)
    }
}

fn table() -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(PODS).context(PODS)?;
    let table: Vec<Value> = serde_saphyr::from_str(&text).context(PODS)?;
    // Those of other namespaces are about exactly that.
    Ok(table.into_iter().filter(|case| case["namespace"].is_null()).collect())
}

fn pod(case: &Value, number: usize) -> Value {
    let mut pod = case["pod"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    if pod["metadata"]["name"].is_null() && pod["metadata"]["generateName"].is_null() {
        pod["metadata"]["name"] = json!(format!("case-{number}"));
    }
    pod
}
