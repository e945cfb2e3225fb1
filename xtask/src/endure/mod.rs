//! Endurance: a mesh under load while it is broken and healed, for minutes or an hour. Too long for the test command.
//!
//! Drives the release binary as a user would, by its own verbs, as an unprivileged user if asked, with an empty PATH; reads the
//! verdict from what callers got. Invariant: a request that failed, a stream that was cut, and a bound that was missed each make
//! the exit code 1; nothing is repeated until it passes.

mod certificates;
mod controls;
mod failures;
mod mesh;
mod processes;
mod shares;
mod soak;

use clap::{Args, Subcommand};
use mesh::Mesh;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Args)]
pub struct EndureArgs {
    #[command(subcommand)]
    what: What,
    /// Run this binary instead of building one in release.
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Run everything as this user id, without any groups; needs root.
    #[arg(long, global = true)]
    uid: Option<u32>,
    /// Requests a second from east.
    #[arg(long, global = true, default_value_t = 200)]
    rate: u32,
}

#[derive(Subcommand)]
enum What {
    /// Five losses, a minute of load each: a program, a gateway, a control plane, a cluster, a link.
    Failures,
    /// All control planes away for a minute.
    Controls,
    /// Certificates of 20 s while long streams and load go on.
    Certificates {
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// A kill, a blackhole or a restart every minute.
    Soak {
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
}

pub fn run(args: &EndureArgs) -> anyhow::Result<ExitCode> {
    let binary = match &args.binary {
        Some(binary) => binary.canonicalize()?,
        None => crate::suites::build_release(None)?,
    };
    let shop = Path::new("examples/shop");
    let verdict = match args.what {
        What::Failures => failures::run(&Mesh::start(&binary, shop, args.uid, None)?, args.rate)?,
        What::Controls => controls::run(&Mesh::start(&binary, shop, args.uid, None)?, args.rate)?,
        What::Certificates { minutes } => {
            let mesh = Mesh::start(&binary, shop, args.uid, Some(Duration::from_secs(20)))?;
            certificates::run(&mesh, args.rate, Duration::from_secs(60 * minutes))?
        }
        What::Soak { minutes } => soak::run(&Mesh::start(&binary, shop, args.uid, None)?, args.rate, minutes)?,
    };
    for line in &verdict.faults {
        println!("NOT MET: {line}");
    }
    println!("{} checks, {} not met", verdict.checks, verdict.faults.len());
    Ok(ExitCode::from(u8::from(!verdict.faults.is_empty())))
}

/// What was looked at, and what was not as it must be.
#[derive(Default)]
struct Verdict {
    checks: usize,
    faults: Vec<String>,
}

impl Verdict {
    fn check(&mut self, good: bool, otherwise: impl FnOnce() -> String) {
        self.checks += 1;
        if !good {
            self.faults.push(otherwise());
        }
    }

    /// No request of this load, or stream of these, failed.
    fn none_failed(&mut self, name: &str, report: &serde_json::Value) {
        let failed = report["failed"].as_u64();
        self.check(failed == Some(0), || {
            format!(
                "{name}: {} of {} failed: {} {} {}",
                report["failed"], report["total"], report["failures"], report["samples"], report["cut"]
            )
        });
    }
}
