//! Certificates for being called by name rather than by identity: what an API server asks of a webhook.
//!
//! Such a certificate has DNS names and no SPIFFE ID, so that nobody in the mesh takes its holder for anyone; no client certificate is
//! asked for. Never for a listener that authorises. Invariant: certificates are swapped beneath the configuration, which lives on.

use std::sync::Arc;
use std::time::Duration;

use rcgen::SanType;
use rcgen::string::Ia5String;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::ca::{BACKDATE, Ca, CaError, MAX_LIFETIME, MIN_LIFETIME};
use crate::credentials::CertHandle;
use crate::instant::{earlier, later};
use crate::provider::{self, MESH_VERSIONS};
use crate::random::RandomSource;
use crate::signing_request::request_key;
use crate::template::{Workload, leaf_params, signing};
use crate::tls::TlsError;

impl Ca {
    /// Issues a certificate for DNS names. Returns the chain to present, leaf first, without the root.
    ///
    /// # Errors
    /// [`CaError`] naming what is wrong.
    pub fn issue_serving(
        &self,
        csr_der: &[u8],
        names: &[&str],
        lifetime: Duration,
        now: UnixTime,
        random: &mut dyn RandomSource,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        if self.not_after() <= now {
            return Err(CaError::CaExpired {
                cluster: self.cluster().to_owned(),
                not_after: self.not_after().as_secs(),
                now: now.as_secs(),
            });
        }
        let public_key = request_key(csr_der)?;
        let not_after = later(now, lifetime.clamp(MIN_LIFETIME, MAX_LIFETIME)).min(self.not_after());
        let mut params = leaf_params(None, Workload::default(), earlier(now, BACKDATE), not_after, random)?;
        let names = names.iter().map(|name| Ia5String::try_from(*name).map(SanType::DnsName).map_err(signing));
        params.subject_alt_names = names.collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params, &public_key)
    }
}

/// A configuration that presents whatever `certificate` holds, and asks its clients for nothing.
///
/// # Errors
/// [`TlsError`], in practice never.
pub fn serving_config(certificate: &CertHandle, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider::provider()).with_protocol_versions(MESH_VERSIONS)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate.server_resolver());
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}
