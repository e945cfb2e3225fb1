//! A bed: one set of clusters with its own names, addresses and folder.
//!
//! There are several, so that the tests' clusters and those of developers who share a machine run side by side. Invariant: everything a bed makes outside its folder
//! carries its prefix (network namespaces, cgroups) or lies in its address block (one route).

use super::plan::{Families, MOST_CLUSTERS, Plan, Shape};
use anyhow::{Context as _, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// How many sets of clusters the suite `kubernetes` has.
pub const SUITES: u8 = 2;

/// Which bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Developer,
    /// Of `cargo xtask test`, 1 to [`SUITES`]: they work beside each other.
    Suite(u8),
    /// A further one, 1 to 9.
    Spare(u8),
}

/// Which bed a command means.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct BedArgs {
    /// The clusters that `cargo xtask test` starts, not yours: `--suite`, `--suite=2`.
    #[arg(long, global = true, value_name = "NUMBER", num_args = 0..=1, require_equals = true, default_missing_value = "1",
        value_parser = clap::value_parser!(u8).range(1..=i64::from(SUITES)))]
    suite: Option<u8>,
    /// Further clusters beside those, 1 to 9: for whoever shares a machine. Each number has its own names and addresses.
    #[arg(long, global = true, conflicts_with = "suite", value_parser = clap::value_parser!(u8).range(1..=9))]
    bed: Option<u8>,
}

impl BedArgs {
    pub fn whose(self) -> Whose {
        match (self.suite, self.bed) {
            (Some(number), _) => Whose::Suite(number),
            (None, Some(number)) => Whose::Spare(number),
            (None, None) => Whose::Developer,
        }
    }
}

impl Whose {
    fn all() -> impl Iterator<Item = Self> {
        [Self::Developer].into_iter().chain((1..=SUITES).map(Self::Suite)).chain((1..=9).map(Self::Spare))
    }

    /// The words that mean it: see [`BedArgs`].
    pub fn words(self) -> Vec<String> {
        match self {
            Self::Developer => Vec::new(),
            Self::Suite(number) => vec![format!("--suite={number}")],
            Self::Spare(number) => vec!["--bed".into(), number.to_string()],
        }
    }
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
            Whose::Developer => "run".to_owned(),
            Whose::Suite(number) => format!("suite-{number}"),
            Whose::Spare(number) => format!("bed-{number}"),
        });
        Ok(Self { whose, root, state })
    }

    pub fn prefix(&self) -> String {
        match self.whose {
            Whose::Developer => "flx".into(),
            Whose::Suite(number) => format!("ft{number}"),
            Whose::Spare(number) => format!("fl{number}"),
        }
    }

    pub fn plan(&self, shape: Shape) -> Plan {
        let block = match self.whose {
            Whose::Developer => [10, 89],
            Whose::Suite(number) => [10, 100 + number],
            Whose::Spare(number) => [10, 90 + number],
        };
        Plan { block, shape, families: self.families() }
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
        let beds = Whose::all().map(Self::open).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(beds.iter().any(|bed| !bed.known().is_empty()))
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

    fn families_file(&self) -> PathBuf {
        self.state.join("families")
    }

    /// Those of the clusters that run or ran.
    fn families(&self) -> Families {
        let text = fs::read_to_string(self.families_file()).unwrap_or_default();
        let written = [Families::V4V6, Families::V6V4].into_iter().find(|families| families.name() == text.trim());
        written.unwrap_or(Families::V4)
    }

    pub fn set_families(&self, families: Families) -> anyhow::Result<()> {
        write(&self.families_file(), families.name())
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

    /// Held by whoever works with clusters of the suite, from their start to their end: two at a time would break each other's.
    pub fn turn(&self) -> anyhow::Result<Option<fs::File>> {
        let Whose::Suite(number) = self.whose else { return Ok(None) };
        self.hold(&format!("turn-{number}"), "another process works with these clusters of the suite").map(Some)
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use std::collections::BTreeSet;

    #[test]
    fn beds_share_no_name_no_address_and_no_folder() {
        let beds: Vec<_> = Whose::all().map(|whose| Bed::open(whose).unwrap()).collect();
        let distinct = |of: &dyn Fn(&Bed) -> String| beds.iter().map(of).collect::<BTreeSet<_>>().len() == beds.len();
        assert!(distinct(&|bed| bed.prefix()));
        assert!(distinct(&|bed| bed.plan(Shape::Flat).all().to_string()));
        assert!(distinct(&|bed| bed.plan(Shape::Flat).all6().to_string()));
        assert!(distinct(&|bed| bed.state.display().to_string()));
    }

    #[test]
    fn the_words_of_a_bed_mean_it() {
        #[derive(clap::Parser)]
        struct Words {
            #[command(flatten)]
            bed: BedArgs,
        }
        for whose in Whose::all() {
            let words = std::iter::once("x".to_owned()).chain(whose.words());
            assert_eq!(Words::try_parse_from(words).unwrap().bed.whose(), whose);
        }
        assert!(Words::try_parse_from(["x", "--bed", "10"]).is_err());
        assert!(Words::try_parse_from(["x", "--bed", "1", "--suite"]).is_err());
        assert!(Words::try_parse_from(["x", "--suite=3"]).is_err());
        assert_eq!(Words::try_parse_from(["x", "--suite"]).unwrap().bed.whose(), Whose::Suite(1));
    }
}
