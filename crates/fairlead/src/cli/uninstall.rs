//! `fairlead uninstall`: everything that install and the control plane made, in every namespace.
//!
//! Must never delete an object of a user: definitions go only if we installed them and nobody has objects of them. Invariant: the
//! cluster's list of objects is then what it was before install (pods that were injected keep their proxies until they restart).

mod hosted;

use super::kubernetes::{Cluster, ClusterArgs, Kind, names, no_pods};
use anyhow::bail;
use clap::Args;
use fairlead_install::cni::CNI;
use fairlead_install::control::{self, CONTROL};
use fairlead_install::object::{PART_OF, REVISION};
use fairlead_install::{NAMESPACE, crds, render};
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Remove Fairlead from a Kubernetes cluster, or one revision of it.
///
/// Example: fairlead uninstall --context east
///
/// Example: fairlead uninstall --context west --primary east    (west is a remote cluster of east)
#[derive(Args, Debug)]
pub struct UninstallArgs {
    #[command(flatten)]
    at: ClusterArgs,
    /// Only this revision; what revisions share stays while another is installed.
    #[arg(long)]
    revision: Option<String>,
    /// Of a remote cluster: its primary, from which its control plane, CA and credential are removed too.
    #[arg(long, value_name = "CONTEXT", conflicts_with_all = ["remote", "revision"])]
    primary: Option<String>,
    /// From a primary: remove only what serves this remote cluster, which may be gone.
    #[arg(long, value_name = "CLUSTER", conflicts_with = "revision")]
    remote: Option<String>,
    /// Delete the definitions that we installed even when there are objects of them: these are deleted too.
    #[arg(long)]
    crds: bool,
    /// How long to wait until everything is gone.
    #[arg(long, default_value = "120s", value_parser = crate::control::duration)]
    timeout: Duration,
}

/// They stand in the way of others.
const WEBHOOKS: &[(&str, &str)] = &[
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
];
/// What runs.
const WORKLOADS: &[(&str, &str)] =
    &[("policy/v1", "PodDisruptionBudget"), ("apps/v1", "Deployment"), ("apps/v1", "DaemonSet")];
const CLUSTER_KINDS: &[(&str, &str)] =
    &[("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"), ("rbac.authorization.k8s.io/v1", "ClusterRole")];
