//! IPv6 beside IPv4 on real clusters: what programs ask, call and receive over IPv6 goes the mesh's way, or fails at once.
//!
//! What went by the mesh is told by the proxies' records, not by an answer: plaintext past the proxy would be answered, too. Invariant: every
//! call that must fail stands beside one that works, and the clusters are left as they were found.

use super::bed::Bed;
use super::command::{output, output_of};
use super::plan::Plan;
use super::{enter, mesh};
use crate::tally::Tally;
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const NAMESPACE: &str = "dual-stack";
const SYSTEM: &str = "fairlead-system";
const NEAR: &str = "testbed/manifests/dual-stack.yaml";
const FAR: &str = "testbed/manifests/dual-stack-far.yaml";
/// How long something may take to become true: pods start, and configuration comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// What can fail at once does: nobody waited for an answer that never comes.
const AT_ONCE: Duration = Duration::from_secs(3);

struct Run<'a> {
    bed: &'a Bed,
    plan: Plan,
    tally: Tally,
}

/// A call that a program made.
struct Called {
    /// What it was answered.
    answer: Result<String, String>,
    after: Duration,
    /// What its proxy wrote down since.
    records: Vec<Value>,
}

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let plan = bed.plan(enter::shape(bed)?);
    let mut run = Run { bed, plan, tally: Tally::default() };
    if !plan.has_v6() {
        println!("skip dual stack: clusters have IPv4 only on this machine");
        run.tally.skipped = 1;
        return Ok(run.tally);
    }
    let result = run.facts();
    each(|cluster| {
        run.kubectl(cluster, &["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"])?;
        run.fairlead(&["uninstall", "--context", &format!("c{cluster}"), "--crds"]).map(drop)
    })?;
    result?;
    Ok(run.tally)
}

