//! `cluster up`: from nothing to ready nodes with running DNS.
//!
//! Invariant: clusters that run already are left alone; what failed half-way is ended by `down` as if it had worked.

use super::bed::{Bed, write};
use super::kubeconfig::{self, Entry};
use super::plan::{Families, MOST_CLUSTERS, Plan, Shape};
use super::{build, cgroup, command, configuration, enter, network, pki, requirements};
use anyhow::{Context as _, bail};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A cluster that needs longer than this has a fault that waiting does not mend.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks at an API server that does not answer yet.
const LOOK: Duration = Duration::from_millis(250);

/// Starts clusters 1 to `count`. Without `families`: IPv4 first, and IPv6 where the machine has it; those that run keep theirs.
pub fn up(bed: &Bed, count: u8, shape: Shape, families: Option<Families>) -> anyhow::Result<()> {
    if !(1..=MOST_CLUSTERS).contains(&count) {
        bail!("--clusters {count}: there can be 1 to {MOST_CLUSTERS}");
    }
    let missing = requirements::missing();
    if !missing.is_empty() {
        bail!("clusters cannot be started here:\n  {}", missing.join("\n  "));
    }
    let _lock = bed.lock()?;
    build::run(bed)?;
    let running = bed.running();
    if let Some(other) = bed.shape().filter(|other| *other != shape && !running.is_empty()) {
        bail!(
            "clusters {running:?} run in shape {}: end them with `cargo xtask cluster down`, or say --shape {}",
            other.name(),
            other.name()
        );
    }
    let begun = Instant::now();
    bed.set_shape(shape)?;
    if running.is_empty() {
        let why = if families == Some(Families::V4) { None } else { requirements::without_v6() };
        match (families, why) {
            (Some(Families::V4V6 | Families::V6V4), Some(why)) => bail!("clusters cannot have IPv6: {why}"),
            (_, Some(why)) => {
                println!("clusters have IPv4 only: {why}");
                bed.set_families(Families::V4)?;
            }
            (wanted, None) => bed.set_families(wanted.unwrap_or(Families::V4V6))?,
        }
    }
    let plan = bed.plan(shape);
    network::make_lan(bed, plan)?;
    make_private_folders(bed)?;
    let all: Vec<u8> = (1..=count).chain(running.iter().copied().filter(|cluster| *cluster > count)).collect();
    let fresh: Vec<u8> = all.iter().copied().filter(|cluster| !running.contains(cluster)).collect();
    keep_program(bed, running.is_empty())?;
    let mut started = Vec::new();
    for cluster in &fresh {
        started.push((*cluster, start(bed, plan, *cluster)?));
    }
    network::route(bed, plan, &all)?;
    write_kubeconfig(bed, plan, &all)?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let waiting: Vec<_> = started
            .into_iter()
            .map(|(cluster, child)| scope.spawn(move || wait_until_ready(bed, plan, cluster, child, begun)))
            .collect();
        for thread in waiting {
            thread.join().map_err(|_| anyhow::anyhow!("a thread that waited for a cluster panicked"))??;
        }
        Ok(())
    })?;
    println!(
        "{} cluster(s), shape {}, {:.1} s. KUBECONFIG={} (contexts c1, …), for programs in `cargo xtask cluster exec lan …`",
        all.len(),
        shape.name(),
        begun.elapsed().as_secs_f32(),
        bed.kubeconfig().display()
    );
    Ok(())
}

/// Mount points that this machine lacks are made, and remembered so that `down` takes them away.
fn make_private_folders(bed: &Bed) -> anyhow::Result<()> {
    let file = bed.made_folders();
    let mut made = fs::read_to_string(&file).unwrap_or_default();
    for path in configuration::PRIVATE {
        let ancestors: Vec<_> = Path::new(path).ancestors().filter(|folder| !folder.exists()).collect();
        for folder in ancestors.into_iter().rev() {
            fs::create_dir(folder).with_context(|| folder.display().to_string())?;
            made = format!("{made}{}\n", folder.display());
        }
    }
    write(&file, made)
}

/// Nodes run this program as it is now: cargo may replace the file at any time.
fn keep_program(bed: &Bed, replace: bool) -> anyhow::Result<()> {
    if replace || !bed.program().exists() {
        let _ = fs::remove_file(bed.program());
        fs::copy("/proc/self/exe", bed.program()).context("cannot copy this program")?;
    }
    Ok(())
}

