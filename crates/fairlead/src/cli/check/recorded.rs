//! Recordings of faults, each judged: `crates/fairlead/tests/check/*.yaml`.
//!
//! Invariant: a case names every finding that is not good, so that one too many fails as one too few does.

use super::across::{self, Installed};
use super::ask_pod::{self, Inside};
use super::finding::{Finding, State};
use super::webhooks::Configuration;
use super::{api, control, mesh, webhooks};
use crate::probe::seen::Seen;
use fairlead_install::Values;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The fault, in words.
    fault: String,
    seen: Observed,
    findings: Vec<Wanted>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    code: String,
    check: String,
    state: String,
    /// Words of the message.
    says: Vec<String>,
    /// Words of the next step.
    next: Vec<String>,
}

/// What a check saw of one cluster.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Observed {
    cluster: String,
    network: String,
    /// This machine's clock, and the API server's.
    here: i64,
    api_clock: Option<i64>,
    /// Major, minor, as a whole.
    kubernetes: Option<[String; 3]>,
    /// This program's version.
    version: String,
    control_versions: Option<Vec<String>>,
    injector: Option<Configuration>,
    validator: Option<Configuration>,
    peers: Option<Vec<Value>>,
    diagnostics: Vec<Value>,
    endpoints: Vec<Value>,
    ranges: Vec<IpNet>,
    /// Addresses of Services.
    services: BTreeMap<String, Vec<IpAddr>>,
    untried_pods: usize,
    probe: Option<Seen>,
    /// By context: clusters held against each other.
    together: BTreeMap<String, Installed>,
}

impl Observed {
    fn judge(self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.api_clock.map(|theirs| api::judge_clock(theirs, self.here)));
        findings.extend(self.kubernetes.map(|[major, minor, text]| api::judge_version(&major, &minor, &text)));
        findings.extend(self.control_versions.map(|theirs| control::judge_version(&self.version, &theirs)));
        findings.extend(self.injector.map(|c| webhooks::judge(true, "fairlead-injector", c)));
        findings.extend(self.validator.map(|c| webhooks::judge(false, "fairlead-validator", c)));
        if let Some(peers) = &self.peers {
            findings.extend(mesh::judge_peers(peers, " --context c1"));
            findings.extend(mesh::judge_names(&self.diagnostics, " --context c1"));
            findings.push(mesh::judge_ranges(&self.ranges, &self.endpoints, &self.cluster, &self.network));
        }
        if let Some(seen) = self.probe {
            let values = Values { cluster: self.cluster, ..Values::default() };
            findings.extend(control::judge_peers(&self.version, &seen.peers));
            let inside = Inside { seen, wanted: self.services, untried: self.untried_pods };
            findings.extend(ask_pod::judge(&inside, &values, self.here));
        }
        if !self.together.is_empty() {
            findings.extend(across::judge(&self.together.into_iter().collect::<Vec<_>>()));
        }
        findings
    }
}

#[test]
fn every_fault_has_its_message_and_its_next_step() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check");
    let mut faults = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case: Case = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let found = case.seen.judge();
        assert!(!found.is_empty(), "{name}: nothing was judged");
        let told: Vec<_> = found.iter().filter(|f| !matches!(f.state, State::Good | State::Skipped)).collect();
        let text = |f: &&Finding| format!("{} {} {}: {} | {}", f.code, f.check, f.state.word(), f.message, f.remedy);
        let all = told.iter().map(text).collect::<Vec<_>>().join("\n");
        assert_eq!(told.len(), case.findings.len(), "{name} ({}):\n{all}", case.fault);
        for (f, wanted) in told.iter().zip(&case.findings) {
            let head = (f.code, f.check, f.state.word());
            assert_eq!(head, (wanted.code.as_str(), wanted.check.as_str(), wanted.state.as_str()), "{name}:\n{all}");
            assert!(wanted.says.iter().all(|w| f.message.contains(w.as_str())), "{name}: {:?}:\n{all}", wanted.says);
            assert!(wanted.next.iter().all(|w| f.remedy.contains(w.as_str())), "{name}: {:?}:\n{all}", wanted.next);
            assert!(!f.remedy.is_empty() && !f.tried.is_empty() && !wanted.says.is_empty(), "{name}:\n{all}");
        }
        faults.insert(name);
    }
    // What an operator meets most; none may go without a case.
    for needed in [
        "missing-route",
        "blocked-port",
        "wrong-root",
        "missing-webhook",
        "expired-token",
        "duplicate-cluster-name",
        "clashing-pod-ranges",
        "version-skew",
        "clock-skew",
        "all-well",
    ] {
        assert!(faults.contains(needed), "no case {needed}");
    }
}

#[test]
fn every_code_is_documented() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let codes = std::fs::read_to_string(folder.join("src/cli/check/codes.rs")).unwrap();
    let page = std::fs::read_to_string(folder.join("../../docs/check.md")).unwrap();
    let all: Vec<&str> = codes.split('"').filter(|part| part.starts_with("FL08")).collect();
    assert!(all.len() > 20, "{all:?}");
    let once: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(once.len(), all.len(), "a code is used twice");
    for code in all {
        assert!(page.contains(&format!("| {code} |")), "docs/check.md says nothing of {code}");
    }
}
