//! What the machine must have for clusters, and how to get what is missing.
//!
//! Invariant: finding out changes nothing.

use super::cgroup;
use super::command::output_of;
use std::path::Path;
use std::process::Command;

/// A library that gives a program another clock.
pub const FAKE_TIME: &str = match cfg!(target_arch = "aarch64") {
    true => "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    false => "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
};

/// Debian packages and a file that each brings.
const PACKAGES: &[(&str, &str)] = &[
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("containernetworking-plugins", "/usr/lib/cni/ptp"),
    ("nftables", "nft"),
    ("iptables", "iptables"),
    ("iproute2", "ip"),
    ("util-linux", "unshare"),
    ("busybox-static", "/bin/busybox"),
    ("curl", "/usr/bin/curl"),
    ("libfaketime", FAKE_TIME),
];

/// One line for each thing that is missing, with its remedy; empty when clusters can be started.
pub fn missing() -> Vec<String> {
    let mut lines = Vec::new();
    if !cfg!(target_os = "linux") {
        lines.push("clusters need Linux".into());
        return lines;
    }
    if !nix::unistd::geteuid().is_root() {
        lines.push("root is needed for namespaces, cgroups and mounts: run it with sudo".into());
    }
    let packages = missing_packages();
    if !packages.is_empty() {
        lines.push(format!(
            "programs are missing: `apt-get install --no-install-recommends {}`, or `cargo xtask cluster build --install`",
            packages.join(" ")
        ));
    }
    if !is_installed("go") {
        lines.push("Go is missing (1.26; releases from 1.21 on fetch it by themselves): see https://go.dev/dl".into());
    }
    lines.extend(cgroup::missing());
    if lines.is_empty()
        && let Some(why) = cannot_unshare()
    {
        lines.push(format!("this machine lets even root make no namespaces: {why}"));
    }
    lines
}

/// Packages that are not installed.
pub fn missing_packages() -> Vec<&'static str> {
    PACKAGES.iter().filter(|(_, file)| !is_installed(file)).map(|(package, _)| *package).collect()
}

/// Whether a program is in `PATH`, or a file exists.
pub fn is_installed(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Why clusters cannot have IPv6 on this machine, if they cannot: its kernel has none, or does not change addresses of packets of it.
pub fn without_v6() -> Option<String> {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Some("the kernel has no IPv6".into());
    }
    let rules = "table ip6 try {\n  chain leave { type nat hook postrouting priority 110; masquerade; }\n}\n";
    let mut command = Command::new("unshare");
    let tried = output_of(command.args(["--net", "nft", "--file", "-"]), rules);
    tried.err().map(|error| format!("the kernel has no address translation for IPv6: {error:#}"))
}

/// Found out by doing it: containers in containers often may not.
fn cannot_unshare() -> Option<String> {
    let words = ["--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--mount-proc", "true"];
    let done = Command::new("unshare").args(words).output().ok()?;
    (!done.status.success()).then(|| String::from_utf8_lossy(&done.stderr).trim().to_owned())
}
