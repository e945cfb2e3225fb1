//! The images that every cluster needs, and how images get into clusters: as archives, without a registry.

use super::bed::Bed;
use super::{configuration, enter};
use crate::image::{Image, Tree};
use anyhow::{Context as _, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Image with a shell and the small programs of tests: busybox, curl, and what shows and makes packet rules.
pub const TOOLS: &str = "testbed.local/tools:1";

/// Archives that a cluster imports before its kubelet starts.
const BASE: &[&str] = &["pause.tar", "coredns.tar", "tools.tar"];

pub fn base(bed: &Bed) -> Vec<PathBuf> {
    BASE.iter().map(|name| bed.images().join(name)).collect()
}

/// Makes the archives whose contents are newer than they are.
pub fn make_base(bed: &Bed) -> anyhow::Result<()> {
    fs::create_dir_all(bed.images())?;
    let bin = bed.bin();
    for (name, reference, program) in
        [("pause", configuration::PAUSE, "/pause"), ("coredns", "testbed.local/coredns:1", "/coredns")]
    {
        let source = bin.join(name);
        let archive = bed.images().join(format!("{name}.tar"));
        if newer(&archive, &source) {
            continue;
        }
        let mut tree = Tree::default();
        tree.file(program, &source)?;
        Image { names: &[reference], entrypoint: &[program], user: "0:0" }.write(&tree, &archive)?;
    }
    let archive = bed.images().join("tools.tar");
    if !newer(&archive, Path::new("/bin/busybox")) {
        Image { names: &[TOOLS], entrypoint: &["/bin/busybox", "sh"], user: "0:0" }.write(&tools()?, &archive)?;
    }
    Ok(())
}

/// Programs of this machine with their libraries, under the paths they have here.
fn tools() -> anyhow::Result<Tree> {
    let mut tree = Tree::default();
    tree.file("/bin/busybox", Path::new("/bin/busybox"))?;
    let listed = Command::new("/bin/busybox").arg("--list").output()?;
    for applet in String::from_utf8_lossy(&listed.stdout).lines().filter(|applet| *applet != "busybox") {
        tree.link(&format!("/bin/{applet}"), "busybox");
    }
    for program in ["/usr/bin/curl", "/usr/sbin/nft", "/usr/sbin/ip", "/usr/sbin/xtables-nft-multi"] {
        tree.program(program, Path::new(program))?;
    }
    for name in ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"] {
        tree.link(&format!("/usr/sbin/{name}"), "xtables-nft-multi");
    }
    // Opened at run time, so no list of libraries names them.
    for folder in ["/usr/lib/x86_64-linux-gnu/xtables", "/usr/lib/aarch64-linux-gnu/xtables", "/usr/lib/xtables"] {
        tree.folder(folder, Path::new(folder))?;
    }
    tree.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
    tree.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n");
    Ok(tree)
}

fn newer(archive: &Path, source: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    matches!((changed(archive), changed(source)), (Some(archive), Some(source)) if archive > source)
}

/// Imports an archive into running clusters.
pub fn load(bed: &Bed, archive: &Path, clusters: &[u8]) -> anyhow::Result<()> {
    let archive = archive.canonicalize().with_context(|| {
        format!("{}: no such archive. `cargo xtask image` makes the one of Fairlead", archive.display())
    })?;
    if clusters.is_empty() {
        bail!("no cluster runs: `cargo xtask cluster up`");
    }
    for cluster in clusters {
        let mut command = enter::node(bed, *cluster)?;
        import(&mut command, &archive)?;
        println!("c{cluster}: imported {}", archive.display());
    }
    Ok(())
}

/// Adds the words of the import to a command that enters a node (or none, inside it), and runs it.
pub fn import(command: &mut Command, archive: &Path) -> anyhow::Result<()> {
    command.args(["ctr", "--namespace", "k8s.io", "images", "import"]).arg(archive);
    super::command::output(command).map(drop)
}
