//! Pods from inside: their processes, programs run among them, their proxies' admin interfaces.
//!
//! Goes by the kernel and not through the API server, which may be what is taken away. Invariant: pods are asked of the API server once,
//! by [`Pods::read`]; whoever ends one reads them again.

use super::Mesh;
use crate::cluster::command::output;
use crate::cluster::enter;
use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The proxy's container.
pub const PROXY: &str = "fairlead-proxy";
/// The echo program's.
pub const PROGRAM: &str = "app";
/// User of programs; not the proxy's, whose connections are its own.
pub const PROGRAM_USER: u32 = 1000;
/// The proxy's user: what it dials is not captured.
pub const PROXY_USER: u32 = 1337;

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Number in the bed.
    pub cluster: u8,
    pub uid: String,
    pub address: String,
    pub labels: BTreeMap<String, String>,
    pub account: String,
    /// Where its program listens.
    pub ports: Vec<u16>,
    /// Container and its id.
    containers: BTreeMap<String, String>,
    /// Not of Kubernetes: its network namespace, and the resolv.conf of its programs.
    place: Option<(String, PathBuf)>,
}

/// All pods of a mesh, by `cluster/namespace/name`.
#[derive(Debug, Clone, Default)]
pub struct Pods(pub BTreeMap<String, Pod>);

impl Pods {
    pub fn read(mesh: &Mesh<'_>) -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for (number, cluster) in mesh.members {
            let text = output(enter::kubectl(mesh.bed, *number)?.args(["get", "pods", "-A", "-o", "json"]))?;
            let list: Value = serde_json::from_str(&text)?;
            for item in list["items"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let meta = &item["metadata"];
                if meta["deletionTimestamp"].is_string() {
                    continue;
                }
                let status = &item["status"];
                let told = ["initContainerStatuses", "containerStatuses"];
                let containers = told.iter().flat_map(|field| status[field].as_array().into_iter().flatten());
                let containers = containers
                    .map(|one| {
                        (text(&one["name"]), text(&one["containerID"]).trim_start_matches("containerd://").to_owned())
                    })
                    .filter(|(_, id)| !id.is_empty())
                    .collect();
                let labels = meta["labels"].as_object().into_iter().flatten();
                let program = item["spec"]["containers"].as_array().into_iter().flatten();
                let ports = program
                    .filter(|one| one["name"] == PROGRAM)
                    .flat_map(|one| one["ports"].as_array().into_iter().flatten());
                let ports = ports.filter_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok()).collect();
                let pod = Pod {
                    ports,
                    cluster: *number,
                    uid: text(&meta["uid"]),
                    address: text(&status["podIP"]),
                    labels: labels.map(|(key, value)| (key.clone(), text(value))).collect(),
                    account: text(&item["spec"]["serviceAccountName"]),
                    containers,
                    place: None,
                };
                all.insert(format!("{cluster}/{}/{}", text(&meta["namespace"]), text(&meta["name"])), pod);
            }
        }
        if let Some(directory) = mesh.directory {
            all.extend(directory.workloads.clone());
        }
        Ok(Self(all))
    }

    pub fn get(&self, name: &str) -> anyhow::Result<&Pod> {
        self.0.get(name).with_context(|| format!("no pod {name}"))
    }

    /// Pods of a cluster with this label.
    pub fn labelled<'a>(&'a self, cluster: &'a str, key: &'a str, value: &'a str) -> impl Iterator<Item = &'a Pod> {
        let here = move |name: &str| name.split('/').next() == Some(cluster);
        self.0
            .iter()
            .filter(move |(name, pod)| here(name) && pod.labels.get(key).is_some_and(|v| v == value))
            .map(|p| p.1)
    }
}

impl Pod {
    /// A workload that is no pod: programs of this machine in a network namespace.
    pub fn of_namespace(name: &str, address: &str, resolvers: &Path) -> Self {
        Self {
            cluster: 0,
            uid: String::new(),
            address: address.to_owned(),
            labels: BTreeMap::new(),
            account: String::new(),
            ports: Vec::new(),
            containers: BTreeMap::new(),
            place: Some((name.to_owned(), resolvers.to_owned())),
        }
    }

