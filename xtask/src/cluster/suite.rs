//! The suite `kubernetes` of `cargo xtask test`: steps on real clusters, in sets of clusters that work beside each other.
//!
//! Most of a step is waiting, for pods, leases and what comes back slowly, so two sets take little more than the longer one. Each set is a
//! process of its own, `cluster --suite=N steps`. A plain run has those steps that it has time for. Invariant: a set ends its clusters
//! whatever became of its steps, and one that ended without saying what it counted is a failure.

use super::bed::{Bed, SUITES, Whose};
use super::plan::Shape;
use super::{
    admission, build, chart, check, diagnosis, dual_stack, hybrid, images, ingress, install, mesh, remote, replicas,
    requirements, start, stop,
};
use crate::tally::Tally;
use anyhow::Context as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A set that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// How much of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What a plain run of all suites has time for.
    Plain,
    All,
}

/// What is proved on running clusters.
pub struct Step {
    pub name: &'static str,
    /// How many clusters it needs at least: they go up when a step needs more than the one before.
    clusters: u8,
    /// Clusters of which shape it finds.
    pub shape: Shape,
    /// The least that it is part of.
    extent: Extent,
    pub run: fn(&Bed) -> anyhow::Result<Tally>,
}

const fn nonflat(name: &'static str, clusters: u8, run: fn(&Bed) -> anyhow::Result<Tally>) -> Step {
    Step { name, clusters, shape: Shape::Nonflat, extent: Extent::All, run }
}

const fn flat(name: &'static str, clusters: u8, run: fn(&Bed) -> anyhow::Result<Tally>) -> Step {
    Step { name, clusters, shape: Shape::Flat, extent: Extent::All, run }
}

const fn plain(step: Step) -> Step {
    Step { extent: Extent::Plain, ..step }
}

/// Steps by set. Those of one set run in this order, and on the same clusters as long as the shape is the same; Fairlead's image was imported
/// into them; each leaves them as it found them. `enter::kubectl(bed, N)` and `enter::lan(bed)` are commands ready to be given their words.
const SETS: [&[Step]; SUITES as usize] = [
    &[
        nonflat("test bed", 2, check::run),
        nonflat("image", 2, check::image),
        plain(nonflat("install", 2, install::run)),
        plain(nonflat("admission", 2, admission::run)),
        plain(nonflat("machines", 1, mesh::machines)),
        plain(nonflat("primary-remote", 2, remote::run)),
        nonflat("mesh", 2, mesh::pair),
        nonflat("replicas", 2, replicas::run),
        nonflat("dual stack", 2, dual_stack::run),
        nonflat("check", 2, diagnosis::run),
        plain(flat("flat mesh", 2, mesh::flat)),
        flat("test bed, flat", 2, check::run),
    ],
    &[
        plain(nonflat("shop", 3, mesh::shop)),
        nonflat("failures", 2, mesh::failures::run),
        nonflat("API server away", 2, check::api_server_away),
        nonflat("chart", 2, chart::run),
        nonflat("ingress", 1, ingress::run),
        nonflat("independent", 2, mesh::independent),
        nonflat("hybrid", 3, hybrid::run),
    ],
];

/// All steps.
pub fn steps() -> impl Iterator<Item = &'static Step> {
    SETS.into_iter().flatten()
}

/// Builds what clusters need with what other suites leave of the machine; [`run`] waits for it by the lock that building holds.
///
/// None: clusters cannot be started here, as [`run`] will say.
pub fn prepare(install: bool) -> anyhow::Result<Option<Child>> {
    if install && let Err(error) = build::install_packages() {
        println!("{error:#}");
    }
    if !requirements::missing().is_empty() {
        return Ok(None);
    }
    let bed = Bed::open(Whose::Suite(1))?;
    fs::create_dir_all(&bed.root)?;
    let path = bed.root.join("build.log");
    let log = fs::File::create(&path).with_context(|| path.display().to_string())?;
    println!("meanwhile what clusters need is built: {}", path.display());
    let mut command = bound_to_us();
    command.args(["nice", "-n", "19"]).arg(std::env::current_exe()?).args(["cluster", "build"]);
    let child =
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("cannot run `setpriv`")?;
    Ok(Some(child))
}

