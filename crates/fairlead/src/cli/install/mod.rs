//! `fairlead install`: the objects of an installation into one cluster, and the wait until they serve.
//!
//! Must never touch an object that somebody else made: definitions that are there stay, and everything else is ours by name.
//! Invariant: running it twice with equal values changes nothing the second time.

pub mod remote;
mod steps;
mod wait;

use super::kubernetes::{Cluster, ClusterArgs, Kind};
use super::output::{Output, print_value};
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use fairlead_install::{NAMESPACE, VALUES_CONFIG_MAP, VALUES_KEY, Values, render};
use remote::PrimaryArgs;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Install Fairlead into a Kubernetes cluster, or change an installation.
///
/// Values given before are kept: a second run changes what it names and nothing else. With --dry-run nothing is asked of a cluster;
/// the objects are printed.
///
/// Example: fairlead install --context east --cluster east --network lan-1
///
/// Example: fairlead install --cluster east --set control.replicas=3 --dry-run > east.yaml
///
/// Example: fairlead install --context west --cluster west --primary east    (west's control plane runs in east)
#[derive(Args, Debug)]
pub struct InstallArgs {
    #[command(flatten)]
    at: ClusterArgs,
    #[command(flatten)]
    values: ValueArgs,
    #[command(flatten)]
    primary: PrimaryArgs,
    /// Print the objects, apply nothing.
    #[arg(long, conflicts_with = "primary")]
    dry_run: bool,
    /// Of a remote cluster (--set remote.primary=NAME): print what goes into the primary.
    #[arg(long, requires = "dry_run")]
    hosted: bool,
    /// How --dry-run prints.
    #[arg(short, long, value_enum, requires = "dry_run", default_value_t = Form::Yaml)]
    output: Form,
    /// How long to wait until everything serves; 0s: not at all.
    #[arg(long, default_value = "180s", value_parser = crate::control::duration)]
    timeout: Duration,
}

/// What is decided about an installation.
#[derive(Args, Debug, Clone, Default)]
pub struct ValueArgs {
    /// This cluster's name in the mesh; no other member may have it.
    #[arg(long)]
    cluster: Option<String>,
    /// Its network; clusters that reach each other's pods directly share one. Default: the cluster's name.
    #[arg(long)]
    network: Option<String>,
    /// How other clusters reach this one: loadbalancer, nodeport, or none (it only dials out).
    #[arg(long, value_parser = ["loadbalancer", "nodeport", "none"])]
    expose: Option<String>,
    /// The mesh's trust domain, the same in every cluster.
    #[arg(long)]
    mesh_trust_domain: Option<String>,
    /// A root for each cluster, or one for all (which then needs a plugged-in CA).
    #[arg(long, value_parser = ["perCluster", "shared"])]
    mesh_trust: Option<String>,
    /// The image.
    #[arg(long)]
    image: Option<String>,
    /// Capture by a CNI plugin on every node, so that pods need no privilege for it.
    #[arg(long)]
    cni: bool,
    /// Install beside what is there, under this revision.
    #[arg(long, default_value = "default")]
    revision: String,
    /// Any value, by its name; may be given several times. docs/kubernetes.md lists them.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A YAML file of values.
    #[arg(short = 'f', long, value_name = "FILE")]
    values: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Yaml,
    Json,
}

