//! Meshes on the test bed's real clusters.
//!
//! Must never know more of the product than its command line. Invariant: what is started here ends with the suite.

mod manifests;

use crate::image::NAME as IMAGE;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
#[command(
    after_help = "Example:\n  cargo xtask manifests examples/shop east | cargo xtask cluster kubectl 1 apply -f -"
)]
pub struct ManifestsArgs {
    /// The mesh directory.
    directory: PathBuf,
    /// The cluster; `mesh` prints the Mesh object alone.
    cluster: String,
    /// Image of the echo programs.
    #[arg(long, default_value = IMAGE)]
    image: String,
}

/// Prints a cluster of a mesh directory as one List of objects.
pub fn print(args: &ManifestsArgs) -> anyhow::Result<ExitCode> {
    let items = match args.cluster.as_str() {
        "mesh" => vec![manifests::mesh(&args.directory)?],
        cluster => manifests::manifests(&args.directory, cluster, &args.image)?,
    };
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
    println!("{}", serde_json::to_string_pretty(&list)?);
    Ok(ExitCode::SUCCESS)
}
