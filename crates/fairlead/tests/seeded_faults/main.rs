//! Live call tables can fail: faults are seeded into running proxies, and a call must catch each.
//!
//! This program is its own test runner and, when it is started with [`seed::FOLDER`] set, the product's own command line with a
//! hook in its proxies; so the mesh of `tests/meshes/faults` runs as it always does, but that a proxy can be told to misread what
//! it receives. Invariant: a fault counts as caught only if the very call named for it fails while it is there, a call that has
//! nothing to do with it passes meanwhile, and the same call passes again without it.

#![allow(clippy::unwrap_used)] // A test: clippy knows only those of the standard harness.

mod edit;
mod faults;
mod mesh;
mod run;
mod seed;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread: a process that is to become a lab makes its namespaces first.
    if seed::folder().is_some() || std::env::var_os("FAIRLEAD_LAB").is_some() {
        return fairlead::main(fairlead::Hooks { proxy: Some(seed::prepare) });
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run::all(&arguments)
}
