//! Every suite of the project, run one after the other, with one closing line.
//!
//! Invariant: the closing line counts tests, not suites, and a suite that could not run counts as skipped with its reason.

use crate::cluster::Extent;
use crate::tally::Tally;
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Meshes of the suite `lab` that run at the same time.
const AT_ONCE: usize = 2;

const KUBERNETES: &str = "kubernetes";
/// The same with every step.
const KUBERNETES_ALL: &str = "kubernetes-all";

struct Suite {
    name: &'static str,
    /// Run when no suite is named.
    by_default: bool,
    run: fn(&Path) -> anyhow::Result<Tally>,
}

const SUITES: &[Suite] = &[
    Suite { name: "tidy", by_default: true, run: tidy },
    Suite { name: "generated", by_default: true, run: generated },
    Suite { name: "cargo test", by_default: true, run: cargo_test },
    Suite { name: "call tables offline", by_default: true, run: offline },
    Suite { name: "lab", by_default: true, run: lab },
    Suite { name: "readme", by_default: true, run: crate::readme::run },
    Suite { name: KUBERNETES, by_default: true, run: |binary| crate::cluster::suite(binary, Extent::Plain) },
    Suite { name: KUBERNETES_ALL, by_default: false, run: |binary| crate::cluster::suite(binary, Extent::All) },
];

/// Runs the suite called `only`, or else those whose names contain it; `install`: Debian packages that they need are installed first.
pub fn run(only: Option<&str>, install: bool) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let is_one = SUITES.iter().any(|s| Some(s.name) == only);
    let meant = |suite: &&Suite| match only {
        Some(only) if is_one => suite.name == only,
        Some(only) => suite.by_default && suite.name.contains(only),
        None => suite.by_default,
    };
    let chosen: Vec<_> = SUITES.iter().filter(meant).collect();
    if chosen.is_empty() {
        let names: Vec<_> = SUITES.iter().map(|s| s.name).collect();
        bail!("--only {}: no suite is called that; there are: {}", only.unwrap_or_default(), names.join(", "));
    }
    // It has the longest way to its first test, and other suites mostly wait for what they started.
    let clusters = chosen.iter().any(|suite| suite.name.starts_with(KUBERNETES));
    let preparing = if clusters { crate::cluster::prepare(install)? } else { None };
    let binary = build()?;
    let mut total = Tally::default();
    let mut lines = Vec::new();
    for suite in chosen {
        println!("\n== {}", suite.name);
        let begun = Instant::now();
        let tally = (suite.run)(&binary).unwrap_or_else(|e| Tally::failed(format!("{}: {e:#}", suite.name)));
        lines.push(format!(
            "{:<22} {:>5} passed {:>4} failed {:>4} skipped {:>6.0} s",
            suite.name,
            tally.passed,
            tally.failures.len(),
            tally.skipped,
            begun.elapsed().as_secs_f32()
        ));
        total += tally;
    }
    if let Some(mut child) = preparing {
        child.wait()?; // The suite waited for it, and tells of what failed.
    }
    println!("\n{}", lines.join("\n"));
    println!("{:.0} s in all", started.elapsed().as_secs_f32());
    if !total.failures.is_empty() {
        println!("failed:");
    }
    for failure in &total.failures {
        println!("  {}", in_short(failure));
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failures.len(), total.skipped);
    Ok(ExitCode::from(u8::from(!total.failures.is_empty())))
}

/// The first line of a failure, as far as a screen is wide: all of it was printed where it happened.
fn in_short(failure: &str) -> String {
    let line = failure.lines().next().unwrap_or_default();
    if line.chars().count() <= 200 { line.to_owned() } else { line.chars().take(199).chain(['…']).collect() }
}

/// Runs the tests that know goldens with `UPDATE_GOLDEN=1`.
pub fn golden() -> anyhow::Result<ExitCode> {
    let status = Command::new(cargo()).args(["test", "--workspace", "--quiet"]).env("UPDATE_GOLDEN", "1").status()?;
    Ok(ExitCode::from(u8::from(!status.success())))
}

/// The binary under test, built as developers build it, once.
pub fn build() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(binary) = BUILT.get() {
        return Ok(binary.clone());
    }
    println!("building");
    let status = Command::new(cargo()).args(["build", "--quiet", "--package", "fairlead"]).status()?;
    if !status.success() {
        bail!("the build failed");
    }
    let binary = target().join("debug/fairlead").canonicalize().context("the build left no binary")?;
    Ok(BUILT.get_or_init(|| binary).clone())
}