/// The suite.
pub fn run(binary: &Path, extent: Extent) -> anyhow::Result<Tally> {
    let missing = requirements::missing();
    if !missing.is_empty() {
        println!("SUITE DID NOT RUN: kubernetes");
        for line in missing {
            println!("  {line}");
        }
        return Ok(Tally { skipped: 1, ..Tally::default() });
    }
    crate::image::make(binary)?;
    let sets = std::thread::scope(|scope| {
        let sets: Vec<_> = (1..=SUITES).map(|number| scope.spawn(move || set(number, extent))).collect();
        sets.into_iter()
            .map(|set| set.join().unwrap_or_else(|_| anyhow::bail!("its thread panicked")))
            .collect::<Vec<_>>()
    });
    let mut total = Tally::default();
    for (tally, number) in sets.into_iter().zip(1..) {
        total += tally.unwrap_or_else(|error: anyhow::Error| failed(&format!("set {number}"), &error));
    }
    Ok(total)
}

/// A set in a process of its own; what it says is shown at once, behind its number.
fn set(number: u8, extent: Extent) -> anyhow::Result<Tally> {
    let bed = Bed::open(Whose::Suite(number))?;
    fs::create_dir_all(&bed.root)?;
    let file = bed.root.join(format!("suite-{number}.json"));
    let _ = fs::remove_file(&file); // of the run before
    let (output, input) = std::io::pipe()?;
    let mut child = bound_to_us()
        .args(["timeout", "--kill-after=20", &LIMIT.as_secs().to_string()])
        .arg(std::env::current_exe()?)
        .arg("cluster")
        .args(bed.whose.words())
        .args(["steps", "--tally"])
        .arg(&file)
        .args((extent == Extent::Plain).then_some("--plain"))
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .spawn()?;
    for line in BufReader::new(output).split(b'\n') {
        println!("{number}| {}", String::from_utf8_lossy(&line?));
    }
    let ended = child.wait()?;
    match fs::read(&file) {
        Ok(told) => Ok(serde_json::from_slice(&told)?),
        Err(_) => {
            stop::down(&bed)?;
            anyhow::bail!("it ended with {ended} (124: after {LIMIT:?}) and has not told what it counted")
        }
    }
}

/// What it runs ends when this process does.
fn bound_to_us() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    command
}

/// The steps of a bed of the suite, on clusters that are started for them; what they counted goes into a file.
pub fn all(bed: &Bed, extent: Extent, file: Option<PathBuf>) -> anyhow::Result<Tally> {
    let Whose::Suite(number) = bed.whose else { anyhow::bail!("say which set: --suite=1 to --suite={SUITES}") };
    stop::down(bed)?; // of a run that was killed
    let mut total = Tally::default();
    let wanted = |step: &&Step| extent == Extent::All || step.extent == Extent::Plain;
    let steps: Vec<&Step> = SETS[usize::from(number) - 1].iter().filter(wanted).collect();
    for steps in steps.chunk_by(|one, next| one.shape == next.shape) {
        for step in steps {
            println!("-- {}", step.name);
            let begun = Instant::now();
            total += on_clusters(bed, step).unwrap_or_else(|error| failed(step.name, &error));
            println!("   {:.0} s", begun.elapsed().as_secs_f32());
        }
        total += stop::down(bed).map_or_else(|error| failed("down", &error), |()| Tally::passed(1));
    }
    if let Some(file) = file {
        super::bed::write(&file, serde_json::to_vec(&total)?)?;
    }
    Ok(total)
}

fn on_clusters(bed: &Bed, step: &Step) -> anyhow::Result<Tally> {
    let running = bed.running();
    if running.len() < usize::from(step.clusters) {
        start::up(bed, step.clusters, step.shape, None)?;
        let fresh: Vec<_> = bed.running().into_iter().filter(|cluster| !running.contains(cluster)).collect();
        images::load(bed, &crate::image::path(), &fresh)?;
    }
    (step.run)(bed)
}

fn failed(what: &str, error: &anyhow::Error) -> Tally {
    Tally::failed(format!("{what}: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_step_is_found_by_its_name() {
        let names: BTreeSet<_> = steps().map(|step| step.name).collect();
        assert_eq!(names.len(), steps().count(), "two steps have one name");
    }
}
