//! How the API server is reached: as a pod of the cluster, or by a kubeconfig.
//!
//! Never connects here: an API server that is away is found out by who asks it something. Invariant: every request ends, either by
//! a bound of who makes it (watches, see `fairlead_sources`) or by those of [`CONNECT`] and [`WRITE`].

use super::hosted::{Hosting, remote_client};
use super::{Home, Kubernetes};
use crate::options::{HomeOptions, KubernetesOptions};
use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

/// An API server that is there accepts within this, also over a slow link.
const CONNECT: Duration = Duration::from_secs(5);
/// No request of ours is large.
const WRITE: Duration = Duration::from_secs(15);
const USER_AGENT: &str = concat!("fairlead/", env!("CARGO_PKG_VERSION"));

impl Kubernetes {
    /// Reads credentials; touches no network.
    pub async fn open(cluster: &str, options: &KubernetesOptions, vital: &mut JoinSet<()>) -> anyhow::Result<Self> {
        let config = config(options.kubeconfig.as_deref(), options.context.as_deref()).await;
        let config = config.context("the API server's address and credentials")?;
        let namespace = options.namespace.clone();
        let (client, home, hosting) = match &options.home {
            None => {
                let client = Client::try_from(config)?;
                (client.clone(), Home { client, namespace: namespace.clone() }, None)
            }
            Some(HomeOptions { namespace: own, kubeconfig, token_lifetime }) => {
                let (client, credential) = remote_client(config)?;
                let primary = self::config(kubeconfig.as_deref(), None).await;
                let primary = primary.context("the primary's API server, which keeps this control plane's state")?;
                let home = Home { client: Client::try_from(primary)?, namespace: own.clone() };
                let both = (client.clone(), credential);
                let hosting = Hosting::begin((cluster, &namespace), both, home.clone(), *token_lifetime, vital);
                (client, home, Some(hosting))
            }
        };
        Ok(Self { client, namespace, cluster: cluster.into(), home, hosting })
    }
}

async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<Config> {
    let own = || Config::incluster().ok().filter(|_| kubeconfig.is_none() && context.is_none());
    let mut config = match (own(), kubeconfig) {
        (Some(own), _) => own,
        (None, file) => {
            let kubeconfig = match file {
                Some(file) => Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?,
                None => Kubeconfig::read().context(
                    "this is no pod with a service account, and $KUBECONFIG or ~/.kube/config cannot be read; \
                     name one with --kubeconfig FILE",
                )?,
            };
            let choice = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
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
    Ok(config)
}
