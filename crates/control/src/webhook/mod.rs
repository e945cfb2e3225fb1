//! Admission webhooks: `/inject` puts proxies into pods, `/validate` refuses what `analyze` calls an error.
//!
//! An own listener with an own certificate, of the cluster's CA, for the name of our Service; the API server believes it by the
//! `caBundle` that this module keeps in our webhook configurations. Never in the way of the control plane: it needs none of its
//! state and answers before the first object is read. Invariants: a review is answered or its connection ends, within a bound of size and
//! time; a certificate that is renewed ends no connection.

mod admission;
mod budget;
mod ca_bundle;
mod certificate;
mod injection;
mod listener;
mod profile;
mod server;
#[cfg(test)]
mod tests;
mod validation;

pub use certificate::Serving;

use crate::authority::Authority;
use crate::event::Event;
use crate::kubernetes::Kubernetes;
use injection::Injector;
use profile::CurrentProfile;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use validation::Validator;

/// Starts the webhooks on a listener that is open already. `settings` is the injector's file; without one its defaults hold.
/// `kubernetes` is where the configurations are; without it nobody keeps their `caBundle`.
///
/// # Errors
/// When no certificate can be made.
pub fn start(
    listener: TcpListener,
    settings: Option<PathBuf>,
    authority: &Arc<Authority>,
    kubernetes: Option<&Kubernetes>,
    owner: &mpsc::UnboundedSender<Event>,
    vital: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let cluster = authority.ca().cluster().to_owned();
    let domain = authority.ca().trust_domain().to_string();
    let injector = Injector::new(settings, &cluster, &domain);
    let (service, namespace) = injector.service();
    let serving = Arc::new(Serving::new(authority.clone(), &service, &namespace)?);
    tracing::info!(address = ?listener.local_addr(), service, namespace, "serving admission webhooks");
    let config = serving.config()?;
    let (validator, profile) = (Validator::new(&cluster), CurrentProfile::new(owner.clone()));
    let webhooks = Arc::new(server::Webhooks { injector, validator, profile });
    vital.spawn(server::serve(listener, config, webhooks, server::Limits::default()));
    vital.spawn(serving.clone().follow());
    if let Some(kubernetes) = kubernetes {
        let bundle = serving.ca_bundle();
        vital.spawn(ca_bundle::keep(kubernetes.client.clone(), ca_bundle::Ours { service, namespace, bundle }));
    }
    Ok(())
}
