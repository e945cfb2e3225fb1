//! Builds Kubernetes, etcd, CoreDNS and Helm from Go modules, and the images that every cluster needs.
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
    Program { name: "helm", module: "helm", package: "helm.sh/helm/v3/cmd/helm", also: &[] },
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
    // A fresh machine knows of no package before it has asked.
    for words in [&["update", "--quiet"][..], &["install", "--yes", "--no-install-recommends"]] {
        let mut command = Command::new("apt-get");
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive");
        if words[0] == "install" {
            command.args(&packages);
        }
        if !command.status()?.success() {
            bail!("`apt-get {}` failed; it needs root and a mirror that answers", words[0]);
        }
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
        .args(["build", "-trimpath", "-ldflags", &linking(&module)?, "-o"])
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

/// What is told to the linker: no symbols, and the release, which Kubernetes otherwise does not know of itself.
fn linking(module: &Path) -> anyhow::Result<String> {
    let mut flags = String::from("-s -w");
    let text = fs::read_to_string(module.join("go.mod"))?;
    if let Some(release) = release_of(&text, "k8s.io/kubernetes") {
        let numbers: Vec<_> = release.trim_start_matches('v').split('.').collect();
        let [major, minor, ..] = numbers[..] else { bail!("{release} is no release of Kubernetes") };
        for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
            for (name, value) in
                [("gitVersion", release), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")]
            {
                flags = format!("{flags} -X {package}.{name}={value}");
            }
        }
    }
    Ok(flags)
}

/// The release that a go.mod requires of a module.
fn release_of<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next()).flatten()
    })
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
    hash.update(linking(module)?.as_bytes());
    for file in files {
        let text = fs::read(&file).with_context(|| file.display().to_string())?;
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update(&text.len().to_le_bytes());
        hash.update(&text);
    }
    Ok(hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_from_go_mod() {
        let text = "module x\n\nrequire (\n\ta.org/b v1.0.0\n\tk8s.io/kubernetes v1.35.4 // pinned\n)\nreplace k8s.io/api => k8s.io/api v0.35.4\n";
        assert_eq!(release_of(text, "k8s.io/kubernetes"), Some("v1.35.4"));
        assert_eq!(release_of(text, "k8s.io/api"), None);
        assert_eq!(release_of("require a.org/b v2.1.0\n", "a.org/b"), Some("v2.1.0"));
    }

    #[test]
    fn kubernetes_is_told_its_release() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/kubernetes");
        let flags = linking(&module).unwrap();
        let release =
            release_of(&fs::read_to_string(module.join("go.mod")).unwrap(), "k8s.io/kubernetes").unwrap().to_owned();
        assert!(flags.contains(&format!("k8s.io/component-base/version.gitVersion={release}")), "{flags}");
    }
}
