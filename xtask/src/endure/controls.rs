//! All control planes away for a minute under load: nobody notices, and their return changes nothing.

use super::Verdict;
use super::mesh::Mesh;
use super::processes;
use std::time::{Duration, Instant};

const CLUSTERS: [&str; 3] = ["east", "west", "north"];

/// A restarted control plane has the old picture again by then.
const SETTLED: Duration = Duration::from_secs(20);

pub fn run(mesh: &Mesh, rate: u32) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let services = || {
        CLUSTERS
            .iter()
            .map(|c| mesh.said_by(&["get", "services", "--cluster", c, "-o", "json"]))
            .collect::<Result<Vec<_>, _>>()
    };
    let before = services()?;
    let counters = processes::endpoint_counters(mesh)?;
    verdict.check(counters.len() > CLUSTERS.len(), || format!("only {} proxies tell their counters", counters.len()));
    let time = Duration::from_secs(100);
    let loads = [
        mesh.load("east/shop/frontend", "GET http://reviews:9080/", rate, time),
        mesh.load("east/shop/frontend", "GET http://search:9080/", rate / 4, time),
        mesh.load("west/shop/frontend", "GET http://catalog:9080/", rate / 4, time),
    ];
    std::thread::sleep(Duration::from_secs(5));
    for cluster in CLUSTERS {
        mesh.lab(&["kill", &format!("{cluster}/control")])?;
    }
    std::thread::sleep(Duration::from_secs(60));
    mesh.lab(&["heal"])?;
    let healed = Instant::now();
    while services()? != before && healed.elapsed() < SETTLED {
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("`get services -o json` as before {:.1} s after healing", healed.elapsed().as_secs_f32());
    for load in loads {
        let (name, report) = load.join()?;
        println!("{name}: {} of {} failed", report["failed"], report["total"]);
        verdict.none_failed(&name, &report);
    }
    verdict.check(services()? == before, || "`get services -o json` differs".into());
    let after = processes::endpoint_counters(mesh)?;
    println!(
        "{} proxies, {} counters of endpoints",
        after.len(),
        after.values().map(|c| c.lines().count()).sum::<usize>()
    );
    for (proxy, counted) in &counters {
        let now = after.get(proxy);
        verdict.check(now == Some(counted), || format!("{proxy}: {counted} became {}", now.map_or("nothing", |s| s)));
    }
    Ok(verdict)
}
