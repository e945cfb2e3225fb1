//! A cluster as the command line sees it: reached by a kubeconfig, its objects as values.
//!
//! Must never print an API error as the client library words it: what is said names the cluster, what was asked and what to do.
//! Invariant: everything this command line applies has one field manager, [`MANAGER`].

mod exec;
mod pods;
mod primary;

pub use exec::{Answer, answer, pass_through};
pub use pods::{control_pods, no_pods, no_pods_in, trouble};
pub use primary::{Way, way_in};

use anyhow::{Context as _, anyhow};
use clap::Args;
use fairlead_install::NAMESPACE;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Field manager of server-side apply.
pub const MANAGER: &str = "fairlead-install";
/// An API server that is there accepts within this.
const CONNECT: Duration = Duration::from_secs(5);

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct ClusterArgs {
    /// The cluster, as a context of the kubeconfig; by default its current one.
    #[arg(long)]
    pub context: Option<String>,
    /// The kubeconfig; by default $KUBECONFIG, then ~/.kube/config.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// Whether a cluster was named.
    pub fn is_given(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some()
    }

    /// The flags again, for a command that is shown to the user.
    pub fn flags(&self) -> String {
        let mut flags = String::new();
        if let Some(file) = &self.kubeconfig {
            flags += &format!(" --kubeconfig {}", file.display());
        }
        if let Some(context) = &self.context {
            flags += &format!(" --context {context}");
        }
        flags
    }
}

/// A client for one cluster.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// As messages name it.
    pub name: String,
    /// The namespace in which the control plane that is meant runs.
    pub control: String,
}

impl Cluster {
    /// Reads the kubeconfig; asks the cluster nothing.
    pub async fn open(args: &ClusterArgs) -> anyhow::Result<Self> {
        let kubeconfig = match &args.kubeconfig {
            Some(file) => Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?,
            None => Kubeconfig::read().context("no kubeconfig; name one with --kubeconfig FILE or $KUBECONFIG")?,
        };
        let known: Vec<_> = kubeconfig.contexts.iter().map(|c| c.name.clone()).collect();
        let name = args.context.clone().or_else(|| kubeconfig.current_context.clone());
        let Some(name) = name.filter(|n| !n.is_empty()) else {
            anyhow::bail!("the kubeconfig has no current context; choose with --context: {}", known.join(", "));
        };
        if !known.contains(&name) {
            anyhow::bail!("the kubeconfig has no context {name}; it has {}", known.join(", "));
        }
        let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .with_context(|| format!("context {name} of the kubeconfig"))?;
        config.connect_timeout = Some(CONNECT);
        // A command that is run by hand says what is wrong rather than trying again in silence.
        config.default_retry = false;
        let client = Client::try_from(config).with_context(|| format!("context {name} of the kubeconfig"))?;
        Ok(Self { client, name, control: NAMESPACE.to_owned() })
    }

    /// The object as it is; `None` where it, or its kind, does not exist.
    pub async fn get(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> anyhow::Result<Option<Value>> {
        let what = || format!("{} {name}", kind.kind);
        match self.api(kind, namespace).get_opt(name).await {
            Ok(found) => Ok(found.map(serde_json::to_value).transpose()?),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(e) => Err(self.error(&e, "read", &what())),
        }
    }

    /// All objects of a kind; none where the kind does not exist. No namespace: of all.
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, labels: &str) -> anyhow::Result<Vec<Value>> {
        let mut params = ListParams::default().limit(500);
        if !labels.is_empty() {
            params = params.labels(labels);
        }
        let mut all = Vec::new();
        loop {
            let page = match self.api(kind, namespace).list(&params).await {
                Ok(page) => page,
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
                Err(e) => return Err(self.error(&e, "list", &kind.kind)),
            };
            for object in page.items {
                all.push(serde_json::to_value(object)?);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Server-side apply. True: something changed.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<bool> {
        let kind = Kind::of(object)?;
        let (namespace, name) = names(object);
        let before = self.get(&kind, namespace, name).await?;
        let params = PatchParams::apply(MANAGER).force();
        let applied: DynamicObject = serde_json::from_value(object.clone())?;
        let after = self
            .api(&kind, namespace)
            .patch(name, &params, &Patch::Apply(&applied))
            .await
            .map_err(|e| self.error(&e, "apply", &format!("{} {name}", kind.kind)))?;
        let version = |o: &Value| o["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        Ok(before.as_ref().and_then(version) != after.metadata.resource_version)
    }

    /// Deletes; what is not there is deleted already. Dependents go first where `foreground`.
    pub async fn delete(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> anyhow::Result<()> {
        match self.api(kind, namespace).delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(e) => Err(self.error(&e, "delete", &format!("{} {name}", kind.kind))),
        }
    }

    /// Creates an object that is an answer in itself (a review), or in vain (`dryRun`).
    pub async fn create(&self, object: &Value, dry_run: bool) -> Result<Value, kube::Error> {
        let kind = Kind::of(object).map_err(|e| kube::Error::Service(e.into()))?;
        let params = kube::api::PostParams { dry_run, ..kube::api::PostParams::default() };
        let body: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        let created = self.api(&kind, names(object).0).create(&params, &body).await?;
        serde_json::to_value(created).map_err(kube::Error::SerdeError)
    }

    fn api(&self, kind: &Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind.resource()),
            None => Api::all_with(self.client.clone(), &kind.resource()),
        }
    }

    /// An API error with the cluster, what was asked, and a remedy.
    pub fn error(&self, error: &kube::Error, verb: &str, what: &str) -> anyhow::Error {
        anyhow!("cluster {}: cannot {verb} {what}: {}", self.name, plain(error))
    }
}

/// An API error in words.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let remedy = match status.code {
                401 => "; the kubeconfig's credentials are not accepted (expired?)",
                403 => "; run it as somebody who may (`kubectl auth can-i --list`)",
                _ => "",
            };
            format!("{}{remedy}", status.message)
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(inner) = source {
                let more = inner.to_string();
                if !text.contains(&more) {
                    text += &format!(": {more}");
                }
                source = inner.source();
            }
            format!("{text}; is the API server of this context up, and reachable from here?")
        }
    }
}

/// A kind of object at an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
    /// Empty: as the kind's name gives it.
    pub plural: String,
}

impl Kind {
    /// By `apiVersion` and kind.
    pub fn new(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Self { group: group.into(), version: version.into(), kind: kind.into(), plural: String::new() }
    }

    /// Of an object.
    pub fn of(object: &Value) -> anyhow::Result<Self> {
        let word = |field: &str| object[field].as_str().with_context(|| format!("an object has no {field}"));
        Ok(Self::new(word("apiVersion")?, word("kind")?))
    }

    fn resource(&self) -> ApiResource {
        let gvk = GroupVersionKind::gvk(&self.group, &self.version, &self.kind);
        if self.plural.is_empty() {
            ApiResource::from_gvk(&gvk)
        } else {
            ApiResource::from_gvk_with_plural(&gvk, &self.plural)
        }
    }
}

/// Namespace and name of an object.
pub fn names(object: &Value) -> (Option<&str>, &str) {
    (object["metadata"]["namespace"].as_str(), object["metadata"]["name"].as_str().unwrap_or_default())
}
