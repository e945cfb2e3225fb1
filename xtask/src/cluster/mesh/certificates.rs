//! Certificates for callers that make TLS themselves, as `client.certificate` of a call table writes them.
//!
//! Signed by the CA that a cluster keeps in its Secret, or by nobody's. Must never be used for anything but the calls of tables.

use super::Mesh;
use super::manifests::SYSTEM;
use crate::cluster::bed::write;
use crate::cluster::command::output;
use crate::cluster::enter;
use anyhow::{Context as _, bail};
use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Chain and key, as files that programs of any user can read.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A certificate that says who `identity` is, by the CA of a cluster.
pub fn mint(mesh: &Mesh<'_>, cluster: u8, identity: &str, kind: &str) -> anyhow::Result<Files> {
    let foreign = kind == "foreign-root";
    let (issuer, chain) = if foreign { nobody()? } else { authority(mesh, cluster)? };
    let now = SystemTime::now();
    let (from, until) = match kind {
        "expired" => (now - Duration::from_secs(7200), now - Duration::from_secs(3600)),
        "mesh" | "foreign-root" => (now - Duration::from_secs(300), now + Duration::from_secs(3600)),
        other => bail!("client.certificate {other}: not made for pods"),
    };
    let mut params = CertificateParams::default();
    params.subject_alt_names.push(SanType::URI(identity.try_into().context("an identity")?));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (from.into(), until.into());
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    let file = |end: &str| mesh.bed.state.join(format!("caller-{kind}.{end}"));
    write(&file("crt"), format!("{certificate}{chain}"))?;
    write(&file("key"), key.serialize_pem())?;
    Ok(Files { certificate: file("crt"), key: file("key") })
}

/// The CA that a cluster's control plane signs with, and what leads from it to the root.
fn authority(mesh: &Mesh<'_>, cluster: u8) -> anyhow::Result<(Issuer<'static, KeyPair>, String)> {
    let words = ["get", "secret", "fairlead-ca", "-n", SYSTEM, "-o", "json"];
    let secret: Value = serde_json::from_str(&output(enter::kubectl(mesh.bed, cluster)?.args(words))?)?;
    let part = |name: &str| -> anyhow::Result<String> {
        let text = secret["data"][name].as_str().with_context(|| format!("Secret fairlead-ca has no {name}"))?;
        Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text)?)?)
    };
    let key = KeyPair::from_pem(&part("ca-key.pem")?)?;
    let own = part("ca-cert.pem")?;
    let issuer = Issuer::from_ca_cert_pem(&own, key)?;
    // A root is not sent; what it signed is.
    let chain = if own.trim() == part("root-cert.pem")?.trim() { String::new() } else { own };
    Ok((issuer, chain))
}

fn nobody() -> anyhow::Result<(Issuer<'static, KeyPair>, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "nobody knows it");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok((Issuer::new(params, key), String::new()))
}
