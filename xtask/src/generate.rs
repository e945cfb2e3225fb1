//! Documents that are made from the program: the table of diagnostics and the JSON Schemas.
//!
//! Invariant: the committed file is byte for byte what the binary prints.

use anyhow::bail;
use std::path::Path;
use std::process::{Command, ExitCode};

/// File and the arguments of the binary that print it.
const DOCUMENTS: &[(&str, &[&str])] =
    &[("docs/diagnostics.md", &["docs", "diagnostics"]), ("docs/calls.schema.json", &["docs", "call-table-schema"])];

pub fn run(check: bool) -> anyhow::Result<ExitCode> {
    let binary = crate::suites::build()?;
    if check {
        let differing = differing(&binary)?;
        println!("{} generated document(s) differ: {}", differing.len(), differing.join(", "));
        return Ok(ExitCode::from(u8::from(!differing.is_empty())));
    }
    for (file, args) in DOCUMENTS {
        std::fs::write(file, print(&binary, args)?)?;
        println!("wrote {file}");
    }
    Ok(ExitCode::SUCCESS)
}

pub fn differing(binary: &Path) -> anyhow::Result<Vec<String>> {
    let mut differing = Vec::new();
    for (file, args) in DOCUMENTS {
        if std::fs::read(file).unwrap_or_default() != print(binary, args)? {
            differing.push((*file).to_owned());
        }
    }
    Ok(differing)
}

fn print(binary: &Path, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(binary).args(args).output()?;
    if !output.status.success() {
        bail!("`fairlead {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}