fn start(bed: &Bed, plan: Plan, cluster: u8) -> anyhow::Result<Child> {
    let folder = bed.cluster(cluster);
    // From nothing, always: pods of a node that was killed come back with stale states.
    super::stop::remove_data(&folder)?;
    for sub in ["log", "fs", "stopped"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    pki::make(&folder.join("pki"), plan, cluster)?;
    write(&folder.join("kubeconfig"), kubeconfig::render(&[entry(bed, plan, cluster)?]))?;
    cgroup::remove(&bed.node_name(cluster))?;
    cgroup::make(&bed.node_name(cluster))?;
    network::make_node(bed, plan, cluster)?;

    let log = File::create(folder.join("log/node.log"))?;
    let mut command = Command::new("setsid");
    command.args(["nsenter", &format!("--net=/run/netns/{}", bed.node_name(cluster))]);
    command.args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(bed.program()).arg("cluster-init").arg(&folder);
    command.args(["--cluster", &cluster.to_string(), "--shape", plan.shape.name()]);
    command.args(bed.whose.words());
    let child =
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("cannot run setsid")?;
    write(&folder.join("pid"), child.id().to_string())?;
    Ok(child)
}

fn entry(bed: &Bed, plan: Plan, cluster: u8) -> anyhow::Result<Entry> {
    let pki = bed.cluster(cluster).join("pki");
    let read = |name: &str| fs::read_to_string(pki.join(name)).with_context(|| format!("{name} of cluster {cluster}"));
    Ok(Entry {
        name: format!("c{cluster}"),
        server: plan.node(cluster),
        authority: read("ca.crt")?,
        certificate: read("admin.crt")?,
        key: read("admin.key")?,
    })
}

fn write_kubeconfig(bed: &Bed, plan: Plan, clusters: &[u8]) -> anyhow::Result<()> {
    let entries: Vec<_> = clusters.iter().map(|cluster| entry(bed, plan, *cluster)).collect::<anyhow::Result<_>>()?;
    write(&bed.kubeconfig(), kubeconfig::render(&entries))
}

fn wait_until_ready(bed: &Bed, plan: Plan, cluster: u8, mut child: Child, begun: Instant) -> anyhow::Result<()> {
    let tell = |what: &str| println!("c{cluster}: {what} ({:.1} s)", begun.elapsed().as_secs_f32());
    let mut poll = |what: &str, attempt: &dyn Fn() -> anyhow::Result<()>| {
        let begun = Instant::now();
        loop {
            let Err(error) = attempt() else { return Ok(()) };
            if let Some(status) = child.try_wait()? {
                anyhow::bail!(with_logs(bed, cluster, &format!("it ended with {status}, waiting for {what}")));
            }
            if begun.elapsed() > LIMIT {
                anyhow::bail!(with_logs(bed, cluster, &format!("waited {LIMIT:?} for {what}: {error:#}")));
            }
            std::thread::sleep(LOOK);
        }
    };
    let kubectl = |words: &[&str]| command::output(enter::kubectl(bed, cluster)?.args(words)).map(drop);
    poll("its API server", &|| kubectl(&["get", "--raw", "/readyz"]))?;
    tell("API server answers");
    let manifest = fs::read_to_string("testbed/manifests/coredns.yaml").context("testbed/manifests/coredns.yaml")?;
    let manifest = manifest.replace("{{dns}}", &plan.dns_service(cluster).to_string());
    command::output_of(enter::kubectl(bed, cluster)?.args(["apply", "--filename", "-"]), &manifest)?;
    let node = format!("node/c{cluster}");
    poll("its kubelet", &|| kubectl(&["get", &node]))?;
    kubectl(&["wait", "--for=condition=Ready", &node, "--timeout=120s"])
        .map_err(|e| anyhow::anyhow!(with_logs(bed, cluster, &format!("{e:#}"))))?;
    tell("node is ready");
    let words = ["--namespace", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"];
    kubectl(&words).map_err(|e| anyhow::anyhow!(with_logs(bed, cluster, &format!("{e:#}"))))?;
    tell("DNS runs");
    Ok(())
}

/// An error about a cluster is of little use without the last words of its node.
fn with_logs(bed: &Bed, cluster: u8, error: &str) -> String {
    let folder = bed.cluster(cluster).join("log");
    let log = fs::read_to_string(folder.join("node.log")).unwrap_or_default();
    let skipped = log.lines().count().saturating_sub(5);
    let last: String = log.lines().skip(skipped).map(|line| format!("\n  {line}")).collect();
    format!("cluster {cluster}: {error}\nlogs are in {}{last}", folder.display())
}
