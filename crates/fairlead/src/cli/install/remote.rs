//! Primary-remote: the steps that install a remote cluster, give its primary the way in, and join it to the primary's mesh.
//!
//! Must never print a token, nor leave one elsewhere than in the Secret of the primary. Invariant: each step may be taken again; what is
//! right already is left as it is, except the credential, which is new each time.

use super::steps::{apply, definitions, next, not_ready, prune};
use super::wait::Wait;
use super::{InstallArgs, stored};
use crate::cli::kubernetes::{Answer, Cluster, ClusterArgs, Kind, Way, answer, control_pods, way_in};
use anyhow::{Context as _, bail};
use fairlead_control::codes::REMOTE_CREDENTIAL;
use fairlead_install::cni::CNI;
use fairlead_install::control::CONTROL;
use fairlead_install::gateway::EAST_WEST;
use fairlead_install::remote::{ACCOUNT, hosted, secret};
use fairlead_install::{DEFAULT_REVISION, NAMESPACE, RemoteValues, Values, render};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How a primary and the way to its remote are named.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct PrimaryArgs {
    /// This cluster gets no control plane of its own: the one in this context's cluster serves it.
    #[arg(long, value_name = "CONTEXT")]
    pub primary: Option<String>,
    /// Its API server as pods of the primary reach it, https://HOST:PORT; default: as the kubeconfig has it.
    #[arg(long, requires = "primary", value_name = "URL")]
    pub remote_server: Option<String>,
}

/// Both clusters, and how the primary reaches the remote.
pub struct Sides<'a> {
    pub remote: &'a Cluster,
    /// Its `control` is the namespace of the remote's control plane.
    pub primary: Cluster,
    pub values: &'a Values,
    pub way: Way,
}

/// Until the primary uses a credential.
const USED: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);

/// What a first installation of a remote starts from: its primary's mesh and image.
pub async fn defaults(at: &ClusterArgs, context: &str) -> anyhow::Result<Values> {
    let place = ClusterArgs { context: Some(context.to_owned()), kubeconfig: at.kubeconfig.clone() };
    let primary = Cluster::open(&place).await?;
    let Some(theirs) = stored(&primary, DEFAULT_REVISION).await? else {
        bail!(
            "context {context} has no Fairlead, so it is no primary: fairlead install{} --cluster NAME",
            place.flags()
        );
    };
    if let Some(remote) = &theirs.remote {
        bail!("context {context} is a remote cluster itself; name its primary, {}", remote.primary);
    }
    let remote = RemoteValues {
        primary: theirs.cluster,
        server: way_in(&place, context).await?.server,
        ..RemoteValues::default()
    };
    Ok(Values {
        mesh: theirs.mesh,
        image: theirs.image,
        image_pull_policy: theirs.image_pull_policy,
        remote: Some(remote),
        ..Values::default()
    })
}

/// The two clusters of values that name a primary.
pub async fn sides<'a>(
    remote: &'a Cluster,
    values: &'a Values,
    at: &ClusterArgs,
    given: &PrimaryArgs,
) -> anyhow::Result<Sides<'a>> {
    let primary = remote.primary(values, at, given.primary.as_deref()).await?.context("this is no remote cluster")?;
    let mut way = way_in(at, &remote.name).await?;
    if let Some(server) = &given.remote_server {
        way.server.clone_from(server);
    }
    Ok(Sides { remote, primary, values, way })
}

/// Installs both sides and joins.
pub async fn install(sides: &Sides<'_>, args: &InstallArgs) -> anyhow::Result<ExitCode> {
    let (remote, values, flags) = (sides.remote, sides.values, args.at.flags());
    let rendered = render(values)?;
    definitions(remote).await?;
    let (wait, there) = (Wait::new(remote, args.timeout), Wait::new(&sides.primary, args.timeout));
    if !wait.established().await? {
        return Ok(ExitCode::FAILURE);
    }
    apply(remote, "remote", &rendered.control).await?;
    let all = hosted(values);
    // The namespace, then the Secret that the control plane's pod waits for.
    let (namespace, others) = all.split_at(1);
    apply(&sides.primary, "namespace in the primary", namespace).await?;
    sides.credential().await?;
    apply(&sides.primary, "control plane in the primary", others).await?;
    if !there.deployment(CONTROL).await?
        || !wait.object(&Kind::new("v1", "ConfigMap"), "fairlead-trust").await?
        || !wait.slice(CONTROL).await?
    {
        return Ok(not_ready(CONTROL, &flags));
    }
    if values.cni.enabled && !wait.daemon_set(CNI).await? {
        return Ok(not_ready(CNI, &flags));
    }
    apply(remote, "webhooks", &rendered.webhooks).await?;
    apply(remote, "east-west gateway", &rendered.gateway).await?;
    prune(remote, values, &rendered).await?;
    for webhook in &rendered.webhooks {
        if !wait.answered(webhook).await? {
            return Ok(not_ready(CONTROL, &flags));
        }
    }
    if wait.is_off() {
        println!("applied; not waited for, nor joined: run it again without --timeout 0s");
        return Ok(ExitCode::SUCCESS);
    }
    // Before others know of it: a gateway that they find silent counts as down until they ask again.
    if values.gateway.enabled && !wait.deployment(EAST_WEST).await? {
        return Ok(not_ready(EAST_WEST, &flags));
    }
    sides.member().await?;
    next(values, &flags);
    Ok(ExitCode::SUCCESS)
}

