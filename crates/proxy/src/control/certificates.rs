//! The certificate agent: key and signing request in memory, first certificate by token, then by the current certificate.
//!
//! Where the token is a file that is kept fresh, it is shown again if the certificate ended while the control plane was away, and
//! never else. It must never write a key anywhere. Invariant: certificates and trust are swapped beneath the TLS configurations, so a
//! renewal touches no connection.

use super::channel::ControlPlanes;
use super::first_credential::FirstCredential;
use crate::identity::MeshIdentity;
use crate::options::ProxyOptions;
use fairlead_identity::certificate::certificates_from_pem;
use fairlead_identity::credentials::Credentials;
use fairlead_identity::{
    CertHandle, Expected, MeshTls, PeerVerifier, Rotation, RotationPolicy, SpiffeId, Step, SystemRandom,
    TrustBundleSet, WorkloadKey,
};
use fairlead_proto::certificates::{CertificatesClient, SignRequest};
use fairlead_runtime::{Backoff, Published};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::transport::Channel;

/// How often the trust bundles are asked for beside what the control plane pushes: revocation must reach connections in 5 s.
const BUNDLE_PERIOD: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("bootstrap: {field}: {message}")]
    Bootstrap { field: &'static str, message: String },
    #[error("the control plane did not issue a certificate: {0}")]
    Refused(Box<tonic::Status>),
    #[error("the certificate that was issued cannot be used: {0}")]
    Unusable(String),
    #[error("{0}")]
    File(String),
}

/// Obtains and renews.
pub struct CertificateAgent {
    control: SpiffeId,
    identity: MeshIdentity,
    channel: Channel,
    planes: ControlPlanes,
    credential: FirstCredential,
}

impl CertificateAgent {
    /// Obtains the first certificate, trying until the control plane answers; only a useless bootstrap file ends it.
    ///
    /// # Errors
    /// [`CertificateError::Bootstrap`].
    pub async fn bootstrap(planes: ControlPlanes, options: &ProxyOptions) -> Result<Self, CertificateError> {
        let bad = |field, message: String| CertificateError::Bootstrap { field, message };
        let control = SpiffeId::parse(&options.bootstrap.control_identity)
            .map_err(|e| bad("controlIdentity", format!("{e}; write the control plane's SPIFFE ID")))?;
        let credential = FirstCredential::of(options)?;
        let trust = Published::new(TrustBundleSet::empty());
        let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
        let client = CertificatesClient::new(anonymous(&planes, &control, &trust)?);
        let backoff = retry_backoff();
        let mut attempt = 0;
        // One key for all attempts: a token may be good for one signing request, and its answer may get lost.
        let request = Asked::anew()?;
        let credentials = loop {
            match first(&credential, &client, &trust, &request).await {
                Ok((credentials, bundles)) => {
                    trust.publish(bundles);
                    break credentials;
                }
                Err(error) => {
                    tracing::warn!(%error, attempt, "no certificate yet");
                    tokio::time::sleep(backoff.sample(attempt)).await;
                    attempt = attempt.saturating_add(1);
                }
            }
        };
        let tls = MeshTls::new(CertHandle::new(credentials), source(&trust), clock);
        let identity = MeshIdentity::new(tls, trust).map_err(CertificateError::Unusable)?;
        let channel = authenticated(&planes, &identity, &control)?;
        Ok(Self { control, identity, channel, planes, credential })
    }

    pub fn identity(&self) -> &MeshIdentity {
        &self.identity
    }

    /// A channel that presents the current certificate.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Renews for ever, and keeps the trust bundles fresh.
    pub async fn run(self) {
        let client = CertificatesClient::new(self.channel.clone());
        tokio::join!(self.renew(&client), self.follow_bundles(&client));
    }

