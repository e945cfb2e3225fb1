//! The cgroups of one cluster: what its node and its pods use is counted in one place, and ends with it.
//!
//! Hierarchies of version 1, which the test bed was tried with. Invariant: only groups named after a cluster of a bed are made or removed.

use anyhow::{Context as _, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TOP: &str = "/sys/fs/cgroup";
/// All that a kubelet insists on; `systemd` is the named hierarchy without a controller.
const HIERARCHIES: &[&str] = &["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "systemd"];
/// Where container runtimes make groups even when version 1 counts.
const UNIFIED: &str = "unified";

/// What keeps a kubelet from running here.
pub fn missing() -> Option<String> {
    if Path::new(TOP).join("cgroup.controllers").exists() {
        return Some(
            "the machine has cgroup version 2 only; the test bed knows version 1 (boot with systemd.unified_cgroup_hierarchy=0)"
                .into(),
        );
    }
    let absent: Vec<_> =
        HIERARCHIES.iter().filter(|h| !Path::new(TOP).join(h).join("cgroup.procs").exists()).copied().collect();
    (!absent.is_empty()).then(|| format!("cgroup hierarchies are not mounted under {TOP}: {}", absent.join(", ")))
}

/// Makes `name` and `name/system` in every hierarchy.
pub fn make(name: &str) -> anyhow::Result<()> {
    for hierarchy in HIERARCHIES {
        let top = Path::new(TOP).join(hierarchy);
        for group in [top.join(name), top.join(name).join("system")] {
            fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
            if *hierarchy == "cpuset" {
                // A new group has no processors, and nobody may enter it until it has.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    fs::write(group.join(file), fs::read(top.join(file))?)?;
                }
            }
        }
    }
    Ok(())
}

/// Moves this process, and with it all it starts, into `name/system`.
pub fn enter(name: &str) -> anyhow::Result<()> {
    for hierarchy in HIERARCHIES {
        let file = Path::new(TOP).join(hierarchy).join(name).join("system/cgroup.procs");
        fs::write(&file, std::process::id().to_string()).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Removes `name` and all below. Processes that are still in it belong to a node that was not ended as it should: they are killed.
pub fn remove(name: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    for hierarchy in HIERARCHIES.iter().chain([&UNIFIED]) {
        let group = Path::new(TOP).join(hierarchy).join(name);
        while group.exists() {
            remove_tree(&group);
            if !group.exists() {
                break;
            }
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("{} still has processes", group.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// A group whose processes have not ended yet stays; who calls looks again.
fn remove_tree(group: &Path) {
    for pid in
        fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines().filter_map(|pid| pid.parse().ok())
    {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

/// Stops everything in a group, or lets it go on.
pub fn freeze(name: &str, on: bool) -> anyhow::Result<()> {
    let file = Path::new(TOP).join("freezer").join(name).join("freezer.state");
    fs::write(&file, if on { "FROZEN" } else { "THAWED" }).with_context(|| file.display().to_string())
}

/// Groups whose name begins with `prefix`, in any hierarchy.
pub fn left(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in HIERARCHIES.iter().chain([&UNIFIED]) {
        for entry in fs::read_dir(Path::new(TOP).join(hierarchy)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Processor time in nanoseconds and anonymous memory in bytes that a cluster has used.
pub fn usage(name: &str) -> Option<(u64, u64)> {
    let cpu = fs::read_to_string(Path::new(TOP).join("cpuacct").join(name).join("cpuacct.usage")).ok()?;
    let memory = fs::read_to_string(Path::new(TOP).join("memory").join(name).join("memory.stat")).ok()?;
    let anonymous = memory.lines().find_map(|line| line.strip_prefix("total_rss "))?;
    Some((cpu.trim().parse().ok()?, anonymous.trim().parse().ok()?))
}
