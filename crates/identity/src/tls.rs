//! rustls configurations of the mesh: TLS 1.3, SPIFFE verification in both directions, tickets bound to the trust.
//!
//! [`MeshTls`] is what one identity presents and believes. It opens no connection. Configurations live as long as the identity
//! does: certificates and trust are swapped beneath them, so that no rotation rebuilds a listener or drops a connection.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};

use crate::certificate::{CertificateFacts, SpkiHash};
use crate::credentials::CertHandle;
use crate::provider::{self, MESH_VERSIONS};
use crate::sessions::ClientSessions;
use crate::spiffe::SpiffeId;
use crate::tickets::EpochTicketer;
use crate::trust::TrustSource;
use crate::verifier::{Expected, PeerVerifier};

/// Client configurations kept at once; each is a few hundred bytes beside its tickets.
const MAX_CLIENT_CONFIGS: usize = 4096;

/// Does a server ask its clients who they are?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client without a certificate is refused in the handshake.
    Required,
    /// A client may come without one, as nobody; one it presents is judged.
    Optional,
    /// None is asked for.
    None,
}

/// What one identity presents, whom it believes, and the clock it judges by.
#[derive(Clone)]
pub struct MeshTls {
    credentials: CertHandle,
    trust: TrustSource,
    clock: Arc<dyn TimeProvider>,
    clients: Arc<Mutex<HashMap<ClientKey, Arc<ClientConfig>>>>,
}

/// rustls refused the configuration.
#[derive(Debug, Clone, thiserror::Error)]
#[error("TLS configuration: {0}")]
pub struct TlsError(#[from] rustls::Error);

#[derive(PartialEq, Eq, Hash)]
struct ClientKey {
    destination: Option<Arc<BTreeSet<SpiffeId>>>,
    alpn: Vec<Vec<u8>>,
}

impl MeshTls {
    /// Nothing is read from `credentials` or `trust` until a handshake needs it.
    #[must_use]
    pub fn new(credentials: CertHandle, trust: TrustSource, clock: Arc<dyn TimeProvider>) -> Self {
        Self { credentials, trust, clock, clients: Arc::default() }
    }

    /// What is presented.
    #[must_use]
    pub fn credentials(&self) -> &CertHandle {
        &self.credentials
    }

    /// Whom it believes.
    #[must_use]
    pub fn trust(&self) -> &TrustSource {
        &self.trust
    }

    /// A verifier over this trust, to judge the chain of a resumed session or a live connection.
    #[must_use]
    pub fn verifier(&self, expected: Expected) -> PeerVerifier {
        PeerVerifier::new(Arc::clone(&self.trust), expected)
    }

    /// The configuration to call `expected`. The same value is given for the same set and ALPN list, which is what makes
    /// resumption work: rustls resumes only within one configuration. Sessions are thereby bound to (this identity, the
    /// destination identities, the bundle epoch). A set given by a function is built anew each time.
    ///
    /// # Errors
    /// [`TlsError`], in practice never.
    pub fn client_config(&self, expected: &Expected, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        let destination = match expected {
            Expected::Any => None,
            Expected::OneOf(ids) => Some(Arc::clone(ids)),
            Expected::Matching { .. } => return self.build_client(expected, alpn),
        };
        let key = ClientKey { destination, alpn: alpn.iter().map(|name| name.to_vec()).collect() };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&key) {
            return Ok(Arc::clone(known));
        }
        let config = self.build_client(expected, alpn)?;
        if clients.len() >= MAX_CLIENT_CONFIGS {
            // Losing them costs a full handshake each, nothing else.
            clients.clear();
        }
        clients.insert(key, Arc::clone(&config));
        Ok(config)
    }

    /// The configuration to be called. `expected` bounds who may connect at all; most servers take [`Expected::Any`] and
    /// authorise by identity later.
    ///
    /// # Errors
    /// [`TlsError`], in practice never.
    pub fn server_config(
        &self,
        client_auth: ClientAuth,
        expected: Expected,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, TlsError> {
        server_config(&self.credentials, &self.trust, &self.clock, client_auth, expected, alpn)
    }

    fn build_client(&self, expected: &Expected, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        client_config(Some(&self.credentials), self.verifier(expected.clone()), &self.clock, alpn)
    }
}

/// A client configuration of its own. Without credentials it calls as nobody.
///
/// # Errors
/// [`TlsError`], in practice never.
pub fn client_config(
    credentials: Option<&CertHandle>,
    verifier: PeerVerifier,
    clock: &Arc<dyn TimeProvider>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let sessions = Arc::new(ClientSessions::new(Arc::clone(verifier.trust()), credentials.cloned(), Arc::clone(clock)));
    let builder = ClientConfig::builder_with_details(provider::provider(), Arc::clone(clock))
        .with_protocol_versions(MESH_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RememberingVerifier { verifier, sessions: Arc::clone(&sessions) }));
    let mut config = match credentials {
        Some(handle) => builder.with_client_cert_resolver(handle.client_resolver()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::store(sessions);
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// A server configuration of its own.
///
/// # Errors
/// [`TlsError`], in practice never.
pub fn server_config(
    credentials: &CertHandle,
    trust: &TrustSource,
    clock: &Arc<dyn TimeProvider>,
    client_auth: ClientAuth,
    expected: Expected,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = PeerVerifier::new(Arc::clone(trust), expected);
    let builder = ServerConfig::builder_with_details(provider::provider(), Arc::clone(clock))
        .with_protocol_versions(MESH_VERSIONS)?;
    let builder = match client_auth {
        ClientAuth::Required => builder.with_client_cert_verifier(Arc::new(verifier)),
        ClientAuth::Optional => builder.with_client_cert_verifier(Arc::new(verifier.optional())),
        ClientAuth::None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(credentials.server_resolver());
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(EpochTicketer::new(Arc::clone(trust)));
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The configuration a joining control plane dials with: it knows nothing of the other mesh but the key of one root, from
/// the token. It presents nothing, resumes nothing, and accepts only a control plane whose chain, as sent, contains that root.
///
/// # Errors
/// [`TlsError`], in practice never.
pub fn joining_config(
    root: SpkiHash,
    clock: &Arc<dyn TimeProvider>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_details(provider::provider(), Arc::clone(clock))
        .with_protocol_versions(MESH_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedRoot { root }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Tells the session store how long the certificate behind a ticket lives.
#[derive(Debug)]
struct RememberingVerifier {
    verifier: PeerVerifier,
    sessions: Arc<ClientSessions>,
}

impl ServerCertVerifier for RememberingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if let Ok(facts) = CertificateFacts::parse(end_entity) {
            self.sessions.verified(server_name, facts.not_after);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(&self.verifier, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(&self.verifier, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&self.verifier)
    }
}

/// Verifies against the one certificate in the peer's own chain whose key is pinned.
#[derive(Debug)]
struct PinnedRoot {
    root: SpkiHash,
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        crate::join::judge_pinned(end_entity, intermediates, self.root, now)?;
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

impl fmt::Debug for MeshTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshTls").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}
