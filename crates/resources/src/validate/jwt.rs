//! `RequestAuthentication`.

use super::check::Check;
use super::http_action::is_header_name;
use super::{durations, policy_target};
use crate::field::FieldPath;
use crate::guard::DRY_RUN;
use crate::istio::{JwtRule, RequestAuthenticationSpec};
use crate::meta::Meta;

/// Members of a key that are private (RFC 7518 §6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Checks a RequestAuthentication.
pub(super) fn check(spec: &RequestAuthenticationSpec, meta: &Meta, at: &FieldPath, check: &mut Check<'_>) {
    policy_target::check(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, at, check);
    if meta.annotation(DRY_RUN).is_some() {
        let path = FieldPath::root().key("metadata").key("annotations").key(DRY_RUN);
        check.error(&path, "a dry run is not supported for RequestAuthentication");
    }
    for (index, entry) in spec.jwt_rules.iter().enumerate() {
        rule(entry, &at.key("jwtRules").index(index), check);
    }
}

fn rule(rule: &JwtRule, at: &FieldPath, check: &mut Check<'_>) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        check.error(at, "issuer or jwksUri must be set");
    }
    if !rule.jwks_uri.is_empty() {
        if !rule.jwks.is_empty() {
            check.error(&at.key("jwksUri"), "only one of jwks and jwksUri may be set");
        }
        check.problem(&at.key("jwksUri"), uri(&rule.jwks_uri));
    }
    if !rule.jwks.is_empty() {
        keys(&rule.jwks, &at.key("jwks"), check);
    }
    for (field, list) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        for (index, value) in list.iter().enumerate() {
            if value.is_empty() {
                check.error(&at.key(field).index(index), "an empty value is not allowed");
            }
        }
    }
    for (index, header) in rule.from_headers.iter().enumerate() {
        let at = at.key("fromHeaders").index(index).key("name");
        if header.name.is_empty() {
            check.error(&at, "the header's name must be set");
        } else if !is_header_name(&header.name) {
            check.error(&at, format!("`{}` is not a valid header name", header.name));
        }
    }
    for (index, entry) in rule.output_claim_to_headers.iter().enumerate() {
        let at = at.key("outputClaimToHeaders").index(index);
        if entry.header.is_empty() || entry.claim.is_empty() {
            check.error(&at, "header and claim must be set");
        } else if !entry.header.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            check.error(&at.key("header"), format!("`{}` is not a valid header name", entry.header));
        }
    }
    if !rule.output_payload_to_header.is_empty() && !is_header_name(&rule.output_payload_to_header) {
        let message = format!("`{}` is not a valid header name", rule.output_payload_to_header);
        check.error(&at.key("outputPayloadToHeader"), message);
    }
    durations::positive(rule.timeout, &at.key("timeout"), check);
}

/// `http(s)://host[:port]/...`
fn uri(uri: &str) -> Option<String> {
    let Some(rest) = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://")) else {
        return Some(format!("`{uri}` must begin with http:// or https://"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit('@').next().unwrap_or_default();
    let port = match host_port.rsplit_once(']') {
        Some((_, tail)) => tail.strip_prefix(':'),
        None => host_port.split_once(':').map(|(_, port)| port),
    };
    if host_port.is_empty() || host_port.starts_with(':') {
        return Some(format!("`{uri}` has no host"));
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => Some(format!("`{uri}` has an invalid port `{port}`")),
        _ => None,
    }
}

fn keys(text: &str, at: &FieldPath, check: &mut Check<'_>) {
    let set: serde_json::Value = match serde_json::from_str(text) {
        Ok(set) => set,
        Err(error) => {
            check.error(at, format!("jwks is not JSON: {error}"));
            return;
        }
    };
    let Some(keys) = set.get("keys").and_then(|keys| keys.as_array()) else {
        check.error(at, "jwks has no list `keys`");
        return;
    };
    for (index, key) in keys.iter().enumerate() {
        if !key.get("kty").is_some_and(serde_json::Value::is_string) {
            check.error(at, format!("key {index} of jwks has no `kty`"));
        }
        if PRIVATE_MEMBERS.iter().any(|member| key.get(member).is_some()) {
            check.warning(at, format!("key {index} of jwks has private members; only public keys are needed"));
        }
    }
}
