//! The rustls verifiers of both directions: [`crate::verdict`] plus "is it the peer I meant".
//!
//! A verifier never caches a verdict and reads the trust anew at every handshake, so that a detached cluster is refused from
//! the very next one. rustls does not call it for resumed sessions: whoever accepts those calls [`PeerVerifier::judge`] on the
//! stored chain.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

use crate::provider;
use crate::spiffe::SpiffeId;
use crate::trust::TrustSource;
use crate::verdict::{VerifiedPeer, verdict};
use crate::verify_error::VerifyError;

/// Whom the other side must be.
#[derive(Clone)]
pub enum Expected {
    /// Anyone who is believed: a server, which authorises later by identity.
    Any,
    /// One of these. An empty set accepts nobody.
    OneOf(Arc<BTreeSet<SpiffeId>>),
    /// Whoever the function accepts; the text says whom, for messages.
    Matching { what: Arc<str>, accepts: Arc<dyn Fn(&SpiffeId) -> bool + Send + Sync> },
}

/// Judges peers by the trust that holds at the moment.
#[derive(Clone)]
pub struct PeerVerifier {
    trust: TrustSource,
    expected: Expected,
    client_certificate_required: bool,
}

impl Expected {
    /// Exactly this identity.
    #[must_use]
    pub fn one(id: SpiffeId) -> Self {
        Self::OneOf(Arc::new(BTreeSet::from([id])))
    }

    /// One of these identities.
    #[must_use]
    pub fn one_of(ids: impl IntoIterator<Item = SpiffeId>) -> Self {
        Self::OneOf(Arc::new(ids.into_iter().collect()))
    }

    /// Whoever `accepts` says; `what` describes them in messages, for example "a control plane".
    #[must_use]
    pub fn matching(what: &str, accepts: impl Fn(&SpiffeId) -> bool + Send + Sync + 'static) -> Self {
        Self::Matching { what: what.into(), accepts: Arc::new(accepts) }
    }

    /// Is it one of those expected?
    #[must_use]
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(ids) => ids.contains(id),
            Self::Matching { accepts, .. } => accepts(id),
        }
    }
}

impl PeerVerifier {
    /// A verifier for either direction. As a server's, it requires a client certificate unless
    /// [`PeerVerifier::optional`] is called.
    #[must_use]
    pub fn new(trust: TrustSource, expected: Expected) -> Self {
        Self { trust, expected, client_certificate_required: true }
    }

    /// As a server's verifier: a client without a certificate is let in as nobody; a bad certificate is still refused.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.client_certificate_required = false;
        self
    }

    /// The trust that holds now.
    #[must_use]
    pub fn trust(&self) -> &TrustSource {
        &self.trust
    }

    /// Whom it accepts.
    #[must_use]
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// The verdict on a whole chain, leaf first: at the handshake, for a resumed session's stored chain (`now`), and for a
    /// live connection after the trust changed (`now` = the time of its handshake; see [`verdict`]).
    ///
    /// # Errors
    /// As [`verdict`], and [`VerifyError::UnexpectedIdentity`].
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<VerifiedPeer, VerifyError> {
        let trust = (self.trust)();
        let peer = verdict(chain, &trust, now)?;
        if !self.expected.accepts(&peer.spiffe_id) {
            return Err(VerifyError::UnexpectedIdentity {
                id: peer.spiffe_id,
                expected: format!("{:?}", self.expected),
            });
        }
        Ok(peer)
    }

    fn judge_parts(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedPeer, VerifyError> {
        // One certificate more than the limit is enough to be refused for it.
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
            .chain(intermediates.iter().take(crate::verdict::MAX_CHAIN))
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        self.judge(&chain, now)
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge_parts(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &provider::verification_algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &provider::verification_algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::verification_algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.client_certificate_required
    }

    /// None: the roots of a mesh are many and say more than a stranger should learn.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge_parts(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &provider::verification_algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &provider::verification_algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::verification_algorithms().supported_schemes()
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anyone in the mesh"),
            Self::OneOf(ids) if ids.is_empty() => f.write_str("nobody"),
            Self::OneOf(ids) => {
                for (index, id) in ids.iter().take(4).enumerate() {
                    let separator = if index == 0 { "" } else { " or " };
                    write!(f, "{separator}{id}")?;
                }
                match ids.len().saturating_sub(4) {
                    0 => Ok(()),
                    more => write!(f, " or {more} more"),
                }
            }
            Self::Matching { what, .. } => f.write_str(what),
        }
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier")
            .field("expected", &self.expected)
            .field("client_certificate_required", &self.client_certificate_required)
            .finish_non_exhaustive()
    }
}