    /// A command in such a place, with the files of this machine but for its name servers.
    pub fn inside(&self, user: u32) -> anyhow::Result<Command> {
        let (name, resolvers) = self.place.as_ref().context("a pod of a cluster")?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{name}"));
        command.args(["unshare", "--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]);
        command.arg(resolvers).args([
            "setpriv",
            "--reuid",
            &user.to_string(),
            "--regid",
            &user.to_string(),
            "--clear-groups",
        ]);
        Ok(command)
    }

    pub fn has_proxy(&self) -> bool {
        self.place.is_some() || self.containers.contains_key(PROXY)
    }

    /// Every process of the pod, its sandbox's included.
    fn processes(&self) -> Vec<u32> {
        in_group(&format!("pod{}", self.uid))
    }

    fn first(&self, container: &str) -> anyhow::Result<u32> {
        let id = self.containers.get(container).with_context(|| format!("no container {container}"))?;
        in_group(id).into_iter().min().with_context(|| format!("container {container} has no process"))
    }

    /// Ends all of the pod at once, as when its node killed it.
    pub fn kill(&self) -> anyhow::Result<()> {
        signal(&self.processes(), Signal::SIGKILL)
    }

    /// Signals the processes of one container.
    pub fn signal(&self, container: &str, signal: Signal) -> anyhow::Result<()> {
        let id = self.containers.get(container).with_context(|| format!("no container {container}"))?;
        self::signal(&in_group(id), signal)
    }

    /// `fairlead` among the files and in the network of a workload's program.
    pub fn fairlead(&self, mesh: &Mesh<'_>) -> anyhow::Result<Command> {
        let mut command = if self.place.is_some() { self.inside(PROGRAM_USER)? } else { self.command(PROGRAM)? };
        if self.place.is_some() {
            command.arg(&mesh.binary)
        } else {
            command.arg("/usr/local/bin/fairlead")
        };
        Ok(command)
    }

    /// A command that sees the files and the network of a container, as its program does.
    fn command(&self, container: &str) -> anyhow::Result<Command> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first(container)?.to_string(), "--mount", "--net"]);
        command.args(["--setuid", &PROGRAM_USER.to_string(), "--setgid", &PROGRAM_USER.to_string()]);
        command.env_clear();
        Ok(command)
    }

    /// A command in the pod's network with the files of this machine; `user` decides whether it is captured.
    pub fn network(&self, user: u32) -> anyhow::Result<Command> {
        let mut command = Command::new("nsenter");
        if let Some((name, _)) = &self.place {
            command.arg(format!("--net=/run/netns/{name}"));
        } else {
            let pid = self.processes().into_iter().min().context("the pod has no process")?;
            command.args(["--target", &pid.to_string(), "--net"]);
        }
        if user != 0 {
            command.args(["--setuid", &user.to_string(), "--setgid", &user.to_string()]);
        }
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ok(command)
    }

    /// Asks the proxy's admin interface.
    pub fn admin(&self, method: &str, path: &str) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:15000{path}");
        output(self.network(0)?.args(["curl", "-sSf", "--max-time", "5", "-X", method, &url]))
    }

    /// Asks the control plane in this pod by its admin socket.
    pub fn control(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        // By what it is and not by its container, which may be another than when the pods were read.
        let is_control = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"control")
        };
        let pid = self.processes().into_iter().find(is_control).context("no control plane runs in this pod")?;
        let mut command = Command::new("curl");
        command.args([
            "-sSf",
            "--max-time",
            "5",
            "--unix-socket",
            &format!("/proc/{pid}/root/run/fairlead/admin.sock"),
        ]);
        command.args(["-X", method, "-H", "content-type: application/json"]);
        if !body.is_empty() {
            command.args(["--data", body]);
        }
        output(command.arg(format!("http://admin{path}")))
    }
}

fn signal(pids: &[u32], signal: Signal) -> anyhow::Result<()> {
    if pids.is_empty() {
        bail!("there is no process to send {signal} to");
    }
    for pid in pids {
        // One may have ended with another.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
    Ok(())
}

/// Processes in a cgroup with this folder on its path.
fn in_group(folder: &str) -> Vec<u32> {
    let is_in = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.lines().any(|line| line.contains(":memory:") && line.split('/').any(|part| part == folder))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_in).collect()
}
