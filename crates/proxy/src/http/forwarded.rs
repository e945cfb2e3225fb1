//! The headers that tell the next hop who asked: `x-forwarded-for`, `-proto`, `-client-cert`, `x-request-id`.
//!
//! As Envoy's connection manager settles them. Invariant: at an edge (`use_remote_address`) nothing the caller wrote about
//! itself is believed.

use super::headers::{CLIENT_CERT, FORWARDED_FOR, FORWARDED_PROTO, REQUEST_ID};
use crate::worker::Connection;
use fairlead_engine::listener::{ForwardClientCert, HttpManager};
use http::{HeaderMap, HeaderValue};

/// Brings all of them in order for a request from `connection`.
pub fn settle(headers: &mut HeaderMap, connection: &Connection, manager: &HttpManager, own: Option<&str>) {
    forwarded_for(headers, connection, manager);
    forwarded_proto(headers, connection, manager);
    request_id(headers, manager);
    client_cert(headers, connection, manager, own);
}

fn forwarded_for(headers: &mut HeaderMap, connection: &Connection, manager: &HttpManager) {
    if !manager.use_remote_address || manager.skip_xff_append {
        return;
    }
    let remote = connection.remote.ip().to_string();
    let value = match headers.get(FORWARDED_FOR).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty()) {
        Some(told) => HeaderValue::from_str(&format!("{told},{remote}")),
        None => HeaderValue::from_str(&remote),
    };
    if let Ok(value) = value {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn forwarded_proto(headers: &mut HeaderMap, connection: &Connection, manager: &HttpManager) {
    let edge = manager.use_remote_address && manager.xff_num_trusted_hops == 0;
    let known = headers.get(FORWARDED_PROTO).is_some_and(|v| v == "http" || v == "https");
    if edge || !known {
        let scheme = if connection.tls { "https" } else { "http" };
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
}

fn request_id(headers: &mut HeaderMap, manager: &HttpManager) {
    let edge = manager.use_remote_address && !manager.preserve_external_request_id;
    if !manager.generate_request_id || (headers.contains_key(REQUEST_ID) && !edge) {
        return;
    }
    if let Ok(value) = HeaderValue::from_bytes(&random_id()) {
        headers.insert(REQUEST_ID, value);
    }
}

/// A version 4 UUID.
fn random_id() -> [u8; 36] {
    let mut bits = fastrand::u128(..).to_be_bytes();
    bits[6] = bits[6] & 0x0f | 0x40;
    bits[8] = bits[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in bits.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        at += 2;
    }
    text
}

fn client_cert(headers: &mut HeaderMap, connection: &Connection, manager: &HttpManager, own: Option<&str>) {
    let mutual = connection.peer.is_some();
    match manager.forward_client_cert {
        ForwardClientCert::AlwaysForwardOnly => return,
        ForwardClientCert::Sanitize => {
            headers.remove(CLIENT_CERT);
            return;
        }
        ForwardClientCert::ForwardOnly if mutual => return,
        ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet if mutual => {}
        // Without mutual TLS nothing that is told can be believed.
        _ => {
            headers.remove(CLIENT_CERT);
            return;
        }
    }
    let element = element(connection, manager, own);
    let value = match headers.get(CLIENT_CERT).and_then(|v| v.to_str().ok()) {
        Some(told) if manager.forward_client_cert == ForwardClientCert::AppendForward => format!("{told},{element}"),
        _ => element,
    };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(CLIENT_CERT, value);
    }
}

/// One element as Envoy writes it: `By=…;Hash=…;Subject="";URI=…`.
fn element(connection: &Connection, manager: &HttpManager, own: Option<&str>) -> String {
    let mut parts = Vec::with_capacity(4);
    if let Some(own) = own {
        parts.push(format!("By={own}"));
    }
    if let Some(hash) = &connection.leaf_hash {
        parts.push(format!("Hash={hash}"));
    }
    if manager.client_cert_header.subject {
        // Workload certificates of the mesh have no subject.
        parts.push("Subject=\"\"".to_owned());
    }
    if manager.client_cert_header.uri {
        parts.push(format!("URI={}", connection.principal().unwrap_or_default()));
    }
    parts.join(";")
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_version_four() {
        let id = String::from_utf8(super::random_id().to_vec()).unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
        assert_ne!(id.as_bytes(), super::random_id());
    }
}
