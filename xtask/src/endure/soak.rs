//! An hour of load from east to west, with a fault every minute: nothing fails, and nothing grows.

use super::Verdict;
use super::mesh::Mesh;
use super::processes::{Held, held};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// In turn; each is healed half a minute later.
const FAULTS: &[&[&str]] = &[
    &["kill", "west/shop/reviews-v3"],
    &["blackhole", "west"],
    &["restart", "west/east-west"],
    &["kill", "west/east-west"],
    &["restart", "west/control"],
    &["cut", "east", "west"],
    &["kill", "west/control"],
    &["restart", "east/control"],
    &["kill", "west"],
];

/// What grows after so many minutes has not found its size. Pools, records and caches are full by then.
const WARM: u64 = 10;

/// What a process holds goes up and down with its bursts; the least it held in the second half after it was warm may be so much above the
/// least of the first half, in KB, before it counts as growing.
const SLACK: u64 = 1024;

pub fn run(mesh: &Mesh, rate: u32, minutes: u64) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let time = Duration::from_secs(60 * minutes);
    let began = Instant::now();
    let loads = [
        mesh.load("east/shop/frontend", "GET http://reviews:9080/", rate, time),
        mesh.load("east/shop/frontend", "GET http://search:9080/", rate / 4, time),
        // Nothing that calls is killed: west, which is, only answers.
        mesh.load("north/shop/frontend", "GET http://catalog:9080/", rate / 10, time),
    ];
    let mut warm: BTreeMap<_, Vec<Held>> = BTreeMap::new();
    for (minute, fault) in (0..minutes).zip(FAULTS.iter().cycle()) {
        let at = |second| (began + Duration::from_secs(60 * minute + second)).saturating_duration_since(Instant::now());
        std::thread::sleep(at(10));
        mesh.lab(fault)?;
        std::thread::sleep(at(40));
        mesh.lab(&["heal"])?;
        std::thread::sleep(at(59));
        let now = held(&mesh.binary());
        let sum = |of: fn(&Held) -> u64| now.values().map(of).sum::<u64>();
        println!(
            "minute {minute}: {}; {} processes, {} MB of their own, {} descriptors",
            fault.join(" "),
            now.len(),
            sum(|h| h.anonymous) / 1024,
            sum(|h| h.descriptors)
        );
        if minute >= WARM.min(minutes / 2) {
            for (process, held) in now {
                warm.entry(process).or_default().push(held);
            }
        }
    }
    for load in loads {
        let (name, report) = load.join()?;
        println!(
            "{name}: {} of {} failed, {} late, latency {}",
            report["failed"], report["total"], report["late"], report["latency"]
        );
        verdict.none_failed(&name, &report);
    }
    // A minute for what the load left open.
    std::thread::sleep(Duration::from_secs(60));
    let end = held(&mesh.binary());
    let (mut lasted, samples) = (0, (minutes - WARM.min(minutes / 2)) as usize + 1);
    for (process, history) in &mut warm {
        let Some(is) = end.get(process) else { continue };
        history.push(*is);
        if history.len() < samples {
            continue; // it was started anew on the way
        }
        let (first, second) = history.split_at(history.len() / 2);
        let least = |of: fn(&Held) -> u64, held: &[Held]| held.iter().map(of).min().unwrap_or_default();
        let (was, now) = (least(|h| h.anonymous, first), least(|h| h.anonymous, second));
        let (open, left) = (least(|h| h.descriptors, first), least(|h| h.descriptors, second));
        println!("{:<44} {was:>6} KB -> {now:>6} KB, {open:>3} -> {left:>3} descriptors", process.1);
        lasted += 1;
        verdict.check(now <= was + SLACK, || format!("{} grew: {history:?}", process.1));
        verdict.check(left <= open + 8, || format!("{} leaks: {history:?}", process.1));
    }
    verdict.check(lasted > 10, || "too few processes lasted".into());
    Ok(verdict)
}