impl ValueArgs {
    /// `before` with everything that was given over it: first the file, then flags, then --set.
    fn over(&self, before: Values) -> anyhow::Result<Values> {
        let mut tree = before.tree();
        if let Some(file) = &self.values {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let given: Value =
                serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", file.display()))?;
            merge(&mut tree, given);
        }
        let mut values = Values::read(tree)?;
        values.revision.clone_from(&self.revision);
        let flags = [
            ("cluster", &self.cluster),
            ("network", &self.network),
            ("expose", &self.expose),
            ("mesh.trustDomain", &self.mesh_trust_domain),
            ("mesh.trust", &self.mesh_trust),
            ("image", &self.image),
        ];
        let mut pairs: Vec<String> = flags
            .iter()
            .filter_map(|(name, given)| Some(format!("{name}={}", serde_json::to_string(given.as_ref()?).ok()?)))
            .collect();
        pairs.extend(self.cni.then(|| "cni.enabled=true".to_owned()));
        pairs.extend(self.set.iter().cloned());
        let values = values.set(&pairs)?;
        values.validate()?;
        Ok(values)
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub async fn run(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    if args.dry_run {
        let values = args.values.over(Values::default())?;
        return print(&values, args.output, args.hosted);
    }
    let cluster = Cluster::open(&args.at).await?;
    let stored = stored(&cluster, &args.values.revision).await?;
    let base = base(stored.clone(), args).await?;
    let values = args.values.over(base)?;
    if let Some(before) = stored.filter(|before| before.cluster != values.cluster) {
        bail!(
            "this cluster is called {} in its mesh, its certificates say so; to call it {}, run `fairlead uninstall{}` first",
            before.cluster,
            values.cluster,
            args.at.flags()
        );
    }
    if values.remote.is_some() {
        let sides = remote::sides(&cluster, &values, &args.at, &args.primary).await?;
        return remote::install(&sides, args).await;
    }
    steps::install(&cluster, &values, args.timeout, &args.at.flags()).await
}

/// What was given before, or what a first installation starts from.
async fn base(stored: Option<Values>, args: &InstallArgs) -> anyhow::Result<Values> {
    let Some(context) = &args.primary.primary else { return Ok(stored.unwrap_or_default()) };
    let fresh = remote::defaults(&args.at, context).await?;
    match stored {
        None => Ok(fresh),
        Some(before) if before.remote.is_none() => bail!(
            "{} has a control plane of its own; run `fairlead uninstall{}` first",
            before.cluster,
            args.at.flags()
        ),
        // Another context, or another address, of the same primary.
        Some(mut before) => {
            if let (Some(old), Some(new)) = (&mut before.remote, fresh.remote) {
                if old.primary != new.primary {
                    bail!(
                        "{} is served by {}, not by {}; uninstall it first",
                        before.cluster,
                        old.primary,
                        new.primary
                    );
                }
                old.server = new.server;
            }
            Ok(before)
        }
    }
}

/// What the installation of a revision was made with.
pub async fn stored(cluster: &Cluster, revision: &str) -> anyhow::Result<Option<Values>> {
    let name = Values { revision: revision.to_owned(), ..Values::default() }.named(VALUES_CONFIG_MAP);
    let Some(found) = cluster.get(&Kind::new("v1", "ConfigMap"), Some(NAMESPACE), &name).await? else {
        return Ok(None);
    };
    let text = found["data"][VALUES_KEY]
        .as_str()
        .with_context(|| format!("ConfigMap {NAMESPACE}/{name} has no {VALUES_KEY}"))?;
    let tree = serde_json::from_str(text).with_context(|| format!("ConfigMap {NAMESPACE}/{name} is no JSON"))?;
    Ok(Some(Values::read(tree).with_context(|| format!("ConfigMap {NAMESPACE}/{name}"))?))
}

fn print(values: &Values, form: Form, in_primary: bool) -> anyhow::Result<ExitCode> {
    let rendered = render(values)?;
    let objects: Vec<Value> = match (in_primary, &values.remote) {
        (false, _) => fairlead_install::crds::all().into_iter().chain(rendered.all().cloned()).collect(),
        (true, Some(_)) => fairlead_install::remote::hosted(values),
        (true, None) => {
            bail!("a cluster with a control plane of its own has nothing elsewhere; --set remote.primary=NAME")
        }
    };
    match form {
        Form::Json => {
            print_value(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}), Output::Json)?
        }
        Form::Yaml => {
            for object in &objects {
                println!("---");
                print_value(object, Output::Yaml)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_before_is_kept_and_the_rest_goes_over_it() {
        let before = Values::default().set(&["cluster=east".into(), "control.replicas=3".into()]).unwrap();
        let args = ValueArgs { revision: "default".into(), expose: Some("none".into()), ..ValueArgs::default() };
        let values = args.over(before.clone()).unwrap();
        assert_eq!(values, before.set(&["expose=none".into()]).unwrap());
        let args = ValueArgs {
            revision: "default".into(),
            network: Some("1".into()),
            set: vec!["cluster=west".into()],
            ..args
        };
        let values = args.over(before).unwrap();
        assert_eq!((values.cluster.as_str(), values.network.as_str()), ("west", "1"), "a name stays text");
    }

    #[test]
    fn maps_merge_and_everything_else_is_replaced() {
        let mut tree = serde_json::json!({"a": {"b": 1, "c": [1]}});
        merge(&mut tree, serde_json::json!({"a": {"c": [2], "d": 3}}));
        assert_eq!(tree, serde_json::json!({"a": {"b": 1, "c": [2], "d": 3}}));
    }
}
