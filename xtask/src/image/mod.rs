//! `cargo xtask image`: the image of Fairlead, from the binary that cargo built here and the libraries it is linked with.
//!
//! No base image, no shell, no registry, no container engine. Invariant: the same binary on the same system gives the same archive.

mod archive;
mod oci;
mod tree;

pub use oci::Image;
pub use tree::Tree;

use crate::suites;
use anyhow::Context as _;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What installing and injecting use unless told otherwise.
pub const NAME: &str = "fairlead.dev/fairlead:dev";
const ENTRYPOINT: &str = "/usr/local/bin/fairlead";
/// The user of proxies, which capture rules tell from all others.
const USER: &str = "1337:1337";
/// Roots for servers outside the mesh, where they are on Debian and Alpine.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Options of `cargo xtask image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Of a release build. Otherwise of a debug build. Both without symbols.
    #[arg(long)]
    release: bool,
}

pub fn run(args: &ImageArgs) -> anyhow::Result<()> {
    let binary = if args.release { suites::build_release(None)? } else { suites::build()? };
    make(&binary).map(drop)
}

/// Writes the archive for a binary and says where it is.
pub fn make(binary: &Path) -> anyhow::Result<PathBuf> {
    let to = path();
    let folder = to.parent().context("the archive has no folder")?;
    std::fs::create_dir_all(folder)?;
    let stripped = program();
    strip(binary, &stripped)?;
    let mut tree = Tree::default();
    tree.program(ENTRYPOINT, &stripped)?;
    if Path::new(ROOTS).exists() {
        tree.file(ROOTS, Path::new(ROOTS))?;
    }
    tree.text("/etc/passwd", "root:x:0:0:root:/:/none\nfairlead:x:1337:1337:fairlead:/:/none\n");
    tree.text("/etc/group", "root:x:0:\nfairlead:x:1337:\n");
    Image { names: &[NAME], entrypoint: &[ENTRYPOINT], user: USER }.write(&tree, &to)?;
    let size = std::fs::metadata(&to)?.len() / 1_000_000;
    println!("{} ({size} MB) holds {NAME}; `cargo xtask cluster load` brings it into running clusters", to.display());
    Ok(to)
}

/// Where the archive is.
pub fn path() -> PathBuf {
    suites::target().join("image/fairlead.tar")
}

/// Where the program is that is in the archive.
pub fn program() -> PathBuf {
    path().with_file_name("fairlead")
}

/// Debug information and symbols are more than half of a debug build. A panic still names its file and line.
fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    let stripped = Command::new("objcopy").arg("--strip-all").arg(from).arg(to).status();
    if !stripped.is_ok_and(|status| status.success()) {
        println!("no objcopy here (package binutils): the image keeps its symbols and is large");
        std::fs::copy(from, to).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

/// Runs a command that reads `bytes`, and returns what it wrote.
#[cfg(test)]
pub fn fed(command: &mut Command, bytes: &[u8]) -> anyhow::Result<String> {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    let bytes = bytes.to_vec();
    // Beside reading, or both would wait for each other; who reads enough may close early.
    let writer = std::thread::spawn(move || drop(input.write_all(&bytes)));
    let done = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    anyhow::ensure!(done.status.success(), "ended with {}", done.status);
    Ok(String::from_utf8(done.stdout)?)
}
