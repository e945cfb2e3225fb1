//! Proves what the clusters of a bed can do without any mesh, so that a broken test bed is told from a broken product.
//!
//! Invariant: every fact that says "cannot" stands beside one that says "can" by the same means; what is made is removed.

use super::bed::{Bed, write};
use super::command::{output, output_of};
use super::enter;
use super::faults::{self, Fault};
use super::plan::{Plan, Shape};
use super::{pki, supervisor};
use crate::tally::Tally;
use anyhow::Context as _;
use base64::Engine as _;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "testbed-check";
/// How long a fact may take to become true: rules of a new Service, a name, a load balancer's address.
const PATIENCE: Duration = Duration::from_secs(20);
/// The port of the check's Service.
const PORT: u16 = 8088;

/// Facts that were looked at.
struct Facts<'a> {
    bed: &'a Bed,
    plan: Plan,
    tally: Tally,
}

/// All facts about the running clusters.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let mut facts = Facts::about(bed)?;
    let clusters = bed.running();
    let made = facts.all(&clusters);
    for cluster in &clusters {
        let words = ["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s"];
        output(enter::kubectl(bed, *cluster)?.args(words))?;
    }
    made?;
    Ok(facts.tally)
}

/// Fairlead's image runs as Pod Security `restricted` demands: no root, nothing writable, no shell needed.
pub fn image(bed: &Bed) -> anyhow::Result<Tally> {
    let mut facts = Facts::about(bed)?;
    let manifest = std::fs::read_to_string("testbed/manifests/image.yaml").context("testbed/manifests/image.yaml")?;
    for cluster in bed.running() {
        let result = facts.version(cluster, &manifest);
        output(enter::kubectl(bed, cluster)?.args([
            "delete",
            "namespace",
            "testbed-image",
            "--ignore-not-found",
            "--timeout=60s",
        ]))?;
        facts.tally.note(&format!("c{cluster} runs the image, restricted"), result);
    }
    Ok(facts.tally)
}

/// Tests can take the API server of one cluster away, and give it back.
pub fn api_server_away(bed: &Bed) -> anyhow::Result<Tally> {
    let mut facts = Facts::about(bed)?;
    let ready = || output(enter::kubectl(bed, 1)?.args(["get", "--raw", "/readyz", "--request-timeout=2s"]));
    supervisor::set_stopped(&bed.cluster(1), "kube-apiserver", true)?;
    let gone = facts.within(|| match ready() {
        Ok(text) => anyhow::bail!("it answers {text}"),
        Err(_) => Ok("gone".into()),
    });
    let other = output(enter::kubectl(bed, 2)?.args(["get", "--raw", "/readyz"]));
    supervisor::set_stopped(&bed.cluster(1), "kube-apiserver", false)?;
    facts.tally.note("c1 API server can be taken away", gone);
    facts.tally.note("c2 API server stays", other);
    facts.expect("c1 API server comes back", "ok", ready);
    Ok(facts.tally)
}

impl<'a> Facts<'a> {
    fn about(bed: &'a Bed) -> anyhow::Result<Self> {
        let shape = enter::shape(bed)?;
        anyhow::ensure!(!bed.running().is_empty(), "no cluster runs: `cargo xtask cluster up`");
        Ok(Self { bed, plan: bed.plan(shape), tally: Tally::default() })
    }

    fn all(&mut self, clusters: &[u8]) -> anyhow::Result<()> {
        let manifest =
            std::fs::read_to_string("testbed/manifests/check.yaml").context("testbed/manifests/check.yaml")?;
        for cluster in clusters {
            output_of(enter::kubectl(self.bed, *cluster)?.args(["apply", "--filename", "-"]), &manifest)?;
        }
        for cluster in clusters {
            for words in [
                ["rollout", "status", "deployment/web", "--timeout=90s"],
                ["wait", "--for=condition=Ready", "pod/client", "--timeout=90s"],
            ] {
                self.kubectl(*cluster, &words).with_context(|| self.events(*cluster))?;
            }
            self.inside(*cluster)?;
        }
        self.webhook(clusters)?;
        for from in clusters {
            for to in clusters.iter().filter(|to| *to != from) {
                self.between(*from, *to)?;
            }
        }
        if let [one, other, ..] = clusters {
            self.links(*one, *other)?;
        }
        self.isolation()
    }

