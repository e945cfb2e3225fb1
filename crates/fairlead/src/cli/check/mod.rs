//! `fairlead check`: does the path work, from here to the API server, through it to the control plane, and on to the peers?
//!
//! Must never take a setting for a proof where the thing itself can be tried: pods are sent to the injector (as a dry run), the
//! certificate is asked of the port that serves it, gateways are connected to, and what only pods can see is tried in the control
//! plane's pod. What was seen is judged by pure functions (`recorded` has recordings of each fault). Invariant: a finding has a code,
//! what was tried and what came back; one that is not good has a next step.

mod across;
mod api;
mod ask_pod;
mod certificate;
mod codes;
mod control;
mod finding;
mod inside;
mod mesh;
mod paths;
#[cfg(test)]
mod recorded;
mod rights;
mod webhooks;

use super::install::stored;
use super::kubernetes::{Cluster, ClusterArgs};
use super::output::{Columns, Output, print};
use anyhow::Context as _;
use clap::Args;
use fairlead_install::{DEFAULT_REVISION, Values};
use finding::{Finding, State};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check whether Fairlead works in Kubernetes clusters, or whether it could be installed (--before).
///
/// It proves the path and not the settings: from here to the API server, through it to the control plane, and from the control plane's
/// pod to names, pods, gateways and peers. With several --context the clusters are also held against each other. Each finding has a
/// stable code (docs/check.md). Exit code 0: all is well; 1: something is not; 2: the command line or the kubeconfig is wrong.
///
/// Example: fairlead check --before --context east
///
/// Example: fairlead check --context east --context west -o json
///
/// Example: fairlead token create --context east | fairlead check --context west --token -
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// A cluster, as a context of the kubeconfig; may be given several times. By default its current one.
    #[arg(long)]
    context: Vec<String>,
    /// The kubeconfig; by default $KUBECONFIG, then ~/.kube/config.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Only what must hold before an installation.
    #[arg(long, conflicts_with = "token")]
    before: bool,
    /// The revision that is checked.
    #[arg(long, default_value = DEFAULT_REVISION)]
    revision: String,
    /// Would `fairlead join` by this token succeed? Asked of its issuer; the token stays good. `-` reads it from standard input.
    #[arg(long)]
    token: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What to do next stands below the table: two columns of sentences fit no terminal.
const COLUMNS: Columns =
    &[("CLUSTER", "cluster"), ("CODE", "code"), ("CHECK", "check"), ("STATE", "state"), ("FOUND", "message")];

pub async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut contexts: Vec<Option<String>> = args.context.iter().cloned().map(Some).collect();
    if contexts.is_empty() {
        contexts.push(None);
    }
    let token = match args.token.as_deref() {
        Some("-") => {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).context("cannot read the token from standard input")?;
            Some(line.trim().to_owned())
        }
        other => other.map(str::to_owned),
    };
    let (mut findings, mut known) = (Vec::new(), Vec::new());
    for context in contexts {
        let at = ClusterArgs { context, kubeconfig: args.kubeconfig.clone() };
        let cluster = Cluster::open(&at).await?;
        let (found, installed) = one(&cluster, &at, args, token.as_deref()).await;
        findings.extend(found.into_iter().map(|f| (cluster.name.clone(), f)));
        known.extend(installed.map(|values| (cluster, values)));
    }
    if !args.before && known.len() > 1 {
        findings.extend(across::check(&known).await.into_iter().map(|f| ("all".to_owned(), f)));
    }
    let rows: Vec<_> = findings
        .iter()
        .map(|(cluster, f)| {
            json!({
                "cluster": cluster, "code": f.code, "check": f.check, "state": f.state.word(), "tried": f.tried,
                "message": f.message, "remedy": f.remedy,
            })
        })
        .collect();
    print(&json!(rows), COLUMNS, args.output)?;
    if args.output == Output::Table {
        print!("{}", next_steps(&findings));
    }
    Ok(ExitCode::from(u8::from(findings.iter().any(|(_, f)| f.state == State::Bad))))
}

/// Of what failed or may fail: what was tried, and what to do.
fn next_steps(findings: &[(String, Finding)]) -> String {
    let mut text = String::new();
    for (cluster, f) in findings.iter().filter(|(_, f)| matches!(f.state, State::Bad | State::Doubtful)) {
        text += &format!(
            "\n{} {cluster}: {}: {}\n  tried: {}\n  next:  {}\n",
            f.code, f.check, f.message, f.tried, f.remedy
        );
    }
    text
}

/// The findings of one cluster, and what is installed there.
async fn one(
    cluster: &Cluster,
    at: &ClusterArgs,
    args: &CheckArgs,
    token: Option<&str>,
) -> (Vec<Finding>, Option<Values>) {
    let flags = &at.flags();
    let (mut findings, answers) = api::check(cluster).await;
    if !answers {
        return (findings, None);
    }
    if args.before {
        findings.extend(rights::before(cluster).await);
        findings.extend(api::leftovers(cluster, flags).await);
        return (findings, None);
    }
    let values = match stored(cluster, &args.revision).await {
        Ok(Some(values)) => values,
        Ok(None) => {
            let what = format!("revision {} is not installed", args.revision);
            let remedy = format!("fairlead install{flags} --cluster NAME; or fairlead check{flags} --before");
            findings.push(Finding::bad(codes::NOT_INSTALLED, "installed", what, remedy));
            return (findings, None);
        }
        Err(e) => {
            findings.push(Finding::bad(
                codes::NOT_INSTALLED,
                "installed",
                format!("{e:#}"),
                format!("run fairlead install{flags} --cluster NAME again"),
            ));
            return (findings, None);
        }
    };
    findings.push(Finding::good("installed", format!("cluster {}, revision {}", values.cluster, values.revision)));
    findings.extend(rights::control(cluster, &values).await);
    // A remote cluster's control plane is in its primary.
    let serving = match cluster.clone().serving(at).await {
        Ok(serving) => serving,
        Err(e) => {
            let remedy = "a remote cluster is checked by its control plane: the kubeconfig must lead there too";
            findings.push(Finding::bad(codes::UNASKED, "control plane", format!("{e:#}"), remedy));
            return (findings, Some(values));
        }
    };
    findings.extend(control::check(&serving, &values).await);
    findings.extend(certificate::check(cluster, &serving, &values).await);
    findings.extend(webhooks::check(cluster, &values).await);
    findings.extend(control::gateway(cluster, &values).await);
    findings.extend(mesh::check(cluster, &serving, &values, flags).await);
    if values.remote.is_some() {
        let why = "its control plane runs in the primary, and sees that cluster's network";
        findings.push(Finding::skipped("data path", why, "make a call from a pod of this cluster"));
        return (findings, Some(values));
    }
    match ask_pod::ask(cluster, &values, token).await {
        Ok(inside) => {
            findings.extend(ask_pod::judge(&inside, &values, api::now()));
            findings.extend(control::judge_peers(env!("CARGO_PKG_VERSION"), &inside.seen.peers));
        }
        Err(finding) => findings.push(finding),
    }
    (findings, Some(values))
}
