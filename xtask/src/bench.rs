//! `cargo xtask bench`: measurements, never assertions.

use clap::Args;
use std::process::ExitCode;

#[derive(Args)]
pub struct BenchArgs {
    /// `proxy` or `control`.
    what: String,
}

pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("no benchmark named {}", args.what)
}
