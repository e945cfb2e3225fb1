//! A hybrid mesh on real clusters: a primary, a remote that it serves, and a second primary that dials out and that nobody can dial.
//!
//! Invariant: the clusters' lists of objects are at the end what they were at the beginning, and that is one of the facts.

use super::bed::Bed;
use super::command::output;
use super::enter;
use super::install::{as_before, objects, succeeded};
use super::mesh;
use crate::tally::Tally;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const ROOT: &str = "testbed/meshes/hybrid";
const DOMAIN: &str = "hybrid.example";
const MEMBERS: &[(u8, &str)] = &[(1, "east"), (2, "west"), (3, "north")];
/// Until each control plane hears all others.
const PATIENCE: Duration = Duration::from_secs(60);

/// The step of the suite.
pub fn run(bed: &Bed) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let before = MEMBERS.iter().map(|(number, _)| objects(bed, *number)).collect::<anyhow::Result<Vec<_>>>()?;
    let result = installed(bed, &mut tally);
    let clusters = [&["--context", "c3"][..], &["--context", "c2", "--primary", "c1"], &["--context", "c1"]];
    for words in clusters {
        let said = enter::fairlead(bed)?.args(["uninstall", "--crds"]).args(words).output()?;
        tally.note(&format!("uninstall {}", words.join(" ")), succeeded(&said));
    }
    for ((number, _), before) in MEMBERS.iter().zip(&before) {
        as_before(bed, *number, before, &mut tally)?;
    }
    result?;
    Ok(tally)
}

fn installed(bed: &Bed, tally: &mut Tally) -> anyhow::Result<()> {
    let records = mesh::records();
    let installs = [
        &["c1", "--cluster", "east", "--mesh-trust-domain", DOMAIN, "--set", "mesh.admission=open"][..],
        // The bed's load balancers share their node's address, on which the primary's own ports are taken.
        &["c2", "--cluster", "west", "--primary", "c1", "--set", "remote.port=15112"],
        &[
            "c3",
            "--cluster",
            "north",
            "--mesh-trust-domain",
            DOMAIN,
            "--expose",
            "none",
            "--set",
            "mesh.admission=open",
        ],
    ];
    for words in installs {
        let said = enter::fairlead(bed)?.args(["install", "--set", &records, "--context"]).args(words).output()?;
        tally.note(&format!("install {}", words.join(" ")), succeeded(&said));
    }
    let token = output(enter::fairlead(bed)?.args(["token", "create", "--context", "c1"]))?;
    let said = enter::fairlead(bed)?.args(["join", "--context", "c3", token.trim()]).output()?;
    tally.note("the second primary joins the first, and hears of its remote from it", succeeded(&said));
    for (number, name) in MEMBERS {
        tally.note(&format!("{name} hears all three"), heard(bed, *number)?);
    }
    *tally += mesh::on_installed(bed, ROOT, MEMBERS)?;
    Ok(())
}

/// Whether a cluster's control plane has fresh word of every member.
fn heard(bed: &Bed, number: u8) -> anyhow::Result<Result<(), String>> {
    let wanted: BTreeSet<&str> = MEMBERS.iter().map(|(_, name)| *name).collect();
    let begun = Instant::now();
    loop {
        let mut get = enter::fairlead(bed)?;
        let said = get.args(["get", "clusters", "--context", &format!("c{number}"), "-o", "json"]).output()?;
        let rows: Vec<Value> = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let fresh = rows.iter().filter(|row| row["stream"] == "fresh" || row["stream"] == "self");
        let fresh: BTreeSet<&str> = fresh.filter_map(|row| row["cluster"].as_str()).collect();
        if fresh == wanted {
            return Ok(Ok(()));
        }
        if begun.elapsed() > PATIENCE {
            return Ok(Err(format!("after {PATIENCE:?}: {}", String::from_utf8_lossy(&said.stdout))));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
