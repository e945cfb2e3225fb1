//! `cluster down`: ends clusters and leaves nothing of them: no process, namespace, cgroup, mount, route or folder.
//!
//! Invariant: only what carries the bed's names is touched, and what could not be removed is an error that names it.

use super::bed::Bed;
use super::plan::Shape;
use super::{cgroup, configuration, network};
use anyhow::{Context as _, bail};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Ends every cluster of the bed.
pub fn down(bed: &Bed) -> anyhow::Result<()> {
    let _lock = bed.lock()?;
    let begun = Instant::now();
    let known = bed.known();
    for cluster in &known {
        kill(bed, *cluster)?;
    }
    for cluster in &known {
        cgroup::remove(&bed.node_name(*cluster))?;
        network::remove(&bed.node_name(*cluster))?;
        remove_data(&bed.cluster(*cluster))?;
    }
    // Of programs beside the clusters, whose holder was killed.
    for place in network::left(&format!("{}-", bed.prefix())) {
        network::remove(&place)?;
    }
    network::remove_lan(bed, bed.plan(Shape::Flat))?;
    if bed.state.exists() {
        fs::remove_dir_all(&bed.state).with_context(|| bed.state.display().to_string())?;
    }
    // Taking a mount point away takes the mount away too, also from a node of the other bed.
    if !bed.any_known()? {
        remove_made_folders(bed);
    }
    let left = leftovers(bed)?;
    if !left.is_empty() {
        bail!("this is left of the clusters:\n  {}", left.join("\n  "));
    }
    println!("{} cluster(s) ended, {:.1} s", known.len(), begun.elapsed().as_secs_f32());
    Ok(())
}

/// Kills the process that holds a node's namespaces: the kernel ends everything inside with it.
pub fn kill(bed: &Bed, cluster: u8) -> anyhow::Result<()> {
    let Some(pid) = bed.process(cluster) else { return Ok(()) };
    let inner = bed.init(cluster).ok();
    for pid in [Some(pid), inner].into_iter().flatten() {
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL);
    }
    let begun = Instant::now();
    while [Some(pid), inner].into_iter().flatten().any(lives) {
        if begun.elapsed() > Duration::from_secs(20) {
            bail!("process {pid} of cluster {cluster} does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A process that ended and that nobody has asked about yet does not live.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])))
}

/// Mounts of a node's namespace go a moment after its last process.
pub fn remove_data(folder: &Path) -> anyhow::Result<()> {
    let begun = Instant::now();
    while folder.exists() {
        match fs::remove_dir_all(folder) {
            Ok(()) => break,
            Err(error) if begun.elapsed() > Duration::from_secs(10) => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    Ok(())
}

/// Mount points that `up` made, if they are empty (they are mounts only inside nodes).
fn remove_made_folders(bed: &Bed) {
    let made = fs::read_to_string(bed.made_folders()).unwrap_or_default();
    for folder in made.lines().rev() {
        let ours = configuration::PRIVATE.iter().any(|path| Path::new(path).starts_with(folder));
        if ours {
            let _ = fs::remove_dir(folder);
        }
    }
    let _ = fs::remove_file(bed.made_folders());
}

/// What a bed has outside its folder, by what the kernel says and not by what files say.
pub fn leftovers(bed: &Bed) -> anyhow::Result<Vec<String>> {
    let prefix = format!("{}-", bed.prefix());
    let mut left: Vec<String> =
        network::left(&prefix).into_iter().map(|name| format!("network namespace {name}")).collect();
    left.extend(cgroup::left(&prefix).into_iter().map(|path| format!("cgroup {}", path.display())));
    left.extend(network::refused(bed.plan(Shape::Flat))?.iter().map(|range| format!("route unreachable {range}")));
    let folder = bed.state.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    left.extend(mounts.lines().filter(|line| line.contains(&folder)).map(|line| format!("mount {line}")));
    for entry in fs::read_dir("/proc")?.flatten() {
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if groups.contains(&format!(":/{}-c", bed.prefix())) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            left.push(format!("process {} {}", entry.file_name().to_string_lossy(), name.trim()));
        }
    }
    Ok(left)
}
