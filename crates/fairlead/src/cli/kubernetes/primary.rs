//! From a remote cluster to the control plane that serves it, in another cluster of the same kubeconfig.
//!
//! Must never guess: the primary is the cluster whose API server the installation wrote down, or the context that was named.
//! Invariant: a cluster with a control plane of its own leads to itself.

use super::{Cluster, ClusterArgs};
use crate::cli::install::stored;
use anyhow::{Context as _, bail};
use fairlead_install::{DEFAULT_REVISION, Values, remote};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// How an API server is reached and believed.
#[derive(Clone, Debug)]
pub struct Way {
    pub server: String,
    /// PEM; `None` where the kubeconfig leaves it to the system's.
    pub authority: Option<String>,
    /// Name in its certificate, if it is another than the server's.
    pub tls_name: Option<String>,
}

impl Cluster {
    /// The cluster that the control plane of this one is in, and its namespace there.
    pub async fn serving(self, at: &ClusterArgs) -> anyhow::Result<Self> {
        let values = match stored(&self, DEFAULT_REVISION).await {
            Ok(Some(values)) => values,
            Ok(None) => return Ok(self),
            // Who may exec may not read ConfigMaps: then it is as with every other cluster.
            Err(e) if format!("{e:#}").contains("forbidden") => return Ok(self),
            Err(e) => return Err(e),
        };
        self.primary(&values, at, None).await.map(|primary| primary.unwrap_or(self))
    }

    /// The primary of a cluster with these values; `None`: it needs none. `named`: its context, if that was given.
    pub async fn primary(
        &self,
        values: &Values,
        at: &ClusterArgs,
        named: Option<&str>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(remote) = &values.remote else { return Ok(None) };
        let context = match named {
            Some(named) => Some(named.to_owned()),
            None => context_of(&kubeconfig(at)?, &remote.server),
        };
        let Some(context) = context else {
            bail!(
                "{} is served by a control plane in {}, at {}: no context of the kubeconfig leads there; add one",
                values.cluster,
                remote.primary,
                remote.server
            );
        };
        let place = ClusterArgs { context: Some(context), kubeconfig: at.kubeconfig.clone() };
        let primary = Self::open(&place).await?;
        Ok(Some(Self { control: remote::home(&values.cluster), ..primary }))
    }
}

/// How the API server of a context is reached.
pub async fn way_in(at: &ClusterArgs, context: &str) -> anyhow::Result<Way> {
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig(at)?, &options)
        .await
        .with_context(|| format!("context {context} of the kubeconfig"))?;
    if config.accept_invalid_certs {
        bail!(
            "context {context} of the kubeconfig has insecure-skip-tls-verify; give it the certificate-authority-data"
        );
    }
    let authority = config.root_cert.as_ref().map(|all| {
        let all: Vec<rustls::pki_types::CertificateDer<'static>> = all.iter().cloned().map(Into::into).collect();
        fairlead_identity::certificate::certificates_to_pem(&all)
    });
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    Ok(Way { server, authority, tls_name: config.tls_server_name.clone() })
}

fn kubeconfig(at: &ClusterArgs) -> anyhow::Result<Kubeconfig> {
    match &at.kubeconfig {
        Some(file) => Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display())),
        None => Kubeconfig::read().context("no kubeconfig; name one with --kubeconfig FILE or $KUBECONFIG"),
    }
}

/// The first context whose cluster has this API server.
fn context_of(kubeconfig: &Kubeconfig, server: &str) -> Option<String> {
    let same = |url: &str| url.trim_end_matches('/') == server.trim_end_matches('/');
    let clusters = kubeconfig.clusters.iter();
    let there = |name: &str| {
        clusters
            .clone()
            .any(|c| c.name == name && c.cluster.as_ref().and_then(|c| c.server.as_deref()).is_some_and(same))
    };
    let contexts = kubeconfig.contexts.iter();
    contexts
        .filter_map(|c| Some((&c.name, c.context.as_ref()?)))
        .find(|(_, c)| there(&c.cluster))
        .map(|(n, _)| n.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primarys_context_is_found_by_its_api_server() {
        let text = "
apiVersion: v1
kind: Config
clusters:
- {name: a, cluster: {server: 'https://10.0.0.1:6443'}}
- {name: b, cluster: {server: 'https://10.0.0.2:6443/'}}
contexts:
- {name: one, context: {cluster: a, user: u}}
- {name: two, context: {cluster: b, user: u}}
users: [{name: u, user: {}}]
";
        let kubeconfig = Kubeconfig::from_yaml(text).unwrap();
        assert_eq!(context_of(&kubeconfig, "https://10.0.0.2:6443").as_deref(), Some("two"));
        assert_eq!(context_of(&kubeconfig, "https://10.0.0.3:6443"), None);
    }
}
