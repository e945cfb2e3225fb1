//! A mesh directory on real clusters: installed, joined, its workloads as pods, and its call table held against them.
//!
//! Must never know more of the product than its command line. Invariant: the clusters are afterwards what they were before.

mod certificates;
mod directory;
pub mod failures;
mod given;
mod inside;
mod load;
mod manifests;
mod outcome;
mod pods;
mod rotation;
mod table;

use super::bed::Bed;
use super::command::{output, output_of};
use super::{enter, faults};
use crate::image::NAME as IMAGE;
use crate::tally::Tally;
use anyhow::{Context as _, bail};
use clap::Args;
use directory::Directory;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long pods may take to run, and proxies to have all they should.
const PATIENCE: Duration = Duration::from_secs(90);

/// Options of `cargo xtask manifests`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  cargo xtask manifests examples/shop east > east.json && cargo xtask cluster kubectl 1 apply -f $PWD/east.json"
)]
pub struct ManifestsArgs {
    /// The mesh directory.
    directory: PathBuf,
    /// The cluster; `mesh` prints the Mesh object alone.
    cluster: String,
    /// Image of the echo programs.
    #[arg(long, default_value = IMAGE)]
    image: String,
}

/// Prints a cluster of a mesh directory as one List of objects.
pub fn print_manifests(args: &ManifestsArgs) -> anyhow::Result<ExitCode> {
    let items = match args.cluster.as_str() {
        "mesh" => vec![manifests::mesh(&args.directory)?],
        cluster => manifests::manifests(&args.directory, cluster, &args.image)?,
    };
    println!("{}", serde_json::to_string_pretty(&list(items))?);
    Ok(ExitCode::SUCCESS)
}

fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Two clusters with the same pod range, each with its own control plane.
pub fn pair(bed: &Bed) -> anyhow::Result<Tally> {
    table_of(bed, "tests/meshes/pair", &[(1, "east"), (2, "west")])
}

/// Two clusters that are joined, and of which nothing crosses.
pub fn independent(bed: &Bed) -> anyhow::Result<Tally> {
    table_of(bed, "tests/meshes/independent", &[(1, "east"), (2, "west")])
}

/// Two clusters on one network, whose pods reach each other.
pub fn flat(bed: &Bed) -> anyhow::Result<Tally> {
    table_of(bed, "testbed/meshes/flat", &[(1, "east"), (2, "west")])
}

/// The example, in three clusters with the same pod range.
pub fn shop(bed: &Bed) -> anyhow::Result<Tally> {
    table_of(bed, "examples/shop", &[(1, "east"), (2, "west"), (3, "north")])
}

/// One Kubernetes cluster and one that is a directory.
pub fn machines(bed: &Bed) -> anyhow::Result<Tally> {
    let mesh = Mesh::new(bed, Path::new("testbed/meshes/machines"), &[(1, "east")])?;
    let result = mesh.start().and_then(|()| {
        let directory = Directory::start(&mesh, "west")?;
        let token = mesh.fairlead(&["token", "create", "--context", "c1"])?;
        let socket = directory.socket().display().to_string();
        mesh.fairlead(&["join", "--socket", &socket, token.trim()])?;
        let mesh = Mesh { directory: Some(&directory), ..mesh.clone() };
        mesh.wait_for_proxies()?;
        table::run(&mesh)
    });
    mesh.finish(result, Mesh::end)
}

/// A mesh directory's workloads and its table on clusters that are installed and joined already; they stay so.
pub fn on_installed(bed: &Bed, root: &str, members: &[(u8, &str)]) -> anyhow::Result<Tally> {
    let mesh = Mesh::new(bed, Path::new(root), members)?;
    let result = mesh.deploy().and_then(|()| table::run(&mesh));
    mesh.finish(result, Mesh::remove)
}

/// What proxies must be told when a table is held against their records.
pub fn records() -> String {
    format!("injection.records={}", manifests::RECORDS)
}

