//! `fairlead up DIR`: a mesh directory as running processes, without root and without any installed tool.
//!
//! Outside, this only checks the directory, chooses the state folder and starts itself again inside the lab's namespaces; inside it
//! starts everything, serves the lab's socket, and shows traffic until told to end. Invariant: when the command ends, however it
//! ends, nothing of the mesh is left running.

mod mesh_spec;
mod table;

use crate::cli::output::Output;
use crate::cli::test::{TestArgs, found_any, print_rows, row, selected, verdict};
use crate::lab_state;
use anyhow::Context as _;
use clap::Args;
use fairlead_calls::{Given, Mode, TableCall};
use fairlead_lab::live::runner::Ran;
use fairlead_lab::live::server::{self, Server};
use fairlead_lab::live::start::Progress;
use fairlead_lab::live::{Lab, Layout, StartOptions, protocol};
use fairlead_lab::{EnterError, Role};
use fairlead_model::Severity;
use fairlead_walk::Mesh;
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Run the mesh of a directory on this machine: control planes, gateways, sidecars and programs, each in a network of its own.
///
/// Needs no root, no containers and no installed tool. Ctrl-C ends everything. While it runs, other terminals can use
/// `fairlead get`, `fairlead lab` and `fairlead explain`.
///
/// Exit code 0: ended as asked (with --check: all calls passed); 1: a call failed; 2: it could not be started.
/// Example: fairlead up examples/shop --check
#[derive(Args, Debug, Clone)]
pub struct UpArgs {
    /// The mesh directory.
    directory: PathBuf,
    /// Make the calls of its tables, print the results, and end.
    #[arg(long)]
    check: bool,
    /// With --check: only calls whose `why`, `from` or `request` contains this.
    #[arg(long, requires = "check")]
    only: Option<String>,
    /// With --check: how results are printed.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Where state, sockets and logs go, kept after the end; default: a folder of this user, removed at the end.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Life of workload certificates, for example 20s; default: the control plane's.
    #[arg(long, value_parser = crate::control::duration)]
    certificate_lifetime: Option<Duration>,
    /// Records of calls that each proxy keeps. Call tables need more than the longest call is made times (5,000 by default).
    #[arg(long, default_value_t = RECORDS)]
    records: usize,
}

/// Told to the inner process: where state goes, and whether it goes away at the end.
const STATE: &str = "FAIRLEAD_UP_STATE";
const KEEP: &str = "FAIRLEAD_UP_KEEP";
/// Several times what the longest call of a table makes, for what its tries leave too.
const RECORDS: usize = 20_000;

/// Runs `up`, outside or inside.
pub fn run(role: Role, args: &UpArgs) -> anyhow::Result<ExitCode> {
    match role {
        Role::Outside => outside(&args.directory, args.state.as_deref()),
        Role::Inside(_) => inside(args),
    }
}

/// Runs `test --live`: in the lab that runs for this directory, else in one of its own.
pub fn test_live(role: Role, args: &TestArgs) -> anyhow::Result<ExitCode> {
    if matches!(role, Role::Outside)
        && let Some(running) = running(&args.directory)
    {
        let request = protocol::Request::Test { only: args.only.clone() };
        let answer = crate::block_on(async {
            Ok(protocol::ask(&running.socket(), &request, |line| eprintln!("{line}")).await?)
        })?;
        let results = answer.map_err(|e| anyhow::anyhow!(e))?;
        return finish(&results, args.output);
    };
    let args = UpArgs {
        directory: args.directory.clone(),
        check: true,
        only: args.only.clone(),
        output: args.output,
        state: None,
        certificate_lifetime: None,
        records: RECORDS,
    };
    run(role, &args)
}

/// The lab that runs for a directory, the one started last if there are several.
fn running(directory: &Path) -> Option<Layout> {
    let directory = directory.canonicalize().ok()?;
    lab_state::running()
        .ok()?
        .into_iter()
        .map(|state| Layout::existing(&state))
        .find(|layout| directory_of(layout).is_some_and(|of| of == directory))
}

/// The mesh directory of a lab that runs. None: it does not take questions (it makes its calls and ends).
pub fn directory_of(layout: &Layout) -> Option<PathBuf> {
    let asked = async { Ok(protocol::ask(&layout.socket(), &protocol::Request::Status, |_| {}).await?) };
    let status = crate::block_on(asked).ok()?.ok()?;
    status["directory"].as_str().map(PathBuf::from)
}

fn outside(directory: &Path, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    // What cannot be read is said here, once, before anything is started.
    let mesh = Mesh::open(directory).map_err(|e| anyhow::anyhow!("{e}"))?;
    let count = |severity| mesh.diagnostics.iter().filter(|d| d.severity == severity).count();
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => {}
        (errors, warnings) => eprintln!(
            "{errors} error(s), {warnings} warning(s) in the objects: `fairlead analyze {}`, or `fairlead get diagnostics` while it runs",
            directory.display()
        ),
    }
    let keep = state.is_some();
    let state = match state {
        Some(state) => std::path::absolute(state)?,
        None => lab_state::base()?.join(format!("{}-{}", mesh.name, std::process::id())),
    };
    if !keep {
        lab_state::sweep(&lab_state::base()?);
    }
    let layout = Layout::create(&state).with_context(|| format!("cannot make {}", state.display()))?;
    let claim = lab_state::claim(layout.root())?;
    drop(mesh);
    lab_state::remember(layout.root())?;
    let variable = |name: &str, value: &std::ffi::OsStr| (OsString::from(name), value.to_owned());
    let mut environment = vec![variable(STATE, layout.root().as_os_str())];
    if keep {
        environment.push(variable(KEEP, "1".as_ref()));
    }
    let entered = fairlead_lab::enter_with(std::env::args_os().skip(1).collect(), environment);
    match entered {
        Ok(code) => {
            let code = u8::try_from(code).unwrap_or(2);
            if !keep && code < 2 {
                // On a failure its logs are what is needed.
                let _ = std::fs::remove_dir_all(layout.root());
            }
            drop(claim);
            if !layout.root().exists() {
                lab_state::forget(layout.root());
            }
            Ok(ExitCode::from(code))
        }
        Err(EnterError::Refused(refusal)) => anyhow::bail!("{refusal}"),
        Err(e) => anyhow::bail!("{e}"),
    }
}

