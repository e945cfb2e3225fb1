//! A release may lay side by side what an idle proxy runs (`cargo xtask release` records it), so that little of the program is in memory.
//!
//! Invariant: without `FAIRLEAD_ORDER` nothing is done; with it functions stand elsewhere, and nothing else changes.

use std::env::var;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=FAIRLEAD_ORDER");
    let Ok(order) = var("FAIRLEAD_ORDER") else { return };
    println!("cargo:rerun-if-changed={order}");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    // Where rustc links with its own lld, which alone of the usual linkers knows the option.
    let lld = is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_ENV", "gnu");
    if !lld {
        println!("cargo:warning=FAIRLEAD_ORDER is of no use here: the linker is not lld");
        return;
    }
    println!("cargo:rustc-link-arg-bins=-Wl,--symbol-ordering-file={order}");
    println!("cargo:rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
}
