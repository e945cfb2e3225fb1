//! The certificates of one cluster: a CA, the API server's certificate, an administrator's, and the key that signs service account tokens.
//!
//! All components use the administrator's certificate: what is tested is the mesh, not how Kubernetes keeps its own parts apart.

use super::bed::write;
use super::plan::Plan;
use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    RsaKeySize, SanType,
};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Names by which pods and tools call the API server.
const API_SERVER_NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Writes all that is not yet in `folder`.
pub fn make(folder: &Path, plan: Plan, cluster: u8) -> anyhow::Result<()> {
    if folder.join("sa.pub").exists() {
        return Ok(()); // the last file that is written
    }
    fs::create_dir_all(folder)?;
    let (authority, issuer) = authority(&format!("c{cluster}-ca"))?;
    write(&folder.join("ca.crt"), authority)?;
    write(&folder.join("ca.key"), issuer.key().serialize_pem())?;

    let mut server =
        leaf("kube-apiserver", None, &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
    for name in API_SERVER_NAMES.iter().copied().chain([format!("c{cluster}").as_str()]) {
        server.subject_alt_names.push(SanType::DnsName(name.try_into().context("a DNS name")?));
    }
    let own = [plan.api_service(cluster), Ipv4Addr::LOCALHOST.into()];
    for address in plan.node_addresses(cluster).into_iter().chain(own) {
        server.subject_alt_names.push(SanType::IpAddress(address));
    }
    issue(folder, "server", &server, &issuer)?;
    let admin = leaf("admin", Some("system:masters"), &[ExtendedKeyUsagePurpose::ClientAuth]);
    issue(folder, "admin", &admin, &issuer)?;

    // RSA, as kubeadm makes it: what reads tokens must cope with RS256.
    let tokens = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    write(&folder.join("sa.key"), tokens.serialize_pem())?;
    write(&folder.join("sa.pub"), tokens.public_key_pem())
}

/// A self-signed certificate for one address, and its key: for a server beside the clusters.
pub fn self_signed(address: Ipv4Addr) -> anyhow::Result<(String, KeyPair)> {
    let key = KeyPair::generate()?;
    let mut params = leaf("webhook", None, &[ExtendedKeyUsagePurpose::ServerAuth]);
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(address)));
    Ok((params.self_signed(&key)?.pem(), key))
}

fn authority(name: &str) -> anyhow::Result<(String, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key)?.pem();
    Ok((certificate, Issuer::new(params, key)))
}

fn leaf(name: &str, group: Option<&str>, purposes: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = purposes.to_vec();
    params
}

fn issue(
    folder: &Path,
    name: &str,
    params: &CertificateParams,
    issuer: &Issuer<'static, KeyPair>,
) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    write(&folder.join(format!("{name}.crt")), params.signed_by(&key, issuer)?.pem())?;
    write(&folder.join(format!("{name}.key")), key.serialize_pem())
}