fn inside(args: &UpArgs) -> anyhow::Result<ExitCode> {
    crate::logging()?;
    let state = std::env::var_os(STATE).map(PathBuf::from).context("this process was not started by `fairlead up`")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            done = up(args, state) => done,
            _ = terminate.recv() => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
        }
        // What still runs is ended by the kernel with this process's namespace.
    })
}

async fn up(args: &UpArgs, state: PathBuf) -> anyhow::Result<ExitCode> {
    let (spec, names) = {
        let mesh = Mesh::open(&args.directory).map_err(|e| anyhow::anyhow!("{e}"))?;
        let world = mesh.world(&Given::default()).map_err(|e| anyhow::anyhow!(e))?;
        (mesh_spec::mesh_spec(&args.directory, &mesh, &world)?, mesh.names().clone())
    };
    let check = args.check;
    // With --check standard output is for the results.
    let progress: Progress = Arc::new(move |line| if check { eprintln!("{line}") } else { println!("{line}") });
    let listener = if check { None } else { Some(server::bind(&Layout::existing(&state))?) };
    let options = StartOptions { state, records: args.records, certificate_lifetime: args.certificate_lifetime };
    let lab = match fairlead_lab::live::start(spec, names, options.clone(), progress.clone()).await {
        Ok(lab) => lab,
        Err(e) => anyhow::bail!("{e}\nlogs are in {}", options.state.join("logs").display()),
    };
    let directory = args.directory.clone();
    let tables = {
        let directory = directory.clone();
        Arc::new(move |only: Option<&str>| calls(&directory, only).map_err(|e| format!("{e:#}")))
    };
    let judge = Arc::new(move |ran: Vec<Ran>| judge(&directory, &ran).map_err(|e| format!("{e:#}")));
    let server = Server::new(lab.clone(), tables, judge);
    let Some(listener) = listener else {
        let results = server.test(args.only.as_deref(), progress).await.map_err(|e| anyhow::anyhow!(e))?;
        lab.stop().await;
        return finish(&results, args.output);
    };
    let serving = tokio::spawn(server.clone().serve(listener));
    hints(&lab);
    let watcher = {
        let lab = lab.clone();
        async move { table::show(&lab).await }
    };
    tokio::select! {
        () = watcher => {}
        () = crashes(&lab) => {}
        () = server.ended() => {}
    }
    serving.abort();
    lab.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Programs that end by themselves are told as they do.
async fn crashes(lab: &Lab) {
    let mut events = lab.handle().events();
    loop {
        match events.recv().await {
            Ok(event) => eprintln!("{}: {} ended: {}\n{}", event.owner, event.name, event.how, event.log),
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

fn hints(lab: &Lab) {
    for cluster in lab.spec().clusters.keys() {
        println!("{cluster}: admin socket {}", lab.layout().admin(cluster).display());
    }
    let caller = lab.spec().workloads().map(|(name, _)| name).next().unwrap_or_default();
    println!("logs: {}", lab.layout().root().join("logs").display());
    println!(
        "try:  fairlead get clusters | fairlead lab status | fairlead lab kill CLUSTER | fairlead lab call {caller} \"GET http://…/\""
    );
    println!("end:  Ctrl-C, or fairlead lab down");
}

fn calls(directory: &Path, only: Option<&str>) -> anyhow::Result<Vec<TableCall>> {
    let mesh = Mesh::open(directory).map_err(|e| anyhow::anyhow!("{e}"))?;
    found_any(&mesh, only)?;
    Ok(selected(&mesh, only).cloned().collect())
}

/// The rows that `fairlead test` prints.
fn judge(directory: &Path, ran: &[Ran]) -> anyhow::Result<Value> {
    let mesh = Mesh::open(directory).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut rows = Vec::new();
    for one in ran {
        let call = mesh.table.calls.get(one.index).context("the tables have changed meanwhile; run it again")?;
        let verdict = verdict(&mesh, call, &one.got, Mode::Live { times: one.times })?;
        rows.push(row(call, &verdict)?);
    }
    Ok(Value::Array(rows))
}

/// Prints results; the exit code is theirs.
fn finish(results: &Value, output: Output) -> anyhow::Result<ExitCode> {
    let rows = results.as_array().map(Vec::as_slice).unwrap_or_default();
    let failed = rows.iter().filter(|r| r["pass"] != Value::Bool(true)).count();
    if output == Output::Table {
        for row in rows {
            let mark = if row["pass"] == Value::Bool(true) { "ok  " } else { "FAIL" };
            println!(
                "{mark} {}:{} {}",
                row["file"].as_str().unwrap_or_default(),
                row["line"],
                row["why"].as_str().unwrap_or_default()
            );
            for fault in row["faults"].as_array().into_iter().flatten() {
                println!("       {}", fault.as_str().unwrap_or_default());
            }
        }
        println!("{} passed, {failed} failed", rows.len() - failed);
    } else {
        print_rows(rows, output)?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}
