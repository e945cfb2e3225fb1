//! Removing primary-remote: what serves a remote cluster from its primary.
//!
//! Must never touch a primary that was not named. Invariant: a remote's control plane is gone before what it wrote into the remote is
//! deleted there, so that nothing comes back.

use super::{UninstallArgs, namespace_gone};
use crate::cli::install::stored;
use crate::cli::kubernetes::{Cluster, Kind, names, no_pods_in};
use anyhow::bail;
use fairlead_install::DEFAULT_REVISION;
use fairlead_install::control::CONTROL;
use fairlead_install::object::PART_OF;
use fairlead_install::remote::{HOSTED, REMOTE, home};
use std::time::Duration;

/// A cluster whose control planes serve others cannot go before them.
pub async fn refuse(cluster: &Cluster) -> anyhow::Result<()> {
    let labels = format!("{PART_OF}={HOSTED}");
    let hosted = cluster.list(&Kind::new("v1", "Namespace"), None, &labels).await?;
    let remotes: Vec<_> = hosted.iter().filter_map(|ns| ns["metadata"]["labels"][REMOTE].as_str()).collect();
    let Some(first) = remotes.first() else { return Ok(()) };
    bail!(
        "{} is the primary of {}: uninstall these first, fairlead uninstall --context CONTEXT-OF-{first} --primary {}; \
         for one that is gone: fairlead uninstall --context {} --remote {first}",
        cluster.name,
        remotes.join(", "),
        cluster.name,
        cluster.name,
    )
}

/// If this is a remote cluster: removes its part of the primary, or says how.
pub async fn of_remote(cluster: &Cluster, args: &UninstallArgs) -> anyhow::Result<()> {
    let values = stored(cluster, DEFAULT_REVISION).await?;
    let remote = values.as_ref().and_then(|values| Some((values, values.remote.as_ref()?)));
    match (remote, &args.primary) {
        (Some((values, _)), Some(context)) => {
            let primary = cluster.primary(values, &args.at, Some(context)).await?;
            if let Some(primary) = primary {
                remove(&primary, &values.cluster, args.timeout).await?;
            }
        }
        (Some((values, remote)), None) => println!(
            "{}'s control plane, CA and credential stay in {}; to remove them: fairlead uninstall --context CONTEXT-OF-{} --remote {}",
            values.cluster, remote.primary, remote.primary, values.cluster
        ),
        (None, Some(context)) => println!(
            "this is no remote cluster (any more); if {context} still serves it: fairlead uninstall --context {context} --remote NAME"
        ),
        (None, None) => {}
    }
    Ok(())
}

/// Removes what serves a remote cluster.
pub async fn remove(primary: &Cluster, remote: &str, timeout: Duration) -> anyhow::Result<()> {
    let (home, labels) = (home(remote), format!("{PART_OF}={HOSTED},{REMOTE}={remote}"));
    let mut deleted = 0;
    for kind in ["ClusterRoleBinding", "ClusterRole"] {
        let kind = Kind::new("rbac.authorization.k8s.io/v1", kind);
        for object in primary.list(&kind, None, &labels).await? {
            primary.delete(&kind, None, names(&object).1).await?;
            println!("deleted {} {} in {}", kind.kind, names(&object).1, primary.name);
            deleted += 1;
        }
    }
    let kind = Kind::new("v1", "Namespace");
    for object in primary.list(&kind, None, &labels).await? {
        primary.delete(&kind, None, names(&object).1).await?;
        no_pods_in(primary, &home, &format!("app={CONTROL}"), timeout).await?;
        namespace_gone(primary, &home, timeout).await?;
        println!("deleted namespace {home} in {}", primary.name);
        deleted += 1;
    }
    if deleted == 0 {
        println!("cluster {}: nothing serves {remote} there", primary.name);
    } else {
        println!("the mesh still knows {remote}: fairlead detach {remote} --context {}", primary.name);
    }
    Ok(())
}