    async fn renew(&self, client: &CertificatesClient) {
        let mut random = SystemRandom;
        loop {
            let current = self.identity.tls().credentials().load();
            let end = Duration::from_secs(current.not_after().as_secs());
            let Ok(mut rotation) = Rotation::new(RotationPolicy::default(), now(), end, &mut random) else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            loop {
                match rotation.step(now()) {
                    Step::Wait(wait) => {
                        tokio::time::sleep(wait).await;
                        continue;
                    }
                    Step::Renew => {}
                    Step::RenewExpired => tracing::error!("the certificate has expired; peers refuse it"),
                }
                let ended = now() >= rotation.not_after();
                let signed = match Asked::anew() {
                    // Nobody believes the ended certificate any more, the control plane neither.
                    Ok(request) if ended && self.credential.lasts() => self.anew(&request).await,
                    Ok(request) => sign(client, "", &request).await,
                    Err(error) => Err(error),
                };
                match signed {
                    Ok((credentials, bundles)) => {
                        self.identity.tls().credentials().swap(credentials);
                        self.identity.trust(bundles);
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, failures = rotation.failures(), "certificate not renewed");
                        let _ = rotation.failed(now(), &mut random);
                    }
                }
            }
        }
    }

    /// As the first certificate, for the identity that the proxy has.
    async fn anew(&self, request: &Asked) -> Result<(Credentials, TrustBundleSet), CertificateError> {
        let trust = Published::new(TrustBundleSet::empty());
        let client = CertificatesClient::new(anonymous(&self.planes, &self.control, &trust)?);
        let (credentials, bundles) = first(&self.credential, &client, &trust, request).await?;
        let (was, is) = (self.identity.spiffe(), credentials.spiffe_id());
        if is != Some(was) {
            let is = is.map_or("nobody", SpiffeId::as_str);
            return Err(CertificateError::Unusable(format!("it is of {is}, but this proxy is {was}; restart the pod")));
        }
        Ok((credentials, bundles))
    }

    async fn follow_bundles(&self, client: &CertificatesClient) {
        let mut tick = tokio::time::interval(BUNDLE_PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Ok(Ok(reply)) = tokio::time::timeout(CALL_TIMEOUT, client.bundles()).await else { continue };
            match read_bundles(&reply.bundles_json) {
                Ok(bundles) => self.identity.trust(bundles),
                Err(error) => tracing::warn!(%error, "trust bundles not taken"),
            }
        }
    }

    pub fn control_identity(&self) -> &SpiffeId {
        &self.control
    }
}

/// Reads a trust bundle set as the control plane sends it.
pub fn read_bundles(json: &[u8]) -> Result<TrustBundleSet, String> {
    let text = std::str::from_utf8(json).map_err(|e| e.to_string())?;
    TrustBundleSet::from_json(text).map_err(|e| e.to_string())
}

/// A channel of nobody, to a control plane that `trust` believes.
fn anonymous(
    planes: &ControlPlanes,
    control: &SpiffeId,
    trust: &Published<TrustBundleSet>,
) -> Result<Channel, CertificateError> {
    let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
    let verifier = PeerVerifier::new(source(trust), Expected::one(control.clone()));
    let nobody = fairlead_identity::tls::client_config(None, verifier, &clock, &[b"h2"])
        .map_err(|e| CertificateError::Unusable(e.to_string()))?;
    Ok(planes.channel(nobody))
}

/// One attempt by the first credential. `trust` is what `client` believes; it becomes what the credential says now.
async fn first(
    credential: &FirstCredential,
    client: &CertificatesClient,
    trust: &Published<TrustBundleSet>,
    request: &Asked,
) -> Result<(Credentials, TrustBundleSet), CertificateError> {
    let bundles = credential.bundles()?;
    if bundles.epoch() != trust.load().epoch() {
        trust.publish(bundles);
    }
    sign(client, &credential.token()?, request).await
}

fn authenticated(
    planes: &ControlPlanes,
    identity: &MeshIdentity,
    control: &SpiffeId,
) -> Result<Channel, CertificateError> {
    let config = identity
        .tls()
        .client_config(&Expected::one(control.clone()), &[b"h2"])
        .map_err(|e| CertificateError::Unusable(e.to_string()))?;
    Ok(planes.channel(config))
}

/// A key, and the signing request for it.
struct Asked {
    key: WorkloadKey,
    csr: bytes::Bytes,
}

impl Asked {
    fn anew() -> Result<Self, CertificateError> {
        let unusable = |e: &dyn std::fmt::Display| CertificateError::Unusable(e.to_string());
        let key = WorkloadKey::generate().map_err(|e| unusable(&e))?;
        let csr = key.csr().map_err(|e| unusable(&e))?.into();
        Ok(Self { key, csr })
    }
}

async fn sign(
    client: &CertificatesClient,
    credential: &str,
    asked: &Asked,
) -> Result<(Credentials, TrustBundleSet), CertificateError> {
    let unusable = |e: &dyn std::fmt::Display| CertificateError::Unusable(e.to_string());
    let request = SignRequest { csr_der: asked.csr.clone(), credential: credential.to_owned(), lifetime_seconds: 0 };
    let reply = tokio::time::timeout(CALL_TIMEOUT, client.sign(request))
        .await
        .map_err(|_| CertificateError::Refused(Box::new(tonic::Status::deadline_exceeded("no answer in 5 s"))))?
        .map_err(|status| CertificateError::Refused(Box::new(status)))?;
    let chain = certificates_from_pem(&reply.chain_pem.concat()).map_err(|e| unusable(&e))?;
    let credentials = asked.key.certified(chain).map_err(|e| unusable(&e))?;
    let bundles = read_bundles(&reply.bundles_json).map_err(CertificateError::Unusable)?;
    Ok((credentials, bundles))
}

fn source(trust: &Published<TrustBundleSet>) -> fairlead_identity::TrustSource {
    let trust = trust.clone();
    Arc::new(move || trust.load())
}

fn retry_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(5))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
