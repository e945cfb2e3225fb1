//! The steps of an installation, in order, each said before it is taken.
//!
//! Must never enable webhooks before the control plane can answer them: they refuse pods meanwhile. Invariant: what an earlier run
//! made and these values no longer want is gone at the end.

use super::wait::Wait;
use crate::cli::kubernetes::{Cluster, Kind, names, no_pods};
use anyhow::Context as _;
use fairlead_install::cni::CNI;
use fairlead_install::control::{CONTROL, PEERING};
use fairlead_install::gateway::EAST_WEST;
use fairlead_install::object::{PART_OF, REVISION};
use fairlead_install::{DEFAULT_REVISION, Expose, NAMESPACE, Rendered, Values, crds, render};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

/// Kinds of what an installation may stop wanting: `apiVersion`, kind, namespaced.
const PRUNED: &[(&str, &str, bool)] = &[
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", false),
    // Its pods take the plugin out of their nodes, for which they need the roles that follow.
    ("apps/v1", "DaemonSet", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", false),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", true),
    ("rbac.authorization.k8s.io/v1", "Role", true),
    ("apps/v1", "Deployment", true),
    ("v1", "Service", true),
    ("v1", "ServiceAccount", true),
    ("policy/v1", "PodDisruptionBudget", true),
    ("networking.istio.io/v1", "Gateway", true),
];

/// For pods of something that is no longer wanted.
const END: Duration = Duration::from_secs(60);

pub async fn install(cluster: &Cluster, values: &Values, timeout: Duration, flags: &str) -> anyhow::Result<ExitCode> {
    let rendered = render(values)?;
    definitions(cluster).await?;
    let wait = Wait::new(cluster, timeout);
    if !wait.established().await? {
        return Ok(ExitCode::FAILURE);
    }
    apply(cluster, "control plane", &rendered.control).await?;
    let name = values.named(CONTROL);
    if !wait.deployment(&name).await? || !wait.object(&Kind::new("v1", "ConfigMap"), "fairlead-trust").await? {
        return Ok(not_ready(&name, flags));
    }
    if values.cni.enabled && !wait.daemon_set(CNI).await? {
        return Ok(not_ready(CNI, flags));
    }
    apply(cluster, "webhooks", &rendered.webhooks).await?;
    apply(cluster, "east-west gateway", &rendered.gateway).await?;
    prune(cluster, values, &rendered).await?;
    for webhook in rendered.webhooks.iter() {
        if !wait.answered(webhook).await? {
            return Ok(not_ready(&name, flags));
        }
    }
    if values.gateway.enabled && !wait.deployment(EAST_WEST).await? {
        return Ok(not_ready(EAST_WEST, flags));
    }
    if wait.is_off() {
        println!("applied; not waited for: fairlead check{flags} tells when it serves");
        return Ok(ExitCode::SUCCESS);
    }
    next(values, flags);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn definitions(cluster: &Cluster) -> anyhow::Result<()> {
    let kind = Kind::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let (mut applied, mut foreign) = (0, Vec::new());
    for object in crds::all() {
        let name = names(&object).1.to_owned();
        let there = cluster.get(&kind, None, &name).await?;
        if there.is_some_and(|o| o["metadata"]["labels"][PART_OF] != "fairlead") {
            foreign.push(name);
        } else {
            applied += usize::from(cluster.apply(&object).await?);
        }
    }
    println!("definitions: {applied} applied, {} as they are", crds::names().count() - applied);
    if !foreign.is_empty() {
        println!("  not ours, left alone: {}", foreign.join(", "));
    }
    Ok(())
}

pub(super) async fn apply(cluster: &Cluster, what: &str, objects: &[Value]) -> anyhow::Result<()> {
    let mut changed = 0;
    for object in objects {
        if is_anothers_namespace(cluster, object).await? {
            println!("  namespace {} was there before: its labels stay as they are, and so will it", names(object).1);
            continue;
        }
        changed += usize::from(cluster.apply(object).await?);
    }
    println!("{what}: {changed} of {} objects changed", objects.len());
    Ok(())
}

/// Whether this is a namespace that somebody else made, for a plugged-in CA for example: `uninstall` deletes what has our label.
async fn is_anothers_namespace(cluster: &Cluster, object: &Value) -> anyhow::Result<bool> {
    if object["kind"] != "Namespace" {
        return Ok(false);
    }
    let there = cluster.get(&Kind::of(object)?, None, names(object).1).await?;
    Ok(there.is_some_and(|there| there["metadata"]["labels"][PART_OF] != object["metadata"]["labels"][PART_OF]))
}

/// Deletes objects of an earlier run. What revisions share goes only when this is the only one.
pub(super) async fn prune(cluster: &Cluster, values: &Values, rendered: &Rendered) -> anyhow::Result<()> {
    let key = |o: &Value| (o["kind"].as_str().unwrap_or_default().to_owned(), names(o).1.to_owned());
    let wanted: BTreeSet<_> = rendered.all().map(key).collect();
    let controls = cluster
        .list(&Kind::new("apps/v1", "Deployment"), Some(NAMESPACE), &format!("{PART_OF}=fairlead,{REVISION}"))
        .await?;
    let alone = controls.iter().all(|d| d["metadata"]["labels"][REVISION] == values.revision.as_str());
    for (version, kind, namespaced) in PRUNED {
        let namespace = namespaced.then_some(NAMESPACE);
        let kind = Kind::new(version, kind);
        for object in cluster.list(&kind, namespace, &format!("{PART_OF}=fairlead")).await? {
            let name = names(&object).1;
            let ours = match object["metadata"]["labels"][REVISION].as_str() {
                Some(revision) => revision == values.revision,
                None => alone,
            };
            if ours && !wanted.contains(&(kind.kind.clone(), name.to_owned())) {
                cluster.delete(&kind, namespace, name).await.context("cleaning up after an earlier run")?;
                println!("deleted {} {name}: these values do not want it", kind.kind);
                if kind.kind == "DaemonSet" {
                    no_pods(cluster, &format!("app={name}"), END).await?;
                }
            }
        }
    }
    Ok(())
}

pub(super) fn not_ready(name: &str, flags: &str) -> ExitCode {
    eprintln!(
        "fairlead: {name} does not serve yet; look with: fairlead check{flags}; running install again goes on from here"
    );
    ExitCode::FAILURE
}

pub(super) fn next(values: &Values, flags: &str) {
    let label = if values.revision == DEFAULT_REVISION {
        "istio-injection=enabled".to_owned()
    } else {
        format!("istio.io/rev={}", values.revision)
    };
    println!("\n{} is ready. What next:", values.cluster);
    println!("  inject a namespace:   kubectl label namespace NAME {label}   (pods that run already: restart them)");
    match values.expose {
        // It is joined.
        _ if values.remote.is_some() => {}
        Expose::None => println!("  join a mesh:          fairlead join{flags} TOKEN   (this cluster only dials out)"),
        _ => {
            println!(
                "  let a cluster join:   fairlead token create{flags}   (Service {NAMESPACE}/{PEERING} is what it dials)"
            );
            println!("  join another's mesh:  fairlead join{flags} TOKEN");
        }
    }
    println!("  look whether all works: fairlead check{flags}");
}
