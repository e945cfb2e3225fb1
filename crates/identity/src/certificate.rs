//! Reading certificates: the facts verification and issuing need, and PEM to and from DER.
//!
//! Nothing here decides whether a certificate is believed; it only says what stands in it. Bytes come from strangers:
//! every function returns an error for bytes it does not understand and never panics.

use std::fmt;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

/// Largest single certificate accepted, in bytes; ours are about 600.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Most certificates read from one PEM text.
pub const MAX_PEM_CERTIFICATES: usize = 64;
/// Attribute `userId` (RFC 4519 §2.39), which carries the workload a leaf was issued to.
pub(crate) const OID_USER_ID: [u64; 7] = [0, 9, 2342, 19_200_300, 100, 1, 1];
/// Attribute `serialNumber` (RFC 4519 §2.31), of a thing and not of a certificate: the uid of the pod a leaf was issued to.
pub(crate) const OID_SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// SHA-256 over a certificate's SubjectPublicKeyInfo in DER: what pins a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpkiHash([u8; 32]);

/// What one certificate says.
#[derive(Debug, Clone)]
pub struct CertificateFacts {
    pub uri_sans: Vec<String>,
    pub is_ca: bool,
    pub may_sign_certificates: bool,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    pub spki: SpkiHash,
    pub spki_der: Vec<u8>,
    pub self_issued: bool,
    /// The workload key a Fairlead CA wrote into the subject.
    pub workload: Option<String>,
    /// The uid of the pod a Fairlead CA wrote into the subject.
    pub pod_uid: Option<String>,
}

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a readable {what}: {detail}")]
pub struct DecodeError {
    pub what: &'static str,
    pub detail: String,
}

impl SpkiHash {
    /// Hashes a SubjectPublicKeyInfo (with its outer SEQUENCE).
    #[must_use]
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(Sha256::digest(spki_der).into())
    }

    /// Hashes the key of a certificate.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a certificate.
    pub fn of_certificate(der: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::of_spki(parse(der)?.tbs_certificate.subject_pki.raw))
    }

    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, DecodeError> {
        unhex::<32>(text)
            .map(Self)
            .ok_or_else(|| DecodeError { what: "key fingerprint", detail: "64 hexadecimal digits expected".to_owned() })
    }
}

impl CertificateFacts {
    /// Reads one DER certificate.
    ///
    /// # Errors
    /// [`DecodeError`] for oversized, malformed or trailing bytes.
    pub fn parse(der: &[u8]) -> Result<Self, DecodeError> {
        let certificate = parse(der)?;
        let tbs = &certificate.tbs_certificate;
        let mut uri_sans = Vec::new();
        if let Some(names) = certificate.subject_alternative_name().map_err(malformed)? {
            for name in &names.value.general_names {
                match name {
                    GeneralName::URI(uri) => uri_sans.push((*uri).to_owned()),
                    // A name that cannot be read might be a second identity.
                    GeneralName::Invalid(tag, _) => {
                        return Err(malformed(format!("alternative name [{}] cannot be read", tag.0)));
                    }
                    _ => {}
                }
            }
        }
        let is_ca = certificate.basic_constraints().map_err(malformed)?.is_some_and(|constraints| constraints.value.ca);
        let may_sign_certificates = certificate
            .key_usage()
            .map_err(malformed)?
            .is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
        let attribute = |oid: &[u64]| {
            let is_it = |attribute: &&AttributeTypeAndValue<'_>| {
                let arcs = attribute.attr_type().iter();
                arcs.is_some_and(|mut arcs| oid.iter().all(|arc| arcs.next() == Some(*arc)) && arcs.next().is_none())
            };
            let mut found = tbs.subject.iter_attributes().filter(is_it);
            found.next().and_then(|attribute| attribute.as_str().ok()).map(str::to_owned)
        };
        Ok(Self {
            uri_sans,
            is_ca,
            may_sign_certificates,
            not_before: unix_time(tbs.validity.not_before.timestamp()),
            not_after: unix_time(tbs.validity.not_after.timestamp()),
            spki: SpkiHash::of_spki(tbs.subject_pki.raw),
            spki_der: tbs.subject_pki.raw.to_vec(),
            self_issued: tbs.subject.as_raw() == tbs.issuer.as_raw(),
            workload: attribute(&OID_USER_ID),
            pod_uid: attribute(&OID_SERIAL_NUMBER),
        })
    }
}

/// Reads every certificate of a PEM text; other blocks are passed over.
///
/// # Errors
/// [`DecodeError`] when there is none, too many, or one that is no certificate.
pub fn certificates_from_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, DecodeError> {
    let mut out = Vec::new();
    for item in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let der = item.map_err(|error| DecodeError { what: "PEM certificate", detail: error.to_string() })?;
        parse(&der)?;
        if out.len() == MAX_PEM_CERTIFICATES {
            return Err(DecodeError {
                what: "PEM certificate list",
                detail: format!("more than {MAX_PEM_CERTIFICATES} certificates"),
            });
        }
        out.push(der);
    }
    if out.is_empty() {
        return Err(DecodeError { what: "PEM certificate list", detail: "it holds no CERTIFICATE block".to_owned() });
    }
    Ok(out)
}

/// Writes certificates as PEM, in order.
#[must_use]
pub fn certificates_to_pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    certificates.into_iter().map(|der| pem_block("CERTIFICATE", der)).collect()
}

/// One PEM block with 64-column lines.
pub(crate) fn pem_block(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

/// Parses a certificate that fills the whole slice.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, DecodeError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(DecodeError {
            what: "certificate",
            detail: format!("{} bytes, more than {MAX_CERTIFICATE_BYTES}", der.len()),
        });
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(malformed)?;
    if !rest.is_empty() {
        return Err(DecodeError { what: "certificate", detail: "bytes after its end".to_owned() });
    }
    Ok(certificate)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Exactly `N` bytes from hexadecimal digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut out = [0_u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(out)
}

fn malformed(error: impl fmt::Display) -> DecodeError {
    DecodeError { what: "certificate", detail: error.to_string() }
}

/// Times before 1970 count as 1970: nothing we accept was issued then.
fn unix_time(seconds: i64) -> UnixTime {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

impl fmt::Display for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SpkiHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SpkiHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for SpkiHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).map_err(serde::de::Error::custom)
    }
}
