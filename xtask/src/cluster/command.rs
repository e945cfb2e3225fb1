//! Running other programs: their output belongs to the error when they fail.

use anyhow::{Context as _, bail};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `program words…` to its end and returns what it wrote.
pub fn run(program: &str, words: &[&str]) -> anyhow::Result<String> {
    output(Command::new(program).args(words))
}

/// `ip …`: one string, split at blanks.
pub fn ip(line: &str) -> anyhow::Result<String> {
    run("ip", &line.split_whitespace().collect::<Vec<_>>())
}

/// What the command wrote; an error holds the command and what it complained of.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| describe(command))?;
    checked(command, &done)
}

/// As [`output`], with `text` as its standard input.
pub fn output_of(command: &mut Command, text: &str) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| describe(command))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let done = child.wait_with_output()?;
    checked(command, &done)
}

fn checked(command: &Command, done: &std::process::Output) -> anyhow::Result<String> {
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!(
            "`{}` ended with {}: {}{}",
            describe(command),
            done.status,
            said.trim(),
            if said.trim().is_empty() { out.trim() } else { "" }
        );
    }
    Ok(out)
}

fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
