//! Three control planes in each of two clusters, of which one, all, and each in turn go away, under load between pods.
//!
//! Half of the load stays in its cluster, half goes through gateways to a service that only the other cluster has. Invariants: no call
//! fails; afterwards every replica lists the same services at the same addresses as before, and every proxy is served; the clusters are
//! at the end what they were before.

use super::bed::Bed;
use super::command::{output, output_of};
use super::enter;
use crate::image::NAME as IMAGE;
use crate::tally::Tally;
use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const SYSTEM: &str = "fairlead-system";
const REPLICAS: usize = 3;
/// A service of both clusters, and one that only the other has.
const REQUESTS: [&str; 2] = ["GET http://web/", "GET http://far/"];
/// Calls a second of each.
const RATE: &str = "15";
/// All is well for so long before something is done.
const BEFORE: Duration = Duration::from_secs(2);
/// Until everything is as it was.
const PATIENCE: Duration = Duration::from_secs(90);
/// What is revoked at one replica is revoked at all after this.
const REVOKED: Duration = Duration::from_secs(5);

/// What is done to the control planes of a cluster.
struct Act {
    name: &'static str,
    /// How long the load lasts, the beginning included.
    load: &'static str,
    run: fn(&Run<'_>, u8) -> anyhow::Result<()>,
}

const ACTS: &[Act] = &[
    Act { name: "the lease's holder killed", load: "20s", run: |run, cluster| run.kill_holder(cluster) },
    Act { name: "all killed", load: "20s", run: |run, cluster| run.kill_all(cluster) },
    Act { name: "all pods lost with what they had", load: "25s", run: |run, cluster| run.lose_all(cluster) },
    Act { name: "rolled", load: "45s", run: |run, cluster| run.roll(cluster) },
];

struct Run<'a> {
    bed: &'a Bed,
}

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let run = Run { bed };
    let mut tally = Tally::default();
    let result = run.start().and_then(|()| run.all(&mut tally));
    for cluster in [1, 2] {
        run.kubectl(cluster, &["delete", "namespace", "shop", "--ignore-not-found", "--timeout=90s"])?;
        run.fairlead(&["uninstall", "--context", &context(cluster), "--crds"])?;
    }
    result?;
    Ok(tally)
}

fn context(cluster: u8) -> String {
    format!("c{cluster}")
}

