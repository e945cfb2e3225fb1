//! `fairlead lab …`: verbs for the mesh that `fairlead up` runs. Thin clients of its socket.
//!
//! Invariant: a verb that was not done says why and ends with 1 (the lab refused) or 2 (there is no lab, or the words are wrong).

use crate::cli::output::{Output, print_value};
use crate::lab_state;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use fairlead_calls::Answer;
use fairlead_lab::live::Layout;
use fairlead_lab::live::protocol::{CallRequest, Request, ask};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Break, heal, call and measure the mesh that `fairlead up` runs.
///
/// A TARGET is a cluster (west), its control plane (west/control), its gateway (west/east-west, west/east-west@198.51.100.10) or a
/// workload (west/shop/reviews-v3-0). What was broken stays so until `fairlead lab heal`.
#[derive(Args, Debug)]
pub struct LabArgs {
    /// State folder of the lab; default: the one started last.
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Kill processes with SIGKILL; they stay away until healed. Of a workload with a sidecar, its program.
    Kill {
        target: String,
        /// Only the process of this name: program, proxy, control, node.
        #[arg(long)]
        process: Option<String>,
    },
    /// End processes in order (SIGTERM) and start them again.
    Restart { target: String },
    /// Cut the link between two clusters: connections are reset and refused.
    Cut { a: String, b: String },
    /// Make whole what names TARGET, or everything.
    Heal { target: Option<String> },
    /// Lose all packets of TARGET, or those between two, and tell nobody.
    Blackhole { target: String, other: Option<String> },
    /// Make readiness probes of a program fail, though it answers.
    Unhealthy { target: String },
    /// Send a cluster or workload no new requests.
    Drain {
        target: String,
        /// End the draining.
        #[arg(long)]
        off: bool,
    },
    /// Cut a cluster's control plane off from its peers; its traffic goes on.
    Freeze { target: String },
    /// Revoke a cluster in the whole mesh; healing takes it back as a new one.
    Detach {
        cluster: String,
        /// Ask this cluster's control plane.
        #[arg(long)]
        by: Option<String>,
        /// Only there.
        #[arg(long)]
        here: bool,
    },
    /// Tell programs how to answer: 503, grpc-14, reset, delay=2s, or normal.
    Answers { target: String, how: String },
    /// What runs and what is broken.
    Status {
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Make one call, as an unmodified program at FROM would.
    Call {
        #[command(flatten)]
        call: CallArgs,
    },
    /// Send requests by a schedule (open loop) and tell what became of them.
    ///
    /// A request has failed when its answer is not 2xx or has not come within 15 s of its scheduled time; latency counts from the
    /// scheduled time. Exit code 1 when any failed.
    /// Example: fairlead lab load east/shop/frontend "GET http://reviews:9080/" --rate 200 --for 60s -o json
    Load {
        #[command(flatten)]
        call: CallArgs,
        /// Requests a second.
        #[arg(long, default_value_t = 200.0)]
        rate: f64,
        /// For how long.
        #[arg(long = "for", default_value = "60s", value_parser = crate::control::duration)]
        time: Duration,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print a page of a proxy's admin interface, as seen from inside its namespace.
    ///
    /// Example: fairlead lab admin east/shop/frontend /stats
    Admin {
        /// A workload with a proxy, or a gateway.
        target: String,
        /// /stats, /clusters, /config_dump, /ready, ...
        #[arg(default_value = "/help")]
        path: String,
    },
    /// Long streams: each stays open, with a message now and then. Exit code 1 when any was cut.
    Hold {
        #[command(flatten)]
        call: CallArgs,
        /// Streams at once.
        #[arg(long, default_value_t = 10)]
        streams: usize,
        /// Between two messages of a stream.
        #[arg(long, default_value = "1s", value_parser = crate::control::duration)]
        every: Duration,
        /// For how long.
        #[arg(long = "for", default_value = "60s", value_parser = crate::control::duration)]
        time: Duration,
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// End the lab.
    Down,
}

#[derive(Args, Debug)]
struct CallArgs {
    /// The caller: CLUSTER/NAMESPACE/WORKLOAD, or outside.
    from: String,
    /// `METHOD URL`, or a URL with scheme grpc, tcp, dns.
    request: String,
    /// Request header, NAME: VALUE; may be given several times.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Request body.
    #[arg(long)]
    body: Option<String>,
    /// HTTP version: 1.0, 1.1 or 2.
    #[arg(long)]
    http: Option<String>,
}

pub fn run(args: &LabArgs) -> anyhow::Result<ExitCode> {
    let state = match &args.state {
        Some(state) => state.clone(),
        None => lab_state::latest()?,
    };
    let socket = Layout::existing(&state).socket();
    let request = request(&args.verb)?;
    let asked = crate::block_on(async {
        let answer = ask(&socket, &request, |line| eprintln!("{line}")).await;
        answer.with_context(|| format!("no mesh answers at {}; is `fairlead up` running?", socket.display()))
    })?;
    match asked {
        Err(refusal) => {
            eprintln!("fairlead: {refusal}");
            Ok(ExitCode::from(if refusal.wrong_words { 2 } else { 1 }))
        }
        Ok(answer) => show(&args.verb, &answer),
    }
}

fn request(verb: &Verb) -> anyhow::Result<Request> {
    Ok(match verb {
        Verb::Kill { target, process } => Request::Kill { target: target.clone(), process: process.clone() },
        Verb::Restart { target } => Request::Restart { target: target.clone() },
        Verb::Cut { a, b } => Request::Cut { a: a.clone(), b: b.clone() },
        Verb::Heal { target } => Request::Heal { target: target.clone() },
        Verb::Blackhole { target, other } => Request::Blackhole { target: target.clone(), other: other.clone() },
        Verb::Unhealthy { target } => Request::Unhealthy { target: target.clone() },
        Verb::Drain { target, off } => Request::Drain { target: target.clone(), off: *off },
        Verb::Freeze { target } => Request::Freeze { target: target.clone() },
        Verb::Detach { cluster, by, here } => Request::Detach { target: cluster.clone(), by: by.clone(), here: *here },
        Verb::Answers { target, how } => Request::Answers { target: target.clone(), answer: answer(how)? },
        Verb::Status { .. } => Request::Status,
        Verb::Call { call } => Request::Call(call_request(call)?),
        Verb::Load { call, rate, time, .. } => {
            Request::Load { call: call_request(call)?, rate: *rate, seconds: time.as_secs_f64() }
        }
        Verb::Admin { target, path } => Request::Admin { target: target.clone(), path: path.clone() },
        Verb::Hold { call, streams, every, time, .. } => Request::Hold {
            call: call_request(call)?,
            streams: *streams,
            every: every.as_secs_f64(),
            seconds: time.as_secs_f64(),
        },
        Verb::Down => Request::Down,
    })
}

fn call_request(call: &CallArgs) -> anyhow::Result<CallRequest> {
    let mut headers = BTreeMap::new();
    for header in &call.headers {
        let (name, value) = header.split_once(':').with_context(|| format!("-H `{header}`: write NAME: VALUE"))?;
        headers.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    if let Some(http) = &call.http
        && !matches!(http.as_str(), "1.0" | "1.1" | "2")
    {
        bail!("--http {http}: 1.0, 1.1 or 2");
    }
    Ok(CallRequest {
        from: call.from.clone(),
        request: call.request.clone(),
        headers,
        body: call.body.clone(),
        http: call.http.clone(),
    })
}

fn answer(how: &str) -> anyhow::Result<Option<Answer>> {
    if how == "normal" {
        return Ok(None);
    }
    if let Some(delay) = how.strip_prefix("delay=") {
        fairlead_calls::given::duration(delay).map_err(|e| anyhow::anyhow!(e))?;
        return Ok(Some(Answer::Delay { delay: delay.to_owned() }));
    }
    if let Some(status) = how.parse::<u16>().ok().filter(|status| (200..=599).contains(status)) {
        return Ok(Some(Answer::Status(status)));
    }
    let grpc = how.strip_prefix("grpc-").is_some_and(|code| code.parse::<u8>().is_ok());
    if how == "reset" || grpc {
        return Ok(Some(Answer::Word(how.to_owned())));
    }
    bail!("`{how}`: write an HTTP status, grpc-CODE, reset, delay=TIME or normal")
}

fn show(verb: &Verb, answer: &Value) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Status { output } => {
            match output {
                Output::Table => show_status(answer),
                other => print_value(answer, *other)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Call { .. } => {
            // What a call got is the answer, whatever it is.
            print_value(answer, Output::Json)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Load { output, .. } => {
            match output {
                Output::Table => show_load(answer),
                other => print_value(answer, *other)?,
            }
            Ok(ExitCode::from(u8::from(answer["failed"].as_u64() != Some(0))))
        }
        Verb::Admin { .. } => {
            print!("{}", answer["page"].as_str().unwrap_or_default());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Hold { output, .. } => {
            match output {
                Output::Table => show_held(answer),
                other => print_value(answer, *other)?,
            }
            Ok(ExitCode::from(u8::from(answer["failed"].as_u64() != Some(0))))
        }
        Verb::Down => Ok(ExitCode::SUCCESS),
        _ => {
            let list = |name: &str| answer[name].as_array().into_iter().flatten().filter_map(Value::as_str);
            list("done").for_each(|line| println!("{line}"));
            let broken: Vec<&str> = list("broken").collect();
            println!(
                "{}",
                if broken.is_empty() { "all is whole".to_owned() } else { format!("broken: {}", broken.join(", ")) }
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show_status(status: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    println!("mesh {} of {}", text(&status["mesh"]), text(&status["directory"]));
    println!("state {}", text(&status["state"]));
    for (_, addresses) in status["addresses"].as_object().into_iter().flatten() {
        for address in addresses.as_array().into_iter().flatten() {
            println!("  {}", text(address));
        }
    }
    for process in status["processes"].as_array().into_iter().flatten().filter(|p| p["state"] != "ready") {
        println!("  {} {}: {}", text(&process["owner"]), text(&process["name"]), text(&process["state"]));
    }
    let broken: Vec<String> = status["broken"].as_array().into_iter().flatten().map(text).collect();
    println!(
        "{}",
        if broken.is_empty() { "all is whole".to_owned() } else { format!("broken: {}", broken.join(", ")) }
    );
}

fn show_load(report: &Value) {
    println!(
        "{} requests, {} failed, {} late, {:.1} s",
        report["total"],
        report["failed"],
        report["late"],
        report["seconds"].as_f64().unwrap_or(0.0)
    );
    let latency = &report["latency"];
    println!(
        "latency ms: p50 {} p90 {} p99 {} p99.9 {} max {}",
        latency["p50"], latency["p90"], latency["p99"], latency["p99.9"], latency["max"]
    );
    for (reason, count) in report["failures"].as_object().into_iter().flatten() {
        println!("failed {reason}: {count}");
    }
    for (workload, count) in report["destinations"].as_object().into_iter().flatten() {
        let span = &report["spans"][workload];
        println!(
            "{workload}: {count}, from second {:.1} to {:.1}",
            span["first"].as_f64().unwrap_or(0.0),
            span["last"].as_f64().unwrap_or(0.0)
        );
    }
}

fn show_held(held: &Value) {
    println!("{} streams, {} cut, {} messages answered", held["total"], held["failed"], held["messages"]);
    for (workload, count) in held["destinations"].as_object().into_iter().flatten() {
        println!("{workload}: {count}");
    }
    for cut in held["cut"].as_array().into_iter().flatten() {
        let at = cut["at"].as_f64().unwrap_or(0.0);
        println!(
            "cut at second {at:.1}: {} {}",
            cut["workload"].as_str().unwrap_or(""),
            cut["reason"].as_str().unwrap_or("")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(answer("503").unwrap(), Some(Answer::Status(503)));
        assert_eq!(answer("grpc-14").unwrap(), Some(Answer::Word("grpc-14".into())));
        assert_eq!(answer("delay=2s").unwrap(), Some(Answer::Delay { delay: "2s".into() }));
        assert_eq!(answer("normal").unwrap(), None);
        assert!(answer("sometimes").is_err());
        assert!(answer("999").is_err());
        assert!(answer("delay=soon").is_err());
    }
}
