//! The one crypto provider of the mesh: rustls on aws-lc, with the post-quantum hybrid first.
//!
//! Every TLS configuration of this project names this provider explicitly; with a second provider compiled in, rustls' implicit
//! choice would panic. TLS 1.3 only.

use std::sync::{Arc, OnceLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};

/// Versions spoken inside the mesh.
pub static MESH_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The provider: X25519MLKEM768, then X25519 and P-256 (stock Envoy); AES-128-GCM first (the cheapest with AES-NI).
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
            ..default_provider()
        })
    }))
}

/// Makes aws-lc the process's default for libraries that ask rustls for it (tonic). Call once at start; a provider that
/// is already installed stays.
pub fn install_process_default() {
    // An error means that one is installed already, which is what was wanted.
    let _ = default_provider().install_default();
}

/// Signature algorithms accepted in chains and handshakes.
pub(crate) fn verification_algorithms() -> WebPkiSupportedAlgorithms {
    static ALGORITHMS: OnceLock<WebPkiSupportedAlgorithms> = OnceLock::new();
    *ALGORITHMS.get_or_init(|| provider().signature_verification_algorithms)
}