impl Run<'_> {
    fn fairlead(&self, words: &[&str]) -> anyhow::Result<String> {
        output(enter::fairlead(self.bed)?.args(words))
    }

    fn kubectl(&self, cluster: u8, words: &[&str]) -> anyhow::Result<String> {
        output(enter::kubectl(self.bed, cluster)?.args(words))
    }

    fn start(&self) -> anyhow::Result<()> {
        for (cluster, name) in [(1, "east"), (2, "west")] {
            let replicas = format!("control.replicas={REPLICAS}");
            self.fairlead(&["install", "--context", &context(cluster), "--cluster", name, "--set", &replicas])?;
        }
        let token = self.fairlead(&["token", "create", "--context", "c1"])?;
        self.fairlead(&["join", "--context", "c2", token.trim()])?;
        for cluster in [1, 2] {
            let objects = json!({"apiVersion": "v1", "kind": "List", "items": objects(cluster)});
            output_of(enter::kubectl(self.bed, cluster)?.args(["apply", "-f", "-"]), &objects.to_string())?;
        }
        for cluster in [1, 2] {
            self.kubectl(cluster, &["wait", "-n", "shop", "--for=condition=Ready", "pod", "--all", "--timeout=90s"])?;
        }
        Ok(())
    }

    fn all(&self, tally: &mut Tally) -> anyhow::Result<()> {
        let whole = |rows: &[Value]| {
            let at = |host: &str, ready: u64| {
                rows.iter().any(|row| row["host"] == format!("{host}.shop.svc.cluster.local") && row["ready"] == ready)
            };
            at("web", 4) && at("far", 2)
        };
        let mut before = Vec::new();
        for cluster in [1, 2] {
            before.push(self.services(cluster, whole).context("before anything was done")?);
            self.served(cluster)?;
        }
        for act in ACTS {
            let loads = REQUESTS.map(|request| self.load(request, act.load));
            std::thread::sleep(BEFORE);
            // In both clusters at once.
            std::thread::scope(|scope| -> anyhow::Result<()> {
                let both = [1, 2].map(|cluster| scope.spawn(move || (act.run)(self, cluster)));
                both.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a thread panicked")))
            })
            .context(act.name)?;
            for load in loads {
                let (request, child) = load?;
                tally.note(&format!("{}: {request}: no call failed", act.name), none_failed(child));
            }
            for (cluster, before) in [1, 2].into_iter().zip(&before) {
                let same = self.services(cluster, |rows| rows == before.as_slice());
                tally.note(&format!("{}: c{cluster}: every replica lists what was listed before", act.name), same);
                tally.note(&format!("{}: c{cluster}: every proxy is served", act.name), self.served(cluster));
            }
        }
        tally.note("a revocation at one replica holds at all", self.revoked());
        Ok(())
    }

    /// Names of the control planes' pods that are ready, when there are as many as there should be.
    fn replicas(&self, cluster: u8) -> anyhow::Result<Vec<Value>> {
        let text = self.kubectl(cluster, &["get", "pods", "-n", SYSTEM, "-l", "app=fairlead-control", "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let mut ready = conditions.filter(|c| c["type"] == "Ready" && c["status"] == "True");
            ready.next().is_some() && pod["metadata"]["deletionTimestamp"].is_null()
        };
        ensure!(
            all.len() == REPLICAS && all.iter().all(ready),
            "{} pods, {} of them ready",
            all.len(),
            all.iter().filter(|p| ready(p)).count()
        );
        Ok(all)
    }

    /// What one replica lists.
    fn listed(&self, cluster: u8, pod: &Value, what: &str) -> anyhow::Result<Vec<Value>> {
        let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
        let program = ["/usr/local/bin/fairlead", "get", what, "-o", "json", "--socket", "/run/fairlead/admin.sock"];
        let words = ["exec", "-n", SYSTEM, name, "-c", "control", "--"];
        let text = self.kubectl(cluster, &[&words[..], &program[..]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What every replica of a cluster lists alike, once it is as wanted.
    fn services(&self, cluster: u8, wanted: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
        until(|| {
            let pods = self.replicas(cluster)?;
            let mut listings =
                pods.iter().map(|pod| self.listed(cluster, pod, "services")).collect::<anyhow::Result<Vec<_>>>()?;
            let first = listings.pop().context("no replica")?;
            ensure!(
                listings.iter().all(|other| *other == first),
                "replicas list different services: {listings:?} {first:?}"
            );
            ensure!(wanted(&first), "c{cluster} lists {}", json!(first));
            Ok(first)
        })
    }

    /// Until every proxy of a cluster is served and has taken what it was offered.
    fn served(&self, cluster: u8) -> anyhow::Result<()> {
        until(|| {
            let pods = self.kubectl(cluster, &["get", "pods", "-A", "-o", "json"])?;
            let pods: Value = serde_json::from_str(&pods)?;
            let ours = |pod: &&Value| {
                let labels = &pod["metadata"]["labels"];
                labels["security.istio.io/tlsMode"] == "istio" || labels["istio"] == "eastwestgateway"
            };
            let expected = pods["items"].as_array().into_iter().flatten().filter(ours).count();
            let rows = self.fairlead(&["get", "proxies", "--context", &context(cluster), "-o", "json"])?;
            let rows: Vec<Value> = serde_json::from_str(&rows)?;
            let good =
                |row: &&Value| row["ready"] == true && row["heldBack"].is_null() && row["generation"] == row["offered"];
            let served = rows.iter().filter(good).count();
            ensure!(served == expected && expected > 0, "{served} of {expected} proxies: {}", json!(rows));
            Ok(())
        })
    }

    fn load(&self, request: &'static str, time: &str) -> anyhow::Result<(&'static str, Child)> {
        let mut command = enter::kubectl(self.bed, 1)?;
        command.args(["exec", "-n", "shop", "client", "-c", "app", "--", "/usr/local/bin/fairlead", "call", request]);
        command.args(["--rate", RATE, "--for", time, "-o", "json"]);
        Ok((request, command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?))
    }

    fn kill_holder(&self, cluster: u8) -> anyhow::Result<()> {
        let path = "jsonpath={.spec.holderIdentity}";
        let holder = self.kubectl(cluster, &["get", "lease", "fairlead-control", "-n", SYSTEM, "-o", path])?;
        let (pod, _) = holder.rsplit_once('_').with_context(|| format!("the lease is held by `{holder}`"))?;
        let all = self.replicas(cluster)?;
        let pod = all.iter().find(|p| p["metadata"]["name"] == pod).with_context(|| format!("{holder} is no pod"))?;
        self.kill(cluster, pod)
    }

    fn kill_all(&self, cluster: u8) -> anyhow::Result<()> {
        self.replicas(cluster)?.iter().try_for_each(|pod| self.kill(cluster, pod))
    }

    /// As the kernel would, and nobody is asked.
    fn kill(&self, cluster: u8, pod: &Value) -> anyhow::Result<()> {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().context("a container without an id")?;
        let id = id.trim_start_matches("containerd://");
        let words = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id];
        output(enter::node(self.bed, cluster)?.args(words)).map(drop)
    }

    fn lose_all(&self, cluster: u8) -> anyhow::Result<()> {
        let words = ["delete", "pods", "-n", SYSTEM, "-l", "app=fairlead-control", "--force", "--grace-period=0"];
        self.kubectl(cluster, &words).map(drop)
    }

    fn roll(&self, cluster: u8) -> anyhow::Result<()> {
        self.kubectl(cluster, &["rollout", "restart", "-n", SYSTEM, "deployment/fairlead-control"])?;
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(cluster, &["rollout", "status", "-n", SYSTEM, "deployment/fairlead-control", &timeout]).map(drop)
    }

    fn revoked(&self) -> anyhow::Result<()> {
        let pods = self.replicas(1)?;
        self.fairlead(&["detach", "west", "--context", "c1"])?;
        let begun = Instant::now();
        for pod in &pods {
            until(|| {
                let rows = self.listed(1, pod, "clusters")?;
                let revoked = rows.iter().any(|row| row["cluster"] == "west" && row["state"] == "revoked");
                ensure!(revoked, "{} lists {}", pod["metadata"]["name"], json!(rows));
                Ok(())
            })?;
        }
        ensure!(begun.elapsed() <= REVOKED, "after {:?}", begun.elapsed());
        Ok(())
    }
}

/// Tries until it succeeds; the last failure is why it never did.
fn until<T>(mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(e) if begun.elapsed() > PATIENCE => return Err(e.context(format!("for {PATIENCE:?}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(300)),
        }
    }
}

fn none_failed(child: Child) -> anyhow::Result<()> {
    let done = child.wait_with_output()?;
    let report: Value = serde_json::from_slice(&done.stdout)
        .with_context(|| format!("the load ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr)))?;
    let count = |field: &str| report[field].as_u64().unwrap_or(0);
    if count("failed") > 0 || count("total") == 0 {
        bail!("{} of {} failed: {}", count("failed"), count("total"), report["samples"]);
    }
    Ok(())
}

/// The namespace, who calls, and who is called.
fn objects(cluster: u8) -> Vec<Value> {
    let container = json!({
        "name": "app", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["echo", "--port", "8080"],
        "ports": [{"containerPort": 8080}],
        // Not the image's user, which is the proxy's: what that sends is not captured.
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    });
    let meta = |name: &str| json!({"name": name, "namespace": "shop"});
    let mut all = vec![json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}},
    })];
    let names: &[&str] = if cluster == 1 { &["web"] } else { &["web", "far"] };
    for name in names {
        let labels = json!({"app": name});
        all.push(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta(name),
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }));
        all.push(
            json!({"apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport", "metadata": meta(name)}),
        );
        all.extend([0, 1].map(|n| {
            let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta(&format!("{name}-{n}"))});
            pod["metadata"]["labels"] = labels.clone();
            pod["spec"] = json!({"terminationGracePeriodSeconds": 2, "containers": [container]});
            pod
        }));
    }
    if cluster == 1 {
        let mut client = json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("client")});
        client["spec"] = json!({"terminationGracePeriodSeconds": 2, "containers": [container]});
        all.push(client);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_other_cluster_has_what_is_far() {
        let names = |cluster| -> Vec<String> {
            let all = objects(cluster);
            let services = all.iter().filter(|o| o["kind"] == "Service");
            services.map(|o| o["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!((names(1), names(2)), (vec!["web".to_owned()], vec!["web".to_owned(), "far".to_owned()]));
        assert!(objects(1).iter().any(|o| o["metadata"]["name"] == "client"));
    }
}
