//! Reads files of objects and prints what `analyze` would find in them alone: one JSON line per diagnostic.
//!
//! `cargo run -p fairlead-resources --example validate_object -- FILE...`

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use fairlead_model::{ClusterId, Severity};

fn main() -> ExitCode {
    let cluster = ClusterId::new("example");
    let mut errors = false;
    let mut out = std::io::stdout().lock();
    for file in std::env::args().skip(1) {
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                eprintln!("{file}: {error}");
                return ExitCode::from(2);
            }
        };
        let decoding = fairlead_resources::decode(&cluster, &Arc::from(file.as_str()), &bytes);
        for diagnostic in decoding.diagnostics {
            errors |= diagnostic.severity == Severity::Error;
            let line = serde_json::json!({
                "file": file, "severity": diagnostic.severity, "code": diagnostic.code, "path": diagnostic.path,
                "line": diagnostic.line, "message": diagnostic.message, "hint": diagnostic.hint,
            });
            if writeln!(out, "{line}").is_err() {
                return ExitCode::from(2);
            }
        }
    }
    if errors { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
