//! `fairlead get …`, `token create`, `join`, `detach`: asking and telling a running control plane.

use super::admin::{ask, sockets};
use super::output::{Columns, Output, print};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// List what a control plane knows: clusters, peers, services, endpoints, routes, proxies.
///
/// Without --socket or --cluster the first control plane of the mesh that `fairlead up` runs is asked; any of them answers for
/// the whole mesh. Proxies are those of all clusters.
/// Example: fairlead get proxies -o json
#[derive(Args, Debug)]
pub struct GetArgs {
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    at: At,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug, Clone)]
pub struct At {
    /// The control plane's admin socket.
    #[arg(long, env = "FAIRLEAD_SOCKET")]
    socket: Option<PathBuf>,
    /// Ask this cluster's control plane of the running lab.
    #[arg(long)]
    cluster: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Clusters,
    Peers,
    Services,
    Endpoints,
    Routes,
    Proxies,
    Diagnostics,
}

/// Make a token with which another cluster joins this one's mesh.
#[derive(Args, Debug)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand, Debug)]
enum TokenCommand {
    /// Print a single-use token.
    Create {
        #[command(flatten)]
        at: At,
        /// Where the other cluster reaches this control plane, HOST:PORT; default: as it was told to advertise.
        #[arg(long = "address")]
        addresses: Vec<String>,
        /// How long it is good, in seconds.
        #[arg(long)]
        seconds: Option<u64>,
    },
}

/// Join this control plane's cluster to the mesh of a token's issuer.
#[derive(Args, Debug)]
pub struct JoinArgs {
    /// As `fairlead token create` printed it on the other side.
    token: String,
    #[command(flatten)]
    at: At,
}

/// Revoke a cluster: mesh-wide, also when it is dead; with --here only this cluster stops believing it.
#[derive(Args, Debug)]
pub struct DetachArgs {
    name: String,
    #[arg(long)]
    here: bool,
    #[command(flatten)]
    at: At,
}

pub fn get(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let (path, columns) = listing(args.what);
    let sockets = at(&args.at)?;
    let rows = if args.what == What::Proxies && args.at.cluster.is_none() {
        let (mut all, mut silent) = (Vec::new(), Vec::new());
        for socket in &sockets {
            match ask(socket, path, None) {
                Ok(Value::Array(rows)) => all.extend(rows),
                Ok(_) => {}
                Err(e) => silent.push(e),
            }
        }
        if silent.len() == sockets.len()
            && let Some(first) = silent.pop()
        {
            return Err(first);
        }
        for e in silent {
            eprintln!("fairlead: {e:#}; the proxies of its cluster are not listed");
        }
        Value::Array(all)
    } else {
        first_answer(&sockets, path)?
    };
    print(&rows, columns, args.output)?;
    Ok(ExitCode::SUCCESS)
}

pub fn token(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let TokenCommand::Create { at: place, addresses, seconds } = &args.command;
    let socket = one(place)?;
    let answer = ask(&socket, "/token", Some(&json!({"addresses": addresses, "seconds": seconds})))?;
    println!("{}", answer["token"].as_str().context("no token in the answer")?);
    eprintln!("on the other side: fairlead join TOKEN");
    Ok(ExitCode::SUCCESS)
}

pub fn join(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    let answer = ask(&one(&args.at)?, "/join", Some(&json!({"token": args.token})))?;
    println!(
        "joined {}; identities and exports of namespaces {} are accepted from it (bound them with a Peer object)",
        answer["joined"].as_str().unwrap_or_default(),
        answer["namespaces"].as_str().unwrap_or_default()
    );
    Ok(ExitCode::SUCCESS)
}

pub fn detach(args: &DetachArgs) -> anyhow::Result<ExitCode> {
    ask(&one(&args.at)?, "/detach", Some(&json!({"cluster": args.name, "here": args.here})))?;
    let reach = if args.here { "here" } else { "mesh-wide" };
    println!("{} is revoked {reach}", args.name);
    Ok(ExitCode::SUCCESS)
}

fn at(at: &At) -> anyhow::Result<Vec<PathBuf>> {
    let all = sockets(at.socket.as_deref())?;
    let Some(cluster) = &at.cluster else { return Ok(all) };
    let of = |p: &&PathBuf| p.parent().and_then(|d| d.file_name()).is_some_and(|n| n.to_string_lossy() == *cluster);
    let found: Vec<_> = all.iter().filter(of).cloned().collect();
    if found.is_empty() {
        let known: Vec<_> =
            all.iter().filter_map(|p| Some(p.parent()?.file_name()?.to_string_lossy().into_owned())).collect();
        anyhow::bail!("no cluster {cluster} runs; there are {}", known.join(", "));
    }
    Ok(found)
}

fn one(place: &At) -> anyhow::Result<PathBuf> {
    at(place)?.into_iter().next().context("no control plane runs")
}

/// Any control plane answers for the mesh: the first that lives.
fn first_answer(sockets: &[PathBuf], path: &str) -> anyhow::Result<Value> {
    let mut last = anyhow::anyhow!("no control plane runs");
    for socket in sockets {
        match ask(socket, path, None) {
            Ok(rows) => return Ok(rows),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn listing(what: What) -> (&'static str, Columns) {
    match what {
        What::Clusters => (
            "/clusters",
            &[
                ("CLUSTER", "cluster"),
                ("STATE", "state"),
                ("STREAM", "stream"),
                ("PATH", "path"),
                ("NETWORKS", "networks"),
                ("GATEWAYS", "gateways"),
                ("SERVICES", "services"),
                ("ENDPOINTS", "endpoints"),
            ],
        ),
        What::Peers => (
            "/peers",
            &[
                ("PEER", "cluster"),
                ("CONNECTED", "connected"),
                ("STALE", "stale"),
                ("PATH", "path"),
                ("CLOCK AHEAD S", "clockAhead"),
                ("ADDRESSES", "addresses"),
                ("TRUST DOMAIN", "trustDomain"),
            ],
        ),
        What::Services => (
            "/services",
            &[
                ("HOST", "host"),
                ("PORTS", "ports"),
                ("ADDRESSES", "addresses"),
                ("CLUSTERS", "clusters"),
                ("READY", "ready"),
                ("TOTAL", "total"),
            ],
        ),
        What::Endpoints => (
            "/endpoints",
            &[
                ("SERVICE", "service"),
                ("WORKLOAD", "workload"),
                ("HEALTH", "health"),
                ("LOCALITY", "locality"),
                ("NETWORK", "network"),
                ("ADDRESS", "address"),
                ("MTLS", "mutualTls"),
            ],
        ),
        What::Routes => (
            "/routes",
            &[
                ("OBJECT", "object"),
                ("RULE", "rule"),
                ("HOSTS", "hosts"),
                ("TO", "to"),
                ("FILE", "file"),
                ("LINE", "line"),
            ],
        ),
        What::Proxies => (
            "/proxies",
            &[
                ("PROXY", "workload"),
                ("ROLE", "role"),
                ("GENERATION", "generation"),
                ("OFFERED", "offered"),
                ("REJECTED", "rejected"),
                ("READY", "ready"),
                ("REASON", "reason"),
            ],
        ),
        What::Diagnostics => (
            "/diagnostics",
            &[("SEVERITY", "severity"), ("CODE", "code"), ("FILE", "file"), ("LINE", "line"), ("MESSAGE", "message")],
        ),
    }
}