fn table_of(bed: &Bed, root: &str, members: &[(u8, &str)]) -> anyhow::Result<Tally> {
    let mesh = Mesh::new(bed, Path::new(root), members)?;
    let begun = Instant::now();
    let result = mesh.start().and_then(|()| {
        println!("     installed, joined, deployed after {:.1} s", begun.elapsed().as_secs_f32());
        table::run(&mesh)
    });
    println!("     the table took until {:.1} s", begun.elapsed().as_secs_f32());
    mesh.finish(result, Mesh::end)
}

/// A mesh directory and the clusters it is on.
#[derive(Clone)]
struct Mesh<'a> {
    bed: &'a Bed,
    binary: PathBuf,
    root: &'a Path,
    /// Number in the bed, and name in the mesh.
    members: &'a [(u8, &'a str)],
    /// A further member that is no Kubernetes cluster.
    directory: Option<&'a Directory>,
}

impl<'a> Mesh<'a> {
    fn new(bed: &'a Bed, root: &'a Path, members: &'a [(u8, &'a str)]) -> anyhow::Result<Self> {
        Ok(Self { bed, binary: crate::suites::build()?, root, members, directory: None })
    }

    /// The number in the bed of a cluster of the mesh.
    fn number(&self, cluster: &str) -> anyhow::Result<u8> {
        let found = self.members.iter().find(|(_, name)| *name == cluster);
        found.map(|(number, _)| *number).with_context(|| format!("no cluster {cluster} runs"))
    }
}

