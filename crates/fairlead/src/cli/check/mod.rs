//! `fairlead check`: does the path work, from here to the API server, through it to the control plane, and on to the peers?
//!
//! Must never take a setting for a proof where the thing itself can be tried: pods are sent to the injector (as a dry run), the
//! certificate is asked of the port that serves it, gateways are connected to. Invariant: a finding that is not good has a remedy.

mod across;
mod api;
mod certificate;
mod control;
mod finding;
mod mesh;
mod rights;
mod webhooks;

use super::install::stored;
use super::kubernetes::{Cluster, ClusterArgs};
use super::output::{Columns, Output, print};
use clap::Args;
use fairlead_install::{DEFAULT_REVISION, Values};
use finding::{Finding, State};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check whether Fairlead works in Kubernetes clusters, or whether it could be installed (--before).
///
/// With several --context the clusters are also held against each other. Exit code 0: all is well; 1: something is not; 2: the
/// command line or the kubeconfig is wrong.
///
/// Example: fairlead check --before --context east
///
/// Example: fairlead check --context east --context west -o json
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// A cluster, as a context of the kubeconfig; may be given several times. By default its current one.
    #[arg(long)]
    context: Vec<String>,
    /// The kubeconfig; by default $KUBECONFIG, then ~/.kube/config.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Only what must hold before an installation.
    #[arg(long)]
    before: bool,
    /// The revision that is checked.
    #[arg(long, default_value = DEFAULT_REVISION)]
    revision: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

const COLUMNS: Columns =
    &[("CLUSTER", "cluster"), ("CHECK", "check"), ("STATE", "state"), ("MESSAGE", "message"), ("REMEDY", "remedy")];

pub async fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut contexts: Vec<Option<String>> = args.context.iter().cloned().map(Some).collect();
    if contexts.is_empty() {
        contexts.push(None);
    }
    let (mut findings, mut known) = (Vec::new(), Vec::new());
    for context in contexts {
        let at = ClusterArgs { context, kubeconfig: args.kubeconfig.clone() };
        let cluster = Cluster::open(&at).await?;
        let (found, installed) = one(&cluster, args, &at.flags()).await;
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
                "cluster": cluster, "check": f.check, "state": f.state.word(), "message": f.message, "remedy": f.remedy,
            })
        })
        .collect();
    print(&json!(rows), COLUMNS, args.output)?;
    Ok(ExitCode::from(u8::from(findings.iter().any(|(_, f)| f.state == State::Bad))))
}

/// The findings of one cluster, and what is installed there.
async fn one(cluster: &Cluster, args: &CheckArgs, flags: &str) -> (Vec<Finding>, Option<Values>) {
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
            findings.push(Finding::bad("installed", what, remedy));
            return (findings, None);
        }
        Err(e) => {
            findings.push(Finding::bad(
                "installed",
                format!("{e:#}"),
                format!("run fairlead install{flags} --cluster NAME again"),
            ));
            return (findings, None);
        }
    };
    findings.push(Finding::good("installed", format!("cluster {}, revision {}", values.cluster, values.revision)));
    findings.extend(rights::control(cluster, &values).await);
    findings.extend(control::check(cluster, &values).await);
    findings.extend(certificate::check(cluster, &values).await);
    findings.extend(webhooks::check(cluster, &values).await);
    findings.extend(control::gateway(cluster, &values).await);
    findings.extend(mesh::check(cluster, &values, flags).await);
    let later = "a lookup of the control plane's name from a pod is not tried";
    findings.push(Finding::skipped(
        "dns",
        later,
        "kubectl run --rm -it --image busybox -- nslookup fairlead-control.fairlead-system",
    ));
    (findings, Some(values))
}
