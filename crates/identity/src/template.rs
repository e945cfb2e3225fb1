//! What stands in the certificates we sign: templates for leaves and CAs.
//!
//! Leaves are X.509-SVIDs: one URI name, CA=false, digitalSignature, client and server purposes. A template decides nothing
//! about who may have it.

use std::fmt;
use std::time::Duration;

use rcgen::string::{Ia5String, PrintableString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::ca::{BACKDATE, CaError, MAX_POD_UID_BYTES, MAX_WORKLOAD_BYTES, ROOT_LIFETIME};
use crate::certificate::{self, OID_SERIAL_NUMBER, OID_USER_ID};
use crate::instant::{earlier, later};
use crate::random::{self, RandomSource};
use crate::spiffe::TrustDomain;

/// The workload a leaf is for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Workload<'a> {
    pub key: Option<&'a str>,
    pub pod_uid: Option<&'a str>,
}

/// Parameters of a leaf; `uri` None only for a certificate that is to be refused (see [`crate::mint`]).
pub(crate) fn leaf_params(
    uri: Option<&str>,
    workload: Workload<'_>,
    not_before: UnixTime,
    not_after: UnixTime,
    random: &mut dyn RandomSource,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if let Some(workload) = workload.key {
        if workload.len() > MAX_WORKLOAD_BYTES {
            return Err(CaError::WorkloadTooLong(workload.len()));
        }
        subject.push(DnType::CustomDnType(OID_USER_ID.to_vec()), workload);
    }
    if let Some(uid) = workload.pod_uid {
        // Any subject is accepted of a mesh peer, by Envoy and Istio too: it is known by its URI name alone.
        let is_uid = (1..=MAX_POD_UID_BYTES).contains(&uid.len())
            && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let uid = PrintableString::try_from(uid).ok().filter(|_| is_uid).ok_or(CaError::PodUid(uid.len()))?;
        subject.push(DnType::CustomDnType(OID_SERIAL_NUMBER.to_vec()), DnValue::PrintableString(uid));
    }
    params.distinguished_name = subject;
    if let Some(uri) = uri {
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri).map_err(signing)?)];
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial(random)?);
    set_validity(&mut params, not_before, not_after);
    Ok(params)
}

pub(crate) fn generate_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(signing)
}

pub(crate) fn self_signed(
    trust_domain: &TrustDomain,
    what: &str,
    path_length: u8,
    now: UnixTime,
    random: &mut dyn RandomSource,
) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>, UnixTime), CaError> {
    let key = generate_key()?;
    let not_after = later(now, ROOT_LIFETIME);
    let params = ca_params(trust_domain, what, path_length, earlier(now, BACKDATE), not_after, random)?;
    let certificate = params.self_signed(&key).map_err(signing)?.der().clone();
    let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(signing)?;
    Ok((issuer, certificate, not_after))
}

pub(crate) fn ca_params(
    trust_domain: &TrustDomain,
    what: &str,
    path_length: u8,
    not_before: UnixTime,
    not_after: UnixTime,
    random: &mut dyn RandomSource,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    let tag = certificate::hex(&random::bytes::<4>(random)?);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, trust_domain.as_str());
    // The tag keeps the subjects of successive roots apart, which keeps path building short.
    subject.push(DnType::CommonName, format!("fairlead {what} {tag}"));
    params.distinguished_name = subject;
    // X.509-SVID §3.1: a signing certificate names its trust domain.
    let id = trust_domain.id();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.as_str()).map_err(signing)?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial(random)?);
    set_validity(&mut params, not_before, not_after);
    Ok(params)
}

/// 127 random bits, positive and never zero in its first byte (RFC 5280 §4.1.2.2).
fn serial(random: &mut dyn RandomSource) -> Result<SerialNumber, CaError> {
    let mut bytes = random::bytes::<16>(random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(params: &mut CertificateParams, not_before: UnixTime, not_after: UnixTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before.as_secs());
    params.not_after = epoch + Duration::from_secs(not_after.as_secs());
}

pub(crate) fn signing(error: impl fmt::Display) -> CaError {
    CaError::Signing(error.to_string())
}
