//! Certificates for the mutual TLS cell: one root, the proxies' certificate, the generator's.
//!
//! The same for both proxies: P-256, TLS 1.3, AES-128-GCM, X25519. Invariant: keys are made anew for every run and deleted
//! with its folder.

use super::connection::SERVER_NAME;
use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

pub const TRUST_DOMAIN: &str = "bench.mesh";

/// Files in the folder.
pub const ROOT: &str = "root.pem";
pub const PROXY: &str = "proxy.pem";
pub const PROXY_KEY: &str = "proxy-key.pem";
const CLIENT: &str = "client.pem";
const CLIENT_KEY: &str = "client-key.pem";

/// Writes them all.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let mut root = CertificateParams::new(Vec::new())?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    root.subject_alt_names = vec![SanType::URI(format!("spiffe://{TRUST_DOMAIN}").try_into()?)];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
    std::fs::write(folder.join(ROOT), root.pem())?;
    for (account, chain, key) in [("proxy", PROXY, PROXY_KEY), ("client", CLIENT, CLIENT_KEY)] {
        let mut leaf = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/bench/sa/{account}");
        leaf.subject_alt_names.push(SanType::URI(id.try_into()?));
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.not_before = rcgen::date_time_ymd(2024, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2124, 1, 1);
        let pair = KeyPair::generate()?;
        std::fs::write(folder.join(chain), leaf.signed_by(&pair, &root)?.pem())?;
        std::fs::write(folder.join(key), pair.serialize_pem())?;
    }
    Ok(())
}

/// What the generator presents and accepts.
pub fn client_config(folder: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let read = |name: &str| CertificateDer::from_pem_file(folder.join(name)).with_context(|| name.to_owned());
    let mut roots = RootCertStore::empty();
    roots.add(read(ROOT)?)?;
    let key = PrivateKeyDer::from_pem_file(folder.join(CLIENT_KEY)).context(CLIENT_KEY)?;
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![read(CLIENT)?], key)?;
    Ok(Arc::new(config))
}
