//! `fairlead get …`, `token create`, `join`, `detach`: asking and telling a running control plane.
//!
//! With `--context` or `--kubeconfig` the same subcommand runs in the control plane's pod. Invariant: a secret is never an argument
//! there, since API servers log arguments.

use super::admin::{ask, sockets};
use super::install::remote::PrimaryArgs;
use super::kubernetes::{Cluster, ClusterArgs, answer, control_pods, pass_through};
use super::output::{Columns, Output, print};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// List what a control plane knows: clusters, peers, services, endpoints, routes, proxies.
///
/// Without --socket or --cluster the first control plane of the mesh that `fairlead up` runs is asked; any of them answers for
/// the whole mesh. Proxies are those of all clusters. With --context the control plane in a Kubernetes cluster is asked.
/// Example: fairlead get proxies -o json
///
/// Example: fairlead get clusters --context east
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
    #[command(flatten)]
    kubernetes: ClusterArgs,
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

/// Join this control plane's cluster to the mesh of a token's issuer; or give a primary a new credential for its remote cluster.
///
/// Example: fairlead join --context west TOKEN
///
/// Example: fairlead join --context west --primary east
#[derive(Args, Debug)]
pub struct JoinArgs {
    /// As `fairlead token create` printed it on the other side; `-`: read from standard input.
    #[arg(required_unless_present = "primary", conflicts_with = "primary")]
    token: Option<String>,
    #[command(flatten)]
    primary: PrimaryArgs,
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

impl At {
    /// Runs the subcommand in the control plane's pod, if a Kubernetes cluster is asked; `None`: none is.
    fn elsewhere(&self, words: &[String], input: &str) -> Option<anyhow::Result<ExitCode>> {
        if !self.kubernetes.is_given() {
            return None;
        }
        if self.socket.is_some() || self.cluster.is_some() {
            let problem =
                "--socket and --cluster name a control plane on this machine, --context one in Kubernetes: give one";
            return Some(Err(anyhow::anyhow!(problem)));
        }
        Some(crate::block_on(async { pass_through(&self.serving().await?, words, input).await }))
    }

    /// The cluster with the control plane of the one that was named.
    async fn serving(&self) -> anyhow::Result<Cluster> {
        Cluster::open(&self.kubernetes).await?.serving(&self.kubernetes).await
    }
}

/// Proxies are connected to one replica each: all are asked. One that goes away meanwhile is told of.
fn proxies_of(at: &At, columns: Columns, output: Output) -> anyhow::Result<ExitCode> {
    let words = ["get", "proxies", "-o", "json"].map(str::to_owned);
    let rows = crate::block_on(async {
        let cluster = at.serving().await?;
        let (mut all, mut silent) = (Vec::new(), Vec::new());
        let pods = control_pods(&cluster).await?;
        for pod in &pods {
            match proxies_at(&cluster, pod, &words).await {
                Ok(rows) => all.extend(rows),
                Err(e) => silent.push(e.context(format!("pod {pod}"))),
            }
        }
        if silent.len() == pods.len()
            && let Some(first) = silent.pop()
        {
            return Err(first);
        }
        for e in silent {
            eprintln!("fairlead: {e:#}; proxies that are connected to it are not listed");
        }
        Ok(Value::Array(one_each(all)))
    })?;
    print(&rows, columns, output)?;
    Ok(ExitCode::SUCCESS)
}

async fn proxies_at(cluster: &Cluster, pod: &str, words: &[String]) -> anyhow::Result<Vec<Value>> {
    let said = answer(cluster, pod, words, "").await?;
    anyhow::ensure!(said.code == 0, "{}", String::from_utf8_lossy(&said.errors).trim());
    let mut rows: Vec<Value> = serde_json::from_slice(&said.output).context("its answer is no list of proxies")?;
    rows.iter_mut().for_each(|row| row["replica"] = pod.into());
    Ok(rows)
}

/// A proxy that moves has a row at two replicas: where it is served, and of two such the one it took something from last.
fn one_each(rows: Vec<Value>) -> Vec<Value> {
    let rank = |row: &Value| (row["heldBack"].is_null(), row["atMs"].as_u64());
    let mut best: std::collections::BTreeMap<String, Value> = std::collections::BTreeMap::new();
    for row in rows {
        let workload = row["workload"].as_str().unwrap_or_default().to_owned();
        if best.get(&workload).is_none_or(|known| rank(known) < rank(&row)) {
            best.insert(workload, row);
        }
    }
    best.into_values().collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

pub fn get(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let (path, columns) = listing(args.what);
    if args.what == What::Proxies && args.at.kubernetes.is_given() {
        return proxies_of(&args.at, columns, args.output);
    }
    if let Some(result) = args.at.elsewhere(&words(&["get", &word(args.what), "-o", &word(args.output)]), "") {
        return result;
    }
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
    let mut again = words(&["token", "create"]);
    again.extend(addresses.iter().flat_map(|a| ["--address".to_owned(), a.clone()]));
    again.extend(seconds.iter().flat_map(|s| ["--seconds".to_owned(), s.to_string()]));
    if let Some(result) = place.elsewhere(&again, "") {
        return result;
    }
    let socket = one(place)?;
    let answer = ask(&socket, "/token", Some(&json!({"addresses": addresses, "seconds": seconds})))?;
    println!("{}", answer["token"].as_str().context("no token in the answer")?);
    eprintln!("on the other side: fairlead join TOKEN");
    Ok(ExitCode::SUCCESS)
}

pub fn join(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    if args.primary.primary.is_some() {
        return crate::block_on(super::install::remote::join(&args.at.kubernetes, &args.primary));
    }
    let token = match args.token.as_deref().unwrap_or_default() {
        "-" => {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).context("cannot read the token from standard input")?;
            line
        }
        token => token.to_owned(),
    };
    let token = token.trim();
    if let Some(result) = args.at.elsewhere(&words(&["join", "-"]), &format!("{token}\n")) {
        return result;
    }
    let answer = ask(&one(&args.at)?, "/join", Some(&json!({"token": token})))?;
    println!(
        "joined {}; accepted from it are identities and exports of namespaces: {} (bound them with a Peer object)",
        answer["joined"].as_str().unwrap_or_default(),
        answer["namespaces"].as_str().unwrap_or_default()
    );
    Ok(ExitCode::SUCCESS)
}

pub fn detach(args: &DetachArgs) -> anyhow::Result<ExitCode> {
    let mut again = words(&["detach", &args.name]);
    again.extend(args.here.then(|| "--here".to_owned()));
    if let Some(result) = args.at.elsewhere(&again, "") {
        return result;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_listed_once_and_where_it_is_served() {
        let row = |workload: &str, replica: &str, at: u64, held: Option<&str>| json!({"workload": workload, "replica": replica, "atMs": at, "heldBack": held});
        let rows = vec![
            row("east/shop/b", "one", 0, Some("older")),
            row("east/shop/a", "one", 5, None),
            row("east/shop/a", "two", 7, None),
            row("east/shop/b", "two", 3, None),
            row("east/shop/c", "two", 0, Some("older")),
        ];
        let listed = one_each(rows);
        let listed: Vec<_> =
            listed.iter().map(|r| (r["workload"].as_str().unwrap(), r["replica"].as_str().unwrap())).collect();
        assert_eq!(listed, [("east/shop/a", "two"), ("east/shop/b", "two"), ("east/shop/c", "two")]);
    }
}
