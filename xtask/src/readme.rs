//! Runs the README's fenced `console` commands in their order, as a newcomer would.
//!
//! A line `$ command` is run by `sh -c`; a command that ends in `&` stays in the background until the end. Invariant: what the
//! README says can be typed, works.

use crate::tally::Tally;
use anyhow::Context as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A background command is given this long before the next line.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(30);

pub fn run(binary: &Path) -> anyhow::Result<Tally> {
    let text = std::fs::read_to_string("README.md").context("README.md")?;
    let folder = binary.parent().context("the binary has no folder")?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut tally = Tally::default();
    let mut background: Vec<Child> = Vec::new();
    for command in commands(&text) {
        println!("$ {command}");
        let mut shell = Command::new("sh");
        shell.env("PATH", &path).stdin(Stdio::null());
        if let Some(command) = command.strip_suffix('&') {
            let child = shell.arg("-c").arg(format!("exec {}", command.trim())).stdout(Stdio::null()).spawn()?;
            background.push(child);
            wait_until_ready(folder, SETTLE);
            tally.passed += 1;
            continue;
        }
        let status = shell.arg("-c").arg(&command).stdout(Stdio::null()).status()?;
        if status.success() {
            tally.passed += 1;
        } else {
            tally.fail(format!("README: `{command}` ended with {status}"));
        }
    }
    for mut child in background {
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let _ = child.wait();
    }
    Ok(tally)
}

/// Lines that begin with `$ ` inside ```console fences. The test command itself is left out: it is running.
fn commands(readme: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line.trim() == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            let nested =
                command.contains("xtask test") || command.starts_with("git clone") || command.starts_with("cd ");
            if !nested {
                found.push(command.trim().to_owned());
            }
        }
    }
    found
}

/// Waits until a mesh that was started in the background answers.
fn wait_until_ready(folder: &Path, limit: std::time::Duration) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < limit {
        let ready = Command::new(folder.join("fairlead")).args(["get", "clusters", "-o", "json"]).output();
        if ready.is_ok_and(|o| o.status.success()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}
