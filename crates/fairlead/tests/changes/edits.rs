//! Files that are saved while the mesh runs: a good one is in use at once, a bad one is told of and costs nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use crate::mesh::{Mesh, until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const PROXIES: [&str; 4] = ["east/app/client", "east/app/web", "east/east-west", "west/app/client"];
/// More than a file may have.
const TOO_MANY_BYTES: usize = 20 << 20;

/// What is written, the diagnostics that it must have, and the resources whose versions it may change.
struct Bad {
    name: &'static str,
    text: String,
    codes: &'static [&'static str],
    changes: &'static [&'static str],
}

#[test]
fn files_that_are_saved_are_taken_up_or_told_of() {
    let mesh = Mesh::start();
    a_weight_is_changed(&mesh);
    let before = versions(&mesh);
    for bad in bad_files() {
        let file = mesh.machine.directory().join("clusters/east/zz-bad.yaml");
        save(&file, &bad.text);
        costs_nothing_else(&mesh, &bad, &before);
        std::fs::remove_file(&file).unwrap();
        is_as_before(&mesh, &before, bad.name);
    }
    the_last_good_version_serves(&mesh, &before);
}

/// 90/10 becomes 50/50 at every proxy of the cluster.
fn a_weight_is_changed(mesh: &Mesh) {
    let file = mesh.machine.directory().join("clusters/east/split.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let share = share_of_west(mesh);
    assert!((0.02..0.25).contains(&share), "a tenth, not {share}");
    let generations = || -> BTreeMap<String, (u64, u64, u64)> {
        let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
        mesh.get("proxies", "east")
            .iter()
            .map(|row| {
                let name = row["workload"].as_str().unwrap().to_owned();
                (name, (number(row, "generation"), number(row, "offered"), number(row, "atMs")))
            })
            .collect()
    };
    let before = generations();
    assert_eq!(before.len(), 3);
    let saved = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    save(&file, &text.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50"));
    let after = until("every proxy of east has a newer generation", || {
        let now = generations();
        let newer = |(name, (generation, offered, _)): (&String, &(u64, u64, u64))| {
            generation == offered && before.get(name).is_some_and(|before| *generation > before.0)
        };
        if now.iter().all(newer) { Ok(now) } else { Err(format!("{now:?}")) }
    });
    let share = share_of_west(mesh);
    assert!((0.35..0.65).contains(&share), "what is acknowledged is in use: a half, not {share}");
    let latest = after.values().map(|(_, _, at)| at.saturating_sub(saved)).max().unwrap();
    println!("a weight was in use at every proxy {latest} ms after the file was saved");
    let generation = mesh.get("proxies", "west").iter().map(|row| row["generation"].as_u64().unwrap()).max();
    save(&file, &text);
    until("every proxy of east has a newer generation", || {
        let now = generations();
        let newer = |(name, (_, _, at)): (&String, &(u64, u64, u64))| *at > after[name].2;
        if now.iter().all(newer) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let share = share_of_west(mesh);
    assert!((0.02..0.25).contains(&share), "a tenth again, not {share}");
    let now = mesh.get("proxies", "west").iter().map(|row| row["generation"].as_u64().unwrap()).max();
    assert_eq!(now, generation, "rules are their own cluster's");
}

/// The part of the caller's requests that v2 in west gets, of so many that 90/10 and 50/50 cannot be taken for each other.
fn share_of_west(mesh: &Mesh) -> f64 {
    let report = mesh.begin(&["load", "east/app/client", "GET http://web/", "--rate", "150", "--for", "2s"]).end();
    assert_eq!(report["failed"], 0, "{report}");
    report["clusters"]["west"].as_f64().unwrap_or_default() / report["total"].as_f64().unwrap()
}

fn bad_files() -> Vec<Bad> {
    let rule = |name: &str, hosts: &str, http: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: app}}\nspec:\n  hosts: [{hosts}]\n  http:\n  - {http}\n"
        )
    };
    let web = "route: [{destination: {host: web, port: {number: 80}}}]";
    vec![
        Bad {
            name: "a syntax error",
            text: "apiVersion: v1\nkind: Service\nmetadata: {name: broken, namespace: app\nspec: [\n".into(),
            codes: &["FL0002"],
            changes: &[],
        },
        Bad {
            name: "an unknown field",
            text: rule("unknown", "north-only", "{rute: [], route: [{destination: {host: north-only}}]}"),
            codes: &["IST0106"],
            changes: &[],
        },
        Bad { name: "a duplicate host", text: rule("zz-again", "web", web), codes: &["IST0109"], changes: &[] },
        Bad {
            name: "a dangling reference",
            text: rule("dangling", "dangling.example", "route: [{destination: {host: nobody}}]"),
            codes: &["IST0101"],
            // The host that the rule itself brings.
            changes: &["80", "names"],
        },
        Bad {
            name: "a file of 20 MB",
            text: format!("# {}\n", "x".repeat(TOO_MANY_BYTES)),
            codes: &["FL0001"],
            changes: &[],
        },
        Bad {
            name: "an object that is there already",
            text: "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: app}\nspec: {selector: {app: other}, ports: [{port: 1}]}\n".into(),
            codes: &["FL0006"],
            changes: &[],
        },
    ]
}

