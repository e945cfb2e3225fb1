//! The webhooks' certificate: for the DNS names of our Service, issued by the cluster's CA, kept in memory only.
//!
//! Invariant: it is renewed at half of its life without a new listener; a connection that stands is not touched.

use crate::authority::{Authority, now};
use anyhow::Context as _;
use fairlead_identity::certificate::certificates_to_pem;
use fairlead_identity::serving::serving_config;
use fairlead_identity::{CertHandle, SystemRandom, WorkloadKey};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::ServerConfig;

/// Life of a certificate.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// After a renewal that failed.
const AGAIN: Duration = Duration::from_secs(60);

/// What the webhooks present.
pub struct Serving {
    authority: Arc<Authority>,
    names: Vec<String>,
    certificate: CertHandle,
}

impl Serving {
    /// With a certificate for a Service.
    ///
    /// # Errors
    /// When the CA issues none.
    pub fn new(authority: Arc<Authority>, service: &str, namespace: &str) -> anyhow::Result<Self> {
        // The API server asks by the first; people by the others.
        let names = ["", ".cluster.local"].map(|domain| format!("{service}.{namespace}.svc{domain}")).to_vec();
        let certificate = CertHandle::new(issue(&authority, &names)?);
        Ok(Self { authority, names, certificate })
    }

    /// A configuration that presents whatever certificate is the newest.
    ///
    /// # Errors
    /// In practice never.
    pub fn config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        Ok(serving_config(&self.certificate, &[b"http/1.1"])?)
    }

    /// The roots by which it is believed, as PEM.
    pub fn ca_bundle(&self) -> String {
        certificates_to_pem(self.authority.ca().bundle().roots())
    }

    /// Makes a new key and certificate; new connections see it.
    ///
    /// # Errors
    /// When the CA issues none; the present one stays.
    pub fn renew(&self) -> anyhow::Result<()> {
        self.certificate.swap(issue(&self.authority, &self.names)?);
        Ok(())
    }

    /// Renews for as long as the process lives.
    pub async fn follow(self: Arc<Self>) {
        let mut wait = LIFETIME / 2;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.renew() {
                Ok(()) => LIFETIME / 2,
                Err(error) => {
                    tracing::error!("the webhooks' certificate could not be renewed: {error:#}");
                    AGAIN
                }
            };
        }
    }
}

fn issue(authority: &Authority, names: &[String]) -> anyhow::Result<fairlead_identity::credentials::Credentials> {
    let key = WorkloadKey::generate()?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ca = authority.ca();
    let chain = ca.issue_serving(&key.csr()?, &names, LIFETIME, now(), &mut SystemRandom);
    Ok(key.certified(chain.context("the webhooks' certificate")?)?)
}