/// `fairlead join --primary`: a new credential, and membership if there is none.
pub async fn join(at: &ClusterArgs, given: &PrimaryArgs) -> anyhow::Result<ExitCode> {
    let remote = Cluster::open(at).await?;
    let Some(values) = stored(&remote, DEFAULT_REVISION).await? else {
        bail!(
            "cluster {}: nothing is installed; fairlead install{} --cluster NAME --primary CONTEXT",
            remote.name,
            at.flags()
        );
    };
    if values.remote.is_none() {
        bail!(
            "{} has a control plane of its own; to join it to a mesh: fairlead join{} TOKEN",
            values.cluster,
            at.flags()
        );
    }
    let sides = sides(&remote, &values, at, given).await?;
    // Of an account that somebody deleted, too.
    apply(&remote, "remote", &render(&values)?.control).await?;
    sides.credential().await?;
    sides.used().await?;
    sides.member().await?;
    Ok(ExitCode::SUCCESS)
}

impl Sides<'_> {
    /// Makes a token in the remote and gives it to the primary.
    async fn credential(&self) -> anyhow::Result<()> {
        let remote = self.values.remote.clone().unwrap_or_default();
        let spec = TokenRequestSpec {
            expiration_seconds: Some(i64::from(remote.token_seconds)),
            ..TokenRequestSpec::default()
        };
        let wanted = TokenRequest { spec, ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.remote.client.clone(), NAMESPACE);
        let made = accounts.create_token_request(ACCOUNT, &PostParams::default(), &wanted).await;
        let made =
            made.map_err(|e| self.remote.error(&e, "create a token of", &format!("ServiceAccount {ACCOUNT}")))?;
        let token = made.status.context("the API server answered without a token")?.token;
        let authority = match &self.way.authority {
            Some(pem) => pem.clone(),
            None => self.published_authority().await?,
        };
        let object = secret(self.values, &self.way.server, self.way.tls_name.as_deref(), &authority, &token);
        self.primary.apply(&object).await?;
        println!(
            "credential: a token of {NAMESPACE}/{ACCOUNT}, good for {} s, is in the primary",
            remote.token_seconds
        );
        Ok(())
    }

    /// The CA that the cluster tells its pods of.
    async fn published_authority(&self) -> anyhow::Result<String> {
        let name = "kube-root-ca.crt";
        let found = self.remote.get(&Kind::new("v1", "ConfigMap"), Some("default"), name).await?;
        let text = found.and_then(|found| found["data"]["ca.crt"].as_str().map(str::to_owned));
        text.with_context(|| format!("neither the kubeconfig nor ConfigMap default/{name} has the API server's CA"))
    }

    /// Waits until the control plane reads the remote.
    async fn used(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let diagnostics: Vec<Value> = serde_json::from_slice(&self.ask("get diagnostics -o json").await?.output)?;
            let Some(told) = diagnostics.iter().find(|d| d["code"] == REMOTE_CREDENTIAL) else {
                println!("the control plane in the primary uses it");
                return Ok(());
            };
            if started.elapsed() > USED {
                bail!("after {} s: {}", USED.as_secs(), told["message"].as_str().unwrap_or_default());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Joins the remote's control plane to the primary's mesh, unless it is in.
    async fn member(&self) -> anyhow::Result<()> {
        let primary = self.values.remote.clone().unwrap_or_default().primary;
        let peers: Vec<Value> = serde_json::from_slice(&self.ask("get peers -o json").await?.output)?;
        if peers.iter().any(|peer| peer["cluster"] == primary.as_str()) {
            println!("{} is a member of {primary}'s mesh already", self.values.cluster);
            return Ok(());
        }
        let own = Cluster { control: NAMESPACE.to_owned(), ..self.primary.clone() };
        let token = said(&own, "token create", "").await?;
        let joined = said(&self.primary, "join -", &String::from_utf8_lossy(&token.output)).await?;
        print!("{}", String::from_utf8_lossy(&joined.output));
        Ok(())
    }

    async fn ask(&self, words: &str) -> anyhow::Result<Answer> {
        said(&self.primary, words, "").await
    }
}

/// What a control plane says to a command that must succeed.
async fn said(cluster: &Cluster, words: &str, input: &str) -> anyhow::Result<Answer> {
    let pod = control_pods(cluster).await?.into_iter().next().context("no control plane is ready")?;
    let all: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let said = answer(cluster, &pod, &all, input).await?;
    if said.code != 0 {
        bail!("{words}, in pod {}/{pod}: {}", cluster.control, String::from_utf8_lossy(&said.errors).trim());
    }
    Ok(said)
}
