//! What proxies share is what each would be told by itself, at the start and after changes.
#![allow(clippy::expect_used)]

mod support;

use fairlead_model::{Health, ResolvedMesh};
use fairlead_xdsgen::standpoint::{AskedLabels, Standpoint, Told, moved, own, shared, shared_after};
use fairlead_xdsgen::{Generated, Memo, generate};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::fixture::Fixture;

type Versions = BTreeMap<String, String>;

fn versions(resources: &[Arc<Generated>]) -> Versions {
    resources.iter().map(|r| (format!("{} {}", r.type_url(), r.text), r.version.to_string())).collect()
}

fn fixtures() -> Vec<(String, Fixture)> {
    let folders = std::fs::read_dir(support::cases()).expect("tests/cases exists");
    let read = |folder: std::path::PathBuf| (folder.display().to_string(), Fixture::read(&folder.join("mesh.yaml")));
    folders.map(|entry| read(entry.expect("an entry").path())).collect()
}

#[test]
fn shared_and_own_parts_are_the_whole() {
    let mut sidecars = 0;
    for (folder, fixture) in fixtures() {
        let (memo, asked) = (Memo::default(), AskedLabels::of(&fixture.mesh));
        for (name, proxy) in &fixture.proxies {
            let Some(standpoint) = Standpoint::of(proxy, &asked) else { continue };
            sidecars += 1;
            let mut parts = shared(&fixture.mesh, &standpoint, &memo);
            parts.extend(own(&fixture.mesh, proxy, &memo));
            let whole = generate(&fixture.mesh, proxy, &memo);
            assert_eq!(parts.len(), whole.len(), "{folder} {name}");
            assert_eq!(versions(&parts), versions(&whole), "{folder} {name}");
        }
    }
    assert!(sidecars > 5, "{sidecars}");
}

/// The mesh with something about the endpoints of one service changed.
fn changes(mesh: &ResolvedMesh) -> Vec<(String, ResolvedMesh)> {
    let mut changed = Vec::new();
    for (key, service) in &mesh.services {
        let mut with = |what: &str, change: &dyn Fn(&mut Vec<Arc<fairlead_model::Endpoint>>)| {
            let mut mesh = mesh.clone();
            let mut service = (**service).clone();
            change(&mut service.endpoints);
            mesh.services.insert(key.clone(), Arc::new(service));
            mesh.generation += 1;
            changed.push((format!("{key}: {what}"), mesh));
        };
        with("the first is another", &|all| {
            if let Some(first) = all.first_mut().map(Arc::make_mut) {
                first.weight += 1;
                first.health = Health::Unhealthy;
            }
        });
        with("the last is gone", &|all| drop(all.pop()));
        with("all are gone", &|all| all.clear());
        with("one is in another network", &|all| {
            if let Some(last) = all.last_mut().map(Arc::make_mut) {
                last.network = "elsewhere".into();
            }
        });
    }
    changed
}

#[test]
fn after_a_change_of_endpoints_it_is_the_same_as_from_nothing() {
    let (mut followed, mut anew) = (0, 0);
    for (folder, fixture) in fixtures() {
        let asked = AskedLabels::of(&fixture.mesh);
        let changes = changes(&fixture.mesh);
        for (name, proxy) in &fixture.proxies {
            let Some(standpoint) = Standpoint::of(proxy, &asked) else { continue };
            let before = shared(&fixture.mesh, &standpoint, &Memo::default());
            for (what, mesh) in &changes {
                let whole = versions(&shared(mesh, &standpoint, &Memo::default()));
                let after = moved(&fixture.mesh, mesh)
                    .and_then(|moved| shared_after(mesh, &standpoint, &moved, &Told::of(&before), &Memo::default()));
                let Some(after) = after else {
                    anew += 1;
                    continue;
                };
                followed += 1;
                let mut all = versions(&before);
                all.extend(versions(&after));
                assert_eq!(all, whole, "{folder} {name} {what}");
                assert!(after.len() < whole.len(), "{folder} {name} {what}");
            }
        }
    }
    assert!(followed > 20 && anew > 5, "{followed} {anew}");
}

#[test]
fn what_is_no_matter_of_endpoints_is_made_anew() {
    for (_, fixture) in fixtures() {
        let mut mesh = fixture.mesh.clone();
        assert!(moved(&fixture.mesh, &mesh).is_some());
        let Some(key) = mesh.services.keys().next().cloned() else { continue };
        let mut service = (*mesh.services[&key]).clone();
        service.ports.clear();
        service.vips.clear();
        mesh.services.insert(key.clone(), Arc::new(service));
        assert_eq!(moved(&fixture.mesh, &mesh), None);
        mesh.services.remove(&key);
        assert_eq!(moved(&fixture.mesh, &mesh), None);
    }
}
