//! What a control plane does at its API server while it runs: state, lease, trust ConfigMaps, status of objects.

use super::Kubernetes;
use super::conditions;
use super::lease::Candidate;
use super::state::State;
use super::trust_maps;
use crate::authority::{Authority, lost_root};
use crate::event::Event;
use crate::status::Status;
use crate::store::{Bucket, Store};
use anyhow::Context as _;
use fairlead_identity::{Ca, CaPem, TrustDomain};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Istio's name for a CA that an operator plugs in.
const CACERTS: &str = "cacerts";
/// Ending takes no longer than this because of the API server.
const END: Duration = Duration::from_secs(2);

/// What is known before the authority is opened.
pub struct Kept {
    state: Arc<State>,
    /// The Secret `cacerts`, if the system namespace has one.
    pub cacerts: Option<CaPem>,
}

/// What runs; [`Duties::end`] leaves things tidy.
pub struct Duties {
    state: Arc<State>,
    ending: watch::Sender<bool>,
    candidate: JoinHandle<()>,
}

impl Kubernetes {
    /// Reads into the store what this cluster's control planes kept. Waits, and says for what, while the CA is not what it must be.
    /// `given`: a CA from a folder, which comes before one in a Secret.
    pub async fn kept(&self, store: &Arc<Store>, status: &Status, given: Option<&CaPem>) -> anyhow::Result<Kept> {
        let secrets: Api<Secret> = Api::namespaced(self.home.client.clone(), &self.home.namespace);
        let state = State::open(secrets.clone(), store.clone(), status).await?;
        let mut told = String::new();
        loop {
            let why = match self.plugged_in(&secrets, store).await {
                Ok(cacerts) => {
                    let (replaceable, namespace) = (state.replaceable(), &self.home.namespace);
                    let used = given.or(cacerts.as_ref());
                    let lost = lost_root(&self.cluster, used, replaceable.as_deref(), namespace, store)?;
                    match lost {
                        None => return Ok(Kept { state, cacerts }),
                        Some(why) => why,
                    }
                }
                Err(e) => format!("{e:#}"),
            };
            if told != why {
                tracing::error!("waiting for this cluster's CA: {why}");
                status.waiting(format!("this cluster's CA: {why}"));
                told = why;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            // What an operator puts back may be in any of the objects.
            if let Err(e) = state.restore(store).await {
                tracing::debug!("the state in the cluster cannot be read: {e:#}");
            }
        }
    }

    /// The CA that is plugged in; while the API server is away, or what it has is none, what it was last.
    async fn plugged_in(&self, secrets: &Api<Secret>, store: &Store) -> anyhow::Result<Option<CaPem>> {
        let last = store.load::<Option<CaPem>>(Bucket::PluggedIn, CACERTS)?;
        let answer = tokio::time::timeout(END, secrets.get_opt(CACERTS)).await;
        let secret = match answer.map_err(|_| "no answer in 2 s".to_owned()).and_then(|a| a.map_err(|e| e.to_string()))
        {
            Ok(secret) => secret,
            Err(e) => match last {
                Some(last) => return Ok(last),
                None => anyhow::bail!("the API server, which may keep a CA that is plugged in, does not say: {e}"),
            },
        };
        let pem = match secret.as_ref().map(plugged_in).transpose() {
            Ok(pem) => pem,
            Err(e) => {
                let namespace = &self.home.namespace;
                let why = format!(
                    "Secret {namespace}/{CACERTS} is no CA: {e:#}; write it with ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem, or \
                     delete it if none is to be plugged in"
                );
                let Some(last @ Some(_)) = last else { anyhow::bail!(why) };
                tracing::error!("{why}; the one of before serves until this pod ends");
                return Ok(last);
            }
        };
        store.save(Bucket::PluggedIn, CACERTS, &pem)?;
        Ok(pem)
    }

    /// Begins what this control plane does at the API server.
    pub fn begin(
        &self,
        kept: Kept,
        authority: &Arc<Authority>,
        events: &mpsc::UnboundedSender<Event>,
        vital: &mut JoinSet<()>,
    ) -> Duties {
        let lease = Api::namespaced(self.home.client.clone(), &self.home.namespace);
        let (candidate, leadership) = Candidate::new(lease, name());
        let (ending, ended) = watch::channel(false);
        let candidate = tokio::spawn(candidate.run(ended));
        let (namespace, cluster) = (self.namespace.clone(), self.cluster.as_str().into());
        let status = conditions::keep(self.client.clone(), namespace, cluster, leadership.clone(), events.clone());
        vital.spawn(status);
        if let Some(hosting) = &self.hosting {
            vital.spawn(hosting.clone().keep(leadership.clone()));
        }
        let events = events.clone();
        let heard = move |buckets| drop(events.send(Event::Stored(buckets)));
        vital.spawn(kept.state.clone().run(leadership.clone(), heard));
        let trusted = authority.clone();
        let trust = move || Ok(trusted.trust().to_json()?);
        vital.spawn(trust_maps::keep(self.client.clone(), leadership.clone(), trust, authority.trust_changes()));
        Duties { state: kept.state, ending, candidate }
    }
}

impl Duties {
    /// Writes what is not written yet, and gives the lease back.
    pub async fn end(self) {
        let last = async {
            self.state.write_all().await;
            self.ending.send_replace(true);
            let _ = self.candidate.await;
        };
        if tokio::time::timeout(END, last).await.is_err() {
            tracing::info!("the API server does not answer; what is not written there is written at the next start");
        }
    }
}

/// Another at each start: a process that was replaced must not take its follower's lease for its own.
fn name() -> String {
    let pod = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "control".into());
    format!("{pod}_{:08x}", fastrand::u32(..))
}

/// The CA in a Secret, if it is one that can issue.
fn plugged_in(secret: &Secret) -> anyhow::Result<CaPem> {
    let [certificate, key, root, chain] = fairlead_identity::cacerts::FILES.map(|file| {
        let bytes =
            secret.data.as_ref().and_then(|data| data.get(file)).with_context(|| format!("it has no {file}"))?;
        String::from_utf8(bytes.0.clone()).with_context(|| format!("{file} is no text"))
    });
    let pem = CaPem::of_files(certificate?, key?, root?, chain?);
    // Which domain it is to issue in is nothing that the files say.
    Ca::from_pem("any", &TrustDomain::new("any.invalid")?, &pem)?;
    Ok(pem)
}
