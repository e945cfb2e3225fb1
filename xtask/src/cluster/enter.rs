//! Ways into a bed: the lan beside the nodes, and the namespaces of a node.

use super::bed::Bed;
use super::plan::{MOST_CLUSTERS, Shape};
use anyhow::{Context as _, bail};
use std::path::Path;
use std::process::Command;

/// A place to run programs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Lan,
    Node(u8),
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "lan" {
            return Ok(Self::Lan);
        }
        let number = text.strip_prefix('c').unwrap_or(text).parse().ok().filter(|n| (1..=MOST_CLUSTERS).contains(n));
        number.map(Self::Node).ok_or_else(|| format!("`{text}` is no place: write `lan`, or a cluster as `1` or `c1`"))
    }
}

/// A command of `words` in a place, ready to be run. It finds the clusters in `KUBECONFIG`.
pub fn command(bed: &Bed, place: Place, words: &[String]) -> anyhow::Result<Command> {
    let mut command = match place {
        Place::Lan => lan(bed)?,
        Place::Node(cluster) => node(bed, cluster)?,
    };
    command.args(words);
    Ok(command)
}

/// `nsenter` into the lan: files are as outside, the network is the nodes'.
pub fn lan(bed: &Bed) -> anyhow::Result<Command> {
    let file = format!("/run/netns/{}", bed.lan_name());
    if !Path::new(&file).exists() {
        bail!("no cluster runs: `cargo xtask cluster up`");
    }
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={file}")).env("KUBECONFIG", bed.kubeconfig());
    direct(&mut command);
    Ok(command)
}

/// `nsenter` into all namespaces of a node.
pub fn node(bed: &Bed, cluster: u8) -> anyhow::Result<Command> {
    let mut command = Command::new("nsenter");
    command.args(["--target", &bed.init(cluster)?.to_string(), "--mount", "--net", "--pid", "--uts", "--ipc"]);
    // Without this it would be in the folder of the same name outside.
    command.arg(format!("--wd={}", std::env::current_dir()?.display()));
    command.env("KUBECONFIG", bed.cluster(cluster).join("kubeconfig"));
    direct(&mut command);
    Ok(command)
}

/// `kubectl` for one cluster, run in the lan.
pub fn kubectl(bed: &Bed, cluster: u8) -> anyhow::Result<Command> {
    if bed.process(cluster).is_none() {
        bail!("cluster {cluster} does not run: `cargo xtask cluster up --clusters {cluster}`");
    }
    let mut command = lan(bed)?;
    command.arg(bed.bin().join("kubectl"));
    command.arg("--kubeconfig").arg(bed.cluster(cluster).join("kubeconfig"));
    Ok(command)
}

/// The program under test, built once, run in the lan.
pub fn fairlead(bed: &Bed) -> anyhow::Result<Command> {
    let mut command = lan(bed)?;
    command.arg(crate::suites::build()?);
    Ok(command)
}

/// Programs that honour a proxy's address would look for it in vain.
fn direct(command: &mut Command) {
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
}

/// The shape of what runs.
pub fn shape(bed: &Bed) -> anyhow::Result<Shape> {
    bed.shape().context("no cluster runs: `cargo xtask cluster up`")
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places_are_the_lan_or_a_cluster() {
        assert_eq!("lan".parse(), Ok(Place::Lan));
        assert_eq!("2".parse(), Ok(Place::Node(2)));
        assert_eq!("c9".parse(), Ok(Place::Node(9)));
        for wrong in ["0", "10", "c", "wan", ""] {
            let error = wrong.parse::<Place>().unwrap_err();
            assert!(error.contains("write `lan`, or a cluster"), "{error}");
        }
    }
}