/// In both clusters at once: most of it is waiting.
fn each(what: impl Fn(u8) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let what = &what;
    std::thread::scope(|scope| {
        let both = [1, 2].map(|cluster| scope.spawn(move || what(cluster)));
        both.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

impl Run<'_> {
    fn kubectl(&self, cluster: u8, words: &[&str]) -> anyhow::Result<String> {
        output(enter::kubectl(self.bed, cluster)?.args(words))
    }

    fn fairlead(&self, words: &[&str]) -> anyhow::Result<String> {
        output(enter::fairlead(self.bed)?.args(words))
    }

    fn facts(&mut self) -> anyhow::Result<()> {
        self.start()?;
        self.services()?;
        self.families()?;
        self.names()?;
        self.outside()?;
        self.inbound()?;
        self.other_cluster()?;
        self.control_plane()
    }

    fn start(&self) -> anyhow::Result<()> {
        each(|cluster| {
            let name = if cluster == 1 { "east" } else { "west" };
            let context = format!("c{cluster}");
            self.fairlead(&["install", "--context", &context, "--cluster", name, "--set", &mesh::records()])?;
            let file = if cluster == 1 { NEAR } else { FAR };
            let manifest = std::fs::read_to_string(file).context(file)?;
            let manifest = manifest.replace("{{outside}}", &self.plan.lan6().trunc().to_string());
            output_of(enter::kubectl(self.bed, cluster)?.args(["apply", "-f", "-"]), &manifest).map(drop)
        })?;
        let token = self.fairlead(&["token", "create", "--context", "c1"])?;
        self.fairlead(&["join", "--context", "c2", token.trim()])?;
        each(|cluster| {
            let words = ["get", "statefulsets", "-n", NAMESPACE, "-o", "name"];
            for set in self.kubectl(cluster, &words)?.lines() {
                self.kubectl(cluster, &["rollout", "status", "-n", NAMESPACE, set, "--timeout=90s"])?;
            }
            Ok(())
        })
    }

    /// A program's words in the first cluster.
    fn program(&self, pod: &str, words: &[&str]) -> anyhow::Result<String> {
        let exec = ["exec", "-n", NAMESPACE, pod, "-c", "program", "--"];
        self.kubectl(1, &[&exec[..], words].concat())
    }

    /// The proxy's records of a pod, those after number `since`.
    fn records(&self, pod: &str, since: u64) -> anyhow::Result<Vec<Value>> {
        let url = format!("http://127.0.0.1:15000/fairlead/records?since={since}");
        Ok(serde_json::from_str(&self.program(pod, &["curl", "-sSf", "--max-time", "5", &url])?)?)
    }

    fn last(&self, pod: &str) -> anyhow::Result<u64> {
        Ok(self.records(pod, 0)?.last().and_then(|record| record["seq"].as_u64()).unwrap_or_default())
    }

    /// The client's call, by the words of `curl`.
    fn call(&self, words: &[&str]) -> anyhow::Result<Called> {
        let since = self.last("client-0")?;
        let begun = Instant::now();
        let answer = self.program("client-0", &[&["curl", "-sSf", "--max-time", "10"][..], words].concat());
        let after = begun.elapsed();
        let answer = answer.map(|text| text.trim().to_owned()).map_err(|error| format!("{error:#}"));
        Ok(Called { answer, after, records: self.records("client-0", since)? })
    }

    /// Until it is so: names, endpoints and peers come in their own time.
    fn within(&self, holds: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match holds() {
                Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(200)),
                answer => return answer,
            }
        }
    }

    /// The fact that a call is answered by a pod of this name, by mutual TLS, and what else its record must say.
    fn answered(
        &mut self,
        fact: &str,
        words: &[&str],
        by: &str,
        record: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let result = self.within(|| {
            let called = self.call(words)?;
            let text = called.answer.as_ref().map_err(|error| anyhow::anyhow!(error.clone()))?;
            anyhow::ensure!(text.starts_with(by), "answered by {text}");
            let mutual = |one: &&Value| one["upstream-tls"] == true && one["endpoint"]["identity"] != "";
            let told = called.records.iter().filter(mutual).any(&record);
            anyhow::ensure!(told, "no such record: {}", Value::from(called.records));
            Ok(())
        });
        self.tally.note(fact, result);
        Ok(())
    }

    /// The fact that a call fails, and at once.
    fn refused(&mut self, fact: &str, words: &[&str]) -> anyhow::Result<()> {
        let called = self.call(words)?;
        let result = match called.answer {
            Ok(text) => Err(format!("it was answered: {text}")),
            Err(error) if called.after > AT_ONCE => Err(format!("only after {:?}: {error}", called.after)),
            Err(_) => Ok(()),
        };
        self.tally.note(fact, result);
        Ok(())
    }

    fn address(&self, cluster: u8, pod: &str) -> anyhow::Result<String> {
        let path = format!("jsonpath={{.status.podIPs[{}].ip}}", self.plan.place_of_v6());
        self.kubectl(cluster, &["get", "pod", "-n", NAMESPACE, pod, "-o", &path])
    }

    /// Services of both families, of IPv6 alone, of IPv4 alone.
    fn services(&mut self) -> anyhow::Result<()> {
        let v6 =
            |field: &'static str| move |record: &Value| record[field].as_str().is_some_and(|at| at.starts_with('['));
        let dialled = v6("original-destination");
        let to = |host: &str| format!("outbound|80||{host}.{NAMESPACE}.svc.cluster.local");
        let web = to("web");
        let http = |record: &Value| dialled(record) && record["protocol"] == "HTTP/1.1" && record["cluster"] == *web;
        self.answered("HTTP by name over IPv6, through both proxies", &["-6", "http://web/"], "web-", http)?;
        let bytes = |record: &Value| dialled(record) && record["protocol"] == "tcp";
        self.answered("bytes by name over IPv6, through both proxies", &["-6", "http://web:81/"], "web-", bytes)?;
        let four = |record: &Value| !dialled(record) && record["cluster"] == *web;
        self.answered("the same Service over IPv4", &["-4", "http://web/"], "web-", four)?;
        let upstream = v6("upstream");
        let six = |record: &Value| dialled(record) && upstream(record);
        self.answered("a Service of IPv6 alone, without asking for IPv6", &["http://web6/"], "web-", six)?;
        self.answered("a program that listens on IPv6 alone", &["http://six/"], "six-0", six)?;
        let web4 = to("web4");
        self.answered("a Service of IPv4 alone", &["http://web4/"], "web-", |record| record["cluster"] == *web4)?;
        self.refused("a Service of IPv4 alone has no IPv6 address, which is known at once", &["-6", "http://web4/"])?;
        self.refused("a Service of IPv6 alone has no IPv4 address, which is known at once", &["-4", "http://web6/"])
    }

    /// A pod in two slices is one endpoint.
    fn families(&mut self) -> anyhow::Result<()> {
        let result = self.within(|| {
            let told = self.program("client-0", &["curl", "-sSf", "http://127.0.0.1:15000/clusters?format=json"])?;
            let told: Value = serde_json::from_str(&told)?;
            let clusters = told["cluster_statuses"].as_array().context("no clusters")?;
            let first = self.plan.place_of_v6() == 0;
            for (service, v6) in [("web", first), ("web4", false), ("web6", true)] {
                let name = format!("outbound|80||{service}.{NAMESPACE}.svc.cluster.local");
                let cluster = clusters.iter().find(|cluster| cluster["name"] == *name).context(name)?;
                let hosts = cluster["host_statuses"].as_array().context("no hosts")?;
                let at = |host: &Value| host["address"]["socket_address"]["address"].as_str().map(str::to_owned);
                let addresses: BTreeSet<String> = hosts.iter().filter_map(at).collect();
                let right = hosts.len() == 2 && addresses.len() == 2 && addresses.iter().all(|a| a.contains(':') == v6);
                anyhow::ensure!(right, "{service}: {}", cluster["host_statuses"]);
            }
            Ok(())
        });
        self.tally.note("a pod of two families is one endpoint, at an address of its Service's first", result);
        Ok(())
    }

    /// What the proxy answers for names, and what it leads to.
    fn names(&mut self) -> anyhow::Result<()> {
        let result = self.within(|| {
            let asked = self
                .program("client-0", &["nslookup", "-type=AAAA", &format!("web-pods.{NAMESPACE}.svc.cluster.local")])?;
            for pod in ["web-0", "web-1"] {
                let address = self.address(1, pod)?;
                anyhow::ensure!(asked.contains(&address), "{pod} is {address}: {asked}");
            }
            Ok(())
        });
        self.tally.note("a headless Service's name means its pods' IPv6 addresses, too", result);
        let dialled = format!("[{}]:8081", self.address(1, "web-1")?);
        self.answered(
            "a pod of a headless Service by its name over IPv6",
            &["-6", "http://web-1.web-pods:8081/"],
            "web-1",
            |record| record["original-destination"] == *dialled && record["protocol"] == "tcp",
        )
    }

    /// What is no service of the mesh.
    fn outside(&mut self) -> anyhow::Result<()> {
        let url = format!("http://[{}]:8086/", self.plan.node6(2));
        let result = self.within(|| {
            let called = self.call(&[&url])?;
            let text = called.answer.map_err(|error| anyhow::anyhow!(error))?;
            anyhow::ensure!(text == "outside-0", "answered by {text}");
            anyhow::ensure!(called.records.is_empty(), "by the proxy: {}", Value::from(called.records));
            Ok(())
        });
        self.tally.note("an excluded IPv6 range is called past the proxy", result);
        let address = format!("[{}]:8080", self.address(1, "plain-0")?);
        let result = self.within(|| {
            let called = self.call(&[&format!("http://{address}/")])?;
            let text = called.answer.map_err(|error| anyhow::anyhow!(error))?;
            anyhow::ensure!(text == "plain-0", "answered by {text}");
            let passed =
                |one: &Value| one["cluster"] == "PassthroughCluster" && one["original-destination"] == *address;
            anyhow::ensure!(called.records.iter().any(passed), "no such record: {}", Value::from(called.records));
            Ok(())
        });
        self.tally.note("any other IPv6 address is called through the proxy, and passed on", result);
        Ok(())
    }

    /// What arrives over IPv6.
    fn inbound(&mut self) -> anyhow::Result<()> {
        let to = |record: &Value| record["cluster"] == format!("outbound|80||strict.{NAMESPACE}.svc.cluster.local");
        self.answered("a pod that takes mutual TLS only, over IPv6", &["-6", "http://strict/"], "strict-0", to)?;
        let url = |pod: &str| -> anyhow::Result<String> { Ok(format!("http://[{}]:8080/", self.address(1, pod)?)) };
        let plain = |pod: &str| self.program("plain-0", &["curl", "-sSf", "--max-time", "10", &url(pod)?]);
        let open = self.within(|| {
            let since = self.last("web-0")?;
            let text = plain("web-0")?;
            anyhow::ensure!(text.trim() == "web-0", "answered by {text}");
            let records = self.records("web-0", since)?;
            let taken = |one: &Value| {
                let remote = one["remote"].as_str().is_some_and(|from| from.starts_with('['));
                one["direction"] == "inbound" && remote && one["downstream-tls"] == false && one["peer"].is_null()
            };
            anyhow::ensure!(records.iter().any(taken), "no such record: {}", Value::from(records));
            Ok(())
        });
        let begun = Instant::now();
        let closed = match plain("strict-0") {
            Ok(text) => Err(format!("it was answered: {text}")),
            Err(error) if begun.elapsed() > AT_ONCE => Err(format!("only after {:?}: {error:#}", begun.elapsed())),
            Err(_) => Ok(()),
        };
        self.tally.note("plaintext over IPv6 to a pod that takes it goes through its proxy", open);
        self.tally.note("plaintext over IPv6 to a pod that takes mutual TLS only is refused", closed);
        Ok(())
    }

    /// What runs in the other cluster only.
    fn other_cluster(&mut self) -> anyhow::Result<()> {
        let gateway = |record: &Value| {
            record["gateway"].is_string()
                && record["endpoint"]["cluster"] == "west"
                && record["endpoint"]["workload"] == "far-0"
        };
        let v6 = |record: &Value| {
            gateway(record) && record["original-destination"].as_str().is_some_and(|at| at.starts_with('['))
        };
        self.answered(
            "over IPv6 to a Service whose pods are in the other cluster",
            &["-6", "http://far/"],
            "far-0",
            v6,
        )?;
        self.answered("a Service that is in the other cluster alone", &["-4", "http://distant/"], "far-0", gateway)?;
        self.answered("the same over IPv6, by a virtual IP of its own", &["-6", "http://distant/"], "far-0", v6)?;
        let both = r#"{"spec": {"ipFamilyPolicy": "RequireDualStack"}}"#;
        self.kubectl(2, &["patch", "service", "fairlead-eastwest", "-n", SYSTEM, "--type=merge", "-p", both])?;
        let entered = format!("[{}]:15443", self.plan.node6(2));
        let by_v6 = |record: &Value| gateway(record) && record["gateway"] == *entered;
        self.answered("through the other cluster's gateway by its IPv6 address", &["http://distant/"], "far-0", by_v6)
    }

    /// What kubelets and programs ask of the control plane, in clusters whose first family is IPv6.
    fn control_plane(&mut self) -> anyhow::Result<()> {
        let path = format!("jsonpath={{.items[0].status.podIPs[{}].ip}}", self.plan.place_of_v6());
        let pod = self.kubectl(1, &["get", "pods", "-n", SYSTEM, "-l", "app=fairlead-control", "-o", &path])?;
        let ready = format!("http://[{pod}]:15014/ready");
        let result = self.within(|| self.program("plain-0", &["curl", "-sSf", "--max-time", "5", &ready]).map(drop));
        self.tally.note("the control plane answers over IPv6", result);
        let mut failed = Vec::new();
        for port in [15012, 15017] {
            // Whose certificate it is, is no question here: something answers with one.
            let url = format!("https://[{pod}]:{port}/");
            let told =
                self.program("plain-0", &["curl", "-skv", "--max-time", "5", &url, "-o", "/dev/null", "--stderr", "-"]);
            let text = told.unwrap_or_else(|error| format!("{error:#}"));
            if !text.contains("Server certificate") {
                failed.push(format!("{port}: {text}"));
            }
        }
        let result = if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) };
        self.tally.note("proxies and API servers reach it over IPv6", result);
        Ok(())
    }
}
