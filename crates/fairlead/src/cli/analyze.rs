//! `fairlead analyze DIR`: what is wrong with a mesh directory.

use super::output::{Output, print};
use clap::Args;
use fairlead_model::{Diagnostic, Severity};
use fairlead_walk::{Mesh, OpenError};
use std::path::PathBuf;
use std::process::ExitCode;

/// Read a mesh directory and report every problem, with object, field and remedy.
///
/// Exit code 0: no errors; 1: errors; 2: the directory could not be read.
/// Example: fairlead analyze examples/shop
#[derive(Args, Debug)]
pub struct AnalyzeArgs {
    /// The mesh directory.
    directory: PathBuf,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Report only what is at least this serious.
    #[arg(long, value_enum, default_value = "info")]
    level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Error,
    Warning,
    Info,
}

pub fn run(args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let mesh = Mesh::open_objects(&args.directory).map_err(|e: OpenError| anyhow::anyhow!("{e}"))?;
    let shown: Vec<&Diagnostic> = mesh.diagnostics.iter().filter(|d| wanted(d.severity, args.level)).collect();
    let failed = mesh.diagnostics.iter().any(|d| d.severity == Severity::Error);
    if args.output == Output::Table {
        for diagnostic in &shown {
            println!("{}", line(diagnostic));
        }
        let count = |s| mesh.diagnostics.iter().filter(|d| d.severity == s).count();
        eprintln!(
            "{}: {} error(s), {} warning(s), {} note(s)",
            mesh.name,
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Info)
        );
    } else {
        print(&serde_json::to_value(&shown)?, &[], args.output)?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn wanted(severity: Severity, level: Level) -> bool {
    let rank = |s: Severity| match s {
        Severity::Error => 0,
        Severity::Warning => 1,
        Severity::Info => 2,
    };
    rank(severity) <= level as usize
}

fn line(diagnostic: &Diagnostic) -> String {
    let place = if diagnostic.file.is_empty() {
        diagnostic.object.to_string()
    } else {
        format!("{}:{}", diagnostic.file, diagnostic.line)
    };
    format!("{place}: {diagnostic}")
}
