//! Five losses under load, a minute each: nothing fails, the dead get nothing, what comes back gets its share back.

use super::Verdict;
use super::mesh::Mesh;
use super::shares::Traffic;
use std::time::Duration;

/// The verb, and what it takes away (a leading part of workload names; None: nothing that answers requests).
const LOSSES: &[(&[&str], Option<&str>)] = &[
    (&["kill", "west/shop/reviews-v3"], Some("west/shop/reviews")),
    (&["kill", "west/east-west"], Some("west/")),
    (&["kill", "west/control"], None),
    (&["blackhole", "west"], Some("west/")),
    (&["cut", "east", "west"], Some("west/")),
];

/// Seconds of a load: the fault comes, is healed, and the load ends.
const FAULT: u64 = 10;
const HEAL: u64 = 30;
const END: u64 = 60;

/// Seconds within which the dead get nothing more, and what is back gets something again.
const BOUND: f64 = 10.0;
/// Seconds after which what is back has its whole share: the first good probe and the ramp.
const WHOLE: f64 = 17.0;

pub fn run(mesh: &Mesh, rate: u32) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    for (verb, target) in LOSSES {
        let name = verb.join(" ");
        let time = Duration::from_secs(END);
        let reviews = mesh.load("east/shop/frontend", "GET http://reviews:9080/", rate, time);
        let search = mesh.load("east/shop/frontend", "GET http://search:9080/", rate / 4, time);
        let local = mesh.load("west/shop/frontend", "GET http://catalog:9080/", rate / 4, time);
        std::thread::sleep(Duration::from_secs(FAULT));
        mesh.lab(verb)?;
        let broken = reviews.second();
        std::thread::sleep(Duration::from_secs(HEAL - FAULT));
        let healing = reviews.second();
        mesh.lab(&["heal"])?;
        for load in [reviews, search, local] {
            let (load, report) = load.join()?;
            let name = format!("{name}: {load}");
            println!(
                "{name}: {} of {} failed, {} late, latency ms p50 {} p99 {} max {}",
                report["failed"],
                report["total"],
                report["late"],
                report["latency"]["p50"],
                report["latency"]["p99"],
                report["latency"]["max"]
            );
            verdict.none_failed(&name, &report);
            let Some(target) = target.filter(|_| !load.starts_with("west/")) else { continue };
            let traffic = Traffic::of(&report, target);
            let (before, chance) = traffic.share(1.0, broken);
            if before == 0.0 || target.contains("reviews") && !load.contains("reviews") {
                continue;
            }
            let last = traffic.last(broken, healing);
            let back = traffic.first(healing);
            let (after, other) = traffic.share(healing + WHOLE, f64::MAX);
            println!(
                "  {target}: last request {}, first back {}, share {:.1} % before, {:.1} % after",
                last.map_or("before the fault".into(), |s| format!("{s:.1} s after the fault")),
                back.map_or("never".into(), |s| format!("{s:.1} s after healing")),
                before * 100.0,
                after * 100.0
            );
            verdict.check(last.is_none_or(|s| s < BOUND), || format!("{name}: {target} still got requests"));
            verdict.check(back.is_some_and(|s| s <= BOUND), || format!("{name}: {target} got none for {BOUND} s"));
            let whole = (after - before).abs() <= chance.hypot(other);
            verdict.check(whole, || format!("{name}: {target} had {before:.3} of the requests, then {after:.3}"));
        }
    }
    Ok(verdict)
}
