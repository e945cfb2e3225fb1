//! A node from inside its namespaces: private paths, kernel settings, configuration files, images, and then its programs.
//!
//! Invariant: nothing here is seen outside. Mounts are made in the node's own mount namespace, settings in its network namespace.

use super::bed::{Bed, BedArgs, write};
use super::plan::{Plan, Shape};
use super::supervisor::Supervisor;
use super::{cgroup, command, configuration, images, load_balancer};
use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Which node.
#[derive(Debug, Clone, clap::Args)]
pub struct NodeArgs {
    /// Folder of the cluster: so that the process is recognised from outside.
    pub folder: std::path::PathBuf,
    #[arg(long)]
    pub cluster: u8,
    #[arg(long)]
    pub shape: Shape,
    #[command(flatten)]
    pub bed: BedArgs,
}

/// Settings of the node's network namespace.
const SETTINGS: &[(&str, &str)] = &[("ipv4/ip_forward", "1"), ("ipv4/conf/all/route_localnet", "1")];
/// With IPv6. Whether another has an address (`accept_dad`) is asked for a second, each time.
const WITH_V6: &[(&str, &str)] =
    &[("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")];
const WITHOUT_V6: &[(&str, &str)] = &[("ipv6/conf/all/disable_ipv6", "1")];

/// Does not return while the cluster lives.
pub fn run(args: &NodeArgs) -> anyhow::Result<()> {
    let bed = Bed::open(args.bed.whose())?;
    let (cluster, plan) = (args.cluster, bed.plan(args.shape));
    let folder = bed.cluster(cluster);
    nix::unistd::sethostname(format!("c{cluster}"))?;
    private_paths(&folder)?;
    for (name, value) in SETTINGS.iter().chain(if plan.has_v6() { WITH_V6 } else { WITHOUT_V6 }) {
        let file = Path::new("/proc/sys/net").join(name);
        if file.exists() {
            write(&file, value)?;
        }
    }
    configuration_files(&bed, plan, cluster)?;
    command::output_of(Command::new("nft").args(["--file", "-"]), &configuration::masquerade(plan, cluster))?;
    cgroup::enter(&bed.node_name(cluster))?;

    let mut supervisor = Supervisor::new(&folder);
    let (late, early): (Vec<_>, Vec<_>) =
        configuration::components(&bed, plan, cluster).into_iter().partition(|component| component.needs_api_server);
    for component in early {
        supervisor.add(component);
    }
    supervisor.until("containerd", || command::run("ctr", &["version"]).is_ok());
    for archive in images::base(&bed) {
        let mut ctr = Command::new("ctr");
        ctr.args(["--namespace", "k8s.io", "images", "import"]).arg(&archive);
        command::output(&mut ctr)?;
    }
    let kubectl = |words: &[&str]| {
        let mut command = Command::new(bed.bin().join("kubectl"));
        command.arg("--kubeconfig").arg(folder.join("kubeconfig")).args(words);
        command
    };
    supervisor.until("the API server", || command::output(&mut kubectl(&["get", "--raw", "/readyz"])).is_ok());
    for component in late {
        supervisor.add(component);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| load_balancer::run(&plan.node_addresses(cluster), &kubectl));
        supervisor.run(Duration::from_millis(200))
    })
}

/// `/run` is empty, and each path that programs use by default leads into the cluster's folder.
fn private_paths(folder: &Path) -> anyhow::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("making mounts private")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("/run")?;
    for path in ["/run/lock", "/run/netns"] {
        fs::create_dir_all(path)?;
    }
    for path in configuration::PRIVATE {
        let own = folder.join("fs").join(path.trim_start_matches('/'));
        fs::create_dir_all(&own)?;
        mount(Some(&own), *path, none, MsFlags::MS_BIND, none).with_context(|| format!("{path} of the node"))?;
    }
    // Volumes may ask for mounts that pods and node see of each other.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).context("making mounts shared")
}

fn configuration_files(bed: &Bed, plan: Plan, cluster: u8) -> anyhow::Result<()> {
    write(Path::new("/etc/containerd/config.toml"), configuration::containerd())?;
    for (file, value) in [
        ("/etc/cni/net.d/10-pods.conflist", configuration::cni(plan, cluster)),
        ("/etc/kubernetes/kubelet.json", configuration::kubelet(bed, plan, cluster)),
        ("/etc/kubernetes/kube-proxy.json", configuration::kube_proxy(bed, plan, cluster)),
    ] {
        write(Path::new(file), serde_json::to_string_pretty(&value)?)?;
    }
    // Pods with dnsPolicy Default find no resolver outside.
    write(Path::new("/etc/kubernetes/resolv.conf"), "")?;
    for plugin in ["ptp", "host-local", "portmap", "loopback"] {
        let from = Path::new("/usr/lib/cni").join(plugin);
        fs::copy(&from, Path::new("/opt/cni/bin").join(plugin)).with_context(|| from.display().to_string())?;
    }
    let script = Path::new("/opt/cni/bin").join(configuration::PTP_NAME);
    write(&script, configuration::PTP)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).with_context(|| script.display().to_string())
}