impl Mesh<'_> {
    /// Whatever a step came to, links are whole and clusters are what they were.
    fn finish(&self, result: anyhow::Result<Tally>, end: fn(&Self) -> anyhow::Result<()>) -> anyhow::Result<Tally> {
        faults::heal(self.bed)?;
        self.members.iter().try_for_each(|(cluster, _)| faults::plug(self.bed, *cluster))?;
        let ended = end(self);
        let tally = result?;
        ended?;
        Ok(tally)
    }

    fn trust_domain(&self) -> anyhow::Result<String> {
        let mesh = manifests::mesh(self.root)?;
        Ok(mesh["spec"]["trustDomain"].as_str().context("mesh.yaml names no trustDomain")?.to_owned())
    }

    /// Whether pods of one cluster reach those of another.
    fn is_flat(&self) -> anyhow::Result<bool> {
        Ok(enter::shape(self.bed)? == super::plan::Shape::Flat)
    }

    /// Installs and joins, as docs/kubernetes.md says, and starts the workloads.
    fn start(&self) -> anyhow::Result<()> {
        let mesh = manifests::mesh(self.root)?;
        let domain = self.trust_domain()?;
        let install = |cluster: u8, name: &str| -> anyhow::Result<()> {
            let context = format!("c{cluster}");
            let mut words = vec!["install", "--context", &context, "--cluster", name, "--mesh-trust-domain", &domain];
            // Proxies remember their calls: what they saw of each is compared.
            let records = records();
            words.extend(["--set", &records]);
            // As in a directory: who one member let in is a member for all.
            words.extend(["--set", "mesh.admission=open"]);
            if let Some(network) = mesh["spec"]["clusters"][name]["network"].as_str() {
                words.extend(["--network", network]);
            }
            self.fairlead(&words).map(drop)
        };
        self.each(|cluster, name| install(cluster, name))?;
        let (first, others) = self.members.split_first().context("no cluster")?;
        for (cluster, _) in others {
            let token = self.fairlead(&["token", "create", "--context", &format!("c{}", first.0)])?;
            self.fairlead(&["join", "--context", &format!("c{cluster}"), token.trim()])?;
        }
        self.deploy()
    }

    /// Starts the workloads on clusters that are installed.
    fn deploy(&self) -> anyhow::Result<()> {
        self.each(|cluster, name| {
            let objects = list(manifests::manifests(self.root, name, IMAGE)?);
            let mut apply = enter::kubectl(self.bed, cluster)?;
            output_of(apply.args(["apply", "-f", "-"]), &objects.to_string())?;
            self.wait_for_pods(cluster)
        })?;
        self.wait_for_proxies()
    }

    /// Takes everything away again.
    fn end(&self) -> anyhow::Result<()> {
        self.remove()?;
        self.each(|cluster, _| self.fairlead(&["uninstall", "--context", &format!("c{cluster}"), "--crds"]).map(drop))
    }

    /// Takes the workloads away.
    fn remove(&self) -> anyhow::Result<()> {
        self.each(|cluster, name| {
            let objects = list(manifests::manifests(self.root, name, IMAGE)?);
            let mut delete = enter::kubectl(self.bed, cluster)?;
            delete.args(["delete", "-f", "-", "--ignore-not-found", "--timeout=90s"]);
            output_of(&mut delete, &objects.to_string()).map(drop)
        })
    }

    /// What is mostly a wait is done in all clusters at the same time.
    fn each(&self, act: impl Fn(u8, &str) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let act = &act;
            let all: Vec<_> =
                self.members.iter().map(|(cluster, name)| scope.spawn(move || act(*cluster, name))).collect();
            all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a thread of a cluster panicked")))
        })
    }

    /// What `fairlead` printed.
    fn fairlead(&self, words: &[&str]) -> anyhow::Result<String> {
        output(enter::fairlead(self.bed)?.args(words))
    }

    fn wait_for_pods_of_all(&self) -> anyhow::Result<()> {
        self.members.iter().try_for_each(|(cluster, _)| self.wait_for_pods(*cluster))
    }

    fn wait_for_pods(&self, cluster: u8) -> anyhow::Result<()> {
        let sets = output(enter::kubectl(self.bed, cluster)?.args(["get", "statefulsets", "-A", "-o", "json"]))?;
        let sets: Value = serde_json::from_str(&sets)?;
        for set in sets["items"].as_array().into_iter().flatten() {
            let meta = &set["metadata"];
            let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text("namespace"), format!("statefulset/{}", text("name")));
            let timeout = format!("--timeout={}s", PATIENCE.as_secs());
            output(enter::kubectl(self.bed, cluster)?.args(["rollout", "status", "-n", &namespace, &name, &timeout]))?;
        }
        Ok(())
    }

    /// Until every proxy has taken what its control plane last offered, and every control plane hears all others.
    fn wait_for_proxies(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let wanted = self.members.len() + usize::from(self.directory.is_some());
        loop {
            let mut waiting = Vec::new();
            let contexts =
                self.members.iter().map(|(cluster, name)| (*name, ["--context".to_owned(), format!("c{cluster}")]));
            let directory = self.directory.iter().map(|directory| {
                (directory.cluster.as_str(), ["--socket".to_owned(), directory.socket().display().to_string()])
            });
            for (name, [flag, of]) in contexts.chain(directory) {
                let read = |what: &str| -> anyhow::Result<Vec<Value>> {
                    Ok(serde_json::from_str(&self.fairlead(&["get", what, &flag, &of, "-o", "json"])?)?)
                };
                let behind = |row: &&Value| row["generation"] != row["offered"] || row["ready"] != true;
                let away = |row: &&Value| row["stream"] != "self" && row["stream"] != "fresh";
                // The way to a control plane is the API server's, which may have been away.
                let (proxies, clusters) = match (read("proxies"), read("clusters")) {
                    (Ok(proxies), Ok(clusters)) => (proxies, clusters),
                    (Err(error), _) | (_, Err(error)) => {
                        waiting.push(format!("{name}: {error:#}"));
                        continue;
                    }
                };
                waiting.extend(proxies.iter().filter(behind).map(Value::to_string));
                waiting.extend(clusters.iter().filter(away).map(|row| format!("{name}: {row}")));
                if clusters.len() < wanted {
                    waiting.push(format!("{name} knows {} of {wanted} clusters", clusters.len()));
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("after {PATIENCE:?} there is still not all where it should be: {}", waiting.join("; "));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
