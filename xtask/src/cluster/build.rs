//! Builds Kubernetes, etcd and CoreDNS from Go modules, and the images that every cluster needs.
//!
//! Versions are pinned by `testbed/*/go.mod` and `go.sum`. Invariant: what stands in the programs' folder was built from the sources whose
//! digest stands beside it; nothing is built twice from the same.

use super::bed::{Bed, write};
use super::{images, requirements};
use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// One program.
struct Program {
    name: &'static str,
    /// Below `testbed/`.
    module: &'static str,
    package: &'static str,
    /// Further names of the same file: the program does what it is called.
    also: &'static [&'static str],
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "kubernetes",
        module: "kubernetes",
        package: ".",
        also: &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"],
    },
    Program { name: "kubectl", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kubectl", also: &[] },
    Program { name: "pause", module: "kubernetes", package: "./pause", also: &[] },
    Program { name: "coredns", module: "coredns", package: ".", also: &[] },
];

/// Makes all that is not there or is old.
pub fn run(bed: &Bed) -> anyhow::Result<()> {
    let bin = bed.bin();
    fs::create_dir_all(&bin)?;
    for program in PROGRAMS {
        build(&bin, program)?;
    }
    images::make_base(bed)
}

/// Installs the Debian packages that are missing.
pub fn install_packages() -> anyhow::Result<()> {
    let packages = requirements::missing_packages();
    if packages.is_empty() {
        println!("packages: all there");
        return Ok(());
    }
    if !requirements::is_installed("apt-get") {
        bail!("there is no apt-get here: install what `{}` are called on this system", packages.join(" "));
    }
    println!("packages: installing {}", packages.join(" "));
    let mut command = Command::new("apt-get");
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    if !command.status()?.success() {
        bail!("apt-get failed; `apt-get update` may be needed first, and root");
    }
    Ok(())
}

fn build(bin: &Path, program: &Program) -> anyhow::Result<()> {
    let module = Path::new("testbed").join(program.module);
    let digest = digest(&module, program.package)?;
    let mark = bin.join(format!("{}.sources", program.name));
    let file = bin.join(program.name);
    if file.exists() && fs::read_to_string(&mark).is_ok_and(|text| text == digest) {
        return Ok(());
    }
    println!("building {} (downloads its modules the first time)", program.name);
    let begun = Instant::now();
    let fresh = bin.join(format!("{}.new", program.name));
    let mut command = Command::new("go");
    command
        .current_dir(&module)
        .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&fresh)
        .arg(program.package);
    // Without cgo they run in an image that holds nothing else.
    command.env("CGO_ENABLED", "0").env("GOWORK", "off");
    let status = command.status().context("cannot run `go`: see https://go.dev/dl")?;
    if !status.success() {
        bail!("`go build` in {} failed", module.display());
    }
    // Running clusters keep the file they were started from.
    fs::rename(&fresh, &file)?;
    for name in program.also {
        let link = bin.join(name);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(program.name, &link).with_context(|| link.display().to_string())?;
    }
    write(&mark, digest)?;
    println!("  {:.0} s", begun.elapsed().as_secs_f32());
    Ok(())
}

/// Of all that decides what the program becomes, but the Go release.
fn digest(module: &Path, package: &str) -> anyhow::Result<String> {
    let mut files = vec![module.join("go.mod"), module.join("go.sum")];
    let sources = if package.starts_with('.') { module.join(package) } else { module.join("no-sources") };
    for entry in fs::read_dir(sources).into_iter().flatten() {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "go") {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = Digest::new(&SHA256);
    for file in files {
        let text = fs::read(&file).with_context(|| file.display().to_string())?;
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update(&text.len().to_le_bytes());
        hash.update(&text);
    }
    Ok(hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