fn costs_nothing_else(mesh: &Mesh, bad: &Bad, before: &Versions) {
    let told = until(&format!("{} is told of", bad.name), || match mesh.get("diagnostics", "east") {
        told if told.is_empty() => Err("nothing is told".into()),
        told => Ok(told),
    });
    let codes: BTreeSet<&str> = told.iter().map(|row| row["code"].as_str().unwrap()).collect();
    assert_eq!(codes, bad.codes.iter().copied().collect(), "{}: {told:?}", bad.name);
    let file = told.iter().any(|row| row["file"] == "clusters/east/zz-bad.yaml" && row["severity"] == "error");
    assert!(file, "{}: {told:?}", bad.name);
    let documented =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/diagnostics.md")).unwrap();
    assert!(codes.iter().all(|code| documented.contains(&format!("| `{code}` |"))), "{codes:?}");
    settled(mesh);
    let differing = differing(before, &versions(mesh));
    let unexpected: Vec<_> = differing.iter().filter(|(_, name)| !bad.changes.contains(&name.as_str())).collect();
    assert!(unexpected.is_empty(), "{} changed {unexpected:?}", bad.name);
    let (status, _) = mesh.call("east/app/client", "GET http://web/");
    assert_eq!(status, "200", "{}", bad.name);
}

fn is_as_before(mesh: &Mesh, before: &Versions, name: &str) {
    until(&format!("nothing is told any more of {name}"), || match mesh.get("diagnostics", "east") {
        told if told.is_empty() => Ok(()),
        told => Err(format!("{told:?}")),
    });
    settled(mesh);
    assert_eq!(differing(before, &versions(mesh)), [], "after {name} was removed");
}

/// An object that was good and is not any more keeps serving as it was, and is marked.
fn the_last_good_version_serves(mesh: &Mesh, before: &Versions) {
    let file = mesh.machine.directory().join("clusters/east/split.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    save(&file, &text.replace("weight: 90", "wait: 90"));
    let told = until("the refusal is told", || match mesh.get("diagnostics", "east") {
        told if told.iter().any(|row| row["code"] == "FL0501") => Ok(told),
        told => Err(format!("{told:?}")),
    });
    assert!(told.iter().any(|row| row["code"] == "IST0106"), "{told:?}");
    settled(mesh);
    assert_eq!(differing(before, &versions(mesh)), []);
    save(&file, &text);
    is_as_before(mesh, before, "a refused rule");
}

/// Every proxy has what was offered to it.
fn settled(mesh: &Mesh) {
    for cluster in ["east", "west"] {
        until("every proxy has the newest", || {
            let rows = mesh.get("proxies", cluster);
            let behind: Vec<_> = rows.iter().filter(|row| row["generation"] != row["offered"]).collect();
            if behind.is_empty() { Ok(()) } else { Err(format!("{behind:?}")) }
        });
    }
}

/// By proxy and resource.
type Versions = BTreeMap<(&'static str, String), String>;

fn versions(mesh: &Mesh) -> Versions {
    let mut found = Versions::new();
    for proxy in PROXIES {
        let dump: Value = serde_json::from_str(&mesh.page(proxy, "/config_dump")).unwrap();
        each(&dump, &mut |value| {
            if let (Some(name), Some(version)) = (value["name"].as_str(), value["version_info"].as_str()) {
                found.insert((proxy, name.to_owned()), version.to_owned());
            }
        });
        assert!(found.keys().filter(|(of, _)| *of == proxy).count() > 1, "{proxy} tells no versions: {dump}");
    }
    found
}

fn differing(before: &Versions, after: &Versions) -> Vec<(&'static str, String)> {
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    all.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

fn each(value: &Value, see: &mut impl FnMut(&Value)) {
    see(value);
    match value {
        Value::Array(all) => all.iter().for_each(|one| each(one, see)),
        Value::Object(all) => all.values().for_each(|one| each(one, see)),
        _ => {}
    }
}

/// As an editor saves: written beside it and renamed.
fn save(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}
