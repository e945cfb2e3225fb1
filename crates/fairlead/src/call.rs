//! `fairlead call`: one request, or several, from where it is run, as an unmodified program makes them.
//!
//! The caller of the lab without a lab: in a pod it shows what programs there get. Invariant: every call made is told of; exit
//! code 1 when one of them failed.

use crate::cli::output::{Output, print, print_value};
use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use fairlead_calls::RequestKind;
use fairlead_calls::request::Request;
use fairlead_lab::live::caller::{self, Connections, Identity, Place, Plan, Seen, Tls, Version};
use fairlead_lab::live::load::{self, Load};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Make calls from here, as any program would, and tell what they got.
///
/// Names resolve as the system resolves them. A call has failed when there was no answer, or its HTTP status is 400 or more,
/// or its gRPC status is not 0.
///
/// With --rate and --for it is a load: calls leave by the clock, whatever became of those before, and a report says what failed, who
/// answered in which second, and how long it took.
///
/// Example: kubectl exec deploy/frontend -c app -- fairlead call "GET http://reviews:9080/ratings" --times 100
#[derive(Args, Debug)]
pub struct CallArgs {
    /// `METHOD URL`, or a URL with scheme http, grpc, tcp or dns.
    request: String,
    /// Request header, NAME: VALUE; may be given several times.
    #[arg(short = 'H', long = "header", value_parser = crate::proxy::header)]
    headers: Vec<(String, String)>,
    /// Request body, gRPC message or line.
    #[arg(long)]
    body: Option<String>,
    /// HTTP version: 1.0, 1.1 or 2.
    #[arg(long, default_value = "1.1")]
    http: String,
    /// Dial this address instead of what the host resolves to.
    #[arg(long)]
    at: Option<SocketAddr>,
    /// How often, one after the other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    times: u32,
    /// Calls a second, with --for.
    #[arg(long, requires = "time", conflicts_with = "times", value_parser = rate)]
    rate: Option<f64>,
    /// How long a load lasts.
    #[arg(long = "for", id = "time", value_name = "DURATION", requires = "rate", value_parser = crate::control::duration)]
    time: Option<Duration>,
    /// Make TLS, believing whatever the server shows: what is tested is whether it lets the caller in.
    #[arg(long)]
    tls: bool,
    /// A certificate to show in it, PEM, with its chain.
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Protocol to offer in it; may be given several times.
    #[arg(long, requires = "tls")]
    alpn: Vec<String>,
    /// Server name to ask for in it; default: the host.
    #[arg(long, requires = "tls")]
    sni: Option<String>,
    /// table: answers counted by status and by who answered; json, yaml: every call.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Connections that take turns, as the lab's caller has them.
const CONNECTIONS: usize = 4;

pub async fn run(args: CallArgs) -> anyhow::Result<ExitCode> {
    let plan = plan(&args)?;
    if let (Some(rate), Some(time)) = (args.rate, args.time) {
        let report = load::run(&Load { plan, rate, time }).await;
        let failed = report.failed > 0;
        let output = if args.output == Output::Table { Output::Yaml } else { args.output };
        print_value(&serde_json::to_value(report)?, output)?;
        return Ok(ExitCode::from(u8::from(failed)));
    }
    let mut clients: Vec<Connections> = (0..CONNECTIONS).map(|_| Connections::new()).collect();
    let mut all = Vec::new();
    for n in 0..args.times as usize {
        all.push(plan.call(&mut clients[n % CONNECTIONS]).await);
    }
    match args.output {
        Output::Table => table(&all)?,
        other => print_value(&all.iter().map(told).collect(), other)?,
    }
    Ok(ExitCode::from(u8::from(all.iter().any(failed))))
}

fn plan(args: &CallArgs) -> anyhow::Result<Plan> {
    let request = Request::parse(&args.request).map_err(|e| anyhow!(e))?;
    if matches!(request.kind, RequestKind::Https | RequestKind::Tls) && !args.tls {
        bail!("`{}`: between programs of a mesh TLS is the proxies'; to make it here, add --tls", args.request);
    }
    let version = match args.http.as_str() {
        "1.0" => Version::Http10,
        "1.1" => Version::Http11,
        "2" => Version::Http2,
        other => bail!("--http {other}: 1.0, 1.1 or 2"),
    };
    let host = request.host.clone();
    Ok(Plan {
        request,
        headers: args.headers.iter().cloned().collect(),
        body: args.body.clone(),
        version,
        at: args.at,
        tls: tls(args, &host)?,
        place: Place::here(),
        resolver: None,
    })
}

fn tls(args: &CallArgs, host: &str) -> anyhow::Result<Option<Tls>> {
    if !args.tls {
        return Ok(None);
    }
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let identity = match (&args.certificate, &args.key) {
        (Some(certificate), Some(key)) => {
            Some(Identity::of_pem(&read(certificate)?, &read(key)?).map_err(|e| anyhow!(e))?)
        }
        _ => None,
    };
    let sni = args.sni.clone().unwrap_or_else(|| host.to_owned());
    caller::server_name(&sni).map_err(|e| anyhow!("--sni: {e}"))?;
    Ok(Some(Tls { config: caller::client_config(identity, &args.alpn).map_err(|e| anyhow!(e))?, sni }))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.1..=10_000.0).contains(rate));
    rate.ok_or_else(|| format!("`{text}`: a number of calls a second, 0.1 to 10000"))
}

fn failed(seen: &Seen) -> bool {
    let status = seen.status.parse::<u16>().map_or(seen.status != "ok", |status| status >= 400);
    status || seen.grpc_status.is_some_and(|status| status != 0)
}

/// One call: what `fairlead lab call` tells without what proxies know.
fn told(seen: &Seen) -> Value {
    let text = String::from_utf8_lossy(&seen.body);
    json!({
        "status": seen.status,
        "grpcStatus": seen.grpc_status,
        "headers": seen.headers,
        "body": serde_json::from_slice::<Value>(&seen.body).unwrap_or_else(|_| Value::String(text.into_owned())),
        "resolves": seen.resolves,
        "requestId": seen.request_id,
        "local": seen.local,
        "dialled": seen.dialled,
        "milliseconds": seen.took.as_secs_f64() * 1000.0,
        "reason": seen.reason,
    })
}

fn table(all: &[Seen]) -> anyhow::Result<()> {
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    for seen in all {
        let status = match seen.grpc_status {
            Some(grpc) => format!("{} grpc {grpc}", seen.status),
            None => seen.status.clone(),
        };
        *counts.entry((status, answered(seen))).or_default() += 1;
    }
    let rows =
        counts.into_iter().map(|((status, answer), count)| json!({"status": status, "answer": answer, "calls": count}));
    print(&rows.collect(), &[("STATUS", "status"), ("ANSWER", "answer"), ("CALLS", "calls")], Output::Table)
}

/// Who answered, where an echo program says so; else why nobody did, or how the answer begins.
fn answered(seen: &Seen) -> String {
    if let Some(reason) = &seen.reason {
        return reason.clone();
    }
    if let Some(addresses) = &seen.resolves {
        return addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    }
    let workload =
        serde_json::from_slice::<Value>(&seen.body).ok().and_then(|body| Some(body["workload"].as_str()?.to_owned()));
    workload.unwrap_or_else(|| String::from_utf8_lossy(&seen.body).chars().take(60).collect())
}
