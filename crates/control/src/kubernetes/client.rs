//! How the API server is reached: as a pod of the cluster, or by a kubeconfig.
//!
//! Never connects here: an API server that is away is found out by who asks it something. Invariant: every request ends, either by
//! a bound of who makes it (watches, see `fairlead_sources`) or by those of [`CONNECT`] and [`WRITE`].

use super::Kubernetes;
use crate::options::KubernetesOptions;
use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::time::Duration;

/// An API server that is there accepts within this, also over a slow link.
const CONNECT: Duration = Duration::from_secs(5);
/// No request of ours is large.
const WRITE: Duration = Duration::from_secs(15);
const USER_AGENT: &str = concat!("fairlead/", env!("CARGO_PKG_VERSION"));

impl Kubernetes {
    /// Reads credentials; touches no network.
    pub async fn open(cluster: &str, options: &KubernetesOptions) -> anyhow::Result<Self> {
        let client = client(options).await.context("the API server's address and credentials")?;
        Ok(Self { client, namespace: options.namespace.clone(), cluster: cluster.into() })
    }
}

async fn client(options: &KubernetesOptions) -> anyhow::Result<Client> {
    let own = || Config::incluster().ok().filter(|_| options.kubeconfig.is_none() && options.context.is_none());
    let mut config = match (own(), &options.kubeconfig, &options.context) {
        (Some(own), ..) => own,
        (None, file, context) => {
            let kubeconfig = match file {
                Some(file) => Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?,
                None => Kubeconfig::read().context(
                    "this is no pod with a service account, and $KUBECONFIG or ~/.kube/config cannot be read; \
                     name one with --kubeconfig FILE",
                )?,
            };
            let choice = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(kubeconfig, &choice).await.context("the kubeconfig")?
        }
    };
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    // Watches are long answers: those who watch bound them, since they know what silence means.
    config.read_timeout = None;
    // Who asks decides whether and when to ask again; here a retry would only hide how the API server is.
    config.default_retry = false;
    config.headers.push(("user-agent".parse()?, USER_AGENT.parse()?));
    Ok(Client::try_from(config)?)
}