/// Of one revision, in our namespace; when all go, the namespace goes instead.
const OWN_KINDS: &[(&str, &str)] = &[
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("coordination.k8s.io/v1", "Lease"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("v1", "ServiceAccount"),
];
const PAUSE: Duration = Duration::from_millis(300);

pub async fn run(args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::open(&args.at).await?;
    if let Some(revision) = &args.revision {
        let others = other_revisions(&cluster, revision).await?;
        if !others.is_empty() {
            return one_revision(&cluster, revision, &others).await;
        }
    }
    if let Some(remote) = &args.remote {
        hosted::remove(&cluster, remote, args.timeout).await?;
        return Ok(ExitCode::SUCCESS);
    }
    hosted::refuse(&cluster).await?;
    hosted::of_remote(&cluster, args).await?;
    let labels = format!("{PART_OF}=fairlead");
    let mut deleted = delete_all(&cluster, WEBHOOKS, None, &labels).await?;
    let namespace = cluster.get(&Kind::new("v1", "Namespace"), None, NAMESPACE).await?;
    deleted += delete_all(&cluster, WORKLOADS, Some(NAMESPACE), &labels).await?;
    // The control plane writes trust into every namespace: it must be gone before that is deleted. The plugin's pods take it out of
    // their nodes, for which they need their role.
    for app in [CONTROL, CNI] {
        no_pods(&cluster, &format!("app={app}"), args.timeout).await?;
    }
    deleted += delete_all(&cluster, CLUSTER_KINDS, None, &labels).await?;
    deleted += trust(&cluster).await?;
    deleted += definitions(&cluster, args.crds).await?;
    match namespace {
        Some(found) if found["metadata"]["labels"][PART_OF] == "fairlead" => {
            cluster.delete(&Kind::new("v1", "Namespace"), None, NAMESPACE).await?;
            deleted += 1;
            namespace_gone(&cluster, NAMESPACE, args.timeout).await?;
        }
        Some(_) => {
            deleted += delete_all(&cluster, OWN_KINDS, Some(NAMESPACE), &labels).await?;
            println!("namespace {NAMESPACE} is not ours (it lacks the label {PART_OF}=fairlead) and stays");
        }
        None => {}
    }
    if deleted == 0 {
        println!("cluster {}: nothing of Fairlead is there", cluster.name);
    } else {
        println!("removed; pods that were injected keep their proxies until they are restarted");
    }
    Ok(ExitCode::SUCCESS)
}

async fn other_revisions(cluster: &Cluster, revision: &str) -> anyhow::Result<Vec<String>> {
    let kind = Kind::new("apps/v1", "Deployment");
    let all = cluster.list(&kind, Some(NAMESPACE), &format!("{PART_OF}=fairlead,{REVISION}")).await?;
    let of = |o: &Value| o["metadata"]["labels"][REVISION].as_str().map(str::to_owned);
    let known: Vec<String> = all.iter().filter_map(of).collect();
    if !known.is_empty() && !known.iter().any(|r| r == revision) {
        bail!("revision {revision} is not installed; there are {}", known.join(", "));
    }
    Ok(known.into_iter().filter(|r| r != revision).collect())
}

async fn one_revision(cluster: &Cluster, revision: &str, others: &[String]) -> anyhow::Result<ExitCode> {
    let labels = format!("{PART_OF}=fairlead,{REVISION}={revision}");
    delete_all(cluster, WEBHOOKS, None, &labels).await?;
    delete_all(cluster, WORKLOADS, Some(NAMESPACE), &labels).await?;
    delete_all(cluster, CLUSTER_KINDS, None, &labels).await?;
    delete_all(cluster, OWN_KINDS, Some(NAMESPACE), &labels).await?;
    // What revisions share is as the last install wrote it, which may have been this one's: then the gateway asks a control plane that
    // is gone.
    if let Some(other) = others.first()
        && let Some(values) = super::install::stored(cluster, other).await?
    {
        let rendered = render(&values)?;
        for object in control::shared(&values).iter().chain(&rendered.gateway) {
            cluster.apply(object).await?;
        }
        println!("what revisions share is as {other} wants it");
    }
    println!("revision {revision} is removed; what it shared with {} stays", others.join(", "));
    Ok(ExitCode::SUCCESS)
}

async fn delete_all(
    cluster: &Cluster,
    kinds: &[(&str, &str)],
    namespace: Option<&str>,
    labels: &str,
) -> anyhow::Result<usize> {
    let mut deleted = 0;
    for (version, kind) in kinds {
        let kind = Kind::new(version, kind);
        for object in cluster.list(&kind, namespace, labels).await? {
            cluster.delete(&kind, namespace, names(&object).1).await?;
            println!("deleted {} {}", kind.kind, names(&object).1);
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// The trust of the mesh, which the control plane wrote into every namespace.
async fn trust(cluster: &Cluster) -> anyhow::Result<usize> {
    let kind = Kind::new("v1", "ConfigMap");
    let mut deleted = 0;
    for namespace in cluster.list(&Kind::new("v1", "Namespace"), None, "").await? {
        let namespace = names(&namespace).1;
        let found = cluster.get(&kind, Some(namespace), "fairlead-trust").await?;
        if found.is_some_and(|found| found["metadata"]["labels"][PART_OF] == "fairlead") {
            cluster.delete(&kind, Some(namespace), "fairlead-trust").await?;
            deleted += 1;
        }
    }
    println!("deleted ConfigMap fairlead-trust in {deleted} namespaces");
    Ok(deleted)
}

/// Definitions that we installed. Objects of our own kinds in our namespace are part of the installation.
async fn definitions(cluster: &Cluster, with_objects: bool) -> anyhow::Result<usize> {
    let kind = Kind::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let mut deleted = 0;
    for object in crds::all() {
        let name = names(&object).1;
        let Some(found) = cluster.get(&kind, None, name).await? else { continue };
        if found["metadata"]["labels"][PART_OF] != "fairlead" {
            continue;
        }
        let (plural, group) = crds::plural_and_group(name);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = Kind {
            group: group.into(),
            version: word(&object["spec"]["versions"][0]["name"]),
            kind: word(&object["spec"]["names"]["kind"]),
            plural: plural.into(),
        };
        let users: Vec<_> = cluster
            .list(&of, None, "")
            .await?
            .iter()
            .filter(|o| names(o).0 != Some(NAMESPACE))
            .map(|o| format!("{}/{}", names(o).0.unwrap_or_default(), names(o).1))
            .collect();
        if !users.is_empty() && !with_objects {
            let few = users.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            println!(
                "kept definition {name}: {} objects of it are yours ({few}); --crds deletes them too",
                users.len()
            );
            continue;
        }
        cluster.delete(&kind, None, name).await?;
        println!("deleted definition {name}");
        deleted += 1;
    }
    Ok(deleted)
}

async fn namespace_gone(cluster: &Cluster, namespace: &str, timeout: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    println!("waiting until namespace {namespace} is gone");
    while let Some(found) = cluster.get(&Kind::new("v1", "Namespace"), None, namespace).await? {
        if started.elapsed() > timeout {
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let why = conditions
                .iter()
                .filter(|c| c["status"] == "True")
                .filter_map(|c| c["message"].as_str())
                .collect::<Vec<_>>();
            bail!("namespace {namespace} is still there after {} s: {}", timeout.as_secs(), why.join("; "));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