    fn inside(&mut self, c: u8) -> anyhow::Result<()> {
        let bed = self.bed;
        let pod = self.kubectl(c, &["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"])?;
        let address = self.pod_address(c)?;
        let own = format!("of c{c}");
        let web = |url: String| move |facts: &Self| facts.fetch(c, &url);
        let urls = [
            ("pod by its address", format!("http://{address}:8080/")),
            ("Service by its address", format!("http://{}:{PORT}/", self.service(c, "{.spec.clusterIP}")?)),
            ("Service by its full name", format!("http://web.{NAMESPACE}.svc.cluster.local:{PORT}/")),
            ("Service by its short name", format!("http://web:{PORT}/")),
            ("rules of an init container lead port 9000 to 8080", format!("http://{address}:9000/")),
        ];
        for (name, url) in urls {
            let fetch = web(url);
            let result = self.within(|| containing(fetch(self)?, &own));
            self.tally.note(&format!("c{c} {name}"), result);
        }
        let inside = |words: &[&str]| -> anyhow::Result<String> {
            let exec = ["--namespace", NAMESPACE, "exec", pod.as_str(), "--container", "web", "--"];
            output(enter::kubectl(bed, c)?.args(exec).args(words))
        };
        let many = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do timeout 5 wget -qO- http://web:{PORT}/; done | sort -u | wc -l"
        );
        self.expect(&format!("c{c} both pods of a Service answer, one of them itself"), "2", || {
            inside(&["sh", "-c", &many])
        });
        self.expect(&format!("c{c} containers of a pod share its network"), "sidecar", || {
            inside(&["timeout", "5", "wget", "-qO-", "http://127.0.0.1:8081/"])
        });
        let logs = self.kubectl(c, &["logs", &pod, "--container", "web"]).and_then(|text| containing(text, "up"));
        self.tally.note(&format!("c{c} logs"), logs);
        let started = "jsonpath={.status.initContainerStatuses[1].started}";
        let sidecar = self.kubectl(c, &["get", "pod", &pod, "-o", started]).and_then(|text| containing(text, "true"));
        self.tally.note(&format!("c{c} a native sidecar runs"), sidecar);
        let credentials = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let authority = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
        let ask = format!(
            "curl -s --max-time 5 --cacert {authority} -H \"Authorization: Bearer $(cat {credentials})\" https://kubernetes.default.svc/version"
        );
        self.expect(&format!("c{c} a pod asks the API server"), "gitVersion", || inside(&["sh", "-c", &ask]));
        let port = self.service(c, "{.spec.ports[0].nodePort}")?;
        for node in self.plan.node_addresses(c) {
            let url = format!("http://{}/", SocketAddr::new(node, port.parse()?));
            let result = self.within(|| containing(self.fetch_from_lan(&url)?, &own));
            self.tally.note(&format!("c{c} NodePort from the lan, {node}"), result);
        }
        if self.plan.has_v6() {
            let address = self.pod_address6(c)?;
            let service = self.service(c, "{.spec.clusterIPs[1]}")?;
            for (name, url) in [
                ("pod by its IPv6 address", format!("http://[{address}]:8080/")),
                ("Service by its IPv6 address", format!("http://[{service}]:{PORT}/")),
            ] {
                let result = self.within(|| containing(self.fetch(c, &url)?, &own));
                self.tally.note(&format!("c{c} {name}"), result);
            }
        }
        Ok(())
    }

    fn version(&self, cluster: u8, manifest: &str) -> anyhow::Result<String> {
        output_of(enter::kubectl(self.bed, cluster)?.args(["apply", "--filename", "-"]), manifest)?;
        let pod = ["--namespace", "testbed-image"];
        let done = ["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/version", "--timeout=60s"];
        output(enter::kubectl(self.bed, cluster)?.args(pod).args(done))?;
        containing(output(enter::kubectl(self.bed, cluster)?.args(pod).args(["logs", "version"]))?, "fairlead ")
    }

    fn between(&mut self, from: u8, to: u8) -> anyhow::Result<()> {
        let answer = format!("of c{to}");
        let port = self.service(to, "{.spec.ports[0].nodePort}")?;
        let url = format!("http://{}:{port}/", self.plan.node(to));
        let result = self.within(|| containing(self.fetch(from, &url)?, &answer));
        self.tally.note(&format!("c{from} pod reaches c{to} by NodePort"), result);
        for (place, node) in self.plan.node_addresses(to).into_iter().enumerate() {
            let result = self.within(|| {
                let told = self.service(to, &format!("{{.status.loadBalancer.ingress[{place}].ip}}"))?;
                let address: IpAddr = told.parse().with_context(|| format!("load balancer `{told}`"))?;
                anyhow::ensure!(address == node, "its load balancer has {address}, wanted {node}");
                containing(self.fetch(from, &format!("http://{}/", SocketAddr::new(address, PORT)))?, &answer)
            });
            self.tally.note(&format!("c{from} pod reaches c{to} by its load balancer, {node}"), result);
        }
        let address = self.pod_address(to)?;
        let url = format!("http://{address}:8080/");
        if self.plan.shape == Shape::Flat {
            let result = self.within(|| containing(self.fetch(from, &url)?, &answer));
            self.tally.note(&format!("c{from} pod reaches a pod of c{to}"), result);
            if self.plan.has_v6() {
                let url = format!("http://[{}]:8080/", self.pod_address6(to)?);
                let result = self.within(|| containing(self.fetch(from, &url)?, &answer));
                self.tally.note(&format!("c{from} pod reaches a pod of c{to} by its IPv6 address"), result);
            }
        } else {
            // Somebody of the own cluster may have the same address, and answer.
            let never = match self.fetch(from, &url) {
                Ok(text) if text.contains(&answer) => Err(anyhow::anyhow!("{address} answered {text}")),
                Ok(text) => Ok(text),
                Err(error) => Ok(format!("{error:#}")),
            };
            self.tally.note(&format!("c{from} pod does not reach a pod of c{to}"), never);
            let pods = self.plan.pods(to);
            let inside = address.parse().is_ok_and(|address: std::net::Ipv4Addr| pods.contains(&address));
            let overlap = (inside && pods == self.plan.pods(from))
                .then(String::new)
                .with_context(|| format!("{address} is not in {pods}"));
            self.tally.note(&format!("c{from} and c{to} have the same pod range"), overlap);
            let lan = match self.fetch_from_lan(&url) {
                Ok(text) => Err(anyhow::anyhow!("{address} answered {text}")),
                Err(error) => Ok(format!("{error:#}")),
            };
            self.tally.note(&format!("lan does not reach a pod of c{to}"), lan);
        }
        Ok(())
    }

    fn links(&mut self, one: u8, other: u8) -> anyhow::Result<()> {
        let far = format!("http://{}:{PORT}/", self.plan.node(other));
        let near = format!("http://web:{PORT}/");
        for (fault, name) in [(Fault::Cut, "cut"), (Fault::Blackhole, "blackhole")] {
            faults::break_link(self.bed, one, other, fault)?;
            let begun = Instant::now();
            let result = self.fetch(one, &far);
            // A cut link tells at once, a blackhole lets its callers wait: `fetch` does for 5 s.
            let soon = begun.elapsed() < Duration::from_secs(4);
            let result = match result {
                Ok(text) => Err(anyhow::anyhow!("it answered {text}")),
                Err(error) if soon != (fault == Fault::Cut) => {
                    Err(error.context(format!("after {:?}", begun.elapsed())))
                }
                Err(error) => Ok(format!("{error:#}")),
            };
            let inside = self.fetch(one, &near).and_then(|text| containing(text, "of c"));
            faults::heal_link(self.bed, one, other)?;
            self.tally.note(&format!("{name} between c{one} and c{other}"), result);
            self.tally.note(&format!("{name} leaves what is inside c{one}"), inside);
            let healed = self.within(|| containing(self.fetch(one, &far)?, &format!("of c{other}")));
            self.tally.note(&format!("{name} heals"), healed);
        }
        Ok(())
    }

    fn isolation(&mut self) -> anyhow::Result<()> {
        let address = (self.plan.node(1), 6443).into();
        let outside = match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(_) => Err(anyhow::anyhow!("{address} was reached")),
            Err(error) => Ok(error.to_string()),
        };
        self.tally.note("the machine itself does not reach the nodes", outside);
        for cluster in self.bed.running() {
            let routes = output(enter::node(self.bed, cluster)?.args(["ip", "route"]))?;
            let none = if routes.contains("default") { Err(anyhow::anyhow!(routes)) } else { Ok(routes) };
            self.tally.note(&format!("c{cluster} has no way out"), none);
        }
        Ok(())
    }

    fn webhook(&mut self, clusters: &[u8]) -> anyhow::Result<()> {
        let address = self.plan.lan().addr();
        let (certificate, key) = pki::self_signed(address)?;
        let (certificate_file, key_file) = (self.bed.state.join("webhook.crt"), self.bed.state.join("webhook.key"));
        write(&certificate_file, &certificate)?;
        write(&key_file, key.serialize_pem())?;
        let mut command = enter::lan(self.bed)?;
        command.arg(self.bed.program()).args(["cluster-webhook", &address.to_string()]);
        command.args([&certificate_file, &key_file]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Ended(command.spawn()?);
        let mut port = String::new();
        BufReader::new(process.0.stdout.take().context("no output")?).read_line(&mut port)?;
        let configuration = serde_json::json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": NAMESPACE},
            "webhooks": [{
                "name": "check.testbed.local",
                "clientConfig": {
                    "url": format!("https://{address}:{}/", port.trim()),
                    "caBundle": base64::engine::general_purpose::STANDARD.encode(&certificate),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 3,
            }],
        });
        for cluster in clusters {
            output_of(
                enter::kubectl(self.bed, *cluster)?.args(["apply", "--filename", "-"]),
                &configuration.to_string(),
            )?;
            let result = self.within(|| {
                self.kubectl(*cluster, &["delete", "configmap", "seen", "--ignore-not-found"])?;
                self.kubectl(*cluster, &["create", "configmap", "seen"])?;
                containing(
                    self.kubectl(*cluster, &["get", "configmap", "seen", "-o", "jsonpath={.metadata.labels.seen}"])?,
                    "yes",
                )
            });
            output(enter::kubectl(self.bed, *cluster)?.args(["delete", "mutatingwebhookconfiguration", NAMESPACE]))?;
            self.tally.note(&format!("c{cluster} API server calls a webhook beside the clusters"), result);
        }
        Ok(())
    }

    fn kubectl(&self, cluster: u8, words: &[&str]) -> anyhow::Result<String> {
        output(enter::kubectl(self.bed, cluster)?.args(["--namespace", NAMESPACE]).args(words))
    }

    fn service(&self, cluster: u8, path: &str) -> anyhow::Result<String> {
        self.kubectl(cluster, &["get", "service", "web", "-o", &format!("jsonpath={path}")])
    }

    fn pod_address(&self, cluster: u8) -> anyhow::Result<String> {
        self.kubectl(cluster, &["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"])
    }

    fn pod_address6(&self, cluster: u8) -> anyhow::Result<String> {
        let path = format!("jsonpath={{.items[0].status.podIPs[{}].ip}}", self.plan.place_of_v6());
        self.kubectl(cluster, &["get", "pods", "-l", "app=web", "-o", &path])
    }

    fn fetch(&self, cluster: u8, url: &str) -> anyhow::Result<String> {
        self.kubectl(cluster, &["exec", "client", "--", "timeout", "5", "wget", "-qO-", url])
    }

    fn fetch_from_lan(&self, url: &str) -> anyhow::Result<String> {
        output(enter::lan(self.bed)?.args(["/bin/busybox", "timeout", "3", "/bin/busybox", "wget", "-qO-", url]))
    }

    /// Why pods do not become ready, as far as the cluster knows.
    fn events(&self, cluster: u8) -> String {
        let words = ["get", "pods,events", "--sort-by=.metadata.creationTimestamp"];
        self.kubectl(cluster, &words).unwrap_or_else(|error| format!("{error:#}"))
    }

    fn expect(&mut self, name: &str, want: &str, attempt: impl Fn() -> anyhow::Result<String>) {
        let result = self.within(|| containing(attempt()?, want));
        self.tally.note(name, result);
    }

    /// Tries until it works or patience ends.
    fn within(&self, attempt: impl Fn() -> anyhow::Result<String>) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            match attempt() {
                Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(300)),
                result => return result,
            }
        }
    }
}

fn containing(text: String, want: &str) -> anyhow::Result<String> {
    anyhow::ensure!(text.contains(want), "wanted `{want}`, got `{}`", text.trim());
    Ok(text)
}

/// A process that ends with its holder.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
