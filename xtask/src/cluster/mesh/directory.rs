//! A cluster that is a directory, beside the Kubernetes clusters of a bed: control plane and gateway as processes in the lan, each workload
//! with its proxy in a network namespace of its own.
//!
//! Invariant: what is started here ends with its holder, and its namespaces go with it; they carry the bed's prefix, so that `cluster down`
//! removes what a killed run left.

use super::inside::Pod;
use super::manifests::RECORDS;
use super::{Mesh, PATIENCE};
use crate::cluster::bed::write;
use crate::cluster::command::output;
use crate::cluster::{enter, network};
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Tells the proxy's own connections, where it runs as root.
const MARK: &str = "1337";
/// Where its control plane listens in the lan.
const CONTROL_PORT: u16 = 15012;

/// The cluster, running.
pub struct Directory {
    pub cluster: String,
    folder: PathBuf,
    processes: Vec<Child>,
    namespaces: Vec<String>,
    /// Its workloads, by `cluster/namespace/name`.
    pub workloads: BTreeMap<String, Pod>,
    /// Where its control plane and its gateway are entered.
    pub address: String,
}

impl Directory {
    /// Starts `root/clusters/<cluster>`, whose workloads are WorkloadEntries. In its objects `LAN.` stands for the first three octets of
    /// the bed's lan.
    pub fn start(mesh: &Mesh<'_>, cluster: &str) -> anyhow::Result<Self> {
        let plan = mesh.bed.plan(enter::shape(mesh.bed)?);
        let address = plan.lan().addr().to_string();
        let prefix = format!("{}.", address.rsplit_once('.').context("an address")?.0);
        let folder = mesh.bed.state.join("directory");
        let _ = fs::remove_dir_all(&folder);
        let mut own = Self {
            cluster: cluster.to_owned(),
            folder: folder.clone(),
            processes: Vec::new(),
            namespaces: Vec::new(),
            workloads: BTreeMap::new(),
            address: address.clone(),
        };
        let objects = own.objects(mesh.root, &prefix)?;
        let domain = format!("{cluster}.{}", mesh.trust_domain()?);
        own.control(mesh, &address)?;
        let identity = format!("spiffe://{domain}/fairlead/control");
        let gateway = format!("{cluster}/fairlead-system/east-west");
        let command = enter::lan(mesh.bed)?;
        own.proxy(mesh, command, "east-west", &gateway, &identity, &[])?;
        for entry in objects.iter().filter(|object| object["kind"] == "WorkloadEntry") {
            own.workload(mesh, entry, &identity)?;
        }
        Ok(own)
    }

    /// The admin socket of its control plane.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// Writes the mesh directory with the bed's addresses; gives its objects.
    fn objects(&self, root: &Path, prefix: &str) -> anyhow::Result<Vec<Value>> {
        let from = root.join("clusters").join(&self.cluster);
        let to = self.folder.join("mesh/clusters").join(&self.cluster);
        fs::create_dir_all(&to)?;
        let mut objects = Vec::new();
        let files =
            fs::read_dir(&from).with_context(|| from.display().to_string())?.flatten().map(|entry| entry.path());
        for file in files.filter(|file| file.extension().is_some_and(|end| end == "yaml")) {
            let text = fs::read_to_string(&file)?.replace("LAN.", prefix);
            objects.extend(serde_saphyr::from_multiple::<Value>(&text)?);
            write(&to.join(file.file_name().context("a file")?), text)?;
        }
        let mesh = fs::read_to_string(root.join("directory.yaml"))?.replace("LAN.", prefix);
        write(&self.folder.join("mesh/mesh.yaml"), mesh)?;
        Ok(objects)
    }

    fn control(&mut self, mesh: &Mesh<'_>, address: &str) -> anyhow::Result<()> {
        let mut command = enter::lan(mesh.bed)?;
        command.arg(&mesh.binary).args(["control", "--cluster", &self.cluster, "--directory"]);
        command.arg(self.folder.join("mesh")).arg("--admin").arg(self.socket());
        command.arg("--state").arg(self.folder.join("control"));
        let at = format!("{address}:{CONTROL_PORT}");
        command.args(["--listen", &at, "--advertise", &at]);
        self.spawn("control", command)?;
        let socket = self.socket();
        self.until("its control plane", || {
            output(Command::new(&mesh.binary).args(["get", "clusters", "-o", "json", "--socket"]).arg(&socket))
                .map(drop)
        })
    }

    /// A proxy where `command` leads.
    fn proxy(
        &mut self,
        mesh: &Mesh<'_>,
        mut command: Command,
        role: &str,
        workload: &str,
        identity: &str,
        more: &[&str],
    ) -> anyhow::Result<()> {
        let name = workload.replace('/', "-");
        command.arg(&mesh.binary).args(["proxy", "--role", role, "--workload", workload, "--mark", MARK]);
        command.args(["--control", &format!("{}:{CONTROL_PORT}", self.address), "--control-identity", identity]);
        command.arg("--credentials-from").arg(self.socket());
        command.arg("--state").arg(self.folder.join(&name));
        command.args(["--records", &RECORDS.to_string()]).args(more);
        self.spawn(&name, command)
    }

    /// A workload: its place in the lan, its capture rules, its program, its proxy.
    fn workload(&mut self, mesh: &Mesh<'_>, entry: &Value, identity: &str) -> anyhow::Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (name, namespace) = (text(&entry["metadata"]["name"]), text(&entry["metadata"]["namespace"]));
        let workload = format!("{}/{namespace}/{name}", self.cluster);
        let place = format!("{}-{name}", mesh.bed.prefix());
        let address = text(&entry["spec"]["address"]);
        network::make_place(mesh.bed, &place, &address)?;
        self.namespaces.push(place.clone());
        let resolvers = self.folder.join(format!("{name}.resolv.conf"));
        let search = format!("search {namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n");
        write(&resolvers, format!("nameserver {}\n{search}", self.address))?;
        let pod = Pod::of_namespace(&place, &address, &resolvers);
        output(pod.inside(0)?.arg(&mesh.binary).args(["capture", "--proxy-mark", MARK, "--dns", "--family", "ipv4"]))?;
        let mut program = pod.inside(super::inside::PROGRAM_USER)?;
        program.arg(&mesh.binary).args(["echo", "--workload", &workload]);
        let ports: Vec<u64> =
            entry["spec"]["ports"].as_object().into_iter().flatten().filter_map(|p| p.1.as_u64()).collect();
        program.args(ports.iter().map(|port| format!("--port={port}")));
        self.spawn(&format!("{name}.program"), program)?;
        let probe = format!("tcp:{}", ports.first().with_context(|| format!("{workload} has no port"))?);
        self.proxy(mesh, pod.inside(0)?, "sidecar", &workload, identity, &["--probe", &probe])?;
        self.workloads.insert(workload, pod);
        Ok(())
    }

    fn spawn(&mut self, name: &str, command: Command) -> anyhow::Result<()> {
        // Ends also when whoever started it is killed.
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        let child = guarded.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.processes.push(child.with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }

    fn until(&self, what: &str, attempt: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = attempt() {
            if Instant::now() > deadline {
                bail!("waited {PATIENCE:?} for {what}: {error:#}; logs are in {}", self.folder.display());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        for place in &self.namespaces {
            let _ = network::remove(place);
        }
    }
}