/// The binary as users have it; `order`: functions that the linker shall lay side by side (crates/fairlead/build.rs).
pub fn build_release(order: Option<&Path>) -> anyhow::Result<PathBuf> {
    println!("building in release");
    let mut command = Command::new(cargo());
    command.args(["build", "--quiet", "--release", "--package", "fairlead"]).env_remove("FAIRLEAD_ORDER");
    if let Some(order) = order {
        command.env("FAIRLEAD_ORDER", order);
    }
    anyhow::ensure!(command.status()?.success(), "the build failed");
    target().join("release/fairlead").canonicalize().context("the build left no binary")
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

fn tidy(_: &Path) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let faults = crate::tidy::check(Path::new("."))?;
    tally.passed += usize::from(faults.is_empty());
    for fault in faults {
        tally.fail(fault.to_string());
    }
    let formatted = Command::new(cargo()).args(["fmt", "--all", "--", "--check", "-l"]).output()?;
    if formatted.status.success() {
        tally.passed += 1;
    } else {
        let files = String::from_utf8_lossy(&formatted.stdout).lines().collect::<Vec<_>>().join(" ");
        tally.fail(format!("not as `cargo fmt` writes it: {files}{}", String::from_utf8_lossy(&formatted.stderr)));
    }
    Ok(tally)
}

fn generated(binary: &Path) -> anyhow::Result<Tally> {
    let differing = crate::generate::differing(binary)?;
    let mut tally = Tally::passed(usize::from(differing.is_empty()));
    for file in differing {
        tally.fail(format!("{file} differs from what `cargo xtask gen` writes"));
    }
    Ok(tally)
}

/// Runs `cargo test` for the workspace, showing its output, and sums its result lines.
fn cargo_test(_: &Path) -> anyhow::Result<Tally> {
    let output = Command::new(cargo())
        .args(["test", "--workspace", "--no-fail-fast", "--quiet"])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    Ok(Tally::of_cargo_test(&text, output.status.success()))
}

/// Every mesh directory of the repository: its diagnostics and its call tables.
fn offline(binary: &Path) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for mesh in meshes()? {
        let analysis = Command::new(binary).args(["analyze", "-o", "json"]).arg(&mesh).output()?;
        let clean = analysis.status.code() == Some(0) || mesh.join("diagnostics.yaml").exists();
        if clean {
            tally.passed += 1;
        } else {
            tally.fail(format!("analyze {}: {}", mesh.display(), String::from_utf8_lossy(&analysis.stdout)));
        }
        let mut test = Command::new(binary);
        test.arg("test").arg(&mesh).args(["-o", "json"]).env("PATH", "").stderr(Stdio::inherit());
        add_calls(&mut tally, &mesh, &test.output()?)?;
    }
    Ok(tally)
}

/// Mesh directories again, with real processes in namespaces, as an empty PATH allows.
///
/// Most of their time is waiting for leases and for what was ejected, so some run beside each other; what each says is shown when it ends.
fn lab(binary: &Path) -> anyhow::Result<Tally> {
    let waiting = Mutex::new(meshes()?.into_iter());
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(mesh) = next(&waiting) {
                    let tally = live(binary, &mesh).unwrap_or_else(|e| Tally::failed(format!("{e:#}")));
                    *total.lock().unwrap_or_else(PoisonError::into_inner) += tally;
                }
            });
        }
    });
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn next(waiting: &Mutex<std::vec::IntoIter<PathBuf>>) -> Option<PathBuf> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// One mesh, with its output in one piece.
fn live(binary: &Path, mesh: &Path) -> anyhow::Result<Tally> {
    let begun = Instant::now();
    let mut up = Command::new(binary);
    up.arg("up").arg(mesh).args(["--check", "-o", "json"]).env("PATH", "");
    let output = up.output()?;
    let mut tally = Tally::default();
    // Held until the lines are out: those of another mesh come before or after them.
    let _whole = std::io::stdout().lock();
    print!("{}\n{}", mesh.display(), String::from_utf8_lossy(&output.stderr));
    add_calls(&mut tally, mesh, &output)?;
    println!("{}: {} passed, {:.0} s", mesh.display(), tally.passed, begun.elapsed().as_secs_f32());
    Ok(tally)
}

/// Mesh directories under `examples/` and `tests/meshes/` that have call tables.
fn meshes() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for top in ["examples", "tests/meshes"] {
        for entry in std::fs::read_dir(top).into_iter().flatten() {
            let path = entry?.path();
            if path.join("calls.yaml").exists() || path.join("calls").is_dir() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Counts what a command printed, a list of `{pass, why, …}`.
fn add_calls(tally: &mut Tally, mesh: &Path, output: &Output) -> anyhow::Result<()> {
    if output.status.code() == Some(2) {
        tally.fail(format!("{}: could not be run (exit 2)", mesh.display()));
        return Ok(());
    }
    let calls: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: no JSON: {}", mesh.display(), String::from_utf8_lossy(&output.stdout)))?;
    for call in calls {
        if call["pass"] == serde_json::Value::Bool(true) {
            tally.passed += 1;
        } else {
            tally.fail(format!(
                "{}:{} {}: expected {}, got {}",
                call["file"], call["line"], call["why"], call["expected"], call["got"]
            ));
        }
    }
    Ok(())
}
