//! `fairlead explain FROM REQUEST [DIR]`: why a request goes where it goes.

use super::output::{Output, print_value};
use clap::Args;
use fairlead_calls::{Call, Given};
use fairlead_lab::live::Layout;
use fairlead_walk::{Mesh, OpenError, explain};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Tell which objects and lines decide where a request goes: name, route, subset, every candidate endpoint with the reason it
/// was taken or not, gateways, policies.
///
/// It reads the files: what `fairlead lab` has broken, and last good versions of objects with errors, are the running mesh's
/// (`fairlead get endpoints`, `fairlead lab call`).
///
/// Example: fairlead explain east/shop/frontend "GET http://reviews.shop:9080/" examples/shop
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// CLUSTER/NAMESPACE/WORKLOAD
    from: String,
    /// METHOD URL, or a URL with scheme grpc, tcp, tls.
    request: String,
    /// The mesh directory; default: this folder, else that of the mesh that `fairlead up` runs.
    directory: Option<PathBuf>,
    /// Request header NAME=VALUE; may be given several times.
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
    /// As if this were down: a cluster, workload or gateway; may be given several times.
    #[arg(long)]
    down: Vec<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let directory = args.directory.clone().unwrap_or_else(default_directory);
    let mesh = Mesh::open_objects(&directory).map_err(|e: OpenError| anyhow::anyhow!("{e}"))?;
    let given = Given { down: args.down.clone(), ..Given::default() };
    let world = mesh.world(&given).map_err(anyhow::Error::msg)?;
    let call = Call {
        why: "explain".into(),
        from: args.from.clone(),
        request: args.request.clone(),
        at: None,
        headers: args.headers.iter().cloned().collect::<BTreeMap<_, _>>(),
        body: None,
        client: None,
        given,
        times: None,
        tolerance: None,
        expect: Default::default(),
    };
    let told = explain(&mesh, &world, &args.from, &call).map_err(anyhow::Error::msg)?;
    if args.output != Output::Table {
        print_value(&serde_json::to_value(&told)?, args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} from {}", told.request, told.from);
    for phase in &told.phases {
        let place =
            phase.origin.as_ref().map(|o| format!("   [{}, {}:{}]", o.object, o.file, o.line)).unwrap_or_default();
        println!("\n{:<13} {}{place}", phase.name, phase.chosen);
        for candidate in &phase.candidates {
            let mark = if candidate.taken { "+" } else { "-" };
            println!("              {mark} {}: {}", candidate.id, candidate.reason);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn default_directory() -> PathBuf {
    let here = PathBuf::from(".");
    if here.join("mesh.yaml").exists() || here.join("clusters").is_dir() {
        return here;
    }
    let running = crate::lab_state::latest().ok().and_then(|state| crate::up::directory_of(&Layout::existing(&state)));
    running.unwrap_or(here)
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}
