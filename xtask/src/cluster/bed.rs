//! A bed: one set of clusters with its own names, addresses and folder.
//!
//! There are two, so that the tests' clusters and a developer's run side by side. Invariant: everything a bed makes outside its folder
//! carries its prefix (network namespaces, cgroups) or lies in its address block (one route).

use super::plan::{MOST_CLUSTERS, Plan, Shape};
use anyhow::{Context as _, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Which bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Developer,
    /// Of `cargo xtask test`.
    Suite,
}

/// Names, folders and address block of one set of clusters.
#[derive(Debug, Clone)]
pub struct Bed {
    pub whose: Whose,
    /// Beds share programs and images.
    pub root: PathBuf,
    pub state: PathBuf,
}

impl Bed {
    pub fn open(whose: Whose) -> anyhow::Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let root = std::path::absolute(target.join("cluster"))?;
        let state = root.join(match whose {
            Whose::Developer => "run",
            Whose::Suite => "suite",
        });
        Ok(Self { whose, root, state })
    }

    pub fn prefix(&self) -> &'static str {
        match self.whose {
            Whose::Developer => "flx",
            Whose::Suite => "flt",
        }
    }

    pub fn plan(&self, shape: Shape) -> Plan {
        let block = match self.whose {
            Whose::Developer => [10, 89],
            Whose::Suite => [10, 90],
        };
        Plan { block, shape }
    }

    /// Go programs.
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// OCI archives.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub fn cluster(&self, cluster: u8) -> PathBuf {
        self.state.join(format!("c{cluster}"))
    }

    /// Contexts `c1`, `c2`, … of all running clusters.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// This program, as it was when clusters were started.
    pub fn program(&self) -> PathBuf {
        self.state.join("xtask")
    }

    /// The network namespace of a node; its cgroups have the same name.
    pub fn node_name(&self, cluster: u8) -> String {
        format!("{}-c{cluster}", self.prefix())
    }

    pub fn lan_name(&self) -> String {
        format!("{}-lan", self.prefix())
    }

    /// Folders of this machine that were made as mount points. Beds share them.
    pub fn made_folders(&self) -> PathBuf {
        self.root.join("made-folders")
    }

    /// Whether any bed has clusters.
    pub fn any_known(&self) -> anyhow::Result<bool> {
        Ok([Whose::Developer, Whose::Suite]
            .into_iter()
            .map(Self::open)
            .collect::<anyhow::Result<Vec<_>>>()?
            .iter()
            .any(|bed| !bed.known().is_empty()))
    }

    fn shape_file(&self) -> PathBuf {
        self.state.join("shape")
    }

    /// The shape of the clusters that run or ran; none when there are none.
    pub fn shape(&self) -> Option<Shape> {
        let text = fs::read_to_string(self.shape_file()).ok()?;
        [Shape::Flat, Shape::Nonflat].into_iter().find(|shape| shape.name() == text.trim())
    }

    pub fn set_shape(&self, shape: Shape) -> anyhow::Result<()> {
        fs::create_dir_all(&self.state)?;
        write(&self.shape_file(), shape.name())
    }

    /// Clusters with a folder, whether their processes live or not.
    pub fn known(&self) -> Vec<u8> {
        (1..=MOST_CLUSTERS).filter(|cluster| self.cluster(*cluster).is_dir()).collect()
    }

    /// Clusters whose processes live.
    pub fn running(&self) -> Vec<u8> {
        self.known().into_iter().filter(|cluster| self.process(*cluster).is_some()).collect()
    }

    /// The process outside that holds the namespaces of a cluster. A number in a file is only believed if that process still is what
    /// wrote it.
    pub fn process(&self, cluster: u8) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.cluster(cluster).join("pid")).ok()?.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let ours = words.iter().any(|word| word == "cluster-init")
            && words.iter().any(|word| **word == *self.cluster(cluster).to_string_lossy());
        ours.then_some(pid)
    }

    /// The first process inside, seen from outside: the way into the node's namespaces.
    pub fn init(&self, cluster: u8) -> anyhow::Result<u32> {
        let Some(outer) = self.process(cluster) else {
            bail!(
                "cluster {cluster} does not run. `cargo xtask cluster up` starts clusters, `cargo xtask cluster status` shows them"
            )
        };
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        children
            .split_whitespace()
            .next()
            .context("the cluster is starting or ending")?
            .parse()
            .context("no process number")
    }

    /// Held while clusters of any bed are built, started or ended; ends with this process.
    pub fn lock(&self) -> anyhow::Result<fs::File> {
        self.hold("lock", "another `cargo xtask cluster` starts or ends clusters")
    }

    /// Held by whoever works with the clusters of the suite, from their start to their end: two at a time would break each other's.
    pub fn turn(&self) -> anyhow::Result<fs::File> {
        self.hold("turn", "another process works with the clusters of the suite")
    }

    fn hold(&self, name: &str, why: &str) -> anyhow::Result<fs::File> {
        fs::create_dir_all(&self.root)?;
        let path = self.root.join(name);
        let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        if file.try_lock().is_err() {
            println!("waiting: {why}");
            file.lock()?;
        }
        Ok(file)
    }
}

/// Writes a file; an error names it.
pub fn write(path: &Path, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
