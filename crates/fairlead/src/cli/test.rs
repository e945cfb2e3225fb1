//! `fairlead test DIR`: does every call of the tables get what it must get?

use super::output::{Output, print_value};
use clap::Args;
use fairlead_calls::{Got, Mode, TableCall, compare};
use fairlead_model::Severity;
use fairlead_walk::{Mesh, OpenError, World, follow};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

/// Evaluate the call tables of a mesh directory: offline with the product's own compiler and decisions (exact shares), or
/// with --live through running proxies.
///
/// Exit code 0: all passed; 1: some failed; 2: a table or the mesh could not be read.
/// Example: fairlead test examples/shop --only canary
#[derive(Args, Debug, Clone)]
pub struct TestArgs {
    /// The mesh directory.
    pub directory: PathBuf,
    /// Send the calls through running proxies (in a lab of its own).
    #[arg(long)]
    pub live: bool,
    /// Only calls whose `why`, `from` or `request` contains this.
    #[arg(long)]
    pub only: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// The verdict on one call.
pub struct Verdict {
    pub faults: Vec<String>,
    pub got: Value,
    pub decided_by: Value,
}

pub fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let mesh = Mesh::open(&args.directory).map_err(|e: OpenError| anyhow::anyhow!("{e}"))?;
    for diagnostic in mesh.diagnostics.iter().filter(|d| d.severity == Severity::Error) {
        eprintln!(
            "{}:{}: {} {}: {}",
            diagnostic.file, diagnostic.line, diagnostic.code, diagnostic.object, diagnostic.message
        );
    }
    found_any(&mesh, args.only.as_deref())?;
    let mut results = Vec::new();
    let mut failed = 0;
    let mut last: Option<(fairlead_calls::Given, Rc<World>)> = None;
    for call in selected(&mesh, args.only.as_deref()) {
        let world = match &last {
            Some((given, world)) if *given == call.call.given => world.clone(),
            _ => Rc::new(mesh.world(&call.call.given).map_err(|e| table_error(call, &e))?),
        };
        last = Some((call.call.given.clone(), world.clone()));
        let verdict = offline(&mesh, &world, call)?;
        failed += usize::from(!verdict.faults.is_empty());
        results.push(row(call, &verdict)?);
        if args.output == Output::Table {
            show(call, &verdict);
        }
    }
    if args.output == Output::Table {
        eprintln!("{} passed, {failed} failed", results.len() - failed);
    } else {
        print_rows(&results, args.output)?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// A misspelt `--only` must not pass.
///
/// # Errors
/// It leaves no call.
pub fn found_any(mesh: &Mesh, only: Option<&str>) -> anyhow::Result<()> {
    match only {
        Some(only) if selected(mesh, Some(only)).next().is_none() => {
            anyhow::bail!("no call has `{only}` in its why, from or request: `fairlead test DIR` lists them")
        }
        _ => Ok(()),
    }
}

/// Calls that `--only` leaves.
pub fn selected<'m>(mesh: &'m Mesh, only: Option<&str>) -> impl Iterator<Item = &'m TableCall> {
    let only = only.map(str::to_lowercase);
    mesh.table.calls.iter().filter(move |c| {
        let text = format!("{} {} {}", c.call.why, c.call.from, c.call.request).to_lowercase();
        only.as_ref().is_none_or(|only| text.contains(only))
    })
}

/// Decides one call for all its callers; every one must pass.
pub fn offline(mesh: &Mesh, world: &World, call: &TableCall) -> anyhow::Result<Verdict> {
    let answers = follow(mesh, world, call).map_err(|e| table_error(call, &e))?;
    verdict(mesh, call, &answers, Mode::Offline)
}

/// Compares what each caller got.
pub fn verdict(mesh: &Mesh, call: &TableCall, answers: &[(String, Got)], mode: Mode) -> anyhow::Result<Verdict> {
    let mut faults = Vec::new();
    for (caller, got) in answers {
        let found = compare(&call.call, got, mesh.names(), mode).map_err(|e| table_error(call, &e))?;
        let prefix = if answers.len() > 1 { format!("{caller}: ") } else { String::new() };
        faults.extend(found.into_iter().map(|f| format!("{prefix}{f}")));
    }
    let first_failing = answers
        .iter()
        .find(|(_, got)| compare(&call.call, got, mesh.names(), mode).is_ok_and(|f| !f.is_empty()))
        .or(answers.first());
    let (got, decided_by) = first_failing.map_or((Value::Null, json!([])), |(_, got)| {
        (got.to_json(), serde_json::to_value(&got.decided_by).unwrap_or_default())
    });
    Ok(Verdict { faults, got, decided_by })
}

/// Prints rows as the interface has them: what differs goes to people, on standard error.
pub fn print_rows(rows: &[Value], output: Output) -> anyhow::Result<()> {
    let mut rows = rows.to_vec();
    for row in &mut rows {
        let faults = row.as_object_mut().and_then(|row| row.remove("faults")).unwrap_or_default();
        for fault in faults.as_array().into_iter().flatten().filter_map(Value::as_str) {
            eprintln!("{}:{}: {fault}", row["file"].as_str().unwrap_or_default(), row["line"]);
        }
    }
    print_value(&Value::Array(rows), output)
}

/// One row of the interface's output, and in `faults` what differs.
pub fn row(call: &TableCall, verdict: &Verdict) -> anyhow::Result<Value> {
    Ok(json!({
        "index": call.index,
        "file": call.file,
        "line": call.line,
        "why": call.call.why,
        "pass": verdict.faults.is_empty(),
        "expected": serde_json::to_value(&call.call.expect)?,
        "got": verdict.got,
        "faults": verdict.faults,
        "decided-by": verdict.decided_by,
    }))
}

/// A line for people.
pub fn show(call: &TableCall, verdict: &Verdict) {
    let mark = if verdict.faults.is_empty() { "ok  " } else { "FAIL" };
    println!("{mark} {}:{} {}", call.file, call.line, call.call.why);
    for fault in &verdict.faults {
        println!("       {fault}");
    }
}

fn table_error(call: &TableCall, message: &str) -> anyhow::Error {
    anyhow::anyhow!("{}:{}: {message}", call.file, call.line)
}
