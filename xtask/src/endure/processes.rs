//! The mesh's processes as the kernel and their own counters tell of them.

use super::mesh::Mesh;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Of each proxy the lines of its statistics that count endpoints added, removed and changed in health.
pub fn endpoint_counters(mesh: &Mesh) -> anyhow::Result<BTreeMap<String, String>> {
    let mut counters = BTreeMap::new();
    for proxy in proxies(mesh)? {
        let stats = mesh.said_by(&["lab", "admin", &proxy, "/stats"])?;
        let lines: Vec<&str> = stats.lines().filter(|line| line.contains("endpoints_")).collect();
        counters.insert(proxy, lines.join("\n"));
    }
    Ok(counters)
}

fn proxies(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let listed: Vec<Value> = serde_json::from_str(&mesh.said_by(&["get", "proxies", "-o", "json"])?)?;
    Ok(listed.iter().filter_map(|row| row["workload"].as_str().map(str::to_owned)).collect())
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Memory of its own, in KB: what is not a mapped file.
    pub anonymous: u64,
    /// All resident memory, in KB, the program's text that other processes share included.
    pub resident: u64,
    pub descriptors: u64,
}

/// By process id and role: every control plane and proxy that runs this binary.
pub fn held(binary: &Path) -> BTreeMap<(u32, String), Held> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Some(name) = role(&entry.path(), binary) else { continue };
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let descriptors = std::fs::read_dir(entry.path().join("fd")).map_or(0, |all| all.count() as u64);
        all.insert((pid, name), Held { anonymous: field("RssAnon:"), resident: field("VmRSS:"), descriptors });
    }
    all
}

/// `proxy west/shop/reviews-v3-0`, `control east`.
fn role(process: &Path, binary: &Path) -> Option<String> {
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let words: Vec<&str> = line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
    let after = |option: &str| words.iter().skip_while(|word| **word != option).nth(1).copied();
    if words.first().map(Path::new) != Some(binary) {
        return None;
    }
    match *words.get(1)? {
        "proxy" => Some(format!("proxy {}", after("--workload")?)),
        "control" => Some(format!("control {}", after("--cluster")?)),
        _ => None,
    }
}
