//! TLS of a listener.

use std::collections::HashSet;

use super::check::Check;
use crate::field::FieldPath;
use crate::istio::{ServerTlsMode, ServerTlsSettings};

/// Suites a listener may name (BoringSSL's, without groups in brackets).
const CIPHER_SUITES: [&str; 25] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "PSK-AES128-CBC-SHA",
    "AES256-SHA",
    "PSK-AES256-CBC-SHA",
    "DES-CBC3-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
];

/// Whether nothing but `httpsRedirect` is written, which is what a plaintext server may have.
pub(super) fn is_redirect_only(tls: &ServerTlsSettings) -> bool {
    *tls == ServerTlsSettings { https_redirect: tls.https_redirect, ..ServerTlsSettings::default() }
}

/// Checks the settings.
pub(super) fn check(tls: &ServerTlsSettings, at: &FieldPath, check: &mut Check<'_>) {
    cipher_suites(&tls.cipher_suites, &at.key("cipherSuites"), check);
    match tls.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => passthrough(tls, at, check),
        ServerTlsMode::IstioMutual => istio_mutual(tls, at, check),
        ServerTlsMode::Simple => terminating(tls, false, at, check),
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => terminating(tls, true, at, check),
    }
    if tls.credential_names.len() > 2 {
        check.error(&at.key("credentialNames"), "at most two credentials, one RSA and one ECDSA");
    }
    if tls.tls_certificates.len() > 2 {
        check.error(&at.key("tlsCertificates"), "at most two certificates, one RSA and one ECDSA");
    }
}

fn passthrough(tls: &ServerTlsSettings, at: &FieldPath, check: &mut Check<'_>) {
    let written = !tls.server_certificate.is_empty()
        || !tls.private_key.is_empty()
        || !tls.ca_certificates.is_empty()
        || !tls.ca_crl.is_empty()
        || !tls.credential_name.is_empty()
        || !tls.credential_names.is_empty()
        || !tls.tls_certificates.is_empty();
    if written {
        check.warning(at, format!("mode {} does not use certificates; they are ignored", tls.mode));
    }
}

fn istio_mutual(tls: &ServerTlsSettings, at: &FieldPath, check: &mut Check<'_>) {
    for (field, written) in [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("caCrl", !tls.ca_crl.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ] {
        if written {
            check.error(&at.key(field), format!("{field} must be empty with ISTIO_MUTUAL"));
        }
    }
}

fn terminating(tls: &ServerTlsSettings, mutual: bool, at: &FieldPath, check: &mut Check<'_>) {
    let files = !tls.server_certificate.is_empty() && !tls.private_key.is_empty();
    let sources =
        [!tls.credential_name.is_empty(), !tls.credential_names.is_empty(), files, !tls.tls_certificates.is_empty()];
    if sources.iter().filter(|written| **written).count() > 1 {
        let message = "only one of credentialName, credentialNames, serverCertificate with privateKey, and \
                       tlsCertificates may be set";
        check.error(at, message);
    }
    if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
        return;
    }
    if !mutual && !tls.ca_crl.is_empty() {
        check.error(&at.key("caCrl"), "revocation lists are not supported with SIMPLE");
    }
    if !tls.tls_certificates.is_empty() {
        for (index, pair) in tls.tls_certificates.iter().enumerate() {
            let at = at.key("tlsCertificates").index(index);
            required(&pair.server_certificate, "serverCertificate", tls, &at, check);
            required(&pair.private_key, "privateKey", tls, &at, check);
        }
    } else {
        required(&tls.server_certificate, "serverCertificate", tls, at, check);
        required(&tls.private_key, "privateKey", tls, at, check);
    }
    if mutual && tls.ca_cert_credential_name.is_empty() {
        required(&tls.ca_certificates, "caCertificates", tls, at, check);
    }
}

fn required(value: &str, field: &str, tls: &ServerTlsSettings, at: &FieldPath, check: &mut Check<'_>) {
    if value.is_empty() {
        check.error(&at.key(field), format!("{field} is required with {}", tls.mode));
    }
}

fn cipher_suites(list: &[String], at: &FieldPath, check: &mut Check<'_>) {
    let mut seen = HashSet::new();
    for (index, suite) in list.iter().enumerate() {
        let at = at.index(index);
        if !CIPHER_SUITES.contains(&suite.as_str()) {
            check.warning(&at, format!("cipher suite `{suite}` is unknown and ignored"));
        } else if !seen.insert(suite.as_str()) {
            check.warning(&at, format!("cipher suite `{suite}` is a duplicate and ignored"));
        }
    }
}
