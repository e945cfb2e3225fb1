//! Every folder under `tests/cases` is a mesh; every proxy in it has a golden of all it is told.
//!
//! `UPDATE_GOLDEN=1` writes the goldens anew.
#![allow(clippy::expect_used)]

mod support;

use fairlead_xdsgen::{Memo, generate};
use std::collections::BTreeSet;
use support::fixture::Fixture;

#[test]
fn each_proxy_is_told_what_its_golden_says() {
    let descriptors = support::descriptors();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(support::cases()).expect("tests/cases exists") {
        let folder = entry.expect("an entry").path();
        let fixture = Fixture::read(&folder.join("mesh.yaml"));
        assert!(!fixture.why.is_empty(), "{}: a case has a `why`", folder.display());
        cases += 1;
        let memo = Memo::default();
        let mut known = BTreeSet::from(["mesh.yaml".to_owned()]);
        for (name, proxy) in &fixture.proxies {
            let resources = generate(&fixture.mesh, proxy, &memo);
            let unique: BTreeSet<_> = resources.iter().map(|r| (r.kind, r.name.to_string())).collect();
            assert_eq!(unique.len(), resources.len(), "{name}: a resource came twice");
            let got = support::render::render(&resources, &descriptors, &fixture.show);
            let file = folder.join(format!("{name}.golden"));
            known.insert(format!("{name}.golden"));
            if update {
                std::fs::write(&file, got).expect("the golden can be written");
            } else {
                let golden = std::fs::read_to_string(&file).unwrap_or_default();
                if golden != got {
                    let line = golden.lines().zip(got.lines()).position(|(a, b)| a != b);
                    let line = line.unwrap_or(golden.lines().count().min(got.lines().count()));
                    wrong.push(format!(
                        "{} line {}:\n  golden {:?}\n  got    {:?}",
                        file.display(),
                        line + 1,
                        golden.lines().nth(line),
                        got.lines().nth(line)
                    ));
                }
            }
        }
        for file in std::fs::read_dir(&folder).expect("a folder") {
            let file = file.expect("an entry").file_name().to_string_lossy().into_owned();
            assert!(known.contains(&file), "{}/{file} is read by nobody", folder.display());
        }
    }
    assert!(cases > 0);
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 writes them anew", wrong.join("\n"));
}
