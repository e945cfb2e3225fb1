//! The product's own binary: the program of the library, as it is.
//!
//! Must never hold anything else. Invariant: no hook is set here.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fairlead::main(fairlead::Hooks::default())
}
