//! Reading signing requests of strangers.
//!
//! Of a request only the public key is used, and only after the request's signature proved that the requester holds the private
//! key. Names and extensions in it are never looked at: identity comes from the authenticated channel.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::ca::CaError;

const MAX_CSR_BYTES: usize = 16 * 1024;
/// Smallest RSA key accepted, in bits.
pub(crate) const MIN_RSA_BITS: usize = 2048;

/// The public key of a signing request whose signature holds.
pub(crate) fn request_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    if csr_der.len() > MAX_CSR_BYTES {
        return Err(CaError::Request(format!("{} bytes, more than {MAX_CSR_BYTES}", csr_der.len())));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(csr_der).map_err(|error| CaError::Request(error.to_string()))?;
    if !rest.is_empty() {
        return Err(CaError::Request("bytes after its end".to_owned()));
    }
    request.verify_signature().map_err(|_| CaError::RequestSignature)?;
    let spki = &request.certification_request_info.subject_pki;
    if let Ok(x509_parser::public_key::PublicKey::RSA(rsa)) = spki.parsed()
        && rsa.key_size() < MIN_RSA_BITS
    {
        return Err(CaError::KeyType(format!("RSA of {} bits", rsa.key_size())));
    }
    SubjectPublicKeyInfo::from_der(spki.raw).map_err(|error| CaError::KeyType(error.to_string()))
}
